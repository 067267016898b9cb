//! Executions: the run of an approved plan.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{ApprovalId, ExecutionId},
    time::Timestamp,
};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// It runs, or is about to.
    Executing,
    /// It ended with status 0.
    Succeeded,
    /// It ended otherwise, or never started.
    Failed,
    /// It took too long and was ended.
    TimedOut,
    /// It was cut off: nobody knows how it ended.
    Unknown,
}

impl ExecutionStatus {
    /// The status as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExecutionStatus::Executing => "executing",
            ExecutionStatus::Succeeded => "succeeded",
            ExecutionStatus::Failed => "failed",
            ExecutionStatus::TimedOut => "timed_out",
            ExecutionStatus::Unknown => "unknown",
        }
    }
}

impl std::str::FromStr for ExecutionStatus {
    type Err = UnknownExecutionStatus;
    fn from_str(text: &str) -> Result<ExecutionStatus, UnknownExecutionStatus> {
        use ExecutionStatus::{Executing, Failed, Succeeded, TimedOut, Unknown};
        [Executing, Succeeded, Failed, TimedOut, Unknown].into_iter().find(|status| status.as_str() == text).ok_or(UnknownExecutionStatus)
    }
}

/// The text names no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown status of an execution")]
pub struct UnknownExecutionStatus;

/// A run, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Its name.
    pub id: ExecutionId,
    /// The approval that was used up for it.
    pub approval_id: ApprovalId,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Why, where the status alone does not say it: `not_started`, `interrupted`, `signal 9`, …
    pub reason: Option<String>,
    /// What the program returned.
    pub exit_code: Option<i32>,
    /// What it wrote to its standard output: the head and the tail.
    pub stdout: String,
    /// What it wrote to its standard error: the head and the tail.
    pub stderr: String,
    /// Whether something between head and tail is missing.
    pub truncated: bool,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What held it in, as it was in force: `pgroup`, `cgroup`.
    pub containment: Option<String>,
    /// What else kept it from doing harm, as it was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Value>,
    /// Whether signals showed afterwards that it helped; nobody looked yet when absent.
    pub verified: Option<bool>,
}

/// How a run ended, as its executor tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionEnd {
    /// How it ended; never [`ExecutionStatus::Executing`].
    pub status: ExecutionStatus,
    /// Why, where the status alone does not say it: `not_started`, `interrupted`, `signal 9`, …
    pub reason: Option<String>,
    /// What the program returned.
    pub exit_code: Option<i32>,
    /// What it wrote to its standard output: the head and the tail.
    pub stdout: String,
    /// What it wrote to its standard error: the head and the tail.
    pub stderr: String,
    /// Whether something between head and tail is missing.
    pub truncated: bool,
    /// What held it in, as it was in force.
    pub containment: Option<String>,
    /// What else kept it from doing harm, as it was in force; no floats.
    pub sandbox: Option<Value>,
}

impl ExecutionEnd {
    /// An end with nothing but a status and a reason.
    pub fn bare(status: ExecutionStatus, reason: impl Into<String>) -> ExecutionEnd {
        ExecutionEnd {
            status,
            reason: Some(reason.into()),
            exit_code: None,
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
            containment: None,
            sandbox: None,
        }
    }

    /// Nothing was ever started.
    pub fn not_started() -> ExecutionEnd {
        ExecutionEnd::bare(ExecutionStatus::Failed, "not_started")
    }

    /// It was cut off, and nobody knows how far it got.
    pub fn interrupted() -> ExecutionEnd {
        ExecutionEnd::bare(ExecutionStatus::Unknown, "interrupted")
    }
}
