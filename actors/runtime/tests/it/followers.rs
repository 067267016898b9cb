//! What a follower promises: the same output, in order, once, whatever happens to it in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    clock::{ManualClock, SharedClock, SystemClock},
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    module::{ModuleId, ModuleStatus},
    signal::{LogEntry, Severity, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, Ledger, Options, SignalBatchBuilder, Snapshot};
use opspilot_runtime::{
    AttemptBook, ChildSpec, Consumer, EventRouterHandle, Follower, FollowerOptions, Handle, Health, ModuleContext, Phase, Reconfigure,
    RestoreError, Status, Stopped, Ticker, TickerActor, follow,
};
use parking_lot::Mutex;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::world::{World, on_real_time, quiet, until};

pub const ID: &str = "detector.adder";
const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const SOON: Duration = Duration::from_secs(10);

pub fn ledger_in(dir: &Path) -> Ledger {
    let mut options = Options::new(dir, SystemClock::shared());
    // the signals of these tests are old
    options.retention.signals = Duration::from_secs(1 << 40);
    Ledger::open(options).unwrap()
}

/// What makes a consumer fail; survives it.
#[derive(Default)]
pub struct Faults {
    /// Fails once at each of these.
    pub once: Mutex<BTreeSet<Seq>>,
    /// Fails whenever a line says so.
    pub poison: std::sync::atomic::AtomicBool,
    pub fired: std::sync::atomic::AtomicU64,
    /// Blocks the thread once, at this signal.
    pub block: Mutex<Option<(Seq, Duration)>>,
}

/// Adds up what it sees; an alert carries the sum, so that a signal lost or seen twice changes everything after it.
pub struct Adder {
    faults: Arc<Faults>,
    sums: BTreeMap<String, u64>,
    changed: BTreeSet<String>,
    due: Option<Timestamp>,
    salt: u64,
}

impl Adder {
    pub fn new(faults: &Arc<Faults>) -> Adder {
        Adder { faults: Arc::clone(faults), sums: BTreeMap::new(), changed: BTreeSet::new(), due: None, salt: 0 }
    }

    fn fail(&self) {
        self.faults.fired.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        panic!("told to fail");
    }
}

fn record(seq: Seq, sum: u64, title: &str) -> AlertRecord {
    AlertRecord {
        alert: AlertId::derived(&[&seq.to_string(), &sum.to_string()]),
        detected_by: ID.to_owned(),
        rule: "sum".to_owned(),
        fingerprint: Fingerprint::from_u64(1),
        transition: Transition::Firing,
        resolved_by: None,
        at: AT,
        logged_at: AT,
        signal_seq: seq,
        count: 1,
        source: "test".to_owned(),
        title: format!("{title} {sum}"),
        description: String::new(),
        severity: Severity::Info,
        labels: BTreeMap::new(),
        evidence: Vec::new(),
    }
}

impl Consumer for Adder {
    type Entry = LogEntry;
    type Output = AlertRecord;

