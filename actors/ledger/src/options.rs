//! What the ledger is opened with: where it lies, its bounds, and how long things are kept.

use std::{path::PathBuf, sync::Arc, time::Duration};

use opspilot_kernel::clock::SharedClock;

use crate::error::StorageFailure;

/// The bounds of everything the ledger keeps in memory.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Control jobs that may wait; more are answered `Busy`.
    pub control_queue: usize,
    /// Bulk jobs that may wait; more are answered `Busy`.
    pub bulk_queue: usize,
    /// Bytes that waiting bulk jobs may hold.
    pub bulk_queue_bytes: usize,
    /// Bytes of bulk work in one transaction.
    pub flush_bytes: usize,
    /// Jobs in one transaction.
    pub flush_jobs: usize,
    /// Bytes of freshly committed signals kept for followers.
    pub signal_ring_bytes: usize,
    /// Bytes of fresh alert records kept for followers.
    pub alert_ring_bytes: usize,
    /// Bytes of fresh events kept for followers.
    pub event_ring_bytes: usize,
    /// Connections that read, and so the reads that run at once.
    pub readers: u32,
    /// How long a read waits for a connection before it is `Busy`.
    pub read_wait: Duration,
    /// (source, id) pairs that are remembered; the oldest are forgotten first.
    pub claims: usize,
    /// How often a failed storage is tried again.
    pub probe_every: Duration,
    /// Size of the write-ahead log at which the writer checkpoints.
    pub checkpoint_bytes: u64,
    /// How long nothing must be queued before the writer does its housekeeping.
    pub idle_after: Duration,
    /// Bytes of signals that retention deletes between two groups.
    pub retention_step_bytes: u64,
    /// Size of the file that is given up when the disk is full.
    pub reserve_bytes: u64,
    /// After a full disk signals are taken again only when this much is free besides the reserve …
    pub headroom_bytes: u64,
    /// … and has been for so long, so that storage does not fail and heal in turn.
    pub heal_after: Duration,
    /// How long a connection waits for another's lock.
    pub busy_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            control_queue: 256,
            bulk_queue: 1024,
            bulk_queue_bytes: 64 << 20,
            flush_bytes: 8 << 20,
            flush_jobs: 1024,
            signal_ring_bytes: 64 << 20,
            alert_ring_bytes: 8 << 20,
            event_ring_bytes: 8 << 20,
            readers: 4,
            read_wait: Duration::from_secs(5),
            claims: 1_000_000,
            probe_every: Duration::from_secs(5),
            checkpoint_bytes: 16 << 20,
            idle_after: Duration::from_millis(500),
            retention_step_bytes: 32 << 20,
            reserve_bytes: 16 << 20,
            headroom_bytes: 16 << 20,
            heal_after: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// How long things are kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Signals, by the time of their receipt.
    pub signals: Duration,
    /// Signals, by their size on disk. The one bound that passes a follower which is still behind.
    pub signals_max_bytes: u64,
    /// Events.
    pub events: Duration,
    /// Events, by their size on disk. Waits for whoever delivers them, until they take twice as much.
    pub events_max_bytes: u64,
    /// Resolved incidents with their timelines and evidence, alerts that are over, decisions: since they were over.
    pub incidents: Duration,
    /// Claimed (source, id) pairs.
    pub claims: Duration,
    /// Answers kept for repeated requests.
    pub idempotency: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        const DAY: Duration = Duration::from_secs(86_400);
        Retention {
            signals: 7 * DAY,
            signals_max_bytes: 10 << 30,
            events: 7 * DAY,
            events_max_bytes: 1 << 30,
            incidents: 90 * DAY,
            claims: DAY,
            idempotency: DAY,
        }
    }
}

/// Called once when the process must end because storage can no longer be trusted.
pub type FatalHook = Arc<dyn Fn(&StorageFailure) + Send + Sync>;

/// What a ledger is opened with.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// The clock.
    pub clock: SharedClock,
    /// Where to log.
    pub log: slog::Logger,
    /// Where to register metrics.
    pub registry: prometheus::Registry,
    /// Bounds.
    pub limits: Limits,
    /// What is kept how long.
    pub retention: Retention,
    /// The SQLite VFS to use instead of the system's own; for fault tests.
    pub vfs: Option<String>,
    /// Asked after an error of the device whether forcing data to it failed, besides asking the kernel;
    /// for fault tests, whose files are not the kernel's.
    pub sync_failed: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    /// Asked after a full disk how many bytes may still be written, besides asking the file system; for the same tests.
    pub space_left: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
    /// What to do when the process must end; the root makes it exit 70.
    pub fatal: FatalHook,
    /// The name of this node, as audit entries carry it.
    pub node: String,
    /// A tool works on the directory, not the service: its start and its stop are not put on record.
    pub tool: bool,
    /// A backup was just put in place: a log that ends before what was published is taken, and the restore recorded.
    pub after_restore: bool,
}

impl Options {
    /// Everything at its default, logging nowhere, with a registry of its own.
    pub fn new(dir: impl Into<PathBuf>, clock: SharedClock) -> Options {
        Options {
            dir: dir.into(),
            clock,
            log: slog::Logger::root(slog::Discard, slog::o!()),
            registry: prometheus::Registry::new(),
            limits: Limits::default(),
            retention: Retention::default(),
            vfs: None,
            sync_failed: None,
            space_left: None,
            fatal: Arc::new(|_| {}),
            node: "local".to_owned(),
            tool: false,
            after_restore: false,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("dir", &self.dir).field("limits", &self.limits).finish_non_exhaustive()
    }
}
