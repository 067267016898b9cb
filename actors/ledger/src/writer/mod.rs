//! The writer: one named thread, one connection, and everything that is ever written.

mod group;
mod headroom;
pub(crate) mod queue;
mod retention;
mod upkeep;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use diesel::prelude::*;
use slog::{error, warn};
use tokio::sync::oneshot;

use self::{headroom::Headroom, queue::Taken};
use crate::{
    batch::SignalBatch,
    error::{FailureReason, LedgerError, StorageFailure},
    ledger::{Appended, Shared},
    open,
    read::Reader,
    tables::{claims::Claims, cursors::Snapshot},
    tx::{Heads, Tx},
};

/// Something for the writer to do.
pub(crate) enum Job {
    /// Store signals.
    Append(AppendJob),
    /// Run a closure in a savepoint.
    Run(Box<dyn Task>),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Job::Append(_) => "Append",
            Job::Run(_) => "Run",
        })
    }
}

impl Job {
    /// Answers without doing it.
    pub(crate) fn refuse(self, error: &LedgerError) {
        match self {
            Job::Append(job) => job.answer(Err(error.clone())),
            Job::Run(task) => task.finish(Err(error.clone())),
        }
    }
}

/// Signals and where to answer.
pub(crate) struct AppendJob {
    pub(crate) batch: SignalBatch,
    /// What the sender wants to know after a restart if, and only if, these signals are stored.
    pub(crate) saves: Option<Box<(String, Vec<Snapshot>)>>,
    pub(crate) reply: oneshot::Sender<Result<Appended, LedgerError>>,
}

impl AppendJob {
    fn answer(self, answer: Result<Appended, LedgerError>) {
        // nobody listens if the client hung up; the signals are stored all the same
        drop(self.reply.send(answer));
    }
}

/// A closure whose result type the queue need not know.
pub(crate) trait Task: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), LedgerError>;
    /// Answers: with what `run` returned if `outcome` is `Ok`.
    fn finish(self: Box<Self>, outcome: Result<(), LedgerError>);
}

/// A closure, its result, and where to answer.
pub(crate) struct WriteJob<T, F> {
    job: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, F> WriteJob<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
{
    #[allow(clippy::new_ret_no_self, reason = "a task is only ever used with its answer")]
    pub(crate) fn new(job: F) -> (Box<dyn Task>, oneshot::Receiver<Result<T, LedgerError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(WriteJob { job: Some(job), value: None, reply }), answer)
    }
}

impl<T, F> Task for WriteJob<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), LedgerError> {
        let job = self.job.take().ok_or_else(|| LedgerError::Internal("a job ran twice".to_owned()))?;
        self.value = Some(job(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), LedgerError>) {
        let WriteJob { value, reply, .. } = *self;
        let answer = outcome.and_then(|()| value.ok_or(LedgerError::Panicked));
        drop(reply.send(answer));
    }
}

/// What the thread owns.
pub(crate) struct WriterState {
    shared: Arc<Shared>,
    conn: SqliteConnection,
    heads: Heads,
    claims: Claims,
    upkeep: upkeep::Upkeep,
    /// The write-ahead log, open since before the writes that may fail; see [`WriterState::settled`].
    wal: Option<File>,
}

impl WriterState {
    pub(crate) fn new(shared: &Arc<Shared>, conn: SqliteConnection, heads: Heads) -> WriterState {
        let claims = Claims::new(shared.options.limits.claims);
        WriterState { shared: shared.clone(), conn, heads, claims, upkeep: upkeep::Upkeep::default(), wal: None }
    }

    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads on the writer's own connection.
    pub(crate) fn read<T>(&mut self, query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        query(&mut Reader { conn: &mut self.conn, clock: &self.shared.options.clock })
    }
}

/// Starts the thread with a connection that is already there.
pub(crate) fn start(shared: Arc<Shared>, state: WriterState) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || live(&shared, Some(state)))
}

/// Starts the thread anew; it makes its own connection.
pub(crate) fn restart(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || live(&shared, None))
}