    fn restore(&mut self, snapshots: Vec<Snapshot>) -> Result<(), RestoreError> {
        for Snapshot { key, blob } in snapshots {
            let sum = blob.as_slice().try_into().map_err(|_| RestoreError("a sum".to_owned()))?;
            self.sums.insert(key, u64::from_le_bytes(sum));
        }
        Ok(())
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        let block = match entry {
            LogEntry::Tick { seq, at } => {
                if self.due.is_some_and(|due| due <= *at) {
                    self.due = None;
                    out.push(record(*seq, 0, "tick"));
                }
                return;
            }
            LogEntry::Batch(block) => block,
        };
        for (seq, bytes) in block.iter() {
            let signal = bytes.decode().unwrap();
            if self.faults.once.lock().remove(&seq) {
                self.fail();
            }
            if signal.message.contains("poison") && self.faults.poison.load(std::sync::atomic::Ordering::SeqCst) {
                self.fail();
            }
            let blocked = self.faults.block.lock().take_if(|(at, _)| *at == seq);
            if let Some((_, span)) = blocked {
                #[allow(clippy::disallowed_methods, reason = "to block the thread is what is tested")]
                std::thread::sleep(span);
            }
            if signal.message.contains("timer") {
                self.due = Some(block.received_at.after(Duration::from_secs(60)));
            }
            let sum = self.sums.entry(signal.source.to_owned()).or_default();
            *sum = sum.wrapping_mul(31).wrapping_add(seq + self.salt);
            if signal.message.contains("alert") {
                out.push(record(seq, *sum, signal.message));
            }
            self.changed.insert(signal.source.to_owned());
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    fn changed(&mut self) -> Vec<Snapshot> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| Snapshot { blob: self.sums[&key].to_le_bytes().to_vec(), key }).collect()
    }
}

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub ledger: Ledger,
    pub faults: Arc<Faults>,
    pub world: World,
    pub ctx: ModuleContext,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::at(tempfile::tempdir().unwrap(), Arc::new(Faults::default()), SystemClock::shared())
    }

    fn at(dir: tempfile::TempDir, faults: Arc<Faults>, clock: SharedClock) -> Stage {
        let ledger = ledger_in(dir.path());
        let world = World::real_time();
        let ctx = ModuleContext {
            ledger: ledger.clone(),
            clock,
            log: quiet(),
            registry: world.registry.clone(),
            supervisor: world.supervisor.clone(),
            attempts: AttemptBook::default(),
            ticker: Ticker::default(),
            events: EventRouterHandle::new(ledger.clone(), &world.registry).unwrap(),
            health: Health::clone(&world.health),
        };
        Stage { dir, ledger, faults, world, ctx }
    }

    /// The same data directory in a new process, as it were.
    pub async fn reopened(self) -> Stage {
        self.world.supervisor.stop_all().await;
        let Stage { dir, ledger, faults, world, ctx } = self;
        ledger.shut_down().await.unwrap();
        drop((ledger, world, ctx));
        Stage::at(dir, faults, SystemClock::shared())
    }

    pub fn follow(&self, options: FollowerOptions) -> Handle<Follower<Adder>> {
        let faults = Arc::clone(&self.faults);
        let mut spec = ChildSpec::module(ID);
        spec.backoff.first = Duration::from_millis(1);
        spec.intensity.restarts = 1000;
        follow(&self.ctx, spec, options, move || Adder::new(&faults))
    }

    pub async fn append(&self, lines: &[&str]) -> Seq {
        let mut batch = SignalBatchBuilder::new(AT);
        for (number, line) in lines.iter().enumerate() {
            batch.push(&SignalRef::log(AT, if number % 2 == 0 { "even" } else { "odd" }, line));
        }
        self.ledger.append(batch.seal()).await.unwrap().last_seq
    }

    pub fn alerts(&self) -> Vec<AlertRecord> {
        let entries = self.ledger.read_blocking(|_| Ok(())).and_then(|()| self.ledger.alerts().next(0, 100_000)).unwrap();
        let record = |entry| match entry {
            AlertEntry::Record { record, .. } => Some((*record).clone()),
            AlertEntry::Tick { .. } => None,
        };
        entries.into_iter().filter_map(record).collect()
    }
}

pub async fn caught_up(follower: &Handle<Follower<Adder>>, upto: Seq) {
    for _ in 0..2000 {
        if let Ok(status) = follower.ask(Status, SOON).await
            && status.position >= upto
            && status.tally.in_flight == 0
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never caught up: {:?}", follower.ask(Status, SOON).await);
}

/// What one consumer makes of the whole log in one go, passing over `without`.
pub fn expected(ledger: &Ledger, without: &[Seq]) -> Vec<AlertRecord> {
    let mut adder = Adder::new(&Arc::default());
    let mut out = Vec::new();
    for entry in ledger.signals().next(0, usize::MAX).unwrap() {
        let (first, last) = (opspilot_runtime::Entries::first_seq(&entry), entry.last_seq());
        for seq in (first..=last).filter(|seq| !without.contains(seq)) {
            let one = opspilot_runtime::Entries::within(entry.clone(), seq, seq).unwrap();
            adder.consume(&one, &mut out);
        }
    }
    out
}

#[test]
fn a_follower_commits_what_its_consumer_makes_of_the_log() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.append(&["a", "alert b", "c"]).await;
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert d"; 50]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
        assert_eq!(stage.alerts().len(), 51);
        let tally = follower.ask(Status, SOON).await.unwrap().tally;
        assert_eq!((tally.received, tally.ok), (53, 53));
    });
}

#[test]
fn the_backlog_is_replayed_after_a_restart_of_the_process() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert a", "b", "c"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.world.supervisor.stop(ID).await, Stopped::Drained);
        stage.append(&["alert d", "e"]).await;
        let stage = stage.reopened().await;
        let last = stage.append(&["f", "alert g"]).await;
        let follower = stage.follow(FollowerOptions::default());
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}

#[test]
fn what_the_consumer_knows_is_stored_within_a_second_without_output() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions { save_every: Duration::from_millis(50), ..FollowerOptions::default() });
        let last = stage.append(&["a", "b", "c"]).await;
        until("stored", || stage.ledger.read_blocking(|reader| reader.cursor(ID)).unwrap() == last).await;
        let snapshots = stage.ledger.read_blocking(|reader| reader.snapshots(ID)).unwrap();
        assert!(snapshots.iter().any(|snapshot| snapshot.key == "even"), "{snapshots:?}");
        drop(follower);
    });
}

