//! Proposals and what people decide about them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opspilot_kernel::{
    approval::{Approval, Proposer},
    consent::Refusal,
    ids::ApprovalId,
    plan::Executor,
};
use opspilot_ledger::{Ballot, Grant, LedgerError, Minted, NewApproval, Priority, ProposalLimits, StoredPlan};

use super::{Shared, flat, messages};
use crate::{
    facts::Needs,
    gate::{Approver, Decision, Gate, GateError, IssuedToken, KillSwitch},
    render::render,
};

/// The longest reason or reasoning, in characters.
const MAX_TEXT: usize = 4096;

/// What a person wrote, within bounds and without blanks around it.
pub(super) fn written(field: &'static str, text: &str, needed: bool) -> Result<String, GateError> {
    let text = text.trim();
    if text.chars().take(MAX_TEXT + 1).count() > MAX_TEXT {
        return Err(GateError::Invalid { field, why: format!("at most {MAX_TEXT} characters") });
    }
    if needed && text.is_empty() {
        return Err(GateError::Invalid { field, why: "say why".to_owned() });
    }
    Ok(text.to_owned())
}

fn counted(shared: &Shared, error: &GateError) {
    if let GateError::Refused(refusal) = error {
        shared.metrics.refused.with_label_values(&[refusal.code()]).inc();
    }
}

/// Counts what was refused, and looks anew at what is due next.
pub(super) fn settled<T>(shared: &Shared, outcome: Result<T, GateError>) -> Result<T, GateError> {
    match &outcome {
        Ok(_) => shared.changed.notify_one(),
        Err(error) => counted(shared, error),
    }
    outcome
}

pub(super) async fn propose(shared: Arc<Shared>, message: messages::Propose) -> Result<Approval, GateError> {
    let proposal = message.0;
    let reasoning = written("/reasoning", &proposal.reasoning, false)?;
    let offer = shared.offer().ok_or(Refusal::NoExecutor)?;
    let Some(action) = offer.catalogue.get(&proposal.action) else {
        return Err(GateError::NoSuchAction { closest: offer.catalogue.closest(&proposal.action).map(str::to_owned) });
    };
    let params: BTreeMap<_, _> = proposal.params;
    let executor = shared.executor(action.template().executor).ok_or(Refusal::NoExecutor)?;
    let facts = shared.facts(executor, Needs::of([action])).await?;
    let rendered = render(action, &params, &offer.policy, &facts)?;
    let risk = action.template().risk;
    let id = proposal.id.unwrap_or_else(ApprovalId::random);
    let is_person = matches!(proposal.by, Proposer::User(_));
    if is_person && proposal.owner.is_none() {
        return Err(GateError::Internal("a person's proposal names nobody".to_owned()));
    }
    let new = NewApproval {
        id: id.clone(),
        incident: proposal.incident,
        action: proposal.action,
        title: rendered.title,
        risk,
        params: rendered.params,
        plan: rendered.bytes,
        preview: rendered.preview,
        reasoning,
        proposer: proposal.by,
        actor: proposal.actor,
        owner: proposal.owner,
        clauses: offer.policy.clauses(risk),
        approve_within: offer.policy.approve_by.0,
        limits: ProposalLimits { cooldown: offer.policy.proposals.cooldown.0, per_hour: offer.policy.proposals.per_hour },
    };
    let outcome = settled(&shared, flat(shared.ledger.write(Priority::Control, move |tx| tx.approval_propose(new)).await));
    let label = match &outcome {
        Ok(approval) if approval.id == id => "made",
        Ok(_) => "merged",
        Err(_) => "refused",
    };
    shared.metrics.proposals.with_label_values(&[label]).inc();
    outcome
}

fn ballot(id: ApprovalId, approver: Approver, reason: String) -> Ballot {
    Ballot { id, person: approver.person, by_key: approver.by_key, actor: approver.actor, reason }
}

fn minter(shared: &Arc<Shared>) -> impl FnOnce(&Grant) -> Result<Minted, LedgerError> + Send + 'static {
    let shared = Arc::clone(shared);
    move |grant| shared.tokens.mint(grant).ok_or_else(|| LedgerError::Internal("the approval key does not sign".to_owned()))
}

