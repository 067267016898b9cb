//! `approval`, `approval_vote`, `approval_token`: plans on their way through people's hands.
//!
//! Every operation writes its audit entry, its event and its line in the incident's timeline in the same savepoint.
//! What the rules refuse is an answer and no error: what time alone changed meanwhile stays.
//!
//! | code | meaning |
//! |---|---|
//! | `PRO01I` | an action was proposed |
//! | `PRO02I` | a proposal was taken back, or its incident was resolved |
//! | `PRO03I` | a proposal was superseded: its action or the policy changed |
//! | `PRO04I` | a proposal expired: nobody decided in time |
//! | `APR01I` | enough people agreed |
//! | `APR02I` | a person agreed; more are needed |
//! | `APR03I` | a person said no |
//! | `APR04I` | an approval was taken back |
//! | `APR05I` | an approval lapsed: it was not executed in time |
//! | `TOK01I` | a token was made |
//! | `TOK02I` | a token was made in the place of one that was lost |
//! | `TOK03I` | every outstanding token was revoked |
//! | `TOK10W` … `TOK27W` | a token was refused for what it says; each reason has its code, which `opspilot-safety` gives |
//! | `TOK30W` | a good token was refused: unknown, revoked, or of another epoch |
//! | `TOK31W` | a good token was refused: it was used already |
//! | `TOK32W` | a good token was refused: it is too old, or its approval lapsed |
//! | `TOK33W` | a good token was refused: it is for another approval |
//! | `CLK01I` | somebody accepted a clock that was set back; the epoch is new |
//!
//! A refusal that repeats one of the same minute, of the same caller and code, is a `DEN01W` or counted in a `DEN02W`.

mod close;
mod decide;
mod propose;
mod read;

use std::collections::BTreeMap;

use diesel::prelude::*;
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus, Preview, Proposer, Quorum},
    consent::{Clause, Closed, Refusal, Standing, Voter, needed},
    event::Event,
    ids::{ApprovalId, ExecutionId, IncidentId},
    incident::{TimelineEntry, TimelineKind},
    plan::{Plan, PlanDigest},
    principal::Actor,
    time::Timestamp,
};
use serde_json::{Value, json};

pub(crate) use self::read::{of_incident, under_way};
pub use self::{
    decide::{Ballot, Grant, Minted, Reissue},
    propose::{NewApproval, ProposalLimits},
    read::ApprovalFilter,
};
use super::{
    audit::{AuditEntry, Object, Outcome},
    incidents, incidents_rows as rows, timeline,
    users::{groups_of, role_of},
};
use crate::{
    error::LedgerError,
    schema::{approval, approval_token, approval_vote, user_account},
    tx::Tx,
};

/// What an operation answers that the rules may refuse.
pub type Ruled<T> = Result<Result<T, Refusal>, LedgerError>;

/// A row of `approval`.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = approval, check_for_backend(diesel::sqlite::Sqlite))]
pub(crate) struct ApprovalRow {
    #[diesel(skip_insertion)]
    pub(crate) num: i64,
    pub(crate) id: String,
    pub(crate) incident: String,
    pub(crate) action: String,
    pub(crate) title: String,
    pub(crate) risk: String,
    pub(crate) params: String,
    pub(crate) plan: Vec<u8>,
    pub(crate) digest: Vec<u8>,
    pub(crate) preview: String,
    pub(crate) reasoning: String,
    pub(crate) proposer: String,
    pub(crate) by_person: bool,
    pub(crate) owner: Option<String>,
    pub(crate) status: String,
    pub(crate) clauses: String,
    pub(crate) created_at: i64,
    pub(crate) approve_by: i64,
    pub(crate) execute_by: Option<i64>,
    pub(crate) closed: Option<String>,
    pub(crate) boot: Option<String>,
    pub(crate) elapsed_ms: Option<i64>,
    pub(crate) execution: Option<String>,
}

/// A stored plan with what it was rendered from.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPlan {
    /// The action of the catalogue.
    pub action: String,
    /// The parameters, as they were understood.
    pub params: BTreeMap<String, Value>,
    /// The digest that people agree to.
    pub digest: PlanDigest,
}

impl ApprovalRow {
    pub(crate) fn id(&self) -> ApprovalId {
        ApprovalId::given(self.id.clone())
    }

    pub(crate) fn incident(&self) -> IncidentId {
        IncidentId::given(self.incident.clone())
    }

    pub(crate) fn status(&self) -> Result<ApprovalStatus, LedgerError> {
        self.status.parse().map_err(|_| LedgerError::Damaged("an unknown status of an approval".to_owned()))
    }

