//! The streamed answer with the room keys of a backup.
//!
//! The protocol has no paging here, and a backup may be hundreds of megabytes. So the answer is streamed: keys are read
//! a page at a time, as fast as the client takes them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use hyper::body::Frame;

use crate::{
    app::App,
    http::{ApiError, RawJson},
    keys::backup::BackupError,
    report::Report,
    room::event::write_string,
    store::{UserNid, key_backup::Part},
};

/// Room keys that are still to be written.
pub(super) struct Pages {
    app: App,
    user: UserNid,
    version: i64,
    part: Part,
    /// Room and session of the last key that was written.
    after: Option<(String, String)>,
}

impl Pages {
    pub(super) fn new(app: App, user: UserNid, version: i64, part: Part) -> Self {
        Self { app, user, version, part, after: None }
    }

    /// Builds the answer. An error on the first page becomes an error answer; after that page, the answer breaks off.
    pub(super) async fn answer(self) -> Result<Response, ApiError> {
        let (first, rest) = self.next().await?;
        let mut answer = RawJson(Bytes::new()).into_response();
        *answer.body_mut() = match rest {
            None => Body::from(first),
            Some(rest) => Body::new(Written { first: Some(first), next: Some(Box::pin(rest.next())) }),
        };
        Ok(answer)
    }

    /// Reads the next piece of the answer, and returns it with the pages that follow.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), BackupError> {
        let (rows, is_last) =
            self.app.keys.backup_page(self.user, self.version, &self.part, self.after.as_ref()).await?;
        let of_all_rooms = matches!(self.part, Part::All);
        let mut out = Vec::new();
        let mut room = self.after.as_ref().map(|(room, _)| room.clone());
        if self.after.is_none() {
            out.extend_from_slice(if of_all_rooms { b"{\"rooms\":{" } else { b"{\"sessions\":{" });
        }
        for (room_id, session_id, json) in &rows {
            if room.as_ref() == Some(room_id) {
                out.push(b',');
            } else if of_all_rooms {
                out.extend_from_slice(if room.is_some() { b"}}," } else { b"" });
                write_string(&mut out, room_id);
                out.extend_from_slice(b":{\"sessions\":{");
            }
            room = Some(room_id.clone());
            write_string(&mut out, session_id);
            out.push(b':');
            out.extend_from_slice(json.as_bytes());
        }
        if is_last {
            out.extend_from_slice(if of_all_rooms && room.is_some() { b"}}" } else { b"" });
            out.extend_from_slice(b"}}");
            return Ok((out.into(), None));
        }
        self.after = rows.into_iter().next_back().map(|(room_id, session_id, _)| (room_id, session_id)).or(self.after);
        Ok((out.into(), Some(self)))
    }
}

type Next = Pin<Box<dyn Future<Output = Result<(Bytes, Option<Pages>), BackupError>> + Send>>;

/// A body that is written while it is sent.
struct Written {
    first: Option<Bytes>,
    next: Option<Next>,
}

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = BackupError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BackupError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        match next.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((piece, rest))) => {
                self.next = rest.map(|rest| Box::pin(rest.next()) as Next);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Err(error)) => {
                tracing::warn!(error = %Report(&error), "an answer with room keys broke off");
                self.next = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
