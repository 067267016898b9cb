//! What people decide, and the tokens that come of it.

use std::time::Duration;

use diesel::prelude::*;
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus},
    consent::{Refusal, Step, Voter, same_person},
    event::Event,
    ids::ApprovalId,
    incident::TimelineKind,
    plan::PlanDigest,
    principal::Actor,
    time::Timestamp,
};
use serde_json::json;

use super::{ApprovalRow, Ruled, StoredPlan, find, rows, shown, standing};
use crate::{
    error::LedgerError,
    schema::{approval, approval_token, approval_vote},
    tables::{audit::Outcome, meta},
    tx::{Tx, stored},
};

/// A person's word on an approval.
#[derive(Debug, Clone)]
pub struct Ballot {
    /// Which approval.
    pub id: ApprovalId,
    /// Who. Their account is read again here.
    pub person: Voter,
    /// Whether they came with an API key.
    pub by_key: bool,
    /// As the audit log names them.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The approval.
    pub approval: ApprovalId,
    /// Who agreed last.
    pub last: String,
    /// Everybody who agreed.
    pub approvers: Vec<String>,
    /// Who proposed it.
    pub requester: String,
    /// What it is bound to.
    pub digest: PlanDigest,
    /// The tier.
    pub tier: String,
    /// The digest of the policy.
    pub policy: String,
    /// The epoch.
    pub epoch: String,
    /// When it is made.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A token that was just made. The ledger keeps its name and its SHA-256.
pub struct Minted {
    /// Its name.
    pub jti: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The token.
    pub token: String,
}

/// A token made anew.
pub struct Reissue {
    /// The token.
    pub minted: Minted,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Tx<'_> {
    /// The person as their account is now; what they came with may be older.
    pub(crate) fn now_as(&mut self, person: &Voter) -> Result<Voter, LedgerError> {
        let gone = || Voter { user: person.user.clone(), role: opspilot_kernel::principal::Role::Integrator, groups: Vec::new() };
        Ok(super::person(self.conn, &person.user)?.unwrap_or_else(gone))
    }

    /// What time alone made of an approval is stored, whatever else is refused.
    pub(crate) fn caught_up(&mut self, id: &ApprovalId) -> Result<ApprovalRow, LedgerError> {
        let row = find(self.conn, id)?;
        let before = standing(self.conn, &row)?;
        let next = before.clone().at(self.now());
        if next.status == before.status {
            return Ok(row);
        }
        self.move_on(&row, &next, &Actor::System, "")?;
        find(self.conn, id)
    }

    /// A person agrees to the plan with this digest. When enough did, `mint` makes the token in the same transaction.
    /// `lacks_password` says that the tier needs the password again and it was not given.
    /// `is_same` tells whether the plan would be rendered the same now; `elapsed` is monotonic time.
    pub fn approval_vote(
        &mut self,
        ballot: &Ballot,
        lacks_password: bool,
        digest: PlanDigest,
        elapsed: Duration,
        is_same: impl FnOnce(&StoredPlan) -> bool,
        mint: impl FnOnce(&Grant) -> Result<Minted, LedgerError>,
    ) -> Ruled<(Approval, Option<Minted>)> {
        let row = self.caught_up(&ballot.id)?;
        let by = self.now_as(&ballot.person)?;
        let before = standing(self.conn, &row)?;
        let next = match before.step(&Step::Approve { by, by_key: ballot.by_key, digest }, self.now()) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if lacks_password {
            return Ok(Err(Refusal::StepUpRequired));
        }
        if self.is_clock_behind() {
            return Ok(Err(Refusal::ClockRegression));
        }
        if !is_same(&row.stored_plan()?) {
            return Ok(Err(Refusal::PlanChanged));
        }
        diesel::insert_or_ignore_into(approval_vote::table)
            .values((
                approval_vote::approval.eq(row.num),
                approval_vote::user_name.eq(&ballot.person.user),
                approval_vote::at.eq(self.now().millis()),
                approval_vote::digest.eq(digest.as_bytes().as_slice()),
                approval_vote::reason.eq(&ballot.reason),
            ))
            .execute(self.conn)?;
        let body = json!({ "reason": ballot.reason, "agreed": next.voters.iter().map(|voter| &voter.user).collect::<Vec<_>>() });
        if next.status != ApprovalStatus::Approved {
            self.audit_approval(&ballot.actor, "APR02I", &row, Outcome::Success, body)?;
            return Ok(Ok((self.shown_approval(row.num)?, None)));
        }
        self.store_standing(row.num, &next)?;
        diesel::update(approval::table.find(row.num))
            .set((approval::boot.eq(&*self.identity.boot), approval::elapsed_ms.eq(stored(millis(elapsed))?)))
            .execute(self.conn)?;
        self.audit_approval(&ballot.actor, "APR01I", &row, Outcome::Success, body)?;
        let minted = self.token(&row, &ballot.actor, &ballot.person.user, next.execute_by.unwrap_or_default(), "TOK01I", mint)?;
        let approval = self.shown_approval(row.num)?;
        self.event(Event::ActionApproved(Box::new(approval.clone())))?;
        let because = if ballot.reason.is_empty() { String::new() } else { format!(": {}", ballot.reason) };
        let text = format!("{} is approved by {}{because}", approval.title, approval.quorum.approved_by.join(" and "));
        self.incident_line(&row.incident(), &ballot.actor, TimelineKind::ActionApproved, text)?;
        Ok(Ok((approval, Some(minted))))
    }

