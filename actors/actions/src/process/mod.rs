//! The process executor: runs a permitted plan as a program on this machine, without a shell. Linux only.
//!
//! ```text
//! service ──socket──▶ opspilot __run        helper: one per run, one thread
//!   a thread waits      │ evidence in <data>/runs/<id>.json: spawned, then exited, each on the disk first
//!                       └─▶ opspilot __begin  confines itself, then becomes the program
//! ```
//!
//! What holds a program in: a session and group of its own, a cleared environment, no descriptor but the three standard
//! ones, limits, no new privileges, the end of its helper, and the helper's end of everything it leaves behind. What
//! does not is named in each record (`sandbox.not_in_force`): the program sees the file system and the network as the
//! user it runs as does.
//!
//! However the service ends, the socket to the helper closes, and the helper ends the program. The evidence it writes
//! tells the next service what happened; see [`recover`].

mod capture;
mod environment;
mod evidence;
mod facts;
mod helper;
mod inner;
mod proc;
mod program;
mod recover;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    execution::{ExecutionEnd, ExecutionStatus},
    ids::ExecutionId,
    plan::{Plan, PlanDigest, PlanLimits},
};
use opspilot_safety::{Execute, ExecutionPermit, Facts, Needs, Recovered, Turn};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, oneshot};

use self::{
    evidence::{Ended, Exit, Runs},
    wire::{Bounds, Order, Outcome, Report},
};
use crate::failpoint::failpoint;

/// What the helper is called with, and what the process that becomes the program is called with.
const RUN: &str = "__run";
const BEGIN: &str = "__begin";
/// What holds a run in.
const CONTAINMENT: &str = "pgroup";
/// How long the helper may take beyond the plan's time: it ends the program, waits for its outputs, and sweeps.
const BEYOND: Duration = Duration::from_secs(30);

/// Runs as a helper if that is what the arguments say. To be asked before anything else is done: a helper has one
/// thread.
pub fn helper(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Option<ExitCode> {
    let first = arguments.into_iter().nth(1)?;
    match first.as_ref().to_str()? {
        RUN => Some(helper::help()),
        BEGIN => Some(inner::become_program()),
        _ => None,
    }
}

/// Whether a program may run: nobody but root and the service's own user can change it, or lead its path elsewhere. If
/// not, says why.
pub fn trusted(program: &std::path::Path) -> Result<(), String> {
    let path = program.to_str().ok_or_else(|| format!("the path {} is no text", program.display()))?;
    program::Program::open(path, rustix::process::geteuid().as_raw()).map(drop)
}

/// The bounds on runs: what is in force when a plan is rendered stands in it, and holds for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// Bytes of address space of each process.
    pub memory: u64,
    /// Bytes of each file that is written.
    pub file_size: u64,
}

/// Runs plans as programs on this machine.
pub struct ProcessExecutor {
    inner: Arc<Inner>,
}

struct Inner {
    runs: Runs,
    limits: RwLock<RunLimits>,
    turns: Arc<Semaphore>,
    at_once: usize,
    hashes: facts::Hashes,
    helper: PathBuf,
    log: slog::Logger,
}

/// One run, as the permit describes it.
struct Job {
    id: ExecutionId,
    digest: PlanDigest,
    bytes: Vec<u8>,
    plan: Plan,
}

impl ProcessExecutor {
    /// Keeps its evidence in `runs`; so many may run at once, and there is no turn for others.
    pub fn new(runs: PathBuf, limits: RunLimits, at_once: usize, log: slog::Logger) -> io::Result<ProcessExecutor> {
        ProcessExecutor::with_helper(PathBuf::from("/proc/self/exe"), runs, limits, at_once, log)
    }

    fn with_helper(helper: PathBuf, runs: PathBuf, limits: RunLimits, at_once: usize, log: slog::Logger) -> io::Result<ProcessExecutor> {
        let at_once = at_once.max(1);
        let turns = Arc::new(Semaphore::new(at_once));
        let (runs, limits, hashes) = (Runs::open(runs)?, RwLock::new(limits), facts::Hashes::default());
        Ok(ProcessExecutor { inner: Arc::new(Inner { runs, limits, turns, at_once, hashes, helper, log }) })
    }

    /// Holds for the plans that are rendered from now on; gives what held until now.
    pub fn set_limits(&self, limits: RunLimits) -> RunLimits {
        std::mem::replace(&mut *self.inner.limits.write(), limits)
    }

