//! Bodies that were not read to their end.
//!
//! When a handler drops a chunked body, actix-http 3 reads on for as long as the
//! client sends, without a deadline: a client could keep its connection for ever.
//! While the body is still held when the answer goes out, the connection is
//! closed instead, after a short while in which the client can read the answer.
//! So the shell holds every chunked body, and hands an unfinished one to the answer.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage as _, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    http::{Version, header},
    web::Bytes,
};
use futures_util::Stream;

use super::framing::Turn;

struct Inner {
    payload: RefCell<Payload>,
    ended: Cell<bool>,
    /// Whether the end was only made up, because what followed was no chunk.
    broken: Box<dyn Fn() -> bool>,
}

/// A body that the shell holds along with the handler.
#[derive(Clone)]
pub(super) struct Unread(Rc<Inner>);

struct Reading(Unread);

impl Stream for Reading {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = &self.0.0;
        let Ok(mut payload) = inner.payload.try_borrow_mut() else { return Poll::Ready(None) };
        let mut item = Pin::new(&mut *payload).poll_next(context);
        if matches!(item, Poll::Ready(None)) && (inner.broken)() {
            item = Poll::Ready(Some(Err(PayloadError::EncodingCorrupted)));
        }
        if matches!(item, Poll::Ready(None | Some(Err(_)))) {
            inner.ended.set(true);
        }
        item
    }
}

impl Unread {
    /// Takes hold of the request's body if it comes in chunks.
    pub(super) fn hold(request: &mut ServiceRequest, turn: Option<&Turn>) -> Option<Unread> {
        if request.version() >= Version::HTTP_2 || !request.headers().contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let broken = Box::new(turn?.watch());
        let unread = Unread(Rc::new(Inner { payload: RefCell::new(request.take_payload()), ended: Cell::new(false), broken }));
        request.set_payload(Payload::Stream { payload: Box::pin(Reading(unread.clone())) });
        Some(unread)
    }

    /// Keeps an unfinished body until the answer has gone out, so that the connection is closed behind it.
    pub(super) fn hand_to(self, mut answer: HttpResponse) -> HttpResponse {
        if self.0.ended.get() {
            return answer;
        }
        // an answer without a body is looked at with its head, any other with its body
        answer.extensions_mut().insert(self.clone());
        answer.map_body(|_, body| BoxBody::new(Holding { body, _unread: self }))
    }
}

/// The answer's body, which keeps the request's.
struct Holding {
    body: BoxBody,
    _unread: Unread,
}

impl MessageBody for Holding {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

impl std::fmt::Debug for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unread").field("ended", &self.0.ended).finish_non_exhaustive()
    }
}
