//! `incident_key`, and what is moved when one incident's alerts go to another.
//!
//! | code | meaning |
//! |---|---|
//! | `INC09I` | it was merged into another |

use std::collections::BTreeMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Text},
};
use opspilot_kernel::{
    event::Event,
    ids::IncidentId,
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    time::Timestamp,
};

use super::{
    incidents,
    incidents_rows::{json, stored},
    incidents_split::{self, Before},
    incidents_state::{BoardRequest, HeldKey, KeyHolder, Merge},
    incidents_words,
};
use crate::{
    error::LedgerError,
    schema::{incident_fingerprint, incident_key},
    tables::timeline,
    tx::Tx,
};

/// Evidence that an incident may come to have by a person's merging.
const MOST_EVIDENCE: u64 = 10_000;

/// Holders of keys that are read at once; further ones are found with the next record or tick.
const HOLDERS: i64 = 4096;

// Each costs a few steps in an index for every key asked for.
pub(super) const HOLDERS_OF: &str = "SELECT k.key, k.incident, k.at, k.opened, k.storm FROM json_each(?) c CROSS JOIN incident_key k \
     WHERE k.key = c.value LIMIT ?";
pub(super) const STORMS_OF: &str = "SELECT k.key, k.incident, k.at, k.opened, k.storm FROM json_each(?) c CROSS JOIN incident_key k \
     INDEXED BY incident_key_of_storm WHERE k.key = c.value AND k.storm LIMIT ?";
// two lookups rather than one OR: of a name that a hundred thousand open incidents share only the young ones are walked
pub(super) const LOOKED_AT: &str = "WITH own AS (SELECT DISTINCT o.key FROM json_each(?1) c CROSS JOIN incident_key o \
     WHERE o.num = c.value AND o.counts) \
     SELECT k.key, k.incident, k.at, k.opened, k.storm FROM own CROSS JOIN incident_key k INDEXED BY incident_key_young \
     WHERE k.key = own.key AND k.counts AND k.opened >= ?2 \
     UNION SELECT k.key, k.incident, k.at, k.opened, k.storm FROM own CROSS JOIN incident_key k \
     INDEXED BY incident_key_of_storm WHERE k.key = own.key AND k.storm LIMIT ?3";

#[derive(QueryableByName)]
struct HolderRow {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Text)]
    incident: String,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = BigInt)]
    opened: i64,
    #[diesel(sql_type = Bool)]
    storm: bool,
}

/// Who has the keys that are asked for; `looked_at` are the numbers of the incidents whose time to be looked at has come.
pub(super) fn holders(
    conn: &mut SqliteConnection,
    request: &BoardRequest,
    looked_at: &[i64],
) -> Result<BTreeMap<String, Vec<KeyHolder>>, LedgerError> {
    let mut rows: Vec<HolderRow> = Vec::new();
    if !request.keys.is_empty() {
        rows.extend(sql_query(HOLDERS_OF).bind::<Text, _>(json(&request.keys)?).bind::<BigInt, _>(HOLDERS).load::<HolderRow>(conn)?);
    }
    if !request.storms.is_empty() {
        rows.extend(sql_query(STORMS_OF).bind::<Text, _>(json(&request.storms)?).bind::<BigInt, _>(HOLDERS).load::<HolderRow>(conn)?);
    }
    if let (Some(since), false) = (request.opened_since, looked_at.is_empty()) {
        let found = sql_query(LOOKED_AT)
            .bind::<Text, _>(json(&looked_at)?)
            .bind::<BigInt, _>(since.millis())
            .bind::<BigInt, _>(HOLDERS.saturating_mul(16));
        rows.extend(found.load::<HolderRow>(conn)?);
    }
    let mut holders: BTreeMap<String, Vec<KeyHolder>> = BTreeMap::new();
    for row in rows {
        let holder = KeyHolder {
            incident: IncidentId::given(row.incident),
            at: Timestamp::from_millis(row.at),
            opened_at: Timestamp::from_millis(row.opened),
            storm: row.storm,
        };
        holders.entry(row.key).or_default().push(holder);
    }
    for list in holders.values_mut() {
        list.sort_by(|a, b| (a.opened_at, &a.incident).cmp(&(b.opened_at, &b.incident)));
        list.dedup();
    }
    Ok(holders)
}

/// Gives an incident keys; what it is known to have is refreshed.
pub(super) fn hold_keys(
    conn: &mut SqliteConnection,
    num: i64,
    incident: &IncidentId,
    opened_at: Timestamp,
    keys: &[HeldKey],
) -> Result<(), LedgerError> {
    for held in keys {
        sql_query(
            "INSERT INTO incident_key (key, num, incident, at, opened, counts, storm) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (key, num) DO UPDATE SET at = max(at, excluded.at), storm = storm OR excluded.storm",
        )
        .bind::<Text, _>(&held.key)
        .bind::<BigInt, _>(num)
        .bind::<Text, _>(incident.as_str())
        .bind::<BigInt, _>(held.at.millis())
        .bind::<BigInt, _>(opened_at.millis())
        .bind::<Bool, _>(held.counts)
        .bind::<Bool, _>(held.storm)
        .execute(conn)?;
    }
    Ok(())
}

