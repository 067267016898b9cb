//! One client of the feed.
//!
//! A session is the body of its own answer: it makes the next bytes when the connection has room for them, from its
//! cursor on. So a client that does not read costs its place and nothing else, however much happens meanwhile.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix_web::web::{self, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use opspilot_kernel::{ids::Seq, principal::Role};
use opspilot_ledger::{EventEntry, LedgerError};
use tokio::{sync::watch, time::Instant};

use super::{
    Inner, Seat,
    board::Behind,
    frame::{self, Code, Decoder, Heard},
    say,
    wish::{self, Interest, Wish},
};
use crate::http::{guard::Principal, state::AppState};

/// Bytes of frames that a session takes from the board in one go.
const CHUNK: usize = 64 << 10;
/// Events that a session reads from the ledger in one go.
const PAGE: usize = 64;
/// Messages that are heard before something is said again.
const HEARD_AT_ONCE: usize = 32;
/// How long a client may take to say goodbye after we did.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often it is asked whether the session still holds, and told that it is in use.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// How long to wait when that cannot be asked.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// After accounts changed every session asks; not all in the same moment.
const CHECK_SPREAD_MS: u64 = 300;

/// A connection of one client.
pub(super) struct Session {
    feed: Arc<Inner>,
    state: web::Data<AppState>,
    who: Arc<Principal>,
    payload: web::Payload,
    decoder: Decoder,
    out: VecDeque<Bytes>,
    interest: Interest,
    /// Everything up to here was delivered, or was not wanted.
    cursor: Seq,
    /// It reads from the ledger until it has caught up with the board.
    replaying: bool,
    wakes: watch::Receiver<Seq>,
    ends: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    accounts: watch::Receiver<u64>,
    heard_at: Instant,
    ping_at: Instant,
    check_at: Instant,
    allowance: Allowance,
    /// We said goodbye; this is when we stop waiting for the client's.
    closing: Option<Instant>,
    heard_goodbye: bool,
    _seat: Seat,
}

impl Session {
    /// A session for `who`, which says welcome first.
    pub(super) fn new(feed: Arc<Inner>, seat: Seat, state: web::Data<AppState>, who: Arc<Principal>, payload: web::Payload) -> Session {
        let now = Instant::now();
        let head = feed.ledger.events().head();
        let id = format!("cli_{}", hex::encode(rand::random::<[u8; 8]>()));
        Session {
            wakes: feed.board.watch(),
            ends: feed.ends.subscribe(),
            stopping: state.stopping.clone(),
            accounts: state.auth.changes(),
            payload,
            decoder: Decoder::default(),
            out: VecDeque::from([say::welcome(&id, head)]),
            interest: Interest::default(),
            cursor: head,
            replaying: false,
            heard_at: now,
            ping_at: now + feed.config.heartbeat.0,
            check_at: now + CHECK_EVERY,
            allowance: Allowance { left: feed.config.messages, at: now },
            closing: None,
            heard_goodbye: false,
            feed,
            state,
            who,
            _seat: seat,
        }
    }

