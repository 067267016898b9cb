//! Permits: the only thing an executor runs by. One is made for each used token, by the gate and nowhere else.

use std::{any::Any, fmt, time::Duration};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    execution::{Execution, ExecutionEnd},
    ids::{ApprovalId, ExecutionId},
    plan::{Plan, PlanDigest},
};
use opspilot_ledger::Started;

use crate::facts::{Facts, Needs};

/// Leave to run one plan, once: proof that its token was used up, on record. It cannot be made, copied, stored or read
/// from anywhere outside of this crate.
pub struct ExecutionPermit {
    execution: ExecutionId,
    approval: ApprovalId,
    plan: Plan,
    bytes: Vec<u8>,
    digest: PlanDigest,
    deadline: Duration,
}

impl ExecutionPermit {
    /// For the gate: leave to run what the ledger just put on record as started. What stands there is all that it takes, and
    /// the ledger alone can make it.
    pub(crate) fn of(started: Started) -> (ExecutionPermit, Execution) {
        let Started { execution, plan, bytes, digest, .. } = started;
        let deadline = Duration::from_secs(plan.timeout_secs);
        let (id, approval) = (execution.id.clone(), execution.approval_id.clone());
        (ExecutionPermit { execution: id, approval, plan, bytes, digest, deadline }, execution)
    }

    /// The run's name.
    pub fn execution_id(&self) -> &ExecutionId {
        &self.execution
    }

    /// The approval that was used up for it.
    pub fn approval_id(&self) -> &ApprovalId {
        &self.approval
    }

    /// What to run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The plan as it was approved, byte for byte.
    pub fn plan_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 over these bytes.
    pub fn digest(&self) -> PlanDigest {
        self.digest
    }

    /// How long the run may take, from its start.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl fmt::Debug for ExecutionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionPermit").field("execution", &self.execution).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What an executor finds out about a run that another process, or its own earlier life, left unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It ended, and this is how: there is evidence.
    Finished(ExecutionEnd),
    /// The program was started, and nobody knows how it ended. It does not run any more.
    Unknown(ExecutionEnd),
    /// The plan was never handed to anything that runs.
    NotStarted,
}

/// A place among the runs that may be under way at once. It is free again when this is dropped.
pub struct Turn(Option<Box<dyn Any + Send>>);

impl Turn {
    /// Holds on to this until the run is over.
    pub fn holding(what: impl Send + 'static) -> Turn {
        Turn(Some(Box::new(what)))
    }

    /// Where there is no bound.
    pub const fn unbounded() -> Turn {
        Turn(None)
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn(bounded: {})", self.0.is_some())
    }
}

/// Carries plans out.
pub trait Execute: Send + Sync + 'static {
    /// Looks up what a run would depend on just now. May block. A value never leaves it but through `hashed`, which is
    /// given where the value stands and gives what may be shown.
    fn facts(&self, needs: &Needs, hashed: &dyn Fn(&str, &[u8]) -> String) -> Facts;

    /// A place for one more run; if there is none, says how many runs are under way. Asked inside the transaction that uses
    /// the token up, so it never waits; held until the run is over.
    fn turn(&self) -> Result<Turn, usize> {
        Ok(Turn::unbounded())
    }

    /// Runs what the permit is for, to its end, and tells how it ended. It is asked once for each permit.
    fn run(&self, permit: ExecutionPermit) -> BoxFuture<'static, ExecutionEnd>;

    /// Finds out what became of runs that were cut off: by evidence, never by running anything again. What still runs
    /// is ended first.
    fn recover(&self, unfinished: &[ExecutionId]) -> BoxFuture<'static, Vec<(ExecutionId, Recovered)>>;
}
