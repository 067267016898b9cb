//! Proposals.

use std::{collections::BTreeMap, time::Duration};

use diesel::prelude::*;
use opspilot_kernel::{
    approval::{Approval, Preview, Proposer},
    consent::{Clause, Refusal},
    event::Event,
    ids::{ApprovalId, IncidentId},
    incident::{IncidentStatus, TimelineKind},
    plan::{PlanDigest, Risk},
    principal::Actor,
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{ApprovalRow, Ruled, find, rows, shown};
use crate::{error::LedgerError, schema::approval, tables::audit::Outcome, tables::incidents, tx::Tx};

/// How many proposals may wait at once, whoever makes them.
const MOST_WAITING: i64 = 10_000;

/// A rendered action, to be proposed.
#[derive(Debug, Clone)]
pub struct NewApproval {
    /// Its name; one that exists already is returned as it stands.
    pub id: ApprovalId,
    /// The incident it is to help.
    pub incident: IncidentId,
    /// The action of the catalogue.
    pub action: String,
    /// One line for people.
    pub title: String,
    /// How much harm it can do.
    pub risk: Risk,
    /// What the slots were filled with.
    pub params: BTreeMap<String, Value>,
    /// The plan's canonical bytes.
    pub plan: Vec<u8>,
    /// What an approver is shown.
    pub preview: Preview,
    /// Why.
    pub reasoning: String,
    /// What proposes it.
    pub proposer: Proposer,
    /// Who is answerable.
    pub actor: Actor,
    /// The human behind it.
    pub owner: Option<String>,
    /// Who must agree.
    pub clauses: Vec<Clause>,
    /// How long they have.
    pub approve_within: Duration,
    /// How often rules and models may propose.
    pub limits: ProposalLimits,
}

/// How often rules and models may propose.
#[derive(Debug, Clone, Copy)]
pub struct ProposalLimits {
    /// The same plan is not proposed again within this time.
    pub cooldown: Duration,
    /// Proposals within an hour, all of them together.
    pub per_hour: u32,
}

impl Tx<'_> {
    /// Proposes a rendered action. For a rule or a model an equal proposal that waits is returned instead, and the
    /// limits apply; a person's proposal always creates an approval.
    pub fn approval_propose(&mut self, new: NewApproval) -> Ruled<Approval> {
        let known =
            approval::table.filter(approval::id.eq(new.id.as_str())).select(ApprovalRow::as_select()).first(self.conn).optional()?;
        if let Some(known) = known {
            return Ok(Ok(shown(self.conn, known)?));
        }
        let (_, incident) = incidents::load(self.conn, &new.incident)?;
        if incident.incident.status == IncidentStatus::Resolved {
            return Ok(Err(Refusal::IncidentResolved));
        }
        let now = self.now();
        let digest = PlanDigest::of(&new.plan);
        let by_person = matches!(new.proposer, Proposer::User(_));
        if !by_person {
            if let Some(equal) = self.equal_that_waits(&new.incident, &digest)? {
                return Ok(Ok(shown(self.conn, equal)?));
            }
            if let Some(refusal) = self.too_often(&digest, &new.limits)? {
                return Ok(Err(refusal));
            }
        }
        let waiting = approval::table.filter(approval::status.eq("pending")).count().get_result::<i64>(self.conn)?;
        if waiting >= MOST_WAITING {
            return Ok(Err(Refusal::Conflict(format!("{MOST_WAITING} proposals wait for people, which is the most there may be"))));
        }
        let row = ApprovalRow {
            num: 0,
            id: new.id.to_string(),
            incident: new.incident.to_string(),
            action: new.action,
            title: new.title,
            risk: new.risk.as_str().to_owned(),
            params: rows::json(&new.params)?,
            digest: digest.as_bytes().to_vec(),
            plan: new.plan,
            preview: rows::json(&new.preview)?,
            reasoning: new.reasoning,
            proposer: rows::json(&new.proposer)?,
            by_person,
            owner: new.owner,
            status: "pending".to_owned(),
            clauses: rows::json(&new.clauses)?,
            created_at: now.millis(),
            approve_by: now.after(new.approve_within).millis(),
            execute_by: None,
            closed: None,
            boot: None,
            elapsed_ms: None,
            execution: None,
        };
        diesel::insert_into(approval::table).values(&row).execute(self.conn)?;
        let row = find(self.conn, &new.id)?;
        let body = json!({
            "proposer": new.proposer, "owner": row.owner, "risk": row.risk, "params": new.params, "reasoning": row.reasoning,
            "approve_by": Timestamp::from_millis(row.approve_by), "plan_text": String::from_utf8_lossy(&row.plan),
        });
        self.audit_approval(&new.actor, "PRO01I", &row, Outcome::Success, body)?;
        let text = format!("{} is proposed: {}", row.title, new.preview.text);
        let approval = shown(self.conn, row)?;
        self.event(Event::ActionProposed(Box::new(approval.clone())))?;
        self.incident_line(&new.incident, &new.actor, TimelineKind::ActionProposed, text)?;
        Ok(Ok(approval))
    }

    fn equal_that_waits(&mut self, incident: &IncidentId, digest: &PlanDigest) -> Result<Option<ApprovalRow>, LedgerError> {
        let now = self.now().millis();
        let equal = approval::table
            .filter(approval::digest.eq(digest.as_bytes().as_slice()))
            .filter(approval::incident.eq(incident.as_str()))
            .filter(approval::status.eq("pending").and(approval::approve_by.gt(now)).or(approval::status.eq_any(["approved", "executing"])))
            .order(approval::num.desc())
            .select(ApprovalRow::as_select());
        Ok(equal.first(self.conn).optional()?)
    }

    fn too_often(&mut self, digest: &PlanDigest, limits: &ProposalLimits) -> Result<Option<Refusal>, LedgerError> {
        let now = self.now();
        let last: Option<i64> = approval::table
            .filter(approval::digest.eq(digest.as_bytes().as_slice()))
            .select(diesel::dsl::max(approval::created_at))
            .first(self.conn)?;
        if let Some(again) = last.map(|last| Timestamp::from_millis(last).after(limits.cooldown)).filter(|again| *again > now) {
            return Ok(Some(Refusal::CoolingDown(again)));
        }
        let hour_ago = now.before(Duration::from_secs(3600)).millis();
        let made: i64 = approval::table
            .filter(approval::by_person.eq(false))
            .filter(approval::created_at.gt(hour_ago))
            .count()
            .get_result(self.conn)?;
        Ok((made >= i64::from(limits.per_hour)).then_some(Refusal::TooMany(limits.per_hour)))
    }
}
