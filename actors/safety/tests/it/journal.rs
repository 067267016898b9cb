//! An executor that keeps a journal of what it was given to run, and runs nothing.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    execution::{ExecutionEnd, ExecutionStatus},
    ids::{ApprovalId, ExecutionId},
};
use opspilot_safety::{Execute, ExecutionPermit, Facts, Needs, Recovered, Turn};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Carries plans out by writing their names into a file, forced to the device before anything else happens.
pub(crate) struct Journal {
    path: PathBuf,
    /// Whether runs wait for [`Journal::let_go`] before they end.
    holds: Mutex<bool>,
    gone_on: Notify,
    panics: Mutex<bool>,
    /// What a plan depends on, where it is not what it always is.
    facts: Mutex<Facts>,
    /// The most runs at once.
    at_once: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    /// How long a run lasts, at least.
    lasts: Mutex<Duration>,
}

impl Journal {
    pub(crate) fn new(dir: &Path) -> Arc<Journal> {
        let path = dir.join("starts");
        Arc::new(Journal {
            path,
            holds: Mutex::new(false),
            gone_on: Notify::new(),
            panics: Mutex::new(false),
            facts: Mutex::default(),
            at_once: Mutex::default(),
            lasts: Mutex::default(),
        })
    }

    /// Runs do not end from now on.
    pub(crate) fn hold(&self) {
        *self.holds.lock() = true;
    }

    /// Runs end again.
    pub(crate) fn let_go(&self) {
        *self.holds.lock() = false;
        self.gone_on.notify_waiters();
    }

    /// The next run makes the executor panic after its start.
    pub(crate) fn panic_next(&self) {
        *self.panics.lock() = true;
    }

    /// From now on a file, a variable or the limits are different.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock());
    }

    /// So many runs at once, and no more.
    pub(crate) fn at_once(&self, most: usize) {
        *self.at_once.lock() = Some(Arc::new(tokio::sync::Semaphore::new(most)));
    }

    /// Every run from now on lasts so long.
    pub(crate) fn last(&self, time: Duration) {
        *self.lasts.lock() = time;
    }

    /// Every start there ever was: execution and approval.
    pub(crate) fn starts(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once(' ')).map(|(run, approval)| (run.to_owned(), approval.to_owned())).collect()
    }

    pub(crate) fn starts_of(&self, approval: &ApprovalId) -> usize {
        self.starts().iter().filter(|(_, of)| of == approval.as_str()).count()
    }

    fn write(&self, permit: &ExecutionPermit) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        writeln!(file, "{} {}", permit.execution_id(), permit.approval_id()).unwrap();
        file.sync_data().unwrap();
    }
}

/// The journal as the gate takes it.
pub(crate) struct Fake(pub(crate) Arc<Journal>);

impl Execute for Fake {
    fn facts(&self, needs: &Needs, hashed: &dyn Fn(&str, &[u8]) -> String) -> Facts {
        let changed = self.0.facts.lock().clone();
        let mut facts = facts(needs);
        facts.files.extend(changed.files);
        facts.env = changed.env.into_iter().map(|(name, value)| (name.clone(), hashed(&name, value.as_bytes()))).collect();
        Facts { limits: changed.limits, ..facts }
    }

    fn turn(&self) -> Result<Turn, usize> {
        let Some(turns) = self.0.at_once.lock().clone() else { return Ok(Turn::unbounded()) };
        turns.try_acquire_owned().map(Turn::holding).map_err(|_| 1)
    }

    fn run(&self, permit: ExecutionPermit) -> BoxFuture<'static, ExecutionEnd> {
        let journal = Arc::clone(&self.0);
        Box::pin(async move {
            assert_eq!(opspilot_kernel::plan::PlanDigest::of(permit.plan_bytes()), permit.digest());
            assert_eq!(serde_json::from_slice::<opspilot_kernel::plan::Plan>(permit.plan_bytes()).unwrap(), *permit.plan());
            journal.write(&permit);
            if std::mem::take(&mut *journal.panics.lock()) {
                panic!("the executor breaks");
            }
            let lasts = *journal.lasts.lock();
            tokio::time::sleep(lasts).await;
            loop {
                let gone_on = journal.gone_on.notified();
                if !*journal.holds.lock() {
                    break;
                }
                gone_on.await;
            }
            ExecutionEnd { exit_code: Some(0), stdout: "done\n".to_owned(), ..ExecutionEnd::bare(ExecutionStatus::Succeeded, "") }
        })
    }

    fn recover(&self, unfinished: &[ExecutionId]) -> BoxFuture<'static, Vec<(ExecutionId, Recovered)>> {
        let starts = self.0.starts();
        let found = unfinished.iter().map(|id| {
            let is_started = starts.iter().any(|(run, _)| run == id.as_str());
            let end = if is_started { Recovered::Unknown(ExecutionEnd::interrupted()) } else { Recovered::NotStarted };
            (id.clone(), end)
        });
        let found = found.collect();
        Box::pin(async move { found })
    }
}

/// Every file is there, and nothing else is said.
pub(crate) fn facts(needs: &Needs) -> Facts {
    Facts { files: needs.files.iter().map(|path| (path.clone(), Ok("0".repeat(64)))).collect(), ..Facts::default() }
}