/// Works until the queue is closed. Outside a job nothing should panic; if it does all the same, the
/// state is thrown away and built anew from the tables.
fn live(shared: &Arc<Shared>, mut state: Option<WriterState>) {
    loop {
        let Some(current) = state.take().or_else(|| reconnect(shared)) else { break };
        match catch_unwind(AssertUnwindSafe(|| work(current))) {
            Ok(Ended::Closed) => break,
            Ok(Ended::Failed) => {}
            Err(_) => {
                shared.metrics.writer_restarts.inc();
                error!(shared.options.log, "the writer panicked outside a job; it starts anew");
            }
        }
    }
    let stopped = StorageFailure::new(FailureReason::Stopped, "the ledger is shut down");
    shared.storage.fail(stopped, shared.options.clock.now());
    for job in shared.queue.take_all() {
        job.refuse(&LedgerError::stopped());
    }
}

/// Why the loop of the writer ended.
enum Ended {
    /// The queue is closed and empty.
    Closed,
    /// Storage failed; the connection must be made anew.
    Failed,
}

fn work(mut state: WriterState) -> Ended {
    let shared = state.shared.clone();
    loop {
        match shared.queue.take(state.upkeep.patience(&shared.options.limits)) {
            taken if shared.storage.is_fatal() => return abandon(state, taken),
            Taken::Group(jobs) => {
                shared.metrics.queued(shared.queue.lengths());
                if let Err(failure) = state.commit(jobs) {
                    return give_up(state, failure);
                }
                if let Err(failure) = state.after_commit() {
                    return give_up(state, failure);
                }
            }
            Taken::Idle => {
                if let Err(failure) = state.when_idle() {
                    return give_up(state, failure);
                }
            }
            Taken::Closed => {
                state.stop();
                return Ended::Closed;
            }
        }
    }
}

/// Somebody else, a reader or the check behind an unclean start, found that storage cannot be trusted:
/// nothing is written any more, not even the mark of an orderly stop.
fn abandon(state: WriterState, taken: Taken<Job>) -> Ended {
    let refusal = state.shared.storage.failure().map_or_else(LedgerError::stopped, LedgerError::from);
    // as in `give_up`
    std::mem::forget(state.conn);
    match taken {
        Taken::Group(jobs) => jobs.into_iter().for_each(|job| job.refuse(&refusal)),
        Taken::Idle => {}
        Taken::Closed => return Ended::Closed,
    }
    Ended::Failed
}

/// Storage failed: this connection is not used again.
fn give_up(state: WriterState, failure: StorageFailure) -> Ended {
    let fatal = failure.reason.is_fatal();
    storage_failed(&state.shared, failure);
    if fatal {
        // closing the last connection would checkpoint the log and delete it: after a failed sync nothing may be
        // copied from memory as if it were on the disk, and the next start needs the log
        std::mem::forget(state.conn);
    }
    Ended::Failed
}

/// Records the failure, gives up the reserve on a full disk, and tells the process when it must end.
fn storage_failed(shared: &Shared, failure: StorageFailure) {
    error!(shared.options.log, "storage does not take writes"; "reason" => failure.reason.as_str(), "detail" => &failure.detail);
    shared.metrics.storage_failures.with_label_values(&[failure.reason.as_str()]).inc();
    shared.metrics.storage_failed.set(1);
    if failure.reason == FailureReason::Full && shared.files.give_up_reserve() {
        warn!(shared.options.log, "the reserve was given up"; "bytes" => shared.files.reserve_bytes);
    }
    shared.fail(&headroom::explained(shared, failure));
}

