//! `PUT /_matrix/client/v3/directory/list/room/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid

use axum::extract::State;
use ruma::api::client::{
    directory::set_room_visibility::v3::{Request, Response},
    room::Visibility,
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Adds the room to the public directory, or takes it out.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let publish = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("visibility is public or private.")),
    };
    app.rooms.publish(&caller, &request.room_id, publish).await?;
    Ok(Reply(Response::new()))
}
