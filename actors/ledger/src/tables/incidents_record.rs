//! Everything that is on record about one incident, for whoever looks back at it.

use diesel::{dsl::min, prelude::*};
use opspilot_kernel::{
    alert::Alert,
    approval::Approval,
    execution::{Execution, ExecutionStatus},
    ids::{ExecutionId, IncidentId},
    incident::TimelineEntry,
    time::Timestamp,
};
use serde::Serialize;

use super::{
    approvals, executions, explanations, incidents_course,
    incidents_list::{Evidence, IncidentDetail},
    incidents_rows::parsed,
};
use crate::{
    error::LedgerError,
    read::{Page, Reader},
    schema::{alert, approval, approval_vote, evidence},
};

/// Alerts, pieces of evidence and actions of one record; its incident counts how many there are.
const MOST: u16 = 500;
/// Lines of its timeline.
const LINES: usize = 5000;

/// When things happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Milestones {
    /// The earliest of what its alerts observed, by the senders' own times; never later than when it was noticed.
    pub started_at: Timestamp,
    /// When the first of that was received.
    pub detected_at: Timestamp,
    /// When somebody took it first.
    pub acknowledged_at: Option<Timestamp>,
    /// When the first action for it ended well, and which run that was.
    pub mitigated_at: Option<(Timestamp, ExecutionId)>,
    /// When it was over; none if it is not.
    pub resolved_at: Option<Timestamp>,
}

/// Somebody agreed to an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// To exactly what: the digest of the plan that they were shown.
    pub plan_digest: String,
    /// What they said.
    pub reason: String,
}

/// An action that was proposed, who agreed to it, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRecord {
    /// The proposal.
    pub approval: Approval,
    /// Who agreed, in order.
    pub votes: Vec<Vote>,
    /// Its run.
    pub execution: Option<Execution>,
}

/// Everything that is on record about one incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentRecord {
    /// The incident with its explanation.
    pub detail: IncidentDetail,
    /// When things happened.
    pub milestones: Milestones,
    /// Its alerts, in the order in which they joined it.
    pub alerts: Vec<Alert>,
    /// Its evidence, and what its explanation found.
    pub evidence: Vec<Evidence>,
    /// Its timeline, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Its actions, oldest first.
    pub actions: Vec<ActionRecord>,
}

impl Reader<'_> {
    /// Everything that is on record about one incident; of what it has very many, the first.
    pub fn incident_record(&mut self, id: &IncidentId) -> Result<IncidentRecord, LedgerError> {
        let detail = self.incident(id)?;
        let alerts = self.incident_alerts(id, &Page::first(usize::from(MOST)))?.items;
        let evidence = self.incident_evidence(id)?;
        let timeline = self.timeline(id, &Page::first(LINES))?.items;
        let actions = self.actions_of(id)?;
        let first_seen: Option<i64> =
            alert::table.filter(alert::incident.eq(id.as_str())).select(min(alert::first_seen_at)).first(self.conn)?;
        let (num, _) = super::incidents::load(self.conn, id)?;
        let acknowledged = incidents_course::of(self.conn, num)?.first_acknowledged_at;
        let runs = actions.iter().filter_map(|action| action.execution.as_ref());
        let succeeded = runs.filter(|run| run.status == ExecutionStatus::Succeeded);
        let detected_at = detail.incident.opened_at;
        let milestones = Milestones {
            started_at: first_seen.map_or(detected_at, |at| Timestamp::from_millis(at).min(detected_at)),
            detected_at,
            acknowledged_at: acknowledged.map(Timestamp::from_millis),
            mitigated_at: succeeded.filter_map(|run| Some((run.finished_at?, run.id.clone()))).min(),
            resolved_at: detail.incident.resolved_at,
        };
        Ok(IncidentRecord { detail, milestones, alerts, evidence, timeline, actions })
    }

    /// The first of an incident's evidence, and what its explanation found.
    pub fn incident_evidence(&mut self, id: &IncidentId) -> Result<Vec<Evidence>, LedgerError> {
        let (num, _) = super::incidents::load(self.conn, id)?;
        let query = evidence::table.filter(evidence::incident.eq(num)).order(evidence::n).limit(i64::from(MOST));
        let rows: Vec<(i64, String)> = query.select((evidence::n, evidence::body)).load(self.conn)?;
        let own = rows.into_iter().map(|(n, body)| Ok(Evidence { id: format!("e{n}"), observation: parsed(&body)? }));
        let mut pieces = own.collect::<Result<Vec<_>, LedgerError>>()?;
        pieces.extend(explanations::of(self.conn, num)?.map(|explained| explained.evidence).unwrap_or_default());
        Ok(pieces)
    }

    fn actions_of(&mut self, id: &IncidentId) -> Result<Vec<ActionRecord>, LedgerError> {
        let of = approval::table.filter(approval::incident.eq(id.as_str())).order(approval::num).limit(i64::from(MOST));
        let rows: Vec<approvals::ApprovalRow> = of.select(approvals::ApprovalRow::as_select()).load(self.conn)?;
        let mut actions = Vec::new();
        for row in rows {
            let votes: Vec<(String, i64, Vec<u8>, String)> = approval_vote::table
                .filter(approval_vote::approval.eq(row.num))
                .order((approval_vote::at, approval_vote::user_name))
                .select((approval_vote::user_name, approval_vote::at, approval_vote::digest, approval_vote::reason))
                .load(self.conn)?;
            let vote = |(by, at, digest, reason): (String, i64, Vec<u8>, String)| {
                let plan_digest = format!("sha256:{}", hex::encode(digest));
                Vote { by, at: Timestamp::from_millis(at), plan_digest, reason }
            };
            let votes = votes.into_iter().map(vote).collect();
            let approval = approvals::shown(self.conn, row)?;
            let execution = approval.execution_id.as_ref().map(|run| executions::load(self.conn, run)).transpose()?;
            actions.push(ActionRecord { approval, votes, execution });
        }
        Ok(actions)
    }
}