/// Makes a connection, as often as it takes; refuses what is queued meanwhile. `None` when the queue is
/// closed or the process must end.
fn reconnect(shared: &Arc<Shared>) -> Option<WriterState> {
    let limits = &shared.options.limits;
    let mut headroom = Headroom::default();
    loop {
        if let Some(failure) = shared.storage.failure() {
            let refusal = LedgerError::from(failure.clone());
            if failure.reason.is_fatal() {
                for job in shared.queue.take_all() {
                    job.refuse(&refusal);
                }
                match shared.queue.take(Some(limits.probe_every)) {
                    Taken::Group(jobs) => jobs.into_iter().for_each(|job| job.refuse(&refusal)),
                    Taken::Idle => {}
                    Taken::Closed => return None,
                }
                continue;
            }
        }
        match open_again(shared) {
            Ok(mut state) => {
                let Some(failure) = shared.storage.failure() else { return Some(state) };
                match state.probe() {
                    Ok(()) if headroom.is_regained(shared, failure.reason) => {
                        shared.storage.heal();
                        shared.metrics.storage_healed.inc();
                        shared.metrics.storage_failed.set(0);
                        warn!(shared.options.log, "storage takes writes again");
                        return Some(state);
                    }
                    // writes work, but only because the reserve was given up: people's work only
                    Ok(()) => {
                        match serve_control(shared, &mut state) {
                            Served::Closed => return None,
                            Served::Failed => headroom.lost(),
                            Served::Well => {}
                        }
                        continue;
                    }
                    Err(failure) => storage_still_failed(shared, failure),
                }
            }
            Err(failure) => storage_still_failed(shared, failure),
        }
        headroom.lost();
        let refusal = shared.storage.failure().map_or_else(LedgerError::stopped, LedgerError::from);
        for job in shared.queue.take_all() {
            job.refuse(&refusal);
        }
        match shared.queue.take(Some(limits.probe_every)) {
            Taken::Group(jobs) => jobs.into_iter().for_each(|job| job.refuse(&refusal)),
            Taken::Idle => {}
            Taken::Closed => return None,
        }
    }
}

/// How a while with the reserve given up went.
enum Served {
    /// What came was done, or nothing came.
    Well,
    /// Not even that could be written.
    Failed,
    /// The queue is closed.
    Closed,
}

/// With the reserve given up: does what people wait for, refuses the rest, until it is time to try again.
fn serve_control(shared: &Arc<Shared>, state: &mut WriterState) -> Served {
    match shared.queue.take(Some(shared.options.limits.probe_every)) {
        Taken::Closed => Served::Closed,
        Taken::Idle => Served::Well,
        Taken::Group(jobs) => {
            let refusal = shared.storage.failure().map_or_else(LedgerError::stopped, LedgerError::from);
            let mut control = Vec::new();
            for job in jobs {
                match job {
                    Job::Run(_) => control.push(job),
                    Job::Append(_) => job.refuse(&refusal),
                }
            }
            match state.commit(control) {
                Ok(()) => Served::Well,
                Err(failure) => {
                    storage_still_failed(shared, failure);
                    Served::Failed
                }
            }
        }
    }
}

fn storage_still_failed(shared: &Shared, failure: StorageFailure) {
    shared.fail(&headroom::explained(shared, failure));
}

fn open_again(shared: &Arc<Shared>) -> Result<WriterState, StorageFailure> {
    let io = |error: &dyn std::fmt::Display| StorageFailure::new(FailureReason::Io, error.to_string());
    let path = shared.files.database();
    let mut conn =
        open::connect(&shared.files.url, &path, shared.options.limits.busy_timeout.as_millis()).map_err(|error| match error {
            crate::OpenError::Database { source: LedgerError::Unavailable(failure), .. } => failure,
            crate::OpenError::Damaged { detail, .. } => StorageFailure::new(FailureReason::Damaged, detail),
            other => io(&other),
        })?;
    let heads = open::heads_with_tree(&mut conn).map_err(|error| match error {
        LedgerError::Unavailable(failure) => failure,
        LedgerError::Damaged(detail) => StorageFailure::new(FailureReason::Damaged, detail),
        other => io(&other),
    })?;
    // what was committed but not told because the writer died in between is read from the tables
    shared.signals.tell(heads.signal);
    shared.alerts.tell(heads.alert);
    shared.events.tell(heads.event);
    shared.high_water.store(heads.audit.last_ts.millis(), Ordering::Relaxed);
    shared.audit.send_replace(heads.audit.size);
    Ok(WriterState::new(shared, conn, heads))
}
