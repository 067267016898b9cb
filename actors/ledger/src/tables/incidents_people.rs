//! What people do with incidents. Each writes its timeline entry, its audit entry and its event in the
//! same transaction as the change.
//!
//! | code | meaning |
//! |---|---|
//! | `INC01I` | an incident was opened |
//! | `INC02I` | it was acknowledged |
//! | `INC03I` | it was resolved |
//! | `INC04I` | it was reopened |
//! | `INC05I` | it was put aside until later |
//! | `INC06I` | it was assigned |
//! | `INC07I` | somebody wrote something down |
//! | `INC08I` | it got worse, and so lost its acknowledgement |
//! | `INC10I` | alerts were taken out of it |

use std::time::Duration;

use opspilot_kernel::{
    event::Event,
    ids::IncidentId,
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    time::Timestamp,
};

use super::incidents_state::IncidentState;
use crate::{
    error::LedgerError,
    tables::{
        alerts,
        audit::{AuditEntry, Object},
        incidents, incidents_merge, timeline,
    },
    tx::Tx,
};

/// The longest an incident can be put aside for.
const LONGEST_SNOOZE: Duration = Duration::from_secs(366 * 86_400);

/// What a change does besides changing the row.
struct Told {
    kind: TimelineKind,
    code: &'static str,
    text: String,
}

