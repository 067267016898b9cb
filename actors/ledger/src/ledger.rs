//! The handle that everybody holds: append, write, read, and the three logs.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use opspilot_kernel::{clock::SharedClock, ids::Seq, principal::Actor, time::Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    actor::AuditActor,
    audit::signer::Signer,
    batch::SignalBatch,
    error::{FailureReason, LedgerError, OpenError, StorageFailure},
    logs::{AlertLog, EventLog, SignalLog},
    metrics::Metrics,
    open::{self, Files},
    options::Options,
    read::{ReadPool, Reader},
    storage::{Storage, StorageHealth},
    tables::cursors::Snapshot,
    tx::{Identity, Tx},
    writer::{
        self, AppendJob, Job, WriteJob,
        queue::{Queue, Refused},
    },
};

/// Which queue a job goes through. Control is done before bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// What people wait for: acknowledgements, accounts, approvals.
    Control,
    /// Signals, alerts, decisions, snapshots.
    Bulk,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The number of the first signal stored. Above `last_seq` if all were duplicates.
    pub first_seq: Seq,
    /// The number of the last signal stored.
    pub last_seq: Seq,
    /// How many were stored.
    pub accepted: u32,
    /// Indexes within the batch of those that were not, because their (source, id) is known.
    pub duplicates: Vec<u32>,
}

/// What all handles and the writer share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) queue: Queue<Job>,
    pub(crate) storage: Storage,
    pub(crate) metrics: Metrics,
    pub(crate) signals: SignalLog,
    pub(crate) alerts: AlertLog,
    pub(crate) events: EventLog,
    pub(crate) pool: ReadPool,
    /// Dropped last: while it is held no other process may touch the files.
    pub(crate) files: Arc<Files>,
    pub(crate) identity: Identity,
    /// The latest wall time that an audit entry carries, in milliseconds.
    pub(crate) high_water: AtomicI64,
    /// Whether the process was told that it must end.
    pub(crate) fatal_told: AtomicBool,
    /// How many entries the audit log has, for whoever signs it.
    pub(crate) audit: watch::Sender<Seq>,
    /// Somebody wants a checkpoint signed soon.
    pub(crate) checkpoint_wanted: Notify,
    /// Signs checkpoints, once its key is open.
    pub(crate) signer: OnceLock<Arc<Signer>>,
}

impl Shared {
    /// Storage failed: everybody sees it. If nothing can be trusted any more, the process is told to end, and
    /// damage is noted for the next start.
    pub(crate) fn fail(&self, failure: &StorageFailure) {
        self.storage.fail(failure.clone(), self.options.clock.now());
        if !failure.reason.is_fatal() || self.fatal_told.swap(true, Ordering::SeqCst) {
            return;
        }
        slog::crit!(self.options.log, "storage cannot be trusted any more"; "reason" => failure.reason.as_str(), "detail" => &failure.detail);
        if failure.reason == FailureReason::Damaged
            && let Err(error) = self.files.note_damage(&failure.detail)
        {
            slog::warn!(self.options.log, "the damage could not be noted for the next start"; "error" => %error);
        }
        (self.options.fatal)(failure);
    }
}

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            // a job may hold the last handle; the writer must not wait for itself
            if thread.thread().id() != std::thread::current().id() {
                drop(thread.join());
            }
        }
    }
}