    pub(crate) fn digest(&self) -> Result<PlanDigest, LedgerError> {
        let digest = PlanDigest::of(&self.plan);
        // the stored bytes are what is approved and run: were they changed, nothing would match any more
        if digest.as_bytes().as_slice() == self.digest { Ok(digest) } else { Err(LedgerError::Damaged(format!("the plan of {}", self.id))) }
    }

    pub(crate) fn plan(&self) -> Result<Plan, LedgerError> {
        serde_json::from_slice(&self.plan).map_err(|error| LedgerError::Damaged(format!("the plan of {}: {error}", self.id)))
    }

    pub(crate) fn stored_plan(&self) -> Result<StoredPlan, LedgerError> {
        Ok(StoredPlan { action: self.action.clone(), params: rows::parsed(&self.params)?, digest: self.digest()? })
    }

    pub(crate) fn clauses(&self) -> Result<Vec<Clause>, LedgerError> {
        rows::parsed(&self.clauses)
    }
}

/// The approval as the API shows it.
pub(crate) fn shown(conn: &mut SqliteConnection, row: ApprovalRow) -> Result<Approval, LedgerError> {
    let approved_by: Vec<String> = approval_vote::table
        .filter(approval_vote::approval.eq(row.num))
        .order((approval_vote::at, approval_vote::user_name))
        .select(approval_vote::user_name)
        .load(conn)?;
    let preview: Preview = rows::parsed(&row.preview)?;
    let proposed_by: Proposer = rows::parsed(&row.proposer)?;
    Ok(Approval {
        id: row.id(),
        incident_id: row.incident(),
        title: row.title.clone(),
        risk: rows::meaning(&row.risk)?,
        params: rows::parsed(&row.params)?,
        plan: row.plan()?,
        plan_digest: row.digest()?,
        preview,
        proposed_by,
        status: row.status()?,
        quorum: Quorum { required: needed(&row.clauses()?), approved_by },
        created_at: Timestamp::from_millis(row.created_at),
        approve_by: Timestamp::from_millis(row.approve_by),
        execute_by: row.execute_by.map(Timestamp::from_millis),
        execution_id: row.execution.map(ExecutionId::given),
        action: row.action,
        reasoning: row.reasoning,
    })
}

pub(crate) fn find(conn: &mut SqliteConnection, id: &ApprovalId) -> Result<ApprovalRow, LedgerError> {
    let row = approval::table.filter(approval::id.eq(id.as_str())).select(ApprovalRow::as_select()).first(conn).optional()?;
    // what was asked for is not repeated: people mistake fields and send a token as an id
    row.ok_or_else(|| LedgerError::NotFound("this approval".to_owned()))
}

/// Somebody as their account is now; nobody if it is gone or disabled.
pub(crate) fn person(conn: &mut SqliteConnection, name: &str) -> Result<Option<Voter>, LedgerError> {
    let found = user_account::table
        .find(name)
        .filter(user_account::disabled.eq(false))
        .select((user_account::name, user_account::role, user_account::groups))
        .first::<(String, String, String)>(conn)
        .optional()?;
    found.map(|(user, role, groups)| Ok(Voter { user, role: role_of(&role)?, groups: groups_of(&groups)? })).transpose()
}

/// What decides about an approval, with everybody's account as it is now.
pub(crate) fn standing(conn: &mut SqliteConnection, row: &ApprovalRow) -> Result<Standing, LedgerError> {
    let names: Vec<String> = approval_vote::table
        .filter(approval_vote::approval.eq(row.num))
        .order((approval_vote::at, approval_vote::user_name))
        .select(approval_vote::user_name)
        .load(conn)?;
    let mut voters = Vec::new();
    for name in names {
        voters.extend(person(conn, &name)?);
    }
    Ok(Standing {
        status: row.status()?,
        owner: row.owner.clone(),
        digest: row.digest()?,
        clauses: row.clauses()?,
        voters,
        approve_by: Timestamp::from_millis(row.approve_by),
        execute_by: row.execute_by.map(Timestamp::from_millis),
        closed: row.closed.as_deref().map(rows::meaning).transpose()?,
    })
}