#[test]
fn s1_a_panic_in_the_middle_of_a_batch_changes_nothing_of_the_output() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.once.lock().extend([2, 5, 9]);
        let follower = stage.follow(FollowerOptions::default());
        stage.append(&["alert a", "alert b", "alert c", "d"]).await;
        let last = stage.append(&["alert e", "f", "alert g", "alert h", "alert i", "j"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.faults.fired.load(std::sync::atomic::Ordering::SeqCst), 3, "the faults fired");
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
        let tally = follower.ask(Status, SOON).await.unwrap().tally;
        assert_eq!(tally.received, tally.ok + tally.error + tally.retried + tally.dead_lettered + tally.in_flight);
        assert!(tally.retried > 0);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<&'static str>),
    Kill(u64),
    Reopen,
}

async fn run(steps: &[Step], options: FollowerOptions) -> Result<(), TestCaseError> {
    let mut stage = Stage::new();
    let mut follower = stage.follow(options);
    let mut last = 0;
    for step in steps {
        match step {
            Step::Append(lines) => last = stage.append(lines).await,
            Step::Kill(ahead) => {
                stage.faults.once.lock().insert(last + 1 + ahead);
            }
            Step::Reopen => {
                drop(follower);
                stage = stage.reopened().await;
                follower = stage.follow(options);
            }
        }
    }
    caught_up(&follower, last).await;
    prop_assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    Ok(())
}

#[test]
fn s1_the_same_signals_give_the_same_alerts_however_cut_and_wherever_killed() {
    let line = prop::sample::select(vec!["alert x", "quiet", "alert y"]);
    let step = prop_oneof![
        6 => prop::collection::vec(line, 1..30).prop_map(Step::Append),
        3 => (0..40_u64).prop_map(Step::Kill),
        1 => Just(Step::Reopen),
    ];
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = (prop::collection::vec(step, 1..15), 1..2000_usize, 1..50_u64);
    runner
        .run(&strategy, |(steps, chunk_bytes, save_signals)| {
            let options = FollowerOptions { chunk_bytes, save_signals, ..FollowerOptions::default() };
            on_real_time(|| async move { run(&steps, options).await })
        })
        .unwrap();
}

#[test]
fn a_changed_consumer_takes_over_at_a_committed_point() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert a", "b"]).await;
        caught_up(&follower, last).await;
        let before = stage.alerts();
        let faults = Arc::clone(&stage.faults);
        let change = Reconfigure::new(move || Adder { salt: 1000, ..Adder::new(&faults) });
        assert_eq!(follower.ask(change, SOON).await, Ok(Ok(())));
        let last = stage.append(&["alert c"]).await;
        caught_up(&follower, last).await;
        let after = stage.alerts();
        assert_eq!(after[..1], before[..]);
        let sum = stage.ledger.read_blocking(|reader| reader.snapshots(ID)).unwrap();
        assert!(!sum.is_empty());
        assert_eq!(after[1].title, format!("alert c {}", 31 + 3 + 1000), "the old state, the new rule");
    });
}

#[test]
fn a_tick_is_committed_when_a_timer_is_due_and_only_then() {
    on_real_time(|| async {
        let clock = ManualClock::at(AT);
        let stage = Stage::at(tempfile::tempdir().unwrap(), Arc::default(), clock.clone());
        let (ticker, ledger, log) = (stage.ctx.ticker.clone(), stage.ledger.clone(), quiet());
        let shared: SharedClock = clock.clone();
        stage.world.supervisor.start(ChildSpec::core("runtime/ticker"), move || {
            TickerActor::new(ticker.clone(), ledger.clone(), Arc::clone(&shared), log.clone())
        });
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["timer"]).await;
        caught_up(&follower, last).await;
        until("published", || stage.ctx.ticker.earliest().is_some()).await;
        assert_eq!(stage.ledger.signals().head(), last, "not before");
        clock.advance(Duration::from_secs(61));
        // what is published wakes it, as a follower would
        stage.ctx.ticker.publish("detector.other", Some(Timestamp::from_millis(i64::MAX)));
        until("the tick", || stage.alerts().iter().any(|alert| alert.title == "tick 0")).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(stage.ledger.signals().head(), last + 1, "one tick, not one after another");
    });
}

