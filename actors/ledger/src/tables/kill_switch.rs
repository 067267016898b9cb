//! `kill_switch`: while it is engaged nothing is started.
//!
//! | code | meaning |
//! |---|---|
//! | `KIL01I` | somebody engaged it |
//! | `KIL02I` | an admin released it |

use diesel::prelude::*;
use opspilot_kernel::{
    consent::{Refusal, Voter},
    principal::{Actor, Role},
    time::Timestamp,
};
use serde_json::json;

use super::{
    approvals::Ruled,
    audit::{AuditEntry, Object},
};
use crate::{error::LedgerError, read::Reader, schema::kill_switch::dsl as t, tx::Tx};

/// Whether anything may be started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KillSwitch {
    /// Whether it is engaged: then nothing is started.
    pub engaged: bool,
    /// Who engaged or released it last.
    pub by: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// Engaged, who, when, why.
type Row = (bool, Option<String>, Option<i64>, Option<String>);

fn load(conn: &mut SqliteConnection) -> Result<KillSwitch, LedgerError> {
    let row: Option<Row> = t::kill_switch.find(1).select((t::engaged, t::who, t::at, t::reason)).first(conn).optional()?;
    // without the row nothing may run
    let (engaged, by, at, reason) = row.unwrap_or((true, None, None, Some("its row is missing".to_owned())));
    Ok(KillSwitch { engaged, by, at: at.map(Timestamp::from_millis), reason })
}

/// Why nothing may be started; none while it may.
pub(crate) fn engaged(conn: &mut SqliteConnection) -> Result<Option<String>, LedgerError> {
    let switch = load(conn)?;
    Ok(switch.engaged.then(|| switch.reason.unwrap_or_default()))
}

impl Tx<'_> {
    /// Engages or releases it. Operators engage it, only an admin releases it, and only in person.
    pub fn kill_switch_set(&mut self, engage: bool, who: &Voter, by_key: bool, actor: &Actor, reason: &str) -> Ruled<KillSwitch> {
        let before = load(self.conn)?;
        let needed = if engage { Role::Operator } else { Role::Admin };
        if !self.now_as(who)?.role.includes(needed) {
            return Ok(Err(Refusal::NotPermitted));
        }
        if before.engaged == engage {
            return Ok(Ok(before));
        }
        if by_key && !engage {
            return Ok(Err(Refusal::KeyNotAllowed));
        }
        diesel::replace_into(t::kill_switch)
            .values((t::id.eq(1), t::engaged.eq(engage), t::who.eq(&who.user), t::at.eq(self.now().millis()), t::reason.eq(reason)))
            .execute(self.conn)?;
        self.audit(AuditEntry {
            code: if engage { "KIL01I" } else { "KIL02I" },
            actor: actor.clone(),
            object: Object::new("kill-switch", ""),
            body: json!({ "reason": reason }),
            ..AuditEntry::default()
        })?;
        Ok(Ok(load(self.conn)?))
    }
}

impl Reader<'_> {
    /// Whether anything may be started.
    pub fn kill_switch(&mut self) -> Result<KillSwitch, LedgerError> {
        load(self.conn)
    }
}
