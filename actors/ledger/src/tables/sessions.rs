//! Log-ins. A session is a row: without the row its token is worth nothing.
//!
//! | code | meaning |
//! |---|---|
//! | `SES01I` | somebody logged in |
//! | `SES02I` | somebody logged out |

use diesel::prelude::*;
use opspilot_kernel::{
    ids::SessionId,
    principal::{Actor, Role},
    time::Timestamp,
};
use serde_json::json;

use super::{
    audit::Object,
    users::{entry, groups_of, role_of},
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{session, user_account},
    tx::Tx,
};

/// How many sessions an account may have at once; a further one ends the oldest.
pub(crate) const MAX_SESSIONS: i64 = 100;

/// A session and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session.
    pub id: SessionId,
    /// The account's name.
    pub user: String,
    /// What the account may do.
    pub role: Role,
    /// The groups of the account.
    pub groups: Vec<String>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was last used, to within a minute.
    pub seen_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
}

impl Tx<'_> {
    /// Opens a session for an account that is not disabled. Audited.
    pub fn session_open(&mut self, actor: &Actor, user: &str, id: &SessionId, expires_at: Timestamp) -> Result<(), LedgerError> {
        let now = self.now();
        let found = user_account::table
            .find(user)
            .filter(user_account::disabled.eq(false))
            .select(user_account::name)
            .first::<String>(self.conn)
            .optional()?;
        let user = found.ok_or_else(|| LedgerError::NotFound("this account".to_owned()))?;
        diesel::delete(session::table.filter(session::expires_at.le(now.millis()))).execute(self.conn)?;
        let newest = session::table
            .filter(session::user_name.eq(&user))
            .order((session::opened_at.desc(), session::id))
            .offset(MAX_SESSIONS - 1)
            .limit(MAX_SESSIONS)
            .select(session::id)
            .load::<String>(self.conn)?;
        diesel::delete(session::table.filter(session::id.eq_any(newest))).execute(self.conn)?;
        diesel::insert_into(session::table)
            .values((
                session::id.eq(id.as_str()),
                session::user_name.eq(&user),
                session::opened_at.eq(now.millis()),
                session::seen_at.eq(now.millis()),
                session::expires_at.eq(expires_at.millis()),
            ))
            .execute(self.conn)?;
        let body = json!({ "session": id, "expires_at": expires_at });
        self.audit(entry("SES01I", actor, Object::new("user", &user), body))?;
        Ok(())
    }

    /// Ends a session. Audited. Returns whether there was one.
    pub fn session_close(&mut self, actor: &Actor, id: &SessionId) -> Result<bool, LedgerError> {
        let user = session::table.find(id.as_str()).select(session::user_name).first::<String>(self.conn).optional()?;
        let Some(user) = user else { return Ok(false) };
        diesel::delete(session::table.find(id.as_str())).execute(self.conn)?;
        self.audit(entry("SES02I", actor, Object::new("user", &user), json!({ "session": id })))?;
        Ok(true)
    }

    /// Notes that a session is in use. Not audited.
    pub fn session_seen(&mut self, id: &SessionId, at: Timestamp) -> Result<(), LedgerError> {
        diesel::update(session::table.find(id.as_str()).filter(session::seen_at.lt(at.millis())))
            .set(session::seen_at.eq(at.millis()))
            .execute(self.conn)?;
        Ok(())
    }
}

impl Reader<'_> {
    /// A session, unless it is closed or its account is disabled. Whether it is too old is the caller's to judge.
    pub fn session(&mut self, id: &SessionId) -> Result<Option<SessionRecord>, LedgerError> {
        let found = session::table
            .inner_join(user_account::table)
            .filter(session::id.eq(id.as_str()).and(user_account::disabled.eq(false)))
            .select((
                user_account::name,
                user_account::role,
                user_account::groups,
                session::opened_at,
                session::seen_at,
                session::expires_at,
            ))
            .first::<(String, String, String, i64, i64, i64)>(self.conn)
            .optional()?;
        let Some((user, role, groups, opened, seen, expires)) = found else { return Ok(None) };
        Ok(Some(SessionRecord {
            id: id.clone(),
            user,
            role: role_of(&role)?,
            groups: groups_of(&groups)?,
            opened_at: Timestamp::from_millis(opened),
            seen_at: Timestamp::from_millis(seen),
            expires_at: Timestamp::from_millis(expires),
        }))
    }
}