    fn carry_out(&self, job: Job) -> BoxFuture<'static, ExecutionEnd> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let (done, end) = oneshot::channel();
            // blocking, for as long as the run takes; it goes on even if nobody waits for it
            let thread = std::thread::Builder::new().name("action-run".to_owned()).spawn(move || {
                let end = inner.carry_out(&job);
                // nobody waits only if the process is about to end
                drop(done.send(end));
            });
            match thread {
                Ok(_) => end.await.unwrap_or_else(|_| ExecutionEnd::interrupted()),
                Err(error) => ExecutionEnd::bare(ExecutionStatus::Failed, format!("not_started: no thread: {error}")),
            }
        })
    }
}

impl Execute for ProcessExecutor {
    fn facts(&self, needs: &Needs, hashed: &dyn Fn(&str, &[u8]) -> String) -> Facts {
        let files = needs.files.iter().map(|path| (path.clone(), self.inner.hashes.of(path))).collect();
        let set = |name: &String| std::env::var_os(name).map(|value| (name.clone(), hashed(name, value.as_bytes())));
        let limits = *self.inner.limits.read();
        let limits = Some(PlanLimits { memory: limits.memory, file_size: limits.file_size });
        Facts { files, env: needs.env.iter().filter_map(set).collect(), limits }
    }

    fn turn(&self) -> Result<Turn, usize> {
        let free = Arc::clone(&self.inner.turns).try_acquire_owned();
        free.map(Turn::holding).map_err(|_| self.inner.at_once)
    }

    fn run(&self, permit: ExecutionPermit) -> BoxFuture<'static, ExecutionEnd> {
        let (id, digest, plan) = (permit.execution_id().clone(), permit.digest(), permit.plan().clone());
        self.carry_out(Job { id, digest, bytes: permit.plan_bytes().to_vec(), plan })
    }

    fn recover(&self, unfinished: &[ExecutionId]) -> BoxFuture<'static, Vec<(ExecutionId, Recovered)>> {
        let (inner, unfinished) = (Arc::clone(&self.inner), unfinished.to_vec());
        Box::pin(async move {
            let (done, found) = oneshot::channel();
            let ids = unfinished.clone();
            let thread = std::thread::Builder::new().name("action-recovery".to_owned()).spawn(move || {
                let found: Vec<_> = ids.into_iter().map(|id| (id.clone(), inner.recovered(&id))).collect();
                inner.prune(&found);
                drop(done.send(found));
            });
            let nobody_knows = |why: String| {
                let end = ExecutionEnd::bare(ExecutionStatus::Unknown, why);
                unfinished.into_iter().map(|id| (id, Recovered::Unknown(end.clone()))).collect()
            };
            match thread {
                Ok(_) => found.await.unwrap_or_else(|_| nobody_knows("interrupted: its evidence could not be looked at".to_owned())),
                Err(error) => nobody_knows(format!("interrupted: its evidence could not be looked at: {error}")),
            }
        })
    }
}

impl Inner {
    /// Has a helper carry it out. Blocks until it is over.
    fn carry_out(&self, job: &Job) -> ExecutionEnd {
        failpoint!("actions::exec_after_commit_before_spawn");
        let said = match self.converse(job) {
            Ok(said) => said,
            Err(Unspoken::NotStarted(why)) => {
                slog::warn!(self.log, "a run could not be started"; "execution" => %job.id, "reason" => &why);
                return ExecutionEnd::bare(ExecutionStatus::Failed, format!("not_started: {why}"));
            }
            Err(Unspoken::Lost(why)) => {
                slog::warn!(self.log, "the helper of a run was lost"; "execution" => %job.id, "reason" => &why);
                return match self.recovered(&job.id) {
                    Recovered::Finished(end) | Recovered::Unknown(end) => end,
                    Recovered::NotStarted => ExecutionEnd::not_started(),
                };
            }
        };
        failpoint!("actions::after_exit_before_result");
        match said {
            Report::Ended(outcome) => finished(*outcome, &job.plan),
            Report::Refused { reason } => ExecutionEnd::bare(ExecutionStatus::Failed, format!("not_started: {reason}")),
            Report::Spawned(_) => ExecutionEnd::interrupted(),
        }
    }

