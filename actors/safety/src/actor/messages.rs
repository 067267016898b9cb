//! What the gate is asked.

use actix::Message;
use opspilot_kernel::{
    approval::Approval,
    execution::{Execution, ExecutionStatus},
    ids::{ApprovalId, ExecutionId},
    plan::PlanDigest,
    principal::Actor,
};

use crate::gate::{Approver, Decision, GateError, IssuedToken, KillSwitch, Proposal};

/// Render an action and propose it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Approval, GateError>")]
pub struct Propose(pub Proposal);

/// Agree to a plan.
#[derive(Debug, Message)]
#[rtype(result = "Result<Decision, GateError>")]
pub struct Approve {
    /// Which.
    pub id: ApprovalId,
    /// Who.
    pub approver: Approver,
    /// What they were shown.
    pub digest: PlanDigest,
    /// Why.
    pub reason: String,
    /// Whether they just gave their password again.
    pub password_ok: bool,
}

/// Say no.
#[derive(Debug, Message)]
#[rtype(result = "Result<Approval, GateError>")]
pub struct Deny {
    /// Which.
    pub id: ApprovalId,
    /// Who.
    pub approver: Approver,
    /// Why.
    pub reason: String,
}

/// Take an approval back.
#[derive(Debug, Message)]
#[rtype(result = "Result<Approval, GateError>")]
pub struct Revoke {
    /// Which.
    pub id: ApprovalId,
    /// Who.
    pub approver: Approver,
    /// Why.
    pub reason: String,
}

/// Take a proposal back.
#[derive(Debug, Message)]
#[rtype(result = "Result<Approval, GateError>")]
pub struct Withdraw {
    /// Which.
    pub id: ApprovalId,
    /// Who.
    pub approver: Approver,
    /// Why.
    pub reason: String,
}

/// Make the token anew.
#[derive(Debug, Message)]
#[rtype(result = "Result<IssuedToken, GateError>")]
pub struct Reissue {
    /// Which.
    pub id: ApprovalId,
    /// Who.
    pub approver: Approver,
}

/// Use a token up and start the run.
#[derive(Message)]
#[rtype(result = "Result<Execution, GateError>")]
pub struct Run {
    /// Which approval.
    pub id: ApprovalId,
    /// The token, as it came.
    pub token: String,
    /// Who.
    pub caller: Approver,
}

/// Say how a run of unknown end ended.
#[derive(Debug, Message)]
#[rtype(result = "Result<Execution, GateError>")]
pub struct Close {
    /// Which run.
    pub id: ExecutionId,
    /// Who.
    pub caller: Approver,
    /// How it ended: succeeded or failed.
    pub outcome: ExecutionStatus,
    /// How they know.
    pub reason: String,
}

/// Engage or release the kill switch.
#[derive(Debug, Message)]
#[rtype(result = "Result<KillSwitch, GateError>")]
pub struct Switch {
    /// Engage it, or release it.
    pub engage: bool,
    /// Who.
    pub caller: Approver,
    /// Why.
    pub reason: String,
}

/// Take the machine's time as it is.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), GateError>")]
pub struct AcceptClock(pub Actor);

/// The catalogue or the policy changed: what would not be rendered the same any more is closed.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), GateError>")]
pub struct Recheck;

/// Find out what became of runs that were cut off.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), GateError>")]
pub struct Recover;
