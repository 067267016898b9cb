//! Proposes what the rules say.
//!
//! | Consumes   | the event log, by a cursor: incidents that were opened or became worse; `Heartbeat`, `Drain`            |
//! | Emits      | proposals, through the gate, and nothing but proposals                                                  |
//! | Keeps      | nothing: what was proposed is found again by its name, which follows from incident and rule             |
//! | On restart | offers the catalogue and the executor again, reads on from its cursor                                   |

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::{
    approval::Proposer as By,
    event::Event,
    ids::Seq,
    lifecycle::{Drain, Heartbeat, Pulse},
    plan::Executor,
    principal::Actor as Who,
};
use opspilot_ledger::{EventEntry, LedgerError, Priority};
use opspilot_safety::{Execute, GateError, Proposal};

use super::{ID, Shared, rules::Wanted};

/// Events read at a time.
const AT_ONCE: usize = 256;
/// The cursor is stored after so many events in which there was nothing for us; what is read again then does no harm.
const SAVE_EVERY: u64 = 4096;
/// How long to wait before something is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// The actor.
pub(crate) struct Proposing {
    shared: Arc<Shared>,
}

impl Proposing {
    pub(crate) fn new(shared: Arc<Shared>) -> Proposing {
        Proposing { shared }
    }
}

impl Actor for Proposing {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(forever(Arc::clone(&self.shared)).into_actor(self));
    }
}

impl Supervised for Proposing {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for Proposing {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: self.shared.behind(), trouble: self.shared.trouble() })
    }
}

impl Handler<Drain> for Proposing {
    type Result = ();

    /// What is not proposed yet is proposed after the next start.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}

async fn forever(shared: Arc<Shared>) {
    until_done(&shared, "the gate does not take the catalogue", async || shared.gate.set_catalogue(Some(shared.catalogue())).await).await;
    let executor: Arc<dyn Execute> = shared.executor();
    let offer = async || shared.gate.register(Executor::Process, Arc::clone(&executor)).await;
    until_done(&shared, "the gate does not take the executor", offer).await;
    let mut cursor = until_done(&shared, "the ledger does not answer", async || begin(&shared).await).await;
    let mut saved = cursor;
    let mut head = shared.ledger.events().watch();
    loop {
        shared.at(cursor);
        let entries = until_done(&shared, "the ledger does not answer", async || shared.ledger.events().next(cursor, AT_ONCE)).await;
        if entries.is_empty() {
            if head.wait_for(|head| *head > cursor).await.is_err() {
                // the ledger is gone, and the service with it
                std::future::pending::<()>().await;
            }
            continue;
        }
        let mut concerned = false;
        for entry in entries {
            match entry {
                EventEntry::Event(envelope) => {
                    concerned |= react(&shared, &envelope.event).await;
                    cursor = envelope.seq;
                }
                EventEntry::Gap { oldest } => {
                    slog::warn!(shared.log, "events were removed before the rules saw them"; "oldest" => oldest);
                    cursor = cursor.max(oldest.saturating_sub(1));
                }
            }
        }
        if concerned || cursor.saturating_sub(saved) >= SAVE_EVERY {
            until_done(&shared, "the ledger does not answer", async || save(&shared, cursor).await).await;
            saved = cursor;
        }
        tokio::task::yield_now().await;
    }
}

/// Where to read on: behind what was seen, or, if the module was off until now, behind everything there is.
async fn begin(shared: &Shared) -> Result<Seq, LedgerError> {
    let rows = shared.ledger.read(|reader| reader.cursors()).await?;
    match rows.into_iter().find(|row| row.module == ID.as_str() && row.live) {
        Some(row) => Ok(row.seq),
        None => {
            let head = shared.ledger.events().head();
            save(shared, head).await?;
            Ok(head)
        }
    }
}

async fn save(shared: &Shared, cursor: Seq) -> Result<(), LedgerError> {
    shared.ledger.write(Priority::Bulk, move |tx| tx.save_cursor(ID.as_str(), cursor, Vec::new())).await
}

/// Tries until it works; meanwhile the module is in trouble.
async fn until_done<T, E: std::fmt::Display>(shared: &Shared, what: &str, mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    loop {
        match work().await {
            Ok(done) => {
                shared.set_trouble(None);
                return done;
            }
            Err(error) => shared.set_trouble(Some(format!("{what}: {error}"))),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Proposes what is wanted now. Tells whether there was anything.
async fn react(shared: &Shared, event: &Event) -> bool {
    let wanted = shared.rules().wanted(event);
    let any = !wanted.is_empty();
    for wanted in wanted {
        while let Err(error) = propose(shared, &wanted).await {
            shared.set_trouble(Some(format!("a proposal cannot be made: {error}")));
            tokio::time::sleep(AGAIN).await;
        }
        shared.set_trouble(None);
    }
    any
}

/// Proposes, or gives up with a reason. An error is worth another try.
async fn propose(shared: &Shared, wanted: &Wanted) -> Result<(), GateError> {
    let (rule, incident) = (wanted.rule.as_str(), wanted.incident.as_str());
    let give_up = |outcome: &str, why: String| {
        slog::warn!(shared.log, "a rule proposes nothing"; "rule" => rule, "incident" => incident, "reason" => why);
        shared.count(outcome);
        Ok(())
    };
    let params = match &wanted.params {
        Ok(params) => params.clone(),
        Err(missing) => return give_up("unfit", format!("the incident has no label {}", missing.join(", "))),
    };
    let proposal = Proposal {
        id: Some(wanted.id.clone()),
        incident: wanted.incident.clone(),
        action: wanted.action.clone(),
        params,
        reasoning: wanted.reasoning.clone(),
        by: By::Rule(wanted.rule.clone()),
        actor: Who::Module { id: ID.as_str().to_owned() },
        owner: None,
    };
    match shared.gate.propose(proposal).await {
        Ok(approval) => {
            slog::info!(shared.log, "a rule proposed"; "rule" => rule, "incident" => incident, "approval" => approval.id.as_str());
            shared.count("made");
            Ok(())
        }
        Err(GateError::Refused(refusal)) => give_up("refused", refusal.to_string()),
        Err(error @ (GateError::Render(_) | GateError::NoSuchAction { .. } | GateError::Invalid { .. })) => {
            give_up("unfit", error.to_string())
        }
        Err(GateError::Ledger(error @ (LedgerError::NotFound(_) | LedgerError::Invalid(_) | LedgerError::Conflict(_)))) => {
            give_up("refused", error.to_string())
        }
        Err(error) => Err(error),
    }
}
