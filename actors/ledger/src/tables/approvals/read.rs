//! Lists and details.

use std::collections::BTreeSet;

use diesel::prelude::*;
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus},
    ids::{ApprovalId, IncidentId},
};

use super::{ApprovalRow, find, shown};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::approval,
    tables::incidents_list::{listed, number_cursor, one_more},
    tx::{Tx, loaded},
};

/// How many approvals an incident shows at once.
const OF_AN_INCIDENT: i64 = 50;

/// Which approvals are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalFilter {
    /// Where they stand.
    pub status: Option<ApprovalStatus>,
    /// Of this incident.
    pub incident: Option<IncidentId>,
}

impl Reader<'_> {
    /// Approvals, newest first.
    pub fn approvals(&mut self, filter: &ApprovalFilter, page: &Page) -> Result<Listed<Approval>, LedgerError> {
        let mut query = approval::table.select(ApprovalRow::as_select()).order(approval::num.desc()).limit(one_more(page)).into_boxed();
        if let Some(status) = filter.status {
            query = query.filter(approval::status.eq(status.as_str()));
        }
        if let Some(incident) = &filter.incident {
            query = query.filter(approval::incident.eq(incident.as_str().to_owned()));
        }
        if let Some(before) = number_cursor(page)? {
            query = query.filter(approval::num.lt(before));
        }
        let rows = query.load(self.conn)?;
        let conn = &mut *self.conn;
        listed(rows, page, |row| row.num.to_string(), |row| shown(conn, row))
    }

    /// One approval.
    pub fn approval(&mut self, id: &ApprovalId) -> Result<Approval, LedgerError> {
        let row = find(self.conn, id)?;
        shown(self.conn, row)
    }

    /// How many wait for people.
    pub fn approvals_pending(&mut self) -> Result<u64, LedgerError> {
        loaded(approval::table.filter(approval::status.eq("pending")).count().get_result(self.conn)?)
    }
}

impl Tx<'_> {
    /// One approval, as this transaction leaves it.
    pub fn approval(&mut self, id: &ApprovalId) -> Result<Approval, LedgerError> {
        let row = find(self.conn, id)?;
        shown(self.conn, row)
    }
}

/// The newest approvals of an incident.
pub(crate) fn of_incident(conn: &mut SqliteConnection, incident: &str) -> Result<Vec<Approval>, LedgerError> {
    let rows: Vec<ApprovalRow> = approval::table
        .filter(approval::incident.eq(incident))
        .order(approval::num.desc())
        .limit(OF_AN_INCIDENT)
        .select(ApprovalRow::as_select())
        .load(conn)?;
    rows.into_iter().map(|row| shown(conn, row)).collect()
}

/// Which of these incidents have an approval that is approved or executing: something may still come of it.
pub(crate) fn under_way<'a>(
    conn: &mut SqliteConnection,
    incidents: impl Iterator<Item = &'a IncidentId>,
) -> Result<BTreeSet<IncidentId>, LedgerError> {
    // nearly always none: then the incidents are not even named
    let open = approval::table.filter(approval::status.eq_any(["approved", "executing"]));
    let found: BTreeSet<String> = open.select(approval::incident).load(conn)?.into_iter().collect();
    Ok(if found.is_empty() { BTreeSet::new() } else { incidents.filter(|id| found.contains(id.as_str())).cloned().collect() })
}
