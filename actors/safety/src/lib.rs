//! The gate: nothing runs without people's consent.
//!
//! An action becomes a rendered plan, a plan a proposal, a proposal an approval with a token that lives 15
//! minutes, is used once and is bound to that plan; the used token becomes a permit, and only a permit runs.
//!
//! * [`Catalogue`] holds the actions there are, from reviewed [`ActionTemplate`]s with typed parameters.
//! * [`render()`] makes a plan of one and of the [`Facts`] that it depends on, pure; [`Policy`] says who must agree.
//! * [`Gate`] proposes, approves, executes: every call is one transaction of the ledger, audit included.
//! * [`ExecutionPermit`] is what an executor ([`Execute`]) runs by; the gate alone makes one.

mod actor;
mod catalogue;
mod facts;
mod failpoint;
mod gate;
mod interpreters;
mod param;
mod permit;
mod policy;
mod render;
mod template;
mod token;

pub use opspilot_kernel::{
    consent::{Clause, Refusal, Voter},
    execution::ExecutionEnd,
};

pub use self::{
    actor::{ApprovalActor, GateOptions, OpenError, messages},
    catalogue::{Action, Catalogue},
    facts::{Facts, Needs, UNSET},
    gate::{Approver, Decision, Gate, GateError, IssuedToken, KillSwitch, Offer, Proposal},
    permit::{Execute, ExecutionPermit, Recovered, Turn},
    policy::{Policy, Proposals, TierQuorum},
    render::{BadParam, RenderError, Rendered, command_line, render},
    template::{ActionTemplate, ParamSpec, ParamType},
};
