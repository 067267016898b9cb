//! Lets time pass in the logs: commits a numbered tick when a consumer's timer is due.
//!
//! | Consumes   | what followers publish: when their earliest timer is due                           |
//! | Emits      | ticks, into the signal log and the alert log; trouble while the clock is behind    |
//! | Keeps      | the latest time it saw; what was published is kept by the [`Ticker`], outside of it |
//! | On restart | goes on with what is published; the ledger, too, knows a time that was             |
//!
//! If the clock is set back, timers wait until it has caught up, and the module says so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::{
    clock::SharedClock,
    lifecycle::{Drain, Heartbeat, Pulse},
    time::Timestamp,
};
use opspilot_ledger::Ledger;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Ticks are never closer together than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// The clock may be set: so often it is looked at again while a timer is far away.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The clock may go back by so much without anybody being told: it is being adjusted.
const TOLERANCE: Duration = Duration::from_secs(5);
/// So long storage is left alone when it did not take a tick.
const AFTER_AN_ERROR: Duration = Duration::from_secs(2);

/// Where followers publish when they next need a tick. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    due: Mutex<BTreeMap<String, Timestamp>>,
    changed: Notify,
}

impl Ticker {
    /// `module` needs a tick at `due`, or none. Holds for one tick: it publishes again when it has seen that one.
    pub fn publish(&self, module: &str, due: Option<Timestamp>) {
        {
            let mut published = self.shared.due.lock();
            match due {
                Some(due) if published.get(module) == Some(&due) => return,
                Some(due) => {
                    published.insert(module.to_owned(), due);
                }
                None => {
                    if published.remove(module).is_none() {
                        return;
                    }
                }
            }
        }
        self.shared.changed.notify_one();
    }

    /// The earliest time published.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.shared.due.lock().values().min().copied()
    }

    /// Takes what is due by `now`; what cannot be served is to be given back.
    fn take_due(&self, now: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut published = self.shared.due.lock();
        let later = published.extract_if(.., |_, due| *due <= now).collect();
        drop(published);
        later
    }

    fn give_back(&self, due: BTreeMap<String, Timestamp>) {
        let mut published = self.shared.due.lock();
        for (module, due) in due {
            published.entry(module).or_insert(due);
        }
    }
}

/// The actor behind a [`Ticker`].
pub struct TickerActor {
    ticker: Ticker,
    ledger: Ledger,
    clock: SharedClock,
    log: slog::Logger,
    /// The latest time the clock showed.
    latest: Timestamp,
}

impl TickerActor {
    /// Commits to `ledger` what is published at `ticker`.
    pub fn new(ticker: Ticker, ledger: Ledger, clock: SharedClock, log: slog::Logger) -> TickerActor {
        let latest = clock.now();
        TickerActor { ticker, ledger, clock, log, latest }
    }

    /// By how much the clock is behind a time that was, if by more than the tolerance.
    fn regression(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        self.latest = self.latest.max(now);
        let seen = Some(self.latest.since(now)).filter(|behind| *behind > TOLERANCE);
        seen.max(self.ledger.clock_regression())
    }
}

async fn tick_along(ticker: Ticker, ledger: Ledger, clock: SharedClock, log: slog::Logger) {
    loop {
        let changed = ticker.shared.changed.notified();
        let now = clock.now();
        let wait = match ticker.earliest() {
            None => {
                changed.await;
                continue;
            }
            Some(due) if due > now => due.since(now).min(LOOK_AGAIN),
            Some(_) => {
                let due = ticker.take_due(now);
                if let Err(error) = ledger.tick(now).await {
                    slog::warn!(log, "a tick could not be committed"; "error" => %error);
                    ticker.give_back(due);
                    tokio::time::sleep(AFTER_AN_ERROR).await;
                }
                tokio::time::sleep(AT_MOST_EVERY).await;
                continue;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The two largest units of a span: `1h`, `1d 2h`, `59m 58s`.
fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let words = units.into_iter().skip_while(|(count, _)| *count == 0).take(2).filter(|(count, _)| *count > 0);
    words.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

impl Actor for TickerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (ticker, ledger, clock) = (self.ticker.clone(), self.ledger.clone(), Arc::clone(&self.clock));
        ctx.spawn(tick_along(ticker, ledger, clock, self.log.clone()).into_actor(self));
    }
}

impl Supervised for TickerActor {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for TickerActor {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let trouble = self.regression().map(|behind| {
            format!("the clock went back by {}; timers that are due by time of day wait until it has caught up", in_words(behind))
        });
        MessageResult(Pulse { queue: 0, trouble })
    }
}

impl Handler<Drain> for TickerActor {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}
