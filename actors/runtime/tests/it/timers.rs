//! Time in the logs: when ticks are committed, and what becomes of timers when the machine's clock jumps.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{
    clock::{ManualClock, SharedClock, SteadyClock},
    lifecycle::Heartbeat,
    module::ModuleStatus,
    signal::LogEntry,
    time::Timestamp,
};
use opspilot_ledger::{Ledger, Options};
use opspilot_runtime::{ChildSpec, FollowerOptions, Handle, Ticker, TickerActor};

use crate::{
    kit::{AT, SOON, Stage, caught_up},
    world::{on_real_time, quiet, until},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A ticker and a follower whose machine's clock the test sets.
struct Timed {
    raw: Arc<ManualClock>,
    clock: SharedClock,
    stage: Stage,
    ticker: Handle<TickerActor>,
}

impl Timed {
    fn new() -> Timed {
        let raw = ManualClock::at(AT);
        let shared: SharedClock = raw.clone();
        let clock = SteadyClock::over(shared);
        let stage = Stage::at(tempfile::tempdir().unwrap(), Arc::default(), Arc::clone(&clock));
        let (ticker, ledger, own) = (stage.ctx.ticker.clone(), stage.ledger.clone(), Arc::clone(&clock));
        let made = move || TickerActor::new(ticker.clone(), ledger.clone(), Arc::clone(&own), quiet());
        let ticker = stage.world.supervisor.start(ChildSpec::core("core.ticker"), made);
        Timed { raw, clock, stage, ticker }
    }

    /// Has a timer be due in a minute.
    async fn set_timer(&self) -> Timestamp {
        let due = AT.after(Duration::from_secs(60));
        let follower = self.stage.follow(FollowerOptions::default());
        let last = self.stage.append(&["timer"]).await;
        caught_up(&follower, last).await;
        until("published", || self.stage.ctx.ticker.earliest() == Some(due)).await;
        due
    }

    /// The ticker looks at the clock, as it would by itself within seconds.
    fn look(&self, millis: i64) {
        self.stage.ctx.ticker.publish("detector.other", Some(Timestamp::from_millis(i64::MAX - millis)));
    }

    fn ticks(&self) -> Vec<Timestamp> {
        let tick = |entry| match entry {
            LogEntry::Tick { at, .. } => Some(at),
            LogEntry::Batch(_) | LogEntry::Reload { .. } => None,
        };
        self.stage.ledger.signals().next(0, usize::MAX).unwrap().into_iter().filter_map(tick).collect()
    }

    async fn fired(&self) {
        until("the timer", || self.stage.alerts().iter().any(|alert| alert.title == "tick 0")).await;
    }

    async fn trouble(&self) -> String {
        self.ticker.ask(Heartbeat, SOON).await.unwrap().trouble.unwrap_or_default()
    }
}

#[test]
fn a_tick_is_committed_when_a_timer_is_due_and_only_then() {
    on_real_time(|| async {
        let timed = Timed::new();
        let due = timed.set_timer().await;
        timed.raw.advance(Duration::from_secs(61));
        timed.look(0);
        timed.fired().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(timed.ticks(), [due.after(Duration::from_secs(1))], "one tick, not one after another");
    });
}

#[test]
fn a11_a_timer_fires_by_monotonic_time_when_the_clock_is_set_back_or_stands_still() {
    on_real_time(|| async {
        for back in [HOUR, DAY, Duration::ZERO] {
            let timed = Timed::new();
            let due = timed.set_timer().await;
            timed.raw.set(AT.before(back));
            let pass = |span| if back.is_zero() { timed.raw.freeze(span) } else { timed.raw.advance(span) };
            timed.look(1);
            pass(Duration::from_millis(59_999));
            timed.look(2);
            let early = tokio::time::timeout(Duration::from_millis(300), timed.fired()).await;
            assert!(early.is_err(), "early fires: 0");
            pass(Duration::from_millis(1));
            timed.look(3);
            timed.fired().await;
            assert_eq!(timed.ticks(), [due], "late fires: 0, with the clock set back by {back:?}");
            assert!(timed.trouble().await.contains("timers go on by monotonic time"), "{}", timed.trouble().await);
        }
    });
}

#[test]
fn a11_a_clock_set_ahead_is_followed_and_fires_only_what_is_due_by_then() {
    on_real_time(|| async {
        let timed = Timed::new();
        timed.set_timer().await;
        assert_eq!(timed.trouble().await, "");
        let later = AT.after(2 * HOUR);
        timed.stage.ctx.ticker.publish("detector.later", Some(later));
        timed.raw.set(AT.after(HOUR));
        timed.look(1);
        timed.fired().await;
        assert_eq!(timed.ticks(), [AT.after(HOUR)]);
        assert_eq!(timed.stage.ctx.ticker.earliest(), Some(later), "what the jump did not reach waits");
        assert!(timed.trouble().await.contains("the clock jumped ahead by 1h;"), "{}", timed.trouble().await);
        timed.raw.advance(Duration::from_secs(299));
        assert_ne!(timed.trouble().await, "");
        timed.raw.advance(Duration::from_secs(2));
        assert_eq!(timed.trouble().await, "", "shown for five minutes");
        assert_eq!(timed.clock.regression(), None);
    });
}

#[test]
fn a11_a_clock_that_goes_back_is_shown_until_it_has_caught_up() {
    on_real_time(|| async {
        let stage = Stage::new();
        let raw = ManualClock::at(AT);
        let dir = tempfile::tempdir().unwrap();
        let steady = || {
            let shared: SharedClock = raw.clone();
            SteadyClock::over(shared)
        };
        let open = |clock: &SharedClock| Ledger::open(Options::new(dir.path(), Arc::clone(clock))).unwrap();
        let start = |name: &'static str, ledger: &Ledger, clock: &SharedClock| {
            let (ledger, clock) = (ledger.clone(), Arc::clone(clock));
            let mut spec = ChildSpec::core(name);
            spec.heartbeat.every = Duration::from_millis(5);
            let make = move || TickerActor::new(Ticker::default(), ledger.clone(), Arc::clone(&clock), quiet());
            stage.world.supervisor.start(spec, make)
        };
        let shown = |name: &str| {
            let health = stage.world.health.report().into_iter().find(|health| health.id.as_str() == name).unwrap();
            (health.status, health.detail)
        };
        let trouble = async |ticker: &Handle<TickerActor>| ticker.ask(Heartbeat, SOON).await.unwrap().trouble;
        let clock = steady();
        let ledger = open(&clock);
        let ticker = start("core.ticker", &ledger, &clock);
        assert_eq!(trouble(&ticker).await, None);
        raw.set(AT.before(Duration::from_secs(5)));
        assert_eq!(trouble(&ticker).await, None, "five seconds are nothing");
        raw.set(AT.before(HOUR));
        until("shown", || shown("core.ticker").0 == ModuleStatus::Degraded).await;
        assert!(shown("core.ticker").1.contains("the clock went back by 1h;"), "{:?}", shown("core.ticker"));
        raw.set(AT);
        until("well again", || shown("core.ticker").0 == ModuleStatus::Healthy).await;
        // a fresh process knows nothing of the time before, but the ledger does
        stage.world.supervisor.stop_all().await;
        ledger.shut_down().await.unwrap();
        drop((ledger, clock));
        raw.set(AT.before(DAY + Duration::from_secs(60)));
        let clock = steady();
        let ledger = open(&clock);
        let fresh = start("core.fresh", &ledger, &clock);
        assert!(trouble(&fresh).await.unwrap().contains("back by 1d;"));
        assert!(clock.now() >= AT, "it goes on from the time that was");
        raw.set(AT);
        assert_eq!(trouble(&fresh).await, None);
    });
}
