//! The stream of a connection, with the bytes that come in followed.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::http::StatusCode;
use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Connection,
    body::Chunk,
    head::{Flaw, Follows, HeadReader},
};

/// What the parser is given for a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";
/// How long, behind the last answer, what the client still sends is read and thrown away: closed at once, the
/// connection would be reset, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read at a time where bytes are held back.
const PIECE: usize = 4096;

const SLOW: Flaw = Flaw { status: StatusCode::REQUEST_TIMEOUT, code: "timeout", detail: "the head of the request did not arrive in time" };

/// Where in what comes in the next byte stands.
#[derive(Debug)]
enum Place {
    Head(HeadReader),
    Bytes(u64),
    Chunks(Chunk),
    /// Another protocol: nothing is looked at any more.
    Through,
    /// Behind the last request: nothing is passed on any more.
    Over,
}

/// A stream whose incoming bytes are HTTP/1 requests, each of them in proper form.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    connection: Connection,
    place: Place,
    /// What came in and is not yet passed on.
    held: BytesMut,
    /// How many bytes of it may be.
    ready: usize,
    /// The request under way is the client's last.
    last: bool,
    head_timeout: Duration,
    /// By when the head must be whole, or the client have closed its side.
    deadline: Option<Pin<Box<Sleep>>>,
    armed: bool,
    /// Our side is closed.
    lingering: bool,
}

/// What is to be done behind the bytes that pass.
enum Next {
    /// More bytes are needed.
    More,
    /// The request under way must be answered first.
    Wait,
    /// Nothing that follows is wanted.
    Discard,
    /// The request is refused.
    Refuse(Flaw, &'static [u8]),
}

impl<S> Guarded<S> {
    /// Follows `stream`, on which each head must be whole within `head_timeout`.
    pub(crate) fn new(stream: S, head_timeout: Duration) -> Guarded<S> {
        Guarded::at(stream, head_timeout, Place::Head(HeadReader::default()))
    }

    /// Passes everything on: HTTP/2 has its own frames.
    pub(crate) fn through(stream: S) -> Guarded<S> {
        Guarded::at(stream, Duration::ZERO, Place::Through)
    }

    fn at(stream: S, head_timeout: Duration, place: Place) -> Guarded<S> {
        let (held, connection) = (BytesMut::new(), Connection::default());
        Guarded { stream, connection, place, held, ready: 0, last: false, head_timeout, deadline: None, armed: false, lingering: false }
    }

    /// What the shell is told of this connection.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Goes on over `bytes`; how many of them may be passed on, and what then.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Next) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match &mut self.place {
                Place::Through => return (bytes.len(), Next::More),
                Place::Over => return (at, Next::Discard),
                _ if rest.is_empty() => return (at, Next::More),
                Place::Bytes(left) => {
                    let here = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= u64::try_from(here).unwrap_or(*left);
                    at += here;
                    if *left == 0 {
                        self.place = behind(self.last);
                    }
                }
                Place::Chunks(chunk) => match chunk.feed(rest) {
                    (here, Ok(Chunk::Done)) => {
                        at += here;
                        self.place = behind(self.last);
                    }
                    (here, Ok(next)) => {
                        *chunk = next;
                        return (at + here, Next::More);
                    }
                    (here, Err(flaw)) => {
                        // the line that is wrong is behind what `here` covers; ask again where that ends
                        let ending = chunk.feed(rest.get(..here).unwrap_or_default()).1.map_or(&b""[..], Chunk::ending);
                        return (at + here, Next::Refuse(flaw, ending));
                    }
                },
                Place::Head(_) if self.connection.is_closing() => self.place = Place::Over,
                Place::Head(_) if self.connection.is_busy() => return (at, Next::Wait),
                Place::Head(head) => match head.feed(rest) {
                    Ok(None) => return (at, Next::More),
                    Ok(Some(len)) => {
                        at += len;
                        self.armed = false;
                        self.last = head.is_last();
                        self.connection.give();
                        self.place = match head.follows() {
                            Follows::Anything => Place::Through,
                            Follows::Chunks => Place::Chunks(Chunk::Size),
                            Follows::Bytes(0) => behind(self.last),
                            Follows::Bytes(length) => Place::Bytes(length),
                        };
                    }
                    Err(flaw) => {
                        self.connection.give();
                        return (at, Next::Refuse(flaw, STAND_IN));
                    }
                },
            }
        }
    }

    /// Ends what is read with `instead` of what was refused.
    fn refuse(&mut self, flaw: Flaw, instead: &[u8]) {
        self.place = Place::Over;
        // an answer that was made already stays the only one
        if self.connection.is_busy() {
            self.connection.refuse(flaw);
        }
        self.held.truncate(self.ready);
        self.held.extend_from_slice(instead);
        self.ready = self.held.len();
    }
}