    /// The next bytes for the client; `None` when the connection is over.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.said() {
                return Some(bytes);
            }
            if let Some(until) = self.closing {
                self.wait_for_goodbye(until).await;
                return None;
            }
            // first without waiting, so that a busy feed does not make us deaf
            for _ in 0..HEARD_AT_ONCE {
                let Some(heard) = listen(&mut self.payload, &mut self.decoder).now_or_never() else { break };
                self.hear(heard);
            }
            self.notice();
            let more = self.closing.is_none() && !self.interest.is_empty() && self.deliver().await;
            if self.closing.is_some() || !self.out.is_empty() {
                continue;
            }
            self.wait(more).await;
        }
    }

    /// What is to be said, joined to one piece of bytes if it is small.
    fn said(&mut self) -> Option<Bytes> {
        let first = self.out.pop_front()?;
        if self.out.is_empty() {
            return Some(first);
        }
        let mut joined = BytesMut::from(&*first);
        while joined.len() < CHUNK
            && let Some(next) = self.out.pop_front()
        {
            joined.extend_from_slice(&next);
        }
        Some(joined.freeze())
    }

    /// Waits for something to do. If `more` lies behind the cursor, only everybody else's turn is waited for: what
    /// the client does not want must not keep it from what it does.
    async fn wait(&mut self, more: bool) {
        let dead_at = self.heard_at + self.feed.config.timeout.0;
        let listening = !self.interest.is_empty();
        tokio::select! {
            heard = listen(&mut self.payload, &mut self.decoder) => self.hear(heard),
            woken = self.wakes.changed(), if listening => if woken.is_err() { self.close(Code::TryAgain, "the feed restarts") },
            _ = self.ends.changed() => {}
            told = self.stopping.changed() => if told.is_err() { self.close(Code::GoingAway, "the service stops") },
            changed = self.accounts.changed() => if changed.is_ok() {
                let spread = Duration::from_millis(rand::random_range(0..CHECK_SPREAD_MS));
                self.check_at = self.check_at.min(Instant::now() + spread);
            },
            () = tokio::time::sleep_until(self.ping_at.min(dead_at).min(self.check_at)) => self.tick().await,
            () = tokio::task::yield_now(), if more => {}
        }
    }

    /// Looks whether everything ends.
    fn notice(&mut self) {
        if *self.stopping.borrow_and_update() {
            self.close(Code::GoingAway, "the service stops");
        } else if *self.ends.borrow_and_update() {
            self.close(Code::TryAgain, "the feed restarts");
        }
    }

    fn close(&mut self, code: Code, reason: &str) {
        if self.closing.is_none() {
            let mut last = BytesMut::new();
            frame::put_close(&mut last, code, reason);
            self.out.push_back(last.freeze());
            self.closing = Some(Instant::now() + GOODBYE);
            self.feed.metrics.closed.with_label_values(&[code.as_str()]).inc();
        }
    }

    /// Reads on, so that what the client still sends does not make the system throw away what we said.
    async fn wait_for_goodbye(&mut self, until: Instant) {
        let over = async {
            while !self.heard_goodbye {
                match listen(&mut self.payload, &mut self.decoder).await {
                    Ok(Some(heard)) => self.heard_goodbye = heard == Heard::Close,
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
            // what is not understood any more is read all the same
            while !self.heard_goodbye && matches!(self.payload.next().await, Some(Ok(_))) {}
        };
        // whether the client was polite or not, the connection ends now
        drop(tokio::time::timeout_at(until, over).await);
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.heard_at + self.feed.config.timeout.0 {
            return self.close(Code::GoingAway, "no sign of life");
        }
        if now >= self.ping_at {
            self.ping_at = now + self.feed.config.heartbeat.0;
            let mut ping = BytesMut::new();
            frame::put_ping(&mut ping);
            self.out.push_back(ping.freeze());
        }
        if now >= self.check_at {
            self.check_at = now + CHECK_EVERY;
            match self.state.auth.still(&self.who).await {
                Ok(Some(who)) if who.role.includes(Role::Viewer) => {
                    self.state.auth.touch(&who);
                    self.who = who;
                }
                Ok(_) => self.close(Code::Unauthenticated, "logged out"),
                Err(_) => self.check_at = now + CHECK_AGAIN,
            }
        }
    }

    fn hear(&mut self, heard: Result<Option<Heard>, Code>) {
        let now = Instant::now();
        self.heard_at = now;
        if self.closing.is_some() {
            return;
        }
        let heard = match heard {
            Ok(Some(heard)) => heard,
            // the connection is gone: nobody will hear the goodbye, and nothing is waited for
            Ok(None) => {
                self.close(Code::Normal, "");
                self.closing = Some(now);
                return;
            }
            Err(code) => return self.close(code, "not understood"),
        };
        if !self.allowance.take(now, self.feed.config.messages) {
            return self.close(Code::Policy, "too many messages");
        }
        match heard {
            Heard::Text(text) => match wish::read(&text) {
                Ok(wish) => self.grant(wish),
                Err((code, message)) => self.out.push_back(say::error(&code, &message)),
            },
            Heard::Ping(payload) => {
                let mut pong = BytesMut::new();
                frame::put_pong(&mut pong, &payload);
                self.out.push_back(pong.freeze());
            }
            Heard::Pong => {}
            Heard::Close => {
                self.heard_goodbye = true;
                self.close(Code::Normal, "");
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Ping => self.out.push_back(say::pong()),
            Wish::Unsubscribe { events } => {
                self.interest.remove(&events);
                self.out.push_back(say::subscribed(&self.interest.events()));
            }
            Wish::Subscribe { events, filter, after } => {
                let head = self.feed.ledger.events().head();
                if self.interest.is_empty() {
                    self.cursor = head;
                    self.replaying = false;
                } else {
                    self.interest.delivered(self.cursor);
                }
                let from = after.unwrap_or(head).min(head);
                self.interest.add(&events, &filter, from);
                self.out.push_back(say::subscribed(&self.interest.events()));
                if after.is_some_and(|after| after > head) {
                    // a number from a future that a restored backup took away
                    self.out.push_back(say::resync_required(head));
                }
                if from < self.cursor {
                    self.cursor = from;
                    self.replaying = true;
                }
            }
        }
    }

    /// Takes some of what lies behind the cursor. Whether the cursor moved and more lies behind it still.
    async fn deliver(&mut self) -> bool {
        self.wakes.borrow_and_update();
        let before = self.cursor;
        match self.feed.board.behind(self.cursor, CHUNK) {
            Behind::Batches(batches) => {
                self.replaying &= batches.is_empty();
                let mut frames = Vec::new();
                for batch in batches {
                    batch.frames(self.cursor, self.interest.whole(self.cursor), |event| self.interest.passes(event), &mut frames);
                    self.cursor = batch.last();
                }
                self.out.extend(frames);
            }
            Behind::Gone if self.replaying => self.replay().await,
            Behind::Gone => {
                self.out.push_back(say::resync_required(self.cursor));
                self.close(Code::TryAgain, &format!("too slow; come back with after {}", self.cursor));
            }
        }
        // the board may be behind the ledger; what it does not have yet it tells of
        self.cursor > before && self.cursor < if self.replaying { self.feed.ledger.events().head() } else { self.feed.board.head() }
    }

    /// Takes a page from the ledger.
    async fn replay(&mut self) {
        let (ledger, cursor) = (self.feed.ledger.clone(), self.cursor);
        let permit = self.feed.replays.acquire().await;
        let read = tokio::task::spawn_blocking(move || ledger.events().next(cursor, PAGE)).await;
        drop(permit);
        let entries = match read.unwrap_or(Err(LedgerError::Panicked)) {
            Ok(entries) => entries,
            Err(_) => return self.close(Code::TryAgain, "the events cannot be read just now"),
        };
        let mut frames = BytesMut::new();
        for entry in entries {
            match entry {
                EventEntry::Gap { oldest } => {
                    self.cursor = oldest.saturating_sub(1);
                    self.out.push_back(say::resync_required(self.cursor));
                }
                EventEntry::Event(envelope) => {
                    if self.interest.passes(&envelope) {
                        say::event(&mut frames, &envelope);
                    }
                    self.cursor = envelope.seq;
                }
            }
        }
        if !frames.is_empty() {
            self.out.push_back(frames.freeze());
        }
    }
}

/// The next thing the client says; `None` when the connection is over. Nothing is lost if the future is dropped.
async fn listen(payload: &mut web::Payload, decoder: &mut Decoder) -> Result<Option<Heard>, Code> {
    loop {
        if let Some(heard) = decoder.next()? {
            return Ok(Some(heard));
        }
        match payload.next().await {
            Some(Ok(bytes)) => decoder.feed(&bytes),
            Some(Err(_)) | None => return Ok(None),
        }
    }
}

/// How many messages a client may still send: twice as many at once as in a second.
#[derive(Debug)]
struct Allowance {
    left: u32,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let earned = now.saturating_duration_since(self.at).as_millis().saturating_mul(u128::from(per_second)) / 1000;
        if let Ok(earned) = u32::try_from(earned)
            && earned > 0
        {
            self.left = self.left.saturating_add(earned).min(per_second.saturating_mul(2));
            self.at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
