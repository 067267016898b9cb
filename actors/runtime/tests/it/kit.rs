//! A consumer that can fail and block, and the ledger, follower and world around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    clock::{SharedClock, SystemClock},
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    signal::{LogEntry, Severity, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, Ledger, Options, SignalBatchBuilder, Snapshot};
use opspilot_runtime::{
    AttemptBook, ChildSpec, Consumer, EventRouterHandle, Follower, FollowerOptions, Handle, Health, ModuleContext, RestoreError, Status,
    Ticker, follow,
};
use parking_lot::Mutex;

use crate::world::{World, quiet};

pub const ID: &str = "detector.adder";
pub const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub const SOON: Duration = Duration::from_secs(10);

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

    /// The same with another rule.
    pub fn salted(self, salt: u64) -> Adder {
        Adder { salt, ..self }
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
        supports: false,
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
            LogEntry::Reload { .. } => return,
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

    pub fn at(dir: tempfile::TempDir, faults: Arc<Faults>, clock: SharedClock) -> Stage {
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
            events: EventRouterHandle::new(ledger.clone(), &world.registry, quiet()).unwrap(),
            health: Health::clone(&world.health),
            outbound: opspilot_runtime::Outbound::new(Default::default(), &world.registry).unwrap(),
            topology: opspilot_runtime::TopologyView::default(),
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
