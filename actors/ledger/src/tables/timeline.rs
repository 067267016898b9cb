//! `timeline`: what happened to an incident, in order; the database refuses to change a line.

use diesel::prelude::*;
use opspilot_kernel::{ids::IncidentId, incident::TimelineEntry, time::Timestamp};

use super::{
    incidents, incidents_course,
    incidents_rows::{json, meaning, parsed, stored, word},
};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::timeline::dsl as t,
};

/// Adds lines behind the first `already`; keeps in the incident what its statistics need of them.
pub(crate) fn add(conn: &mut SqliteConnection, num: i64, already: u64, lines: &[TimelineEntry]) -> Result<(), LedgerError> {
    for (n, line) in (stored(already)? + 1..).zip(lines) {
        diesel::insert_into(t::timeline)
            .values((
                t::incident.eq(num),
                t::n.eq(n),
                t::at.eq(line.at.millis()),
                t::kind.eq(word(&line.kind)?),
                t::actor.eq(json(&line.actor)?),
                t::text.eq(&line.text),
            ))
            .execute(conn)?;
        incidents_course::went(conn, num, line.kind, line.at)?;
    }
    Ok(())
}

impl Reader<'_> {
    /// An incident's timeline, oldest first.
    pub fn timeline(&mut self, id: &IncidentId, page: &Page) -> Result<Listed<TimelineEntry>, LedgerError> {
        let (num, _) = incidents::load(self.conn, id)?;
        let after = super::incidents_list::number_cursor(page)?.unwrap_or(0);
        let rows: Vec<(i64, i64, String, String, String)> = t::timeline
            .filter(t::incident.eq(num))
            .filter(t::n.gt(after))
            .order(t::n)
            .limit(super::incidents_list::one_more(page))
            .select((t::n, t::at, t::kind, t::actor, t::text))
            .load(self.conn)?;
        super::incidents_list::listed(
            rows,
            page,
            |row| row.0.to_string(),
            |(_, at, kind, actor, text)| {
                Ok(TimelineEntry { at: Timestamp::from_millis(at), actor: parsed(&actor)?, kind: meaning(&kind)?, text })
            },
        )
    }
}