fn behind(last: bool) -> Place {
    if last { Place::Over } else { Place::Head(HeadReader::default()) }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Whether the head has taken too long; otherwise wakes when it has. A connection's first head is due from the
    /// start, any other from its first byte. A head that began is answered 408; where none did, the connection is closed.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let first = self.connection.0.given.get() == 0;
        if !matches!(self.place, Place::Head(_)) || (!first && self.held.is_empty()) {
            return false;
        }
        self.is_due(self.head_timeout, context)
    }

    fn is_due(&mut self, within: Duration, context: &mut Context<'_>) -> bool {
        let fresh = !self.armed;
        self.armed = true;
        let at = Instant::now() + within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if fresh {
            deadline.as_mut().reset(at);
        }
        deadline.as_mut().poll(context).is_ready()
    }

    /// Reads once more behind what is held; `false` at the end of the stream.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [MaybeUninit::<u8>::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        Poll::Ready(Ok(!piece.filled().is_empty()))
    }

    /// Follows what is held behind what may be passed on.
    fn look(&mut self) -> Next {
        let held = self.held.split_off(self.ready);
        let (pass, next) = self.follow(&held);
        self.held.unsplit(held);
        self.ready += pass;
        next
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let here = this.ready.min(buffer.remaining());
                buffer.put_slice(this.held.get(..here).unwrap_or_default());
                this.held.advance(here);
                this.ready -= here;
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() {
                match this.look() {
                    Next::Wait if this.ready == 0 => {
                        this.connection.wait(context);
                        return Poll::Pending;
                    }
                    Next::Discard => this.held.truncate(this.ready),
                    Next::Refuse(flaw, instead) => this.refuse(flaw, instead),
                    Next::More if this.ready == 0 => match this.poll_more(context) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending if this.is_late(context) => {
                            this.connection.give();
                            this.refuse(SLOW, STAND_IN);
                        }
                        Poll::Pending => return Poll::Pending,
                    },
                    Next::More | Next::Wait => {}
                }
                continue;
            }
            // nothing is held: bytes go straight where they are wanted, and mostly stay there
            let before = buffer.filled().len();
            match Pin::new(&mut this.stream).poll_read(context, buffer) {
                Poll::Ready(done) => done?,
                // a client that opened it in advance may be about to use it: an answer it never asked for would be taken
                // for that of its request, and a connection that is closed is tried again
                Poll::Pending if this.is_late(context) => {
                    this.place = Place::Over;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
            let new = buffer.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                // who is still to be told why must not be taken for gone
                let told_why = this.connection.0.refused.get().is_some() && matches!(this.place, Place::Over);
                return if told_why { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let (pass, next) = this.follow(new);
            if pass < new.len() {
                this.held.extend_from_slice(new.get(pass..).unwrap_or_default());
                buffer.set_filled(before + pass);
            }
            match next {
                Next::Discard => this.held.truncate(this.ready),
                Next::Refuse(flaw, instead) => this.refuse(flaw, instead),
                Next::More | Next::Wait => {}
            }
            if pass > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.lingering {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.connection.is_closing() || matches!(this.place, Place::Through) {
                return Poll::Ready(Ok(()));
            }
            this.lingering = true;
            this.armed = false;
        }
        loop {
            this.held.clear();
            match this.poll_more(context) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    return if this.is_due(LINGER, context) { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            }
        }
    }
}
