//! The gate: what HTTP, rules and tools hold. Each call is a typed message to the [`ApprovalActor`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opspilot_kernel::{
    approval::{Approval, Proposer},
    consent::{Refusal, Voter},
    execution::{Execution, ExecutionStatus},
    ids::{ApprovalId, ExecutionId, IncidentId},
    plan::{Executor, PlanDigest, Risk},
    principal::Actor,
    time::Timestamp,
};
pub use opspilot_ledger::KillSwitch;
use opspilot_ledger::LedgerError;
use opspilot_runtime::{AskError, Handle};
use serde_json::Value;

use crate::{
    actor::{ApprovalActor, Shared, messages},
    catalogue::Catalogue,
    permit::Execute,
    policy::Policy,
    render::RenderError,
};

/// Longer than any commit should take; whoever asks hears `Unavailable` or `TimedOut` then.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why the gate did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The rules do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The catalogue has no such action; names the nearest one.
    #[error("the catalogue has no such action")]
    NoSuchAction {
        /// What was most likely meant.
        closest: Option<String>,
    },
    /// The parameters do not fit the action.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// What was written makes no sense: where, and why.
    #[error("{why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such thing, or storage refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The gate does not answer just now.
    #[error(transparent)]
    Unavailable(#[from] AskError),
    /// Our fault.
    #[error("internal error of the gate: {0}")]
    Internal(String),
}

/// An action that is to be taken.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Made under this id instead of a random one: the same proposal sent again is found and not made twice.
    pub id: Option<ApprovalId>,
    /// The incident it is to help.
    pub incident: IncidentId,
    /// The action of the catalogue.
    pub action: String,
    /// What its slots are filled with.
    pub params: BTreeMap<String, Value>,
    /// Why.
    pub reasoning: String,
    /// What proposes it.
    pub by: Proposer,
    /// Who is answerable, as the audit log names them.
    pub actor: Actor,
    /// The human behind it: for a person, their key and their session alike, and for a model, whoever asked it.
    pub owner: Option<String>,
}

/// Somebody who decides.
#[derive(Debug, Clone)]
pub struct Approver {
    /// The account.
    pub person: Voter,
    /// Whether they came with an API key.
    pub by_key: bool,
    /// As the audit log names them.
    pub actor: Actor,
}

/// A token that was just made. It is shown to nobody but the approver, once.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// Its name, which may be shown.
    pub token_id: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("token_id", &self.token_id).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What came of agreeing.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// More people are needed.
    Pending(Approval),
    /// Enough people agreed.
    Approved(Approval, IssuedToken),
}

/// What may be proposed.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// A way to the gate. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub(crate) actor: Handle<ApprovalActor>,
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// Renders and proposes an action. An equal proposal that waits already is returned instead, for rules and models.
    pub async fn propose(&self, proposal: Proposal) -> Result<Approval, GateError> {
        self.actor.ask(messages::Propose(proposal), DEADLINE).await?
    }

    /// A person agrees to the plan with this digest. `password_ok` tells whether they just gave their password again.
    pub async fn approve(
        &self,
        id: &ApprovalId,
        approver: Approver,
        digest: PlanDigest,
        reason: String,
        password_ok: bool,
    ) -> Result<Decision, GateError> {
        self.actor.ask(messages::Approve { id: id.clone(), approver, digest, reason, password_ok }, DEADLINE).await?
    }

    /// A person says no; that ends it.
    pub async fn deny(&self, id: &ApprovalId, approver: Approver, reason: String) -> Result<Approval, GateError> {
        self.actor.ask(messages::Deny { id: id.clone(), approver, reason }, DEADLINE).await?
    }

    /// A person takes back an approval that was not executed yet.
    pub async fn revoke(&self, id: &ApprovalId, approver: Approver, reason: String) -> Result<Approval, GateError> {
        self.actor.ask(messages::Revoke { id: id.clone(), approver, reason }, DEADLINE).await?
    }

    /// Whoever proposed it, or an admin, takes it back.
    pub async fn withdraw(&self, id: &ApprovalId, approver: Approver, reason: String) -> Result<Approval, GateError> {
        self.actor.ask(messages::Withdraw { id: id.clone(), approver, reason }, DEADLINE).await?
    }

    /// The last approver lost the answer with the token: the unused one is revoked, a new one has the same deadline.
    pub async fn reissue(&self, id: &ApprovalId, approver: Approver) -> Result<IssuedToken, GateError> {
        self.actor.ask(messages::Reissue { id: id.clone(), approver }, DEADLINE).await?
    }

    /// Uses the token up and starts the run; answers when the start is on record.
    pub async fn execute(&self, id: &ApprovalId, token: &str, caller: Approver) -> Result<Execution, GateError> {
        self.actor.ask(messages::Run { id: id.clone(), token: token.to_owned(), caller }, DEADLINE).await?
    }

    /// A person found out how a run of unknown end ended.
    pub async fn close(
        &self,
        id: &ExecutionId,
        caller: Approver,
        outcome: ExecutionStatus,
        reason: String,
    ) -> Result<Execution, GateError> {
        self.actor.ask(messages::Close { id: id.clone(), caller, outcome, reason }, DEADLINE).await?
    }

    /// Engages or releases the kill switch. Any operator engages it, only an admin releases it.
    pub async fn kill_switch(&self, engage: bool, caller: Approver, reason: String) -> Result<KillSwitch, GateError> {
        self.actor.ask(messages::Switch { engage, caller, reason }, DEADLINE).await?
    }

    /// Takes the machine's time as it is now: a new epoch, and no approval from before holds.
    pub async fn accept_clock(&self, actor: Actor) -> Result<(), GateError> {
        self.actor.ask(messages::AcceptClock(actor), DEADLINE).await?
    }

    /// Puts a catalogue in force, or none while nobody offers one. Whatever waits or is approved and would not be
    /// rendered the same any more is superseded or revoked.
    pub async fn set_catalogue(&self, catalogue: Option<Arc<Catalogue>>) -> Result<(), GateError> {
        self.shared.put_catalogue(catalogue);
        self.actor.ask(messages::Recheck, DEADLINE).await?
    }

    /// Puts a policy in force, with the same consequences.
    pub async fn set_policy(&self, policy: Policy) -> Result<(), GateError> {
        self.shared.put_policy(policy);
        self.actor.ask(messages::Recheck, DEADLINE).await?
    }

    /// Names what carries out plans of a kind. What such an executor left unfinished is recovered then.
    pub async fn register(&self, kind: Executor, executor: Arc<dyn Execute>) -> Result<(), GateError> {
        self.shared.put_executor(kind, executor);
        self.actor.ask(messages::Recover, DEADLINE).await??;
        // what a plan depends on may be another for it
        self.actor.ask(messages::Recheck, DEADLINE).await?
    }

    /// What may be proposed; none while nobody offers a catalogue.
    pub fn offer(&self) -> Option<Offer> {
        self.shared.offer()
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy()
    }

    /// Whether an action of this tier needs the approver's password again.
    pub fn needs_step_up(risk: Risk) -> bool {
        risk == Risk::Destructive
    }
}