    /// Makes a token in the place of the unused one, with the same deadline, for whoever agreed last.
    pub fn token_reissue(&mut self, ballot: &Ballot, mint: impl FnOnce(&Grant) -> Result<Minted, LedgerError>) -> Ruled<Reissue> {
        let row = self.caught_up(&ballot.id)?;
        let last: Option<String> = approval_vote::table
            .filter(approval_vote::approval.eq(row.num))
            .order((approval_vote::at.desc(), approval_vote::user_name.desc()))
            .select(approval_vote::user_name)
            .first(self.conn)
            .optional()?;
        if ballot.by_key {
            return Ok(Err(Refusal::KeyNotAllowed));
        }
        let issued_to: Vec<String> =
            approval_token::table.filter(approval_token::approval.eq(row.num)).select(approval_token::issued_to).load(self.conn)?;
        let own = |name: &String| same_person(name, &ballot.person.user);
        if !issued_to.iter().any(own) && !last.as_ref().is_some_and(own) {
            return Ok(Err(Refusal::NotPermitted));
        }
        // the same as for the start of a run, without starting one
        if let Err(refusal) = standing(self.conn, &row)?.step(&Step::Start, self.now()) {
            return Ok(Err(refusal));
        }
        if self.is_clock_behind() {
            return Ok(Err(Refusal::ClockRegression));
        }
        let expires_at = Timestamp::from_millis(row.execute_by.unwrap_or_default());
        self.close_tokens(row.num, "revoked")?;
        let minted = self.token(&row, &ballot.actor, &ballot.person.user, expires_at, "TOK02I", mint)?;
        Ok(Ok(Reissue { minted, expires_at }))
    }

    fn token(
        &mut self,
        row: &ApprovalRow,
        actor: &Actor,
        issued_to: &str,
        expires_at: Timestamp,
        code: &'static str,
        mint: impl FnOnce(&Grant) -> Result<Minted, LedgerError>,
    ) -> Result<Minted, LedgerError> {
        let now = self.now();
        let plan = row.plan()?;
        let approval = shown(self.conn, row.clone())?;
        let requester = rows::parsed::<opspilot_kernel::approval::Proposer>(&row.proposer)?;
        use opspilot_kernel::approval::Proposer::{Ai, Rule, User};
        let requester = match requester {
            Rule(name) => format!("rule:{name}"),
            User(name) => format!("user:{name}"),
            Ai(name) => format!("ai:{name}"),
        };
        let grant = Grant {
            approval: row.id(),
            last: issued_to.to_owned(),
            approvers: approval.quorum.approved_by,
            requester,
            digest: row.digest()?,
            tier: row.risk.clone(),
            policy: plan.policy,
            epoch: meta::get(self.conn, meta::EPOCH)?.unwrap_or_default(),
            issued_at: now,
            expires_at,
        };
        let minted = mint(&grant)?;
        diesel::insert_into(approval_token::table)
            .values((
                approval_token::jti.eq(&minted.jti),
                approval_token::approval.eq(row.num),
                approval_token::hash.eq(minted.hash.as_slice()),
                approval_token::issued_to.eq(issued_to),
                approval_token::epoch.eq(&grant.epoch),
                approval_token::issued_at.eq(now.millis()),
                approval_token::expires_at.eq(expires_at.millis()),
                approval_token::state.eq("active"),
            ))
            .execute(self.conn)?;
        let body = json!({ "jti": minted.jti, "token": hex::encode(minted.hash), "expires_at": expires_at });
        self.audit_approval(actor, code, row, Outcome::Success, body)?;
        Ok(minted)
    }

    /// A person says no; that ends it.
    pub fn approval_deny(&mut self, ballot: &Ballot) -> Ruled<Approval> {
        self.person_ends(ballot, |by, by_key| Step::Deny { by, by_key })
    }

    /// A person takes back an approval that was not executed.
    pub fn approval_revoke(&mut self, ballot: &Ballot) -> Ruled<Approval> {
        self.person_ends(ballot, |by, by_key| Step::Revoke { by, by_key })
    }

    /// Whoever proposed it, or an admin, takes it back.
    pub fn approval_withdraw(&mut self, ballot: &Ballot) -> Ruled<Approval> {
        self.person_ends(ballot, |by, _| Step::Withdraw { by })
    }

    fn person_ends(&mut self, ballot: &Ballot, step: impl FnOnce(Voter, bool) -> Step) -> Ruled<Approval> {
        let row = self.caught_up(&ballot.id)?;
        let by = self.now_as(&ballot.person)?;
        match standing(self.conn, &row)?.step(&step(by, ballot.by_key), self.now()) {
            Err(refusal) => Ok(Err(refusal)),
            Ok(next) => {
                self.move_on(&row, &next, &ballot.actor, &ballot.reason)?;
                Ok(Ok(self.shown_approval(row.num)?))
            }
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
