//! Runs: from the used token to the end on record, and what a crash left unfinished.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{
    consent::Refusal,
    execution::{Execution, ExecutionEnd, ExecutionStatus},
    ids::ExecutionId,
};
use opspilot_ledger::{Consumption, LedgerError, Priority, Started, StorageHealth, Unfinished};

use super::{
    Shared,
    decide::{settled, written},
    flat, messages,
    shared::Running,
};
use crate::{
    facts::Facts,
    failpoint::failpoint,
    gate::GateError,
    permit::{Execute, ExecutionPermit, Recovered, Turn},
    token::hash_of,
};

/// So long storage is left alone when it did not take the end of a run.
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// The code in the audit log, and the reason, of a token that the ledger refused.
const fn ledger_code(refusal: &Refusal) -> Option<(&'static str, &'static str)> {
    match refusal {
        Refusal::BadToken => Some(("TOK30W", "unknown, revoked, or of another epoch")),
        Refusal::TokenUsed => Some(("TOK31W", "token.replay: used already")),
        Refusal::TokenExpired => Some(("TOK32W", "expired, or lapsed")),
        Refusal::WrongAction => Some(("TOK33W", "for another approval")),
        _ => None,
    }
}

pub(super) async fn run(shared: Arc<Shared>, message: messages::Run) -> Result<Execution, GateError> {
    let began = shared.clock.elapsed();
    let messages::Run { id, token, caller } = message;
    if caller.by_key {
        return settled(&shared, Err(Refusal::KeyNotAllowed.into()));
    }
    let hash = hash_of(&token);
    let now = shared.clock.now();
    let checked = match shared.tokens.check(&token, now) {
        Ok(checked) => checked,
        Err(bad) => {
            shared.record_bad(&caller.actor, id.as_str(), hash, bad).await;
            return settled(&shared, Err(bad.refusal().into()));
        }
    };
    if shared.is_clock_behind() {
        return settled(&shared, Err(Refusal::ClockRegression.into()));
    }
    let outcome = if checked.approval() == id { begin(&shared, &id, &checked, &caller).await } else { Err(Refusal::WrongAction.into()) };
    let (started, executor, running, turn) = match outcome {
        Ok(begun) => begun,
        Err(error) => {
            if let GateError::Refused(refusal) = &error
                && let Some((code, why)) = ledger_code(refusal)
            {
                if code == "TOK31W" {
                    slog::warn!(shared.log, "token.replay: a used approval token was sent again"; "approval" => id.as_str(), "by" => caller.actor.label());
                }
                shared.record_refusal(&caller.actor, id.as_str(), hash, code, why).await;
            }
            return settled(&shared, Err(error));
        }
    };
    failpoint!("safety::exec_after_commit_before_spawn");
    let (permit, execution) = ExecutionPermit::of(started);
    shared.metrics.start_seconds.observe(shared.clock.elapsed().saturating_sub(began).as_secs_f64());
    // apart from the actor and from whoever asked: the run goes on when either is gone
    tokio::spawn(carry_out(Arc::clone(&shared), executor, permit, (running, turn)));
    settled(&shared, Ok(execution))
}

type Begun = (Started, Arc<dyn Execute>, Running, Turn);

/// The one transaction. What it answers decides whether anything is started.
async fn begin(
    shared: &Arc<Shared>,
    id: &opspilot_kernel::ids::ApprovalId,
    checked: &crate::token::Checked,
    caller: &crate::gate::Approver,
) -> Result<Begun, GateError> {
    let known = {
        let id = id.clone();
        shared.ledger.read(move |reader| reader.approval(&id)).await?
    };
    // what people do is still stored while the disk is full; nothing is started then
    if let StorageHealth::Failed { failure, .. } = shared.ledger.storage() {
        return Err(LedgerError::from(failure).into());
    }
    // before the token is used up: without it the run would be over before it began
    let executor = shared.executor(known.plan.executor);
    let facts = match &executor {
        Some(executor) => shared.facts_of(Arc::clone(executor), &known.action).await?,
        None => Facts::default(),
    };
    let execution = ExecutionId::random();
    let with = Consumption {
        approval: id.clone(),
        jti: checked.claims.jti.clone(),
        hash: checked.hash,
        digest: checked.digest,
        epoch: checked.claims.epo.clone(),
        caller: caller.person.clone(),
        actor: caller.actor.clone(),
        execution: execution.clone(),
        elapsed: shared.clock.elapsed(),
    };
    // noted before the start is on record: what is on record and not noted was cut off
    let running = shared.runs(&execution);
    let (own, asked) = (Arc::clone(shared), executor.clone());
    let outcome = shared.ledger.write(Priority::Control, move |tx| {
        let can_run = asked.is_some() && own.offer().is_some();
        let mut turn = None;
        let take_turn = || {
            let free = asked.as_ref().ok_or(Refusal::NoExecutor)?.turn();
            turn = Some(free.map_err(Refusal::NoTurn)?);
            Ok(())
        };
        let ruled = tx.consume(&with, can_run, |plan| own.is_same(plan, &facts), take_turn)?;
        Ok(ruled.map(|started| (started, turn)))
    });
    let (started, turn) = flat(outcome.await)?;
    let (executor, turn) = executor.zip(turn).ok_or(Refusal::NoExecutor)?;
    Ok((started, executor, running, turn))
}

