//! A ledger on the shim, and what a reader finds in a data directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types::Text};
use opspilot_fault_vfs::{Dice, FaultVfs};
use opspilot_kernel::{
    clock::SystemClock,
    signal::{LogEntry, SignalRef},
};
use opspilot_ledger::{DATABASE, Ledger, LedgerError, Limits, Options, SignalBatchBuilder};
use prometheus::Registry;

pub(crate) fn long() -> bool {
    std::env::var_os("OPSPILOT_LONG").is_some()
}

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) vfs: FaultVfs,
    pub(crate) fatal: Arc<AtomicU64>,
}

impl Rig {
    /// A shim of this name, which must be new in the process.
    pub(crate) fn new(name: &str) -> Rig {
        Rig { dir: tempfile::tempdir().unwrap(), vfs: FaultVfs::register(name).unwrap(), fatal: Arc::default() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Opens the ledger in `dir` on the shim. Small bounds, so that checkpoints happen often.
    pub(crate) fn open(&self, dir: &Path) -> Ledger {
        self.open_counting(dir).0
    }

    /// The same, with what it counts.
    pub(crate) fn open_counting(&self, dir: &Path) -> (Ledger, Registry) {
        let fatal = Arc::clone(&self.fatal);
        let mut options = plain(dir);
        let registry = options.registry.clone();
        options.vfs = Some(self.vfs.name().to_owned());
        let (vfs, before) = (self.vfs.clone(), self.vfs.failed_syncs());
        options.sync_failed = Some(Arc::new(move || vfs.failed_syncs() > before));
        let vfs = self.vfs.clone();
        options.space_left = Some(Arc::new(move || vfs.space_left()));
        options.fatal = Arc::new(move |_| {
            fatal.fetch_add(1, Ordering::SeqCst);
        });
        (Ledger::open(options).unwrap(), registry)
    }
}

fn plain(dir: &Path) -> Options {
    let mut options = Options::new(dir, SystemClock::shared());
    options.limits = Limits {
        idle_after: Duration::from_millis(2),
        probe_every: Duration::from_millis(5),
        checkpoint_bytes: 64 << 10,
        reserve_bytes: 1 << 14,
        headroom_bytes: 1 << 14,
        heal_after: Duration::from_millis(20),
        readers: 1,
        ..Limits::default()
    };
    options
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Appends numbered lines and remembers what was acknowledged.
pub(crate) struct Writer {
    pub(crate) next: u64,
    pub(crate) acked: BTreeSet<u64>,
    /// The last number below which everything was acknowledged, for whoever looks from another thread.
    pub(crate) promised: Arc<AtomicU64>,
    dice: Dice,
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Writer {
        Writer { next: 0, acked: BTreeSet::new(), promised: Arc::default(), dice: Dice::new(seed) }
    }

    /// One batch of a size that the dice decide.
    pub(crate) async fn append(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        // by the clock that the ledger goes by: retention takes what is old by it
        let at = ledger.clock().now();
        let mut batch = SignalBatchBuilder::new(at);
        let count = 1 + self.dice.below(40);
        let numbers = self.next..self.next + count;
        for number in numbers.clone() {
            let noise = self.dice.roll();
            batch.push(&SignalRef::log(at, "shop", &format!("{number} order {noise:x} took {} ms", noise % 977)));
        }
        self.next += count;
        ledger.append(batch.seal()).await?;
        self.acked.extend(numbers);
        self.promised.store(self.next, Ordering::SeqCst);
        Ok(())
    }
}

/// The numbers of the lines that the log holds.
pub(crate) fn stored(ledger: &Ledger) -> Result<BTreeSet<u64>, LedgerError> {
    let (mut all, mut after) = (BTreeSet::new(), 0);
    loop {
        let entries = ledger.signals().next(after, 1 << 20)?;
        let Some(last) = entries.last() else { return Ok(all) };
        after = last.last_seq();
        for entry in entries {
            let LogEntry::Batch(block) = entry else { continue };
            for (_, record) in block.iter() {
                let signal = record.decode().map_err(|error| LedgerError::Damaged(error.to_string()))?;
                let number = signal.message.split(' ').next().unwrap().parse().unwrap();
                assert!(all.insert(number), "line {number} twice");
            }
        }
    }
}

#[derive(QueryableByName)]
struct Verdict {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

/// What SQLite itself says of the database.
pub(crate) fn integrity(dir: &Path) -> String {
    let mut connection = SqliteConnection::establish(dir.join(DATABASE).to_str().unwrap()).unwrap();
    let verdicts: Vec<Verdict> = sql_query("PRAGMA integrity_check").load(&mut connection).unwrap();
    verdicts.into_iter().map(|verdict| verdict.integrity_check).collect::<Vec<_>>().join("; ")
}

/// Opens the directory without the shim, as a new process would, and reads everything.
pub(crate) fn survey(dir: &Path) -> Result<BTreeSet<u64>, String> {
    let ledger = Ledger::open(plain(dir)).map_err(|error| error.to_string())?;
    let found = stored(&ledger).map_err(|error| error.to_string());
    runtime().block_on(ledger.shut_down()).map_err(|error| error.to_string())?;
    drop(ledger);
    match integrity(dir).as_str() {
        "ok" => found,
        bad => Err(bad.to_owned()),
    }
}

/// Waits until storage takes writes again.
pub(crate) async fn healed(ledger: &Ledger) {
    let mut health = ledger.watch_storage();
    let waited = tokio::time::timeout(Duration::from_secs(10), health.wait_for(opspilot_ledger::StorageHealth::is_healthy));
    assert!(waited.await.is_ok_and(|healthy| healthy.is_ok()), "storage does not recover by itself: {:?}", ledger.storage());
}

/// How often storage failed, and how often it healed.
pub(crate) fn transitions(registry: &Registry) -> (f64, f64) {
    let families = registry.gather();
    let total = |name: &str| {
        let family = families.iter().filter(|family| family.name() == name);
        family.flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value()).sum()
    };
    (total("opspilot_storage_failures_total"), total("opspilot_storage_healed_total"))
}
