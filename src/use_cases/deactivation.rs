//! Deactivating an account.

use ruma::UserId;

use crate::{app::App, store};

/// Leaves the user's rooms, and deactivates the account permanently. Returns `Ok(false)` if there is no such active
/// account.
///
/// # Errors
/// Database errors. The user may have left rooms then; calling again does the rest.
pub async fn deactivate(app: &App, user_id: &UserId) -> Result<bool, store::Error> {
    let user = app.db.find_user(user_id).await?;
    // First: if this fails, the account is still there, and its owner can try again.
    if let Some(user) = &user {
        app.rooms.leave_all(user).await?;
    }
    let is_found = app.accounts.deactivate(user_id).await?;
    // Requests that were authenticated before may have let the user in meanwhile. From now on they refuse.
    if let Some(user) = user.filter(|_| is_found) {
        app.rooms.leave_all(&user).await?;
    }
    Ok(is_found)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use ruma::RoomVersionId;
    use sabha_federation::EventDraft;
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::{
        room::{
            tests::{new_room, server},
            write::{
                create::{CreateError, Preset},
                send::SendError,
            },
        },
        store::committer::CommitStep,
    };

    #[tokio::test]
    async fn a_request_from_before_the_deactivation_lets_nobody_in_after_it() {
        let server = server().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let rooms = &server.app.rooms;
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V10, Preset::Public)).await.expect("created");
        assert!(deactivate(&server.app, bob.user_id()).await.expect("deactivated"));
        let joined = rooms.join(&bob, &room_id, None).await;
        assert!(matches!(joined, Err(SendError::SignedOut)), "{joined:?}");
        let content = to_raw_value(&json!({ "membership": "join" })).expect("JSON");
        let (event_type, state_key) = ("m.room.member".to_owned(), Some(bob.user_id().to_string()));
        let joining = EventDraft { event_type, state_key, content, redacts: None };
        let joined = rooms.send_state(&bob, &room_id, joining).await;
        assert!(matches!(joined, Err(SendError::SignedOut)), "{joined:?}");
        let created = rooms.create(&bob, new_room(RoomVersionId::V10, Preset::Public)).await;
        assert!(matches!(created, Err(CreateError::SignedOut)), "{created:?}");
        assert!(rooms.memberships(bob.user.nid).await.expect("read").is_empty());
    }

    /// Bob is in one room. When his departure from it is stored, he joins another one.
    #[tokio::test]
    async fn a_join_between_the_departure_and_the_end_of_the_account_is_refused_or_undone() {
        let server = server().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let app = server.app.clone();
        let room = || new_room(RoomVersionId::V10, Preset::Public);
        let first = app.rooms.create(&alice, room()).await.expect("created");
        let second = app.rooms.create(&alice, room()).await.expect("created");
        app.rooms.join(&bob, &first, None).await.expect("joined");
        let (joining, is_armed) = (Arc::new(tokio::sync::Mutex::new(None)), Arc::new(AtomicBool::new(true)));
        app.db.committer().on_step(Arc::new({
            let (app, bob, joining) = (app.clone(), Arc::clone(&bob), Arc::clone(&joining));
            move |step| {
                let is_first = step == CommitStep::Stored && is_armed.swap(false, Ordering::SeqCst);
                let (app, bob, second, joining) = (app.clone(), Arc::clone(&bob), second.clone(), Arc::clone(&joining));
                Box::pin(async move {
                    if is_first {
                        let join = tokio::spawn(async move { app.rooms.join(&bob, &second, None).await });
                        *joining.lock().await = Some(join);
                        // Mostly enough for its place in the queue, before the account ends.
                        for _ in 0..100 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            }
        }));
        assert!(deactivate(&app, bob.user_id()).await.expect("deactivated"));
        let joined = joining.lock().await.take().expect("the departure was stored").await.expect("it does not panic");
        assert!(matches!(joined, Ok(_) | Err(SendError::SignedOut)), "{joined:?}");
        let stays = app.rooms.joined_rooms(bob.user.nid).await.expect("read");
        assert!(stays.is_empty(), "{stays:?}");
    }
}
