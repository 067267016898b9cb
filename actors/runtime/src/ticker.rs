//! Lets time pass in the logs: commits a numbered tick when a consumer's timer is due.
//!
//! | Consumes   | what followers publish: when their earliest timer is due                           |
//! | Emits      | ticks, into the signal log and the alert log; trouble when the clock jumps          |
//! | Keeps      | when it looked last, to see a jump; what is published is the [`Ticker`]'s, outside   |
//! | On restart | goes on with what is published; a jump ahead before it is no longer shown           |
//!
//! Timers go by the service's clock, which never goes back ([`opspilot_kernel::clock::SteadyClock`]): set back or
//! standing still, the machine's clock delays nothing. Set ahead it is followed, and what falls due by the new time
//! fires: which of the two times was wrong nobody here can know, and signals bear the new one. Health says both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::{
    clock::{SharedClock, TOLERANCE},
    lifecycle::{Drain, Heartbeat, Pulse},
    time::Timestamp,
};
use opspilot_ledger::Ledger;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Ticks are never closer together than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// The clock may be set: so often it is looked at again while a timer is far away.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A jump ahead is shown for so long.
const LEAP_SHOWN: Duration = Duration::from_secs(300);
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
    /// The earliest of them; sent anew with every change.
    earliest: watch::Sender<Option<Timestamp>>,
}

impl Ticker {
    /// `module` needs a tick at `due`, or none. Holds for one tick: it publishes again when it has seen that one.
    pub fn publish(&self, module: &str, due: Option<Timestamp>) {
        self.change(|published| match due {
            Some(due) => published.insert(module.to_owned(), due) != Some(due),
            None => published.remove(module).is_some(),
        });
    }

    /// Changes what is published; whoever watches is told if `change` says that it did.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Timestamp>) -> bool) {
        let mut published = self.shared.due.lock();
        if change(&mut published) {
            self.shared.earliest.send_replace(published.values().min().copied());
        }
    }

    /// The earliest time published.
    pub fn earliest(&self) -> Option<Timestamp> {
        *self.shared.earliest.borrow()
    }

    /// Tells when something else is published, and the earliest time.
    pub fn watch(&self) -> watch::Receiver<Option<Timestamp>> {
        self.shared.earliest.subscribe()
    }

    /// Takes what is due by `now`; what cannot be served is to be given back.
    fn take_due(&self, now: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut taken = BTreeMap::new();
        self.change(|published| {
            taken.extend(published.extract_if(.., |_, due| *due <= now));
            !taken.is_empty()
        });
        taken
    }

    fn give_back(&self, due: BTreeMap<String, Timestamp>) {
        self.change(|published| {
            for (module, due) in due {
                published.entry(module).or_insert(due);
            }
            true
        });
    }
}

/// The actor behind a [`Ticker`].
pub struct TickerActor {
    ticker: Ticker,
    ledger: Ledger,
    clock: SharedClock,
    log: slog::Logger,
    /// What the clock showed when it was looked at last: the time, and monotonic time.
    looked: (Timestamp, Duration),
    /// How far it jumped ahead last, and when, by monotonic time.
    leap: Option<(Duration, Duration)>,
}

impl TickerActor {
    /// Commits to `ledger` what is published at `ticker`.
    pub fn new(ticker: Ticker, ledger: Ledger, clock: SharedClock, log: slog::Logger) -> TickerActor {
        let looked = (clock.now(), clock.elapsed());
        TickerActor { ticker, ledger, clock, log, looked, leap: None }
    }

    /// What a person should know of the clock.
    fn trouble(&mut self) -> Option<String> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let (before, since) = std::mem::replace(&mut self.looked, (now, elapsed));
        let passed = elapsed.saturating_sub(since);
        if let leap = now.since(before).saturating_sub(passed)
            && leap > TOLERANCE
        {
            slog::warn!(self.log, "the clock jumped ahead"; "by" => in_words(leap));
            self.leap = Some((leap, elapsed));
        }
        if let Some(behind) = self.clock.regression().max(self.ledger.clock_regression()) {
            let by = in_words(behind);
            return Some(format!("the clock went back by {by}; until it has caught up, timers go on by monotonic time"));
        }
        let (leap, _) = self.leap.filter(|(_, at)| elapsed.saturating_sub(*at) < LEAP_SHOWN)?;
        Some(format!("the clock jumped ahead by {}; timers that were due in between have fired", in_words(leap)))
    }
}

async fn tick_along(ticker: Ticker, ledger: Ledger, clock: SharedClock, log: slog::Logger) {
    let mut earliest = ticker.watch();
    loop {
        let due = *earliest.borrow_and_update();
        let now = clock.now();
        let wait = match due {
            None => LOOK_AGAIN,
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
            _ = earliest.changed() => {}
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
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.looked = (self.clock.now(), self.clock.elapsed());
        self.leap = None;
    }
}

impl Handler<Heartbeat> for TickerActor {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: 0, trouble: self.trouble() })
    }
}

impl Handler<Drain> for TickerActor {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}