async fn carry_out(shared: Arc<Shared>, executor: Arc<dyn Execute>, permit: ExecutionPermit, held: (Running, Turn)) {
    let id = permit.execution_id().clone();
    let run = tokio::spawn(executor.run(permit));
    // an executor that panics tells nothing: what it left behind is looked at like after a crash
    let end = run.await.ok();
    failpoint!("safety::after_exit_before_result");
    match end {
        Some(end) => finish(&shared, &id, end, false).await,
        None => {
            slog::error!(shared.log, "the executor panicked; its run is recovered"; "execution" => id.as_str());
            recover_with(&shared, &*executor, vec![id]).await;
        }
    }
    drop(held);
}

/// Puts the end of a run on record, however long storage takes to accept it.
async fn finish(shared: &Arc<Shared>, id: &ExecutionId, end: ExecutionEnd, recovered: bool) {
    loop {
        let (own, told) = (id.clone(), end.clone());
        let stored = shared.ledger.write(Priority::Control, move |tx| tx.execution_finished(&own, &told, recovered)).await;
        match stored {
            Ok(execution) => {
                shared.metrics.executions.with_label_values(&[execution.status.as_str()]).inc();
                shared.changed.notify_one();
                return;
            }
            // the next start finds the run unfinished, and its evidence
            Err(LedgerError::Unavailable(failure)) if failure.reason == opspilot_ledger::FailureReason::Stopped => return,
            Err(LedgerError::NotFound(_)) => return,
            Err(error) => {
                slog::error!(shared.log, "the end of a run cannot be put on record yet"; "execution" => id.as_str(), "error" => %error);
                tokio::time::sleep(AFTER_AN_ERROR).await;
            }
        }
    }
}

pub(super) async fn close(shared: Arc<Shared>, message: messages::Close) -> Result<Execution, GateError> {
    let messages::Close { id, caller, outcome, reason } = message;
    let reason = written("/reason", &reason, true)?;
    if !matches!(outcome, ExecutionStatus::Succeeded | ExecutionStatus::Failed) {
        return Err(GateError::Invalid { field: "/outcome", why: "succeeded or failed".to_owned() });
    }
    if caller.by_key {
        return settled(&shared, Err(Refusal::KeyNotAllowed.into()));
    }
    let closed =
        shared.ledger.write(Priority::Control, move |tx| tx.execution_closed(&id, &caller.person, &caller.actor, outcome, &reason));
    settled(&shared, flat(closed.await))
}

pub(super) async fn recover(shared: Arc<Shared>, _: messages::Recover) -> Result<(), GateError> {
    // one at a time: evidence is looked at once
    let _alone = shared.recovering.lock().await;
    let unfinished = cut_off(&shared).await?;
    let kinds: std::collections::HashSet<_> = unfinished.iter().map(|run| run.executor).collect();
    for kind in kinds {
        let Some(executor) = shared.executor(kind) else { continue };
        let ids = unfinished.iter().filter(|run| run.executor == kind).map(|run| run.id.clone()).collect();
        recover_with(&shared, &*executor, ids).await;
    }
    Ok(())
}

/// Runs on record without an end that nobody here carries out.
pub(super) async fn cut_off(shared: &Arc<Shared>) -> Result<Vec<Unfinished>, LedgerError> {
    let boot = shared.ledger.boot().to_owned();
    let all = shared.ledger.read(move |reader| reader.unfinished_executions(&boot)).await?;
    Ok(all.into_iter().filter(|run| !shared.is_running(&run.id)).collect())
}

/// Asks the executor for its evidence; without any nobody knows.
async fn recover_with(shared: &Arc<Shared>, executor: &dyn Execute, ids: Vec<ExecutionId>) {
    let mut found = executor.recover(&ids).await;
    for id in ids {
        let place = found.iter().position(|(of, _)| *of == id);
        let end = match place.map(|place| found.swap_remove(place).1) {
            Some(Recovered::Finished(end) | Recovered::Unknown(end)) => end,
            Some(Recovered::NotStarted) => ExecutionEnd::not_started(),
            None => ExecutionEnd::interrupted(),
        };
        slog::warn!(shared.log, "a run was cut off"; "execution" => id.as_str(), "found" => end.status.as_str());
        finish(shared, &id, end, true).await;
    }
}
