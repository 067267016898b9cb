//! The hub of the live feed: writes every committed event as a frame, once, onto the board.
//!
//! | Consumes   | [`Deliver`] as a hint that there is something new; the event log, by cursor        |
//! | Emits      | batches of frames onto the board, from which every session reads by its own cursor |
//! | Keeps      | nothing: its cursor is the end of the board, which outlives it                    |
//! | On restart | goes on behind the board's end; no session notices more than a pause              |

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt as _, prelude::*};
use opspilot_kernel::{
    ids::Seq,
    lifecycle::{Drain, Heartbeat, Pulse},
};
use opspilot_ledger::{EventEntry, LedgerError};
use opspilot_runtime::Deliver;
use tokio::time::Instant;

use super::Inner;

/// Events on one batch: as many as a session should send in one go.
const AT_ONCE: usize = 64;
/// A hub closer behind than this reads from the ledger's memory and not from its files.
const NEAR: Seq = 1000;
/// For so many clients events are gathered for a millisecond more: sending costs each of them a call to the system.
const CLIENTS_PER_MILLI: usize = 100;
/// Events are never gathered for longer than this.
const LONGEST: Duration = Duration::from_millis(20);
/// How long to wait when the ledger cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// The actor.
pub(super) struct Hub {
    feed: Arc<Inner>,
    state: State,
}

/// All of it is about the moment; nothing needs to be rebuilt.
#[derive(Default)]
struct State {
    posted_at: Option<Instant>,
    /// A later look is arranged already.
    later: bool,
    /// A read on a blocking thread is under way.
    reading: bool,
    /// Why events cannot be read at present.
    trouble: Option<String>,
}

impl Hub {
    pub(super) fn new(feed: Arc<Inner>) -> Hub {
        Hub { feed, state: State::default() }
    }

    /// For how long events are gathered: not at all for a few clients, so that an idle feed is instant.
    fn gather(&self) -> Duration {
        let millis = u64::try_from(self.feed.clients() / CLIENTS_PER_MILLI).unwrap_or(u64::MAX);
        Duration::from_millis(millis).min(LONGEST)
    }

    fn look(&mut self, ctx: &mut Context<Hub>) {
        if self.state.reading || self.state.later {
            return;
        }
        let log = self.feed.ledger.events();
        let (cursor, head) = (self.feed.board.head(), log.head());
        if cursor >= head {
            return;
        }
        if let Some(posted_at) = self.state.posted_at {
            let wait = self.gather().saturating_sub(posted_at.elapsed());
            if !wait.is_zero() {
                return self.look_later(wait, ctx);
            }
        }
        if head - cursor <= NEAR {
            let entries = log.next(cursor, AT_ONCE);
            return self.take(entries, ctx);
        }
        self.state.reading = true;
        let ledger = self.feed.ledger.clone();
        let read = tokio::task::spawn_blocking(move || ledger.events().next(cursor, AT_ONCE));
        ctx.spawn(actix::fut::wrap_future::<_, Hub>(read).map(|read, hub, ctx| {
            hub.state.reading = false;
            hub.take(read.unwrap_or(Err(LedgerError::Panicked)), ctx);
        }));
    }

    fn look_later(&mut self, wait: Duration, ctx: &mut Context<Hub>) {
        self.state.later = true;
        ctx.run_later(wait, |hub, ctx| {
            hub.state.later = false;
            hub.look(ctx);
        });
    }

    fn take(&mut self, entries: Result<Vec<EventEntry>, LedgerError>, ctx: &mut Context<Hub>) {
        let entries = match entries {
            Ok(entries) => {
                self.state.trouble = None;
                entries
            }
            Err(error) => {
                if self.state.trouble.is_none() {
                    slog::warn!(self.feed.log, "the live feed cannot read the events"; "cause" => %error);
                }
                self.state.trouble = Some(format!("the events cannot be read: {error}"));
                return self.look_later(AGAIN, ctx);
            }
        };
        let events: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| match entry {
                EventEntry::Event(envelope) => Some(envelope),
                // the board begins anew behind the gap, and whoever stood before it is told
                EventEntry::Gap { .. } => None,
            })
            .collect();
        if events.is_empty() {
            return;
        }
        let full = events.len() >= AT_ONCE;
        self.feed.board.post(events);
        self.feed.metrics.board_bytes.set(i64::try_from(self.feed.board.bytes()).unwrap_or(i64::MAX));
        if full {
            // what could not be gathered into one batch follows at once, after others had the thread
            self.state.posted_at = None;
            self.look_later(Duration::ZERO, ctx);
        } else {
            self.state.posted_at = Some(Instant::now());
            self.look(ctx);
        }
    }
}

impl Actor for Hub {
    type Context = Context<Hub>;

    fn started(&mut self, ctx: &mut Context<Hub>) {
        self.look(ctx);
    }
}

impl Supervised for Hub {
    fn restarting(&mut self, _: &mut Context<Hub>) {
        self.state = State::default();
    }
}

impl Handler<Deliver> for Hub {
    type Result = ();

    fn handle(&mut self, _: Deliver, ctx: &mut Context<Hub>) {
        self.look(ctx);
    }
}

impl Handler<Heartbeat> for Hub {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, ctx: &mut Context<Hub>) -> MessageResult<Heartbeat> {
        // a hint that was lost with a message that panicked is made good here
        self.look(ctx);
        let behind = self.feed.ledger.events().head().saturating_sub(self.feed.board.head());
        MessageResult(Pulse { queue: usize::try_from(behind).unwrap_or(usize::MAX), trouble: self.state.trouble.clone() })
    }
}

impl Handler<Drain> for Hub {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Hub>) {}
}
