//! `incident_course`: what incidents went through that their own rows do not tell. Most have no row here.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use opspilot_kernel::{ids::IncidentId, incident::TimelineKind, time::Timestamp};

use crate::{
    error::LedgerError,
    schema::{incident, incident_course},
};

/// What an incident went through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = incident_course, check_for_backend(diesel::sqlite::Sqlite))]
pub(super) struct Course {
    pub(super) num: i64,
    pub(super) recurrence_of: Option<String>,
    pub(super) recurrence: i64,
    pub(super) first_acknowledged_at: Option<i64>,
    pub(super) reopened: i64,
}

/// What one incident went through.
pub(super) fn of(conn: &mut SqliteConnection, num: i64) -> Result<Course, LedgerError> {
    let course = incident_course::table.find(num).select(Course::as_select()).first(conn).optional()?;
    Ok(course.unwrap_or_default())
}

/// An incident is one that was over before, as `before`.
pub(super) fn came_back(conn: &mut SqliteConnection, num: i64, before: &IncidentId) -> Result<(), LedgerError> {
    let last: Option<i64> = incident::table.filter(incident::id.eq(before.as_str())).select(incident::num).first(conn).optional()?;
    let chain = last.map(|last| of(conn, last)).transpose()?.map_or(0, |course| course.recurrence);
    sql_query("INSERT INTO incident_course (num, recurrence_of, recurrence) VALUES (?, ?, ?)")
        .bind::<BigInt, _>(num)
        .bind::<Text, _>(before.as_str())
        .bind::<BigInt, _>(chain.saturating_add(1))
        .execute(conn)?;
    Ok(())
}

/// Keeps what statistics need of a line of a timeline.
pub(super) fn went(conn: &mut SqliteConnection, num: i64, kind: TimelineKind, at: Timestamp) -> Result<(), LedgerError> {
    match kind {
        TimelineKind::Acknowledged => sql_query(
            "INSERT INTO incident_course (num, first_acknowledged_at) VALUES (?, ?) ON CONFLICT (num) DO UPDATE \
             SET first_acknowledged_at = coalesce(first_acknowledged_at, excluded.first_acknowledged_at)",
        )
        .bind::<BigInt, _>(num)
        .bind::<BigInt, _>(at.millis())
        .execute(conn)?,
        TimelineKind::Reopened => {
            sql_query("INSERT INTO incident_course (num, reopened) VALUES (?, 1) ON CONFLICT (num) DO UPDATE SET reopened = reopened + 1")
                .bind::<BigInt, _>(num)
                .execute(conn)?
        }
        _ => 0,
    };
    Ok(())
}
