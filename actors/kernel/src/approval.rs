//! Approvals: one proposed plan on its way through people's hands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{ApprovalId, ExecutionId, IncidentId},
    plan::{Plan, PlanDigest, Risk},
    time::Timestamp,
};

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalStatus {
    /// It waits for people.
    Pending,
    /// Enough people agreed; the token may be used.
    Approved,
    /// The token was used; the plan runs.
    Executing,
    /// It ran, and ended well.
    Succeeded,
    /// It ran, and ended badly; or it could not be started.
    Failed,
    /// It was cut off in the middle: nobody knows. A person looks and closes it.
    Unknown,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// It was approved, and not executed in time.
    Lapsed,
    /// The approval was taken back.
    Revoked,
    /// Another proposal took its place.
    Superseded,
    /// Its proposer took it back, or its incident was resolved.
    Withdrawn,
}

impl ApprovalStatus {
    /// Every status.
    pub const ALL: [ApprovalStatus; 12] = [
        ApprovalStatus::Pending,
        ApprovalStatus::Approved,
        ApprovalStatus::Executing,
        ApprovalStatus::Succeeded,
        ApprovalStatus::Failed,
        ApprovalStatus::Unknown,
        ApprovalStatus::Denied,
        ApprovalStatus::Expired,
        ApprovalStatus::Lapsed,
        ApprovalStatus::Revoked,
        ApprovalStatus::Superseded,
        ApprovalStatus::Withdrawn,
    ];

    /// The status as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ApprovalStatus::Pending => "pending",
            ApprovalStatus::Approved => "approved",
            ApprovalStatus::Executing => "executing",
            ApprovalStatus::Succeeded => "succeeded",
            ApprovalStatus::Failed => "failed",
            ApprovalStatus::Unknown => "unknown",
            ApprovalStatus::Denied => "denied",
            ApprovalStatus::Expired => "expired",
            ApprovalStatus::Lapsed => "lapsed",
            ApprovalStatus::Revoked => "revoked",
            ApprovalStatus::Superseded => "superseded",
            ApprovalStatus::Withdrawn => "withdrawn",
        }
    }

    /// Whether something may still come of it: its incident waits.
    pub const fn is_under_way(self) -> bool {
        matches!(self, ApprovalStatus::Approved | ApprovalStatus::Executing)
    }
}

impl std::str::FromStr for ApprovalStatus {
    type Err = UnknownApprovalStatus;
    fn from_str(text: &str) -> Result<ApprovalStatus, UnknownApprovalStatus> {
        ApprovalStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownApprovalStatus)
    }
}

/// The text names no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown status of an approval")]
pub struct UnknownApprovalStatus;

/// What proposed an action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", content = "id", rename_all = "lowercase")]
pub enum Proposer {
    /// A rule of the configuration, by its name.
    Rule(String),
    /// A person, by the account's name.
    User(String),
    /// A model, by its name. It never approves and never executes.
    Ai(String),
}

/// What an approver is shown besides the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// In words and as a command line, quoted so that it is read in one way.
    pub text: String,
    /// How many targets it touches.
    pub targets: u64,
}

/// How many people must agree, and who did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// How many different people are needed.
    pub required: u32,
    /// Who agreed so far.
    pub approved_by: Vec<String>,
}

/// One proposed plan, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its name.
    pub id: ApprovalId,
    /// The incident it is to help.
    pub incident_id: IncidentId,
    /// The action of the catalogue.
    pub action: String,
    /// One line for people.
    pub title: String,
    /// How much harm it can do.
    pub risk: Risk,
    /// What the action's slots were filled with.
    pub params: BTreeMap<String, Value>,
    /// What exactly would run.
    pub plan: Plan,
    /// What approval binds to.
    pub plan_digest: PlanDigest,
    /// What an approver is shown.
    pub preview: Preview,
    /// Why it was proposed.
    pub reasoning: String,
    /// Who proposed it.
    pub proposed_by: Proposer,
    /// Where it stands.
    pub status: ApprovalStatus,
    /// How many people must agree, and who did.
    pub quorum: Quorum,
    /// When it was proposed.
    pub created_at: Timestamp,
    /// When it expires unless it is decided.
    pub approve_by: Timestamp,
    /// When the approval lapses unless it is executed; 15 minutes after it was given.
    pub execute_by: Option<Timestamp>,
    /// Its run.
    pub execution_id: Option<ExecutionId>,
}