#[test]
fn a11_a_clock_that_goes_back_is_shown_until_it_has_caught_up() {
    on_real_time(|| async {
        let stage = Stage::new();
        let clock = ManualClock::at(AT);
        let shared: SharedClock = clock.clone();
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Options::new(dir.path(), Arc::clone(&shared))).unwrap();
        let start = |name: &'static str| {
            let (ledger, shared) = (ledger.clone(), Arc::clone(&shared));
            let mut spec = ChildSpec::core(name);
            spec.heartbeat.every = Duration::from_millis(5);
            let make = move || TickerActor::new(Ticker::default(), ledger.clone(), Arc::clone(&shared), quiet());
            stage.world.supervisor.start(spec, make)
        };
        let shown = |name: &str| {
            let health = stage.world.health.report().into_iter().find(|health| health.id.as_str() == name).unwrap();
            (health.status, health.detail)
        };
        let ticker = start("core.ticker");
        let trouble = async |ticker: &Handle<TickerActor>| ticker.ask(opspilot_kernel::lifecycle::Heartbeat, SOON).await.unwrap().trouble;
        assert_eq!(trouble(&ticker).await, None);
        clock.set(AT.before(Duration::from_secs(5)));
        assert_eq!(trouble(&ticker).await, None, "five seconds are nothing");
        clock.set(AT.before(Duration::from_secs(3600)));
        until("shown", || shown("core.ticker").0 == ModuleStatus::Degraded).await;
        assert!(shown("core.ticker").1.contains("the clock went back by 1h;"), "{:?}", shown("core.ticker"));
        // a fresh one knows nothing of the time before, but the ledger does
        clock.set(AT);
        let ada = opspilot_kernel::principal::Actor::System;
        ledger.write(opspilot_ledger::Priority::Control, move |tx| tx.module_switched(&ada, "m", true)).await.unwrap();
        clock.set(AT.before(Duration::from_secs(86_400 + 60)));
        let fresh = start("core.fresh");
        assert!(trouble(&fresh).await.unwrap().contains("back by 1d;"));
        clock.set(AT);
        until("well again", || shown("core.ticker").0 == ModuleStatus::Healthy).await;
        assert_eq!(trouble(&fresh).await, None);
    });
}

#[test]
fn a_follower_shows_how_far_behind_it_is() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["a", "b"]).await;
        caught_up(&follower, last).await;
        let pulse = follower.ask(opspilot_kernel::lifecycle::Heartbeat, SOON).await.unwrap();
        assert_eq!(pulse.queue, 0);
        assert_eq!(stage.world.health.status(ModuleId::new(ID)), Some(ModuleStatus::Healthy));
    });
}

#[test]
fn s5_a_follower_whose_thread_was_blocked_and_replaced_can_no_longer_commit() {
    on_real_time(|| async {
        let stage = Stage::new();
        let mut spec = ChildSpec::module(ID).on_own_arbiter();
        spec.heartbeat = opspilot_runtime::HeartbeatPolicy {
            every: Duration::from_millis(20),
            degraded: Duration::from_millis(50),
            failure: Duration::from_millis(150),
        };
        spec.backoff.first = Duration::from_millis(1);
        let faults = Arc::clone(&stage.faults);
        let follower = follow(&stage.ctx, spec, FollowerOptions::default(), move || Adder::new(&faults));
        *stage.faults.block.lock() = Some((2, Duration::from_millis(600)));
        let last = stage.append(&["alert a", "alert b", "alert c"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.world.restarts("hang"), 1, "the fault fired");
        let before = stage.alerts();
        assert_eq!(before, expected(&stage.ledger, &[]));
        // the old one wakes up and tries to commit what it made
        tokio::time::sleep(Duration::from_millis(700)).await;
        let last = stage.append(&["alert d"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}

#[test]
fn s5_a_follower_that_was_left_behind_when_it_was_stopped_can_no_longer_commit() {
    on_real_time(|| async {
        let stage = Stage::new();
        let mut spec = ChildSpec::module(ID).on_own_arbiter();
        spec.heartbeat.every = Duration::from_millis(20);
        spec.shutdown = Duration::from_millis(20);
        // everything is stored with every commit, so that an old one would take it back
        let options = FollowerOptions { save_every: Duration::ZERO, ..FollowerOptions::default() };
        let faults = Arc::clone(&stage.faults);
        let blocked = follow(&stage.ctx, spec, options, move || Adder::new(&faults));
        *stage.faults.block.lock() = Some((2, Duration::from_millis(900)));
        stage.append(&["alert a", "alert b", "alert c"]).await;
        until("blocked", || stage.faults.block.lock().is_none()).await;
        assert_eq!(stage.world.supervisor.stop(ID).await, Stopped::Skipped);
        assert_eq!(blocked.phase(), Phase::Stopped);
        assert_eq!(blocked.ask(Status, SOON).await, Err(opspilot_runtime::AskError::Unavailable));
        let follower = stage.follow(options);
        let last = stage.append(&["alert d"]).await;
        caught_up(&follower, last).await;
        let cursor = || stage.ledger.read_blocking(|reader| reader.cursor(ID)).unwrap();
        assert_eq!(cursor(), last);
        // the old one wakes up and tries to commit what it made
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(cursor(), last, "not taken back");
        let last = stage.append(&["alert e"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}
