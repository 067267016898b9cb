//! The one that decides what may run, and when.
//!
//! | Consumes   | the typed messages of [`messages`], each answered when its effect is on disk; `Heartbeat`, `Drain`     |
//! | Emits      | through the ledger: `action.proposed`, `.approved`, `.denied`, `.expired`, `.executed`; permits         |
//! | Keeps      | nothing: proposals, votes, tokens and runs are the ledger's; catalogue and policy are configuration    |
//! | On restart | goes on; runs that this process no longer carries out are recovered, none is started again             |

mod decide;
pub mod messages;
mod run;
mod shared;
mod sweep;

use std::sync::Arc;

use actix::prelude::*;
use opspilot_kernel::lifecycle::{Drain, Heartbeat, Pulse};

pub(crate) use self::shared::Shared;
pub use self::shared::{GateOptions, OpenError};
use crate::gate::GateError;

/// How often what is due is looked for, at least; the next deadline is looked for when it comes.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// The actor behind a [`Gate`](crate::Gate).
pub struct ApprovalActor {
    shared: Arc<Shared>,
}

impl ApprovalActor {
    pub(crate) fn new(shared: Arc<Shared>) -> ApprovalActor {
        ApprovalActor { shared }
    }
}

impl Actor for ApprovalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(sweep::forever(Arc::clone(&self.shared)).into_actor(self));
    }
}

impl Supervised for ApprovalActor {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for ApprovalActor {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: self.shared.running(), trouble: self.shared.trouble() })
    }
}

impl Handler<Drain> for ApprovalActor {
    type Result = ();

    /// Runs go on as long as the process does; what it cannot finish is recovered by the next one.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}

/// A message is handled by the function of the same name; the answer comes when its effect is on disk, and the effect
/// comes even if nobody waits for the answer any more.
macro_rules! handle {
    ($($message:ident => $function:path;)*) => {$(
        impl Handler<messages::$message> for ApprovalActor {
            type Result = ResponseFuture<<messages::$message as Message>::Result>;

            fn handle(&mut self, message: messages::$message, _: &mut Context<Self>) -> Self::Result {
                let shared = Arc::clone(&self.shared);
                Box::pin(async move { $function(shared, message).await })
            }
        }
    )*};
}

handle! {
    Propose => decide::propose;
    Approve => decide::approve;
    Deny => decide::deny;
    Revoke => decide::revoke;
    Withdraw => decide::withdraw;
    Reissue => decide::reissue;
    Switch => decide::switch;
    AcceptClock => decide::accept_clock;
    Recheck => decide::recheck;
    Run => run::run;
    Close => run::close;
    Recover => run::recover;
}

/// What the ledger answered: its own trouble, or a refusal by the rules.
pub(crate) fn flat<T>(answer: Result<Result<T, opspilot_kernel::consent::Refusal>, opspilot_ledger::LedgerError>) -> Result<T, GateError> {
    Ok(answer??)
}