    /// Starts the helper, gives it its order and waits for its last word.
    fn converse(&self, job: &Job) -> Result<Report, Unspoken> {
        let not_started = |error: io::Error| Unspoken::NotStarted(error.to_string());
        let plan = String::from_utf8(job.bytes.clone()).map_err(|_| Unspoken::NotStarted("the plan is no text".to_owned()))?;
        let (mut socket, theirs) = UnixStream::pair().map_err(not_started)?;
        let mut helper = Kept(self.spawn(job, theirs).map_err(not_started)?);
        let in_force = *self.limits.read();
        let limits = job.plan.limits.unwrap_or(PlanLimits { memory: in_force.memory, file_size: in_force.file_size });
        let order = Order {
            run: job.id.clone(),
            digest: job.digest,
            plan,
            runs: self.runs.dir().to_owned(),
            limits: Bounds { memory: limits.memory, file_size: limits.file_size },
            parent: 0,
        };
        let lost = |error: io::Error| Unspoken::Lost(error.to_string());
        let patience = Duration::from_secs(job.plan.timeout_secs) + BEYOND;
        socket.set_read_timeout(Some(patience)).map_err(lost)?;
        wire::send(&mut socket, &order).map_err(lost)?;
        loop {
            match wire::receive(&mut socket).map_err(lost)? {
                Some(Report::Spawned(program)) => {
                    slog::info!(self.log, "a run began"; "execution" => %job.id, "pid" => program.pid);
                    failpoint!("actions::after_spawn");
                }
                Some(last) => {
                    // it has said everything, and ends
                    drop(helper.0.wait());
                    return Ok(last);
                }
                None => return Err(Unspoken::Lost("it ended without a word".to_owned())),
            }
        }
    }

    fn spawn(&self, job: &Job, theirs: UnixStream) -> io::Result<Child> {
        Command::new(&self.helper)
            .arg0("opspilot-run")
            .arg(RUN)
            .env_clear()
            .envs(environment::of(&job.id, &job.plan.env, |name| std::env::var_os(name)))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
    }
}

/// A helper that does not outlive its use: it is ended and reaped, and with it ends what it watches.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
        }
        drop(self.0.wait());
    }
}

/// Why the helper did not say how it ended.
enum Unspoken {
    /// There was none.
    NotStarted(String),
    /// There was one; its evidence tells how far it came.
    Lost(String),
}

/// A run that came to its end, as it is recorded.
fn finished(outcome: Outcome, plan: &Plan) -> ExecutionEnd {
    let Outcome { exit, stdout, stderr, truncated, survivors, sandbox } = outcome;
    let (mut status, mut reason) = judged(&exit);
    match exit.ended {
        Some(Ended::Timeout) => reason = Some(format!("ended after {} s", plan.timeout_secs)),
        Some(Ended::Idle) => reason = Some(format!("ended after {} s without output", plan.idle_timeout_secs.unwrap_or_default())),
        Some(Ended::Interrupted) | None => {}
    }
    if survivors > 0 {
        // it is not over: a person has to look before anything else acts there
        status = ExecutionStatus::Unknown;
        let more = format!("{survivors} of its processes could not be ended");
        reason = Some(reason.map_or_else(|| more.clone(), |reason| format!("{reason}; {more}")));
    }
    let (containment, sandbox) = (Some(CONTAINMENT.to_owned()), Some(sandbox));
    ExecutionEnd { status, reason, exit_code: exit.code, stdout, stderr, truncated, containment, sandbox }
}

/// What the end of a program means.
fn judged(exit: &Exit) -> (ExecutionStatus, Option<String>) {
    match (exit.ended, exit.code, exit.signal) {
        (Some(Ended::Interrupted), ..) => (ExecutionStatus::Unknown, Some("interrupted".to_owned())),
        (Some(Ended::Timeout | Ended::Idle), ..) => (ExecutionStatus::TimedOut, None),
        (None, Some(0), _) => (ExecutionStatus::Succeeded, None),
        (None, Some(_), _) => (ExecutionStatus::Failed, None),
        (None, None, Some(signal)) => (ExecutionStatus::Failed, Some(format!("signal {signal}"))),
        (None, None, None) => (ExecutionStatus::Unknown, Some("it did not end when it was killed".to_owned())),
    }
}

/// Lets others have the processor for so long.
fn pause(span: Duration) {
    let span = rustix::event::Timespec::try_from(span).ok();
    attempt(rustix::event::poll(&mut [], span.as_ref()));
}

/// Something that may fail: it was too late for it, or is looked at again.
fn attempt<T, E>(_: Result<T, E>) {}