/// Lets go of the keys of an incident that is over.
pub(crate) fn drop_keys(conn: &mut SqliteConnection, num: i64) -> Result<(), LedgerError> {
    diesel::delete(incident_key::table.filter(incident_key::num.eq(num))).execute(conn)?;
    Ok(())
}

impl Tx<'_> {
    /// Moves what belongs to `merge.from` to `merge.into`; both rows say already what comes of it, `before` how they stood.
    pub(super) fn move_rows(&mut self, merge: &Merge, before: Before) -> Result<(), LedgerError> {
        let (from, ended) = incidents::load(self.conn, &merge.from)?;
        let (into, state) = incidents::load(self.conn, &merge.into)?;
        incidents_split::remember(self.conn, self.work.now, (from, &ended), into, merge, before)?;
        incidents_words::take_over(self.conn, from, into)?;
        let into_id = merge.into.as_str();
        sql_query("UPDATE OR IGNORE incident_fingerprint SET num = ?, incident = ? WHERE num = ?")
            .bind::<BigInt, _>(into)
            .bind::<Text, _>(into_id)
            .bind::<BigInt, _>(from)
            .execute(self.conn)?;
        diesel::delete(incident_fingerprint::table.filter(incident_fingerprint::num.eq(from))).execute(self.conn)?;
        sql_query(
            "INSERT INTO incident_key (key, num, incident, at, opened, counts, storm) \
             SELECT key, ?, ?, at, ?, counts, storm FROM incident_key WHERE num = ? \
             ON CONFLICT (key, num) DO UPDATE SET at = max(at, excluded.at), storm = storm OR excluded.storm",
        )
        .bind::<BigInt, _>(into)
        .bind::<Text, _>(into_id)
        .bind::<BigInt, _>(state.incident.opened_at.millis())
        .bind::<BigInt, _>(from)
        .execute(self.conn)?;
        drop_keys(self.conn, from)?;
        sql_query("UPDATE alert SET incident = ? WHERE incident = ?")
            .bind::<Text, _>(into_id)
            .bind::<Text, _>(merge.from.as_str())
            .execute(self.conn)?;
        // the incident that ended keeps its own copy: its explanation cites it
        sql_query(
            "INSERT INTO evidence (incident, n, alert, body) \
             SELECT ?1, (SELECT coalesce(max(n), 0) FROM evidence WHERE incident = ?1) + row_number() OVER (ORDER BY n), alert, body \
             FROM (SELECT n, alert, body FROM evidence WHERE incident = ?2 ORDER BY n LIMIT ?3)",
        )
        .bind::<BigInt, _>(into)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(stored(merge.evidence)?)
        .execute(self.conn)?;
        // it may be over by the end of the same batch; if it is merged itself, that comes next
        if state.incident.merged_into.is_none() {
            incidents::hold_fingerprints(self.conn, into, state.incident.status)?;
            if state.incident.status == IncidentStatus::Resolved {
                drop_keys(self.conn, into)?;
            }
        }
        Ok(())
    }

    /// A person says that two incidents are one: `from` ends, and everything of it goes to `into`.
    pub fn incident_merge(&mut self, from: &IncidentId, into: &IncidentId, actor: &Actor) -> Result<Incident, LedgerError> {
        if from == into {
            return Err(LedgerError::Invalid("an incident cannot be merged into itself".to_owned()));
        }
        let (from_num, mut source) = incidents::load(self.conn, from)?;
        let (into_num, mut target) = incidents::load(self.conn, into)?;
        for (id, state) in [(from, &source), (into, &target)] {
            if let Some(other) = &state.incident.merged_into {
                return Err(LedgerError::Conflict(format!("the incident {id} was merged into {other}; work on that one")));
            }
            if state.incident.status == IncidentStatus::Resolved {
                return Err(LedgerError::Conflict(format!("the incident {id} is resolved; reopen it first")));
            }
        }
        if !super::approvals::under_way(self.conn, [from].into_iter())?.is_empty() {
            let text = format!("something that was approved for {from} is not through yet; merge {into} into it, or wait");
            return Err(LedgerError::Conflict(text));
        }
        let now = self.now();
        let before = Before::of(Some(&source), Some(&target));
        let evidence = source.incident.evidence_count.min(MOST_EVIDENCE.saturating_sub(target.incident.evidence_count));
        target.take_over(&source, evidence);
        source.merge_into(into, now);
        let title = target.incident.title.clone();
        let told = [
            (from_num, &mut source, format!("merged into {into} ({title})")),
            (into_num, &mut target, format!("{from} was merged into this one")),
        ];
        for (num, state, text) in told {
            state.rev += 1;
            let already = state.timeline_count;
            state.timeline_count += 1;
            incidents::update(self.conn, state)?;
            let line = TimelineEntry { at: now, actor: actor.clone(), kind: TimelineKind::Merged, text };
            timeline::add(self.conn, num, already, &[line])?;
            self.event(Event::IncidentUpdated { incident: Box::new(state.incident.clone()), changes: vec![TimelineKind::Merged] })?;
        }
        self.move_rows(&Merge { from: from.clone(), into: into.clone(), evidence }, before)?;
        self.audit_incident(actor, "INC09I", from, &format!("merged into {into}"))?;
        self.approvals_of_resolved(from, actor)?;
        Ok(target.incident)
    }
}
