//! `POST /_matrix/client/v3/user/{userId}/filter` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter

use axum::extract::State;
use ruma::api::{
    IncomingRequest,
    client::filter::create_filter::v3::{Request, Response},
    error::DeserializationError,
};

use crate::{
    app::App,
    client_api::{config::check_own, with::same_endpoint},
    endpoint::Authed,
    filter::{Definition, SyncFilter, timeline_fields},
    http::{ApiError, Reply},
    room::read::relations::RelatedBy,
};

/// Ruma's request, with the fields that Ruma does not know.
pub(super) struct Asked {
    request: Request,
    timeline: RelatedBy,
}

same_endpoint!(Asked as Request);

impl IncomingRequest for Asked {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body = *request.body();
        let request = Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, timeline: timeline_fields(body)? })
    }
}

/// Stores a filter. The same filter has the same id.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Asked { request, timeline }, .. }: Authed<Asked>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let filter = Definition { known: request.filter, timeline };
    // A bad filter is refused here, not at each sync that uses it.
    SyncFilter::new(&filter)?;
    let filter_id = app.filters.create(caller.user.nid, &filter).await?;
    Ok(Reply(Response::new(filter_id)))
}