pub(super) async fn approve(shared: Arc<Shared>, message: messages::Approve) -> Result<Decision, GateError> {
    let messages::Approve { id, approver, digest, reason, password_ok } = message;
    let reason = written("/reason", &reason, false)?;
    if shared.is_clock_behind() {
        return settled(&shared, Err(Refusal::ClockRegression.into()));
    }
    if shared.offer().is_none() {
        return settled(&shared, Err(Refusal::NoExecutor.into()));
    }
    // asked outside of the transaction: what it depends on never changes
    let known = {
        let id = id.clone();
        shared.ledger.read(move |reader| reader.approval(&id)).await?
    };
    let Some(executor) = shared.executor(known.plan.executor) else { return settled(&shared, Err(Refusal::NoExecutor.into())) };
    let facts = shared.facts_of(executor, &known.action).await?;
    let lacks_password = Gate::needs_step_up(known.risk) && !password_ok;
    let ballot = ballot(id, approver, reason);
    let (own, mint, elapsed) = (Arc::clone(&shared), minter(&shared), shared.clock.elapsed());
    let outcome = shared.ledger.write(Priority::Control, move |tx| {
        tx.approval_vote(&ballot, lacks_password, digest, elapsed, |plan| own.is_same(plan, &facts), mint)
    });
    let (approval, minted) = settled(&shared, flat(outcome.await))?;
    Ok(match minted {
        None => Decision::Pending(approval),
        Some(minted) => {
            let expires_at = approval.execute_by.unwrap_or_default();
            Decision::Approved(approval, IssuedToken { token: minted.token, token_id: minted.jti, expires_at })
        }
    })
}

pub(super) async fn deny(shared: Arc<Shared>, message: messages::Deny) -> Result<Approval, GateError> {
    let reason = written("/reason", &message.reason, true)?;
    let ballot = ballot(message.id, message.approver, reason);
    let outcome = shared.ledger.write(Priority::Control, move |tx| tx.approval_deny(&ballot)).await;
    settled(&shared, flat(outcome))
}

pub(super) async fn revoke(shared: Arc<Shared>, message: messages::Revoke) -> Result<Approval, GateError> {
    let reason = written("/reason", &message.reason, false)?;
    let ballot = ballot(message.id, message.approver, reason);
    let outcome = shared.ledger.write(Priority::Control, move |tx| tx.approval_revoke(&ballot)).await;
    settled(&shared, flat(outcome))
}

pub(super) async fn withdraw(shared: Arc<Shared>, message: messages::Withdraw) -> Result<Approval, GateError> {
    let reason = written("/reason", &message.reason, false)?;
    let ballot = ballot(message.id, message.approver, reason);
    let outcome = shared.ledger.write(Priority::Control, move |tx| tx.approval_withdraw(&ballot)).await;
    settled(&shared, flat(outcome))
}

pub(super) async fn reissue(shared: Arc<Shared>, message: messages::Reissue) -> Result<IssuedToken, GateError> {
    if shared.is_clock_behind() {
        return settled(&shared, Err(Refusal::ClockRegression.into()));
    }
    let ballot = ballot(message.id, message.approver, String::new());
    let mint = minter(&shared);
    let outcome = shared.ledger.write(Priority::Control, move |tx| tx.token_reissue(&ballot, mint)).await;
    let made = settled(&shared, flat(outcome))?;
    Ok(IssuedToken { token: made.minted.token, token_id: made.minted.jti, expires_at: made.expires_at })
}

pub(super) async fn switch(shared: Arc<Shared>, message: messages::Switch) -> Result<KillSwitch, GateError> {
    let messages::Switch { engage, caller, reason } = message;
    let reason = written("/reason", &reason, false)?;
    let outcome =
        shared.ledger.write(Priority::Control, move |tx| tx.kill_switch_set(engage, &caller.person, caller.by_key, &caller.actor, &reason));
    settled(&shared, flat(outcome.await))
}

pub(super) async fn accept_clock(shared: Arc<Shared>, message: messages::AcceptClock) -> Result<(), GateError> {
    let behind: Duration = shared.clock.regression().max(shared.ledger.clock_regression()).unwrap_or_default();
    // first, so that the entry carries the time that is accepted
    shared.clock.accept();
    let actor = message.0;
    shared.ledger.write(Priority::Control, move |tx| tx.clock_accept(&actor, behind)).await?;
    slog::warn!(shared.log, "the clock was accepted; no approval from before holds"; "behind_secs" => behind.as_secs());
    shared.changed.notify_one();
    Ok(())
}

pub(super) async fn recheck(shared: Arc<Shared>, _: messages::Recheck) -> Result<(), GateError> {
    // while nobody offers a catalogue nothing is rendered: what waits goes on waiting, and nothing can be decided
    let Some(offer) = shared.offer() else { return Ok(()) };
    // without an executor nobody knows what its plans depend on; it is looked at when there is one
    let Some(executor) = shared.executor(Executor::Process) else { return Ok(()) };
    let facts = shared.facts(executor, Needs::of(offer.catalogue.iter())).await?;
    let own = Arc::clone(&shared);
    let is_same = move |plan: &StoredPlan| {
        // another catalogue came meanwhile, for which these facts do not hold: it has a look of its own
        let is_current = own.offer().is_some_and(|now| Arc::ptr_eq(&now.catalogue, &offer.catalogue));
        !is_current || own.is_same(plan, &facts)
    };
    let ended = shared.ledger.write(Priority::Control, move |tx| tx.approvals_replan(is_same)).await?;
    if ended > 0 {
        slog::info!(shared.log, "the catalogue or the policy changed: proposals were superseded, approvals revoked"; "ended" => ended);
    }
    shared.changed.notify_one();
    Ok(())
}