/// A handle on the ledger. All clones share one writer; when the last is dropped the writer finishes what
/// is queued and ends.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("dir", &self.inner.shared.options.dir).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens or makes the ledger in `options.dir`: takes the lock, migrates, asserts the settings that the
    /// promises rest on, verifies the heads, and starts the writer.
    pub fn open(options: Options) -> Result<Ledger, OpenError> {
        let (shared, state) = open::open(options)?;
        let thread =
            writer::start(shared.clone(), state).map_err(|source| OpenError::Io { path: "the writer thread".to_owned(), source })?;
        Ok(Ledger { inner: Arc::new(Inner { shared, thread: Mutex::new(Some(thread)) }) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Stores signals. `Ok` means that they survive a crash and a loss of power. Answers `Busy` at once
    /// when the bulk queue is full. The signals are stored even if this future is dropped.
    pub async fn append(&self, batch: SignalBatch) -> Result<Appended, LedgerError> {
        let (job, answer, bytes) = self.append_job(batch, None)?;
        self.enqueue(Priority::Bulk, job, bytes)?;
        answer.await.unwrap_or(Err(LedgerError::Panicked))
    }

    /// The same, but waits for room in the queue: for senders that can be slowed down.
    pub async fn append_waiting(&self, batch: SignalBatch) -> Result<Appended, LedgerError> {
        self.append_saving(batch, None).await
    }

    /// The same, and in the same transaction records what `module` knows then: the checkpoints that cover
    /// these signals. After a crash either both are there or neither is.
    pub async fn append_with(&self, batch: SignalBatch, module: &str, snapshots: Vec<Snapshot>) -> Result<Appended, LedgerError> {
        self.append_saving(batch, Some((module.to_owned(), snapshots))).await
    }

    async fn append_saving(&self, batch: SignalBatch, saves: Option<(String, Vec<Snapshot>)>) -> Result<Appended, LedgerError> {
        let (job, answer, bytes) = self.append_job(batch, saves)?;
        self.shared().queue.push_waiting(Priority::Bulk, job, bytes).await.map_err(|_| LedgerError::stopped())?;
        answer.await.unwrap_or(Err(LedgerError::Panicked))
    }

    fn append_job(&self, batch: SignalBatch, saves: Option<(String, Vec<Snapshot>)>) -> Result<(Job, AppendAnswer, usize), LedgerError> {
        self.shared().storage.check(Priority::Bulk)?;
        let bytes = batch.bytes();
        let (reply, answer) = oneshot::channel();
        Ok((Job::Append(AppendJob { batch, saves: saves.map(Box::new), reply }), answer, bytes))
    }

    fn enqueue(&self, priority: Priority, job: Job, bytes: usize) -> Result<(), LedgerError> {
        let shared = self.shared();
        shared.queue.push(priority, job, bytes).map_err(|refused| match refused {
            Refused::Full(_) => {
                shared.metrics.refused(priority);
                LedgerError::Busy
            }
            Refused::Closed(_) => LedgerError::stopped(),
        })
    }

    /// Runs `job` in the writer, in a savepoint of its own. `Ok` only after it is on the disk; an error
    /// or a panic rolls back this job alone. The job runs even if the returned future is dropped.
    pub fn write<T, F>(&self, priority: Priority, job: F) -> impl Future<Output = Result<T, LedgerError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
    {
        let (task, answer) = WriteJob::new(job);
        // queued here and not on the first poll: dropping the future must not lose the job
        let queued = self.shared().storage.check(priority).and_then(|()| self.enqueue(priority, Job::Run(task), JOB_BYTES));
        async move {
            queued?;
            answer.await.unwrap_or(Err(LedgerError::Panicked))
        }
    }

    /// The same from a thread of one's own; never call it where an arbiter runs.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        priority: Priority,
        job: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (task, answer) = WriteJob::new(job);
        self.shared().storage.check(priority)?;
        self.enqueue(priority, Job::Run(task), JOB_BYTES)?;
        answer.blocking_recv().unwrap_or(Err(LedgerError::Panicked))
    }

    /// Runs a query on a pooled connection that cannot write, on a bounded number of blocking threads.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let pool = self.shared().pool.clone();
        pool.read(query).await
    }

    /// The same in the caller's thread.
    pub fn read_blocking<T>(&self, query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.shared().pool.read_blocking(query)
    }

    /// The log of signals.
    pub fn signals(&self) -> &SignalLog {
        &self.inner.shared.signals
    }

    /// The log of what detectors claimed.
    pub fn alerts(&self) -> &AlertLog {
        &self.inner.shared.alerts
    }

    /// The log of committed facts.
    pub fn events(&self) -> &EventLog {
        &self.inner.shared.events
    }

    /// Commits the passing of time, numbered: into the signal log, and into the alert log as soon as every follower of the
    /// signals has read up to there.
    pub fn tick(&self, at: Timestamp) -> impl Future<Output = Result<(), LedgerError>> + Send + use<> {
        self.write(Priority::Bulk, move |tx| tx.tick(at))
    }

    /// Puts on record that `actor` was denied `what`. A full queue is not waited for: what is not recorded is counted.
    pub fn denied(&self, actor: Actor, what: String) -> impl Future<Output = Result<(), LedgerError>> + Send + use<> {
        let lost = self.shared().metrics.denied_lost.clone();
        let recorded = self.write(Priority::Bulk, move |tx| tx.denied(&actor, &what));
        async move { recorded.await.inspect_err(|_| lost.inc()) }
    }

    /// How storage is doing.
    pub fn storage(&self) -> StorageHealth {
        self.inner.shared.storage.health()
    }

    /// Tells when storage changes its health.
    pub fn watch_storage(&self) -> watch::Receiver<StorageHealth> {
        self.inner.shared.storage.watch()
    }

    /// How many jobs wait for the writer: control, bulk.
    pub fn queued(&self) -> (usize, usize) {
        self.inner.shared.queue.lengths()
    }

    /// By how much the machine's clock is behind the latest audit entry, if by more than five seconds.
    /// Until it has caught up nothing that depends on the time of day can be trusted.
    pub fn clock_regression(&self) -> Option<Duration> {
        let shared = self.shared();
        let high_water = Timestamp::from_millis(shared.high_water.load(Ordering::Relaxed));
        Some(high_water.since(shared.options.clock.wall())).filter(|behind| *behind > CLOCK_TOLERANCE)
    }

    /// The gauge `opspilot_queue_depth`: everything else that has a queue shows it there too.
    pub fn queue_gauge(&self) -> &prometheus::IntGaugeVec {
        &self.inner.shared.metrics.queue_depth
    }

    /// Names this run of the process.
    pub fn boot(&self) -> &str {
        &self.inner.shared.identity.boot
    }

    /// The data directory.
    pub fn dir(&self) -> &std::path::Path {
        &self.inner.shared.options.dir
    }

    /// The clock that the ledger was opened with.
    pub fn clock(&self) -> &SharedClock {
        &self.inner.shared.options.clock
    }

    /// The actor that stands for the writer in the supervision tree.
    pub fn audit_actor(&self) -> AuditActor {
        AuditActor::new(self.clone())
    }

    /// Makes sure that the writer thread is there; starts it anew if it died.
    pub(crate) fn ensure_writer(&self) -> Result<(), LedgerError> {
        let mut thread = self.inner.thread.lock();
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) || self.shared().storage.is_stopped() {
            return Ok(());
        }
        *thread = Some(writer::restart(self.shared().clone()).map_err(|error| LedgerError::Internal(error.to_string()))?);
        Ok(())
    }

    /// Finishes what is queued, checkpoints, marks the stop as clean and closes. Later work is refused.
    pub async fn shut_down(&self) -> Result<(), LedgerError> {
        self.shared().queue.close();
        let Some(thread) = self.inner.thread.lock().take() else { return Ok(()) };
        let (tell, ended) = oneshot::channel();
        // a thread of its own: the runtime waits for its blocking pool when it is dropped, and a writer that does not
        // end must not hold up the end of the process
        let wait = move || drop(tell.send(thread.join()));
        std::thread::Builder::new().name("ledger-end".to_owned()).spawn(wait).map_err(|error| LedgerError::Internal(error.to_string()))?;
        ended.await.map_err(|_| LedgerError::Panicked)?.map_err(|_| LedgerError::Panicked)
    }
}

/// Where the answer to an append arrives.
type AppendAnswer = oneshot::Receiver<Result<Appended, LedgerError>>;

/// What a job that is not a batch counts for in a flush.
const JOB_BYTES: usize = 4096;

/// How far the clock may be set back before it matters.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
