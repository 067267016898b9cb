//! Tells the ledger how modules are doing.
//!
//! | Consumes   | [`Report`]s of the health registry                                             |
//! | Emits      | `module.health_changed` events and an audit entry for every restart             |
//! | Keeps      | nothing: what is not yet told stays in the registry                             |
//! | On restart | goes on with what is not yet told                                               |

use std::time::Duration;

use actix::prelude::*;
use opspilot_kernel::{
    lifecycle::{Drain, Heartbeat, Pulse},
    principal::Actor as Principal,
};
use opspilot_ledger::{Ledger, LedgerError, Priority};

use crate::{Health, Report};

/// How long to wait before telling again what could not be told.
const AGAIN: Duration = Duration::from_secs(1);

/// The actor that tells.
pub struct HealthReporter {
    health: Health,
    ledger: Ledger,
}

impl HealthReporter {
    /// Tells `ledger` what happens in `health`.
    pub fn new(health: Health, ledger: Ledger) -> HealthReporter {
        HealthReporter { health, ledger }
    }
}

/// Puts a report back unless it was told: also when the actor is restarted in between.
struct Untold<'a> {
    health: &'a Health,
    report: Option<Report>,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            self.health.untold(report);
        }
    }
}

async fn tell(health: &Health, ledger: &Ledger, report: Report) -> Result<(), LedgerError> {
    let mut untold = Untold { health, report: Some(report.clone()) };
    ledger
        .write(Priority::Control, move |tx| match report {
            Report::Changed { module, from, to, detail } => tx.module_health_changed(module.as_str(), from, to, &detail),
            Report::Restarted { module, child, cause, detail } => {
                let actor = Principal::Module { id: module.as_str().to_owned() };
                tx.module_restarted(&actor, module.as_str(), &format!("{child}: {}: {detail}", cause.as_str()))
            }
        })
        .await?;
    untold.report = None;
    Ok(())
}

async fn tell_all(health: Health, ledger: Ledger) {
    loop {
        let report = health.next_report().await;
        if tell(&health, &ledger, report).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Actor for HealthReporter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(tell_all(self.health.clone(), self.ledger.clone()).into_actor(self));
    }
}

impl Supervised for HealthReporter {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for HealthReporter {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse::default())
    }
}

impl Handler<Drain> for HealthReporter {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        let (health, ledger) = (self.health.clone(), self.ledger.clone());
        Box::pin(async move {
            while let Some(report) = health.take_report() {
                if tell(&health, &ledger, report).await.is_err() {
                    return;
                }
            }
        })
    }
}