impl Tx<'_> {
    /// A person takes the incident.
    pub fn incident_acknowledge(&mut self, id: &IncidentId, actor: &Actor, note: &str) -> Result<Incident, LedgerError> {
        let now = self.now();
        self.change_incident(id, actor, |state, _, _| {
            let incident = &mut state.incident;
            match incident.status {
                IncidentStatus::Open => {}
                IncidentStatus::Acknowledged => {
                    let by = incident.acknowledged_by.as_deref().unwrap_or("somebody");
                    return Err(LedgerError::Conflict(format!("the incident is already acknowledged, by {by}")));
                }
                IncidentStatus::Resolved => return Err(resolved("be acknowledged")),
            }
            incident.status = IncidentStatus::Acknowledged;
            incident.acknowledged_at = Some(now);
            incident.acknowledged_by = Some(who(actor));
            Ok(Told { kind: TimelineKind::Acknowledged, code: "INC02I", text: note.to_owned() })
        })
    }

    /// A person says that it is over. Its alerts that still hold are resolved with it; one of them that fires
    /// again after its cooldown opens it again.
    pub fn incident_resolve(&mut self, id: &IncidentId, actor: &Actor, resolution: &str) -> Result<Incident, LedgerError> {
        let now = self.now();
        let resolved = self.change_incident(id, actor, |state, conn, num| {
            let incident = &mut state.incident;
            if incident.status == IncidentStatus::Resolved {
                return Err(LedgerError::Conflict("the incident is already resolved".to_owned()));
            }
            incident.status = IncidentStatus::Resolved;
            incident.resolved_at = Some(now);
            incident.resolution = (!resolution.is_empty()).then(|| resolution.to_owned());
            incident.snoozed_until = None;
            state.quiet_at = None;
            state.firing = 0;
            alerts::resolve_all_of(conn, id, now)?;
            state.look_at = None;
            incidents::hold_fingerprints(conn, num, IncidentStatus::Resolved)?;
            incidents_merge::drop_keys(conn, num)?;
            Ok(Told { kind: TimelineKind::Resolved, code: "INC03I", text: resolution.to_owned() })
        })?;
        self.approvals_of_resolved(id, actor)?;
        Ok(resolved)
    }

    /// A person says that it is not over after all. It then stays open until a person resolves it, or one
    /// of its alerts fires and is over again.
    pub fn incident_reopen(&mut self, id: &IncidentId, actor: &Actor) -> Result<Incident, LedgerError> {
        self.change_incident(id, actor, |state, conn, num| {
            let incident = &mut state.incident;
            if incident.status != IncidentStatus::Resolved {
                return Err(LedgerError::Conflict("the incident is not resolved, so it cannot be reopened".to_owned()));
            }
            if let Some(other) = &incident.merged_into {
                return Err(LedgerError::Conflict(format!("the incident was merged into {other}; work on that one")));
            }
            if let Some(rival) = incidents::rival(conn, num)? {
                let text = format!("the incident {rival} is already open for the same alert; work on that one");
                return Err(LedgerError::Conflict(text));
            }
            incident.status = IncidentStatus::Open;
            incident.acknowledged_at = None;
            incident.acknowledged_by = None;
            incident.resolved_at = None;
            incident.resolution = None;
            incidents::hold_fingerprints(conn, num, IncidentStatus::Open)?;
            Ok(Told { kind: TimelineKind::Reopened, code: "INC04I", text: String::new() })
        })
    }

    /// A person puts it aside until later.
    pub fn incident_snooze(&mut self, id: &IncidentId, actor: &Actor, until: Timestamp) -> Result<Incident, LedgerError> {
        let now = self.now();
        self.change_incident(id, actor, |state, _, _| {
            if state.incident.status == IncidentStatus::Resolved {
                return Err(resolved("be snoozed"));
            }
            if until <= now {
                return Err(LedgerError::Invalid("until must be in the future".to_owned()));
            }
            if until.since(now) > LONGEST_SNOOZE {
                return Err(LedgerError::Invalid("until must be at most 366 days ahead".to_owned()));
            }
            state.incident.snoozed_until = Some(until);
            Ok(Told { kind: TimelineKind::Snoozed, code: "INC05I", text: format!("until {until}") })
        })
    }

    /// A person gives it to somebody, or to nobody.
    pub fn incident_assign(&mut self, id: &IncidentId, actor: &Actor, assignee: Option<&str>) -> Result<Incident, LedgerError> {
        self.change_incident(id, actor, |state, _, _| {
            state.incident.assignee = assignee.map(str::to_owned);
            let text = assignee.map_or_else(|| "to nobody".to_owned(), |assignee| format!("to {assignee}"));
            Ok(Told { kind: TimelineKind::Assigned, code: "INC06I", text })
        })
    }

    /// A person writes something down.
    pub fn incident_note(&mut self, id: &IncidentId, actor: &Actor, text: &str) -> Result<Incident, LedgerError> {
        self.change_incident(id, actor, |_, _, _| Ok(Told { kind: TimelineKind::Note, code: "INC07I", text: text.to_owned() }))
    }

    fn change_incident(
        &mut self,
        id: &IncidentId,
        actor: &Actor,
        change: impl FnOnce(&mut IncidentState, &mut diesel::SqliteConnection, i64) -> Result<Told, LedgerError>,
    ) -> Result<Incident, LedgerError> {
        let (num, mut state) = incidents::load(self.conn, id)?;
        let Told { kind, code, text } = change(&mut state, self.conn, num)?;
        state.rev += 1;
        let already = state.timeline_count;
        state.timeline_count += 1;
        incidents::update(self.conn, &state)?;
        let line = TimelineEntry { at: self.now(), actor: actor.clone(), kind, text };
        timeline::add(self.conn, num, already, std::slice::from_ref(&line))?;
        self.audit_incident(actor, code, id, &line.text)?;
        self.event(Event::IncidentUpdated { incident: Box::new(state.incident.clone()), changes: vec![kind] })?;
        Ok(state.incident)
    }
}

impl Tx<'_> {
    /// Writes what happened to an incident into the audit log.
    pub(crate) fn audit_incident(&mut self, actor: &Actor, code: &'static str, id: &IncidentId, text: &str) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code,
            actor: actor.clone(),
            object: Object::new("incident", id.as_str()),
            body: serde_json::json!({ "text": text }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

fn resolved(wanted: &str) -> LedgerError {
    LedgerError::Conflict(format!("the incident is resolved, so it cannot {wanted}; reopen it first"))
}

/// The name that stands on the incident.
fn who(actor: &Actor) -> String {
    match actor {
        Actor::User { id, .. } => id.clone(),
        other => other.label(),
    }
}