impl Tx<'_> {
    /// Stores where an approval stands now.
    fn store_standing(&mut self, num: i64, next: &Standing) -> Result<(), LedgerError> {
        let closed = next.closed.as_ref().map(rows::word).transpose()?;
        diesel::update(approval::table.find(num))
            .set((
                approval::status.eq(next.status.as_str()),
                approval::execute_by.eq(next.execute_by.map(Timestamp::millis)),
                approval::closed.eq(closed),
            ))
            .execute(self.conn)?;
        Ok(())
    }

    /// The active token of an approval is worth nothing from now on.
    fn close_tokens(&mut self, num: i64, state: &'static str) -> Result<usize, LedgerError> {
        let now = self.now().millis();
        let active = approval_token::table.filter(approval_token::approval.eq(num)).filter(approval_token::state.eq("active"));
        Ok(diesel::update(active).set((approval_token::state.eq(state), approval_token::closed_at.eq(now))).execute(self.conn)?)
    }

    pub(crate) fn shown_approval(&mut self, num: i64) -> Result<Approval, LedgerError> {
        let row = approval::table.find(num).select(ApprovalRow::as_select()).first(self.conn)?;
        shown(self.conn, row)
    }

    pub(crate) fn audit_approval(
        &mut self,
        actor: &Actor,
        code: &'static str,
        row: &ApprovalRow,
        outcome: Outcome,
        body: Value,
    ) -> Result<(), LedgerError> {
        let mut body = body;
        if let Some(body) = body.as_object_mut() {
            body.insert("incident".to_owned(), json!(row.incident));
            body.insert("action".to_owned(), json!(row.action));
            body.insert("plan".to_owned(), json!(row.digest()?));
        }
        let object = Object::new("approval", &row.id);
        self.audit(AuditEntry { code, actor: actor.clone(), object, outcome, body, ..AuditEntry::default() })?;
        Ok(())
    }

    /// Writes a line into the incident's timeline and tells that it changed.
    pub(crate) fn incident_line(&mut self, id: &IncidentId, actor: &Actor, kind: TimelineKind, text: String) -> Result<(), LedgerError> {
        let (num, mut state) = incidents::load(self.conn, id)?;
        state.rev += 1;
        let already = state.timeline_count;
        state.timeline_count += 1;
        incidents::update(self.conn, &state)?;
        let line = TimelineEntry { at: self.now(), actor: actor.clone(), kind, text };
        timeline::add(self.conn, num, already, std::slice::from_ref(&line))?;
        self.event(Event::IncidentUpdated { incident: Box::new(state.incident), changes: vec![kind] })?;
        Ok(())
    }

    /// Whether the clock is behind a time that is on record: then nothing is approved and nothing runs.
    pub(crate) fn is_clock_behind(&self) -> bool {
        self.work.heads.audit.last_ts.since(self.now()) > opspilot_kernel::clock::TOLERANCE
    }

    /// Applies to the row what time, or a reason of the service's own, makes of it; tells of it. Says what it became.
    pub(crate) fn move_on(&mut self, row: &ApprovalRow, next: &Standing, actor: &Actor, why: &str) -> Result<(), LedgerError> {
        let (code, kind, state): (_, fn(Box<Approval>) -> Event, _) = match next.status {
            ApprovalStatus::Expired => ("PRO04I", Event::ActionExpired, "expired"),
            ApprovalStatus::Lapsed => ("APR05I", Event::ActionExpired, "expired"),
            ApprovalStatus::Withdrawn => ("PRO02I", Event::ActionDenied, "revoked"),
            ApprovalStatus::Superseded => ("PRO03I", Event::ActionDenied, "revoked"),
            ApprovalStatus::Denied => ("APR03I", Event::ActionDenied, "revoked"),
            ApprovalStatus::Revoked => ("APR04I", Event::ActionDenied, "revoked"),
            _ => return Ok(()),
        };
        self.store_standing(row.num, next)?;
        self.close_tokens(row.num, state)?;
        let body = json!({ "status": next.status, "closed": next.closed, "reason": why });
        self.audit_approval(actor, code, row, Outcome::Success, body)?;
        let approval = self.shown_approval(row.num)?;
        let because = if why.is_empty() { String::new() } else { format!(": {why}") };
        let text = format!("{} is {}{because}", approval.title, next.status.as_str());
        self.event(kind(Box::new(approval)))?;
        self.incident_line(&row.incident(), actor, TimelineKind::ActionClosed, text)
    }
}

/// What an approval that came to its end is said to have ended by.
pub(crate) const fn in_words(why: Closed) -> &'static str {
    match why {
        Closed::ByPerson => "a person decided so",
        Closed::Time => "time ran out",
        Closed::PlanChanged => "the action's definition or the policy changed",
        Closed::NotEligible => "somebody who stood behind it may not any more",
        Closed::IncidentResolved => "the incident is resolved",
        Closed::Epoch => "the epoch is a new one: a restore, or a clock that was accepted",
        Closed::Key => "the key that signed its token was revoked",
    }
}
