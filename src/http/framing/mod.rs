//! Where one request ends and the next begins, held strictly, in front of the parser.
//!
//! The parser of the HTTP library forgives what others do not: a bare LF, an extension of a chunk without an end,
//! two readings of one length. Two parties that read the same bytes differently can be made to take a part of one
//! request for another. So every connection is followed here byte by byte: heads and the lines between chunks are
//! looked at, bodies are only counted. The parser sees whole heads that passed, one request at a time.
//!
//! What does not pass is answered once, by the shell, as a problem that says why; behind that answer nothing is
//! read. To keep the order of answers the parser is given a stand-in for the head that was refused, and the shell
//! recognises it by its number. A body that breaks its form is ended for the parser, and its reader told by
//! [`Turn::flaw`].

mod body;
mod head;
mod stream;

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Waker},
};

use actix_web::{dev::ServiceRequest, http::Version};

pub(crate) use self::{
    head::{Flaw, MAX_HEAD, MAX_TARGET},
    stream::Guarded,
};

#[derive(Default)]
struct Inner {
    /// Heads that the parser was given.
    given: Cell<u64>,
    /// Requests that reached the shell.
    begun: Cell<u64>,
    /// Requests whose answer the shell has made.
    answered: Cell<u64>,
    /// The last answer was made: what comes behind is not read.
    closing: Cell<bool>,
    /// The request that is refused, and why.
    refused: Cell<Option<(u64, Flaw)>>,
    /// Who waits for an answer before the next request is read.
    waiting: Cell<Option<Waker>>,
}

/// What the stream and the shell know of one connection.
#[derive(Clone, Default)]
pub(crate) struct Connection(Rc<Inner>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("given", &self.0.given.get()).field("closing", &self.0.closing.get()).finish_non_exhaustive()
    }
}

impl Connection {
    /// The parser is about to be given a head.
    fn give(&self) {
        self.0.given.set(self.0.given.get() + 1);
    }

    /// Whether an answer is still to be made.
    fn is_busy(&self) -> bool {
        self.0.answered.get() < self.0.given.get()
    }

    fn is_closing(&self) -> bool {
        self.0.closing.get()
    }

    /// The request whose head was given last is refused.
    fn refuse(&self, flaw: Flaw) {
        self.0.refused.set(Some((self.0.given.get(), flaw)));
    }

    fn wait(&self, context: &Context<'_>) {
        self.0.waiting.set(Some(context.waker().clone()));
    }

    /// A request reached the shell. Over HTTP/2 there are no turns.
    pub(super) fn turn(request: &ServiceRequest) -> Option<Turn> {
        if request.version() >= Version::HTTP_2 {
            return None;
        }
        let connection = request.conn_data::<Connection>()?.clone();
        let number = connection.0.begun.get() + 1;
        connection.0.begun.set(number);
        Some(Turn { connection, number })
    }
}

/// One request's turn on its connection; over once the answer is made.
#[derive(Debug)]
pub(super) struct Turn {
    connection: Connection,
    number: u64,
}

impl Turn {
    /// Why this request is refused, if it is.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        let (number, flaw) = self.connection.0.refused.get()?;
        (number == self.number).then_some(flaw)
    }

    /// The same, for whoever reads the body.
    pub(super) fn watch(&self) -> impl Fn() -> bool + use<> {
        let (connection, number) = (self.connection.clone(), self.number);
        move || matches!(connection.0.refused.get(), Some((refused, _)) if refused == number)
    }

    /// The answer is the connection's last.
    pub(super) fn close(&self) {
        self.connection.0.closing.set(true);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.connection.0.answered.set(self.number);
        if let Some(waker) = self.connection.0.waiting.take() {
            waker.wake();
        }
    }
}
