//! Accounts. Every change is audited here; a hash of a password never is.
//!
//! | code | meaning |
//! |---|---|
//! | `USR01I` | an account was made |
//! | `USR02I` | an account was changed |

use diesel::prelude::*;
use opspilot_kernel::{
    principal::{Actor, Role},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::audit::{AuditEntry, Object};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{session, user_account},
    tx::Tx,
};

/// How many accounts there may be.
pub(crate) const MAX_USERS: i64 = 10_000;

/// An account, without its password's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The account's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The groups it is in, sorted.
    pub groups: Vec<String>,
    /// Whether it may not be used.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub changed_at: Timestamp,
}

/// An account to be made.
#[derive(Clone)]
pub struct NewUser {
    /// The account's name: 1 to 64 of letters, digits, `.`, `_`, `-` and `@`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// The Argon2id hash of its password.
    pub password_hash: String,
}

/// What to change about an account; `None` leaves it as it is.
#[derive(Clone, Default)]
pub struct UserChange {
    /// What it may do.
    pub role: Option<Role>,
    /// The groups it is in.
    pub groups: Option<Vec<String>>,
    /// The Argon2id hash of its new password; ends its sessions.
    pub password_hash: Option<String>,
    /// Whether it may not be used; ends its sessions.
    pub disabled: Option<bool>,
}

/// What is needed to check a log-in.
#[derive(Clone)]
pub struct Credentials {
    /// The account's name as it was given when it was made.
    pub name: String,
    /// The Argon2id hash of its password.
    pub password_hash: String,
    /// Whether it may not be used.
    pub disabled: bool,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = user_account, check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    name: String,
    role: String,
    groups: String,
    disabled: bool,
    created_at: i64,
    changed_at: i64,
}

pub(super) fn entry(code: &'static str, actor: &Actor, object: Object, body: Value) -> AuditEntry {
    AuditEntry { code, actor: actor.clone(), object, body, ..AuditEntry::default() }
}

pub(super) fn role_of(text: &str) -> Result<Role, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged("an unknown role".to_owned()))
}

pub(super) fn groups_of(text: &str) -> Result<Vec<String>, LedgerError> {
    serde_json::from_str(text).map_err(|_| LedgerError::Damaged("the groups of an account".to_owned()))
}

fn groups_text(mut groups: Vec<String>) -> Result<(Vec<String>, String), LedgerError> {
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > 64 || groups.iter().any(|group| !is_name(group)) {
        return Err(LedgerError::Invalid(
            "a group is named with 1 to 64 letters, digits, '.', '_', '-' or '@'; at most 64 of them".to_owned(),
        ));
    }
    let text = serde_json::to_string(&groups).map_err(|error| LedgerError::Internal(error.to_string()))?;
    Ok((groups, text))
}

fn is_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=64).contains(&text.len()) && text.bytes().all(ok) && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

impl Row {
    fn read(self) -> Result<UserRecord, LedgerError> {
        Ok(UserRecord {
            role: role_of(&self.role)?,
            groups: groups_of(&self.groups)?,
            name: self.name,
            disabled: self.disabled,
            created_at: Timestamp::from_millis(self.created_at),
            changed_at: Timestamp::from_millis(self.changed_at),
        })
    }
}

fn find(conn: &mut SqliteConnection, name: &str) -> Result<Option<UserRecord>, LedgerError> {
    let row = user_account::table.find(name).select(Row::as_select()).first(conn).optional()?;
    row.map(Row::read).transpose()
}

fn require(conn: &mut SqliteConnection, name: &str) -> Result<UserRecord, LedgerError> {
    // what was asked for is not repeated: people mistake fields and type a password as a name
    find(conn, name)?.ok_or_else(|| LedgerError::NotFound("this account".to_owned()))
}

impl Tx<'_> {
    /// Makes an account. Audited.
    pub fn user_create(&mut self, actor: &Actor, user: NewUser) -> Result<UserRecord, LedgerError> {
        if !is_name(&user.name) {
            return Err(LedgerError::Invalid(
                "a name has 1 to 64 letters, digits, '.', '_', '-' or '@' and starts with a letter or digit".to_owned(),
            ));
        }
        if find(self.conn, &user.name)?.is_some() {
            return Err(LedgerError::Conflict("there is an account of this name".to_owned()));
        }
        if user_account::table.count().get_result::<i64>(self.conn)? >= MAX_USERS {
            return Err(LedgerError::Conflict(format!("there are {MAX_USERS} accounts, which is the most there may be")));
        }
        let now = self.now();
        let (groups, text) = groups_text(user.groups)?;
        diesel::insert_into(user_account::table)
            .values((
                user_account::name.eq(&user.name),
                user_account::role.eq(user.role.as_str()),
                user_account::groups.eq(text),
                user_account::password_hash.eq(&user.password_hash),
                user_account::disabled.eq(false),
                user_account::created_at.eq(now.millis()),
                user_account::changed_at.eq(now.millis()),
            ))
            .execute(self.conn)?;
        let body = json!({ "role": user.role, "groups": groups });
        self.audit(entry("USR01I", actor, Object::new("user", &user.name), body))?;
        Ok(UserRecord { name: user.name, role: user.role, groups, disabled: false, created_at: now, changed_at: now })
    }

    /// What an account may do, seen in this transaction.
    pub fn user_role(&mut self, name: &str) -> Result<Role, LedgerError> {
        Ok(require(self.conn, name)?.role)
    }

    /// Changes an account. Audited. The last admin who can log in cannot be demoted or disabled.
    pub fn user_change(&mut self, actor: &Actor, name: &str, change: UserChange) -> Result<UserRecord, LedgerError> {
        let old = require(self.conn, name)?;
        let mut new = old.clone();
        new.role = change.role.unwrap_or(old.role);
        new.disabled = change.disabled.unwrap_or(old.disabled);
        let (groups, text) = groups_text(change.groups.unwrap_or_else(|| old.groups.clone()))?;
        new.groups = groups;
        let was_admin = old.role == Role::Admin && !old.disabled;
        let is_admin = new.role == Role::Admin && !new.disabled;
        if was_admin && !is_admin {
            let admins = user_account::table
                .filter(user_account::role.eq(Role::Admin.as_str()).and(user_account::disabled.eq(false)))
                .count()
                .get_result::<i64>(self.conn)?;
            if admins <= 1 {
                return Err(LedgerError::Conflict("this is the last admin; make another one first".to_owned()));
            }
        }
        let password = change.password_hash.is_some();
        if new == old && !password {
            return Ok(old);
        }
        new.changed_at = self.now();
        diesel::update(user_account::table.find(&old.name))
            .set((
                user_account::role.eq(new.role.as_str()),
                user_account::groups.eq(text),
                user_account::disabled.eq(new.disabled),
                user_account::changed_at.eq(new.changed_at.millis()),
                change.password_hash.map(|hash| user_account::password_hash.eq(hash)),
            ))
            .execute(self.conn)?;
        let ended = if new.disabled || password {
            diesel::delete(session::table.filter(session::user_name.eq(&old.name))).execute(self.conn)?
        } else {
            0
        };
        let mut body = serde_json::Map::new();
        if new.role != old.role {
            body.insert("role".to_owned(), json!({ "from": old.role, "to": new.role }));
        }
        if new.groups != old.groups {
            body.insert("groups".to_owned(), json!({ "from": old.groups, "to": new.groups }));
        }
        if new.disabled != old.disabled {
            body.insert("disabled".to_owned(), json!(new.disabled));
        }
        if password {
            body.insert("password".to_owned(), json!("changed"));
        }
        body.insert("sessions_ended".to_owned(), json!(ended));
        self.audit(entry("USR02I", actor, Object::new("user", &old.name), body.into()))?;
        self.approvals_of_changed(&old.name, actor)?;
        Ok(new)
    }
}

impl Reader<'_> {
    /// Every account, by name.
    pub fn users(&mut self) -> Result<Vec<UserRecord>, LedgerError> {
        let rows = user_account::table.order(user_account::name).limit(MAX_USERS).select(Row::as_select()).load(self.conn)?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The accounts whose name follows `after`, by name.
    pub fn users_after(&mut self, after: &str, limit: i64) -> Result<Vec<UserRecord>, LedgerError> {
        let query = user_account::table.filter(user_account::name.gt(after)).order(user_account::name).limit(limit);
        query.select(Row::as_select()).load(self.conn)?.into_iter().map(Row::read).collect()
    }

    /// An account.
    pub fn user(&mut self, name: &str) -> Result<Option<UserRecord>, LedgerError> {
        find(self.conn, name)
    }

    /// What is needed to check a log-in of this account.
    pub fn credentials(&mut self, name: &str) -> Result<Option<Credentials>, LedgerError> {
        let found = user_account::table
            .find(name)
            .select((user_account::name, user_account::password_hash, user_account::disabled))
            .first::<(String, String, bool)>(self.conn)
            .optional()?;
        Ok(found.map(|(name, password_hash, disabled)| Credentials { name, password_hash, disabled }))
    }

    /// Whether there is any account at all.
    pub fn has_users(&mut self) -> Result<bool, LedgerError> {
        Ok(diesel::select(diesel::dsl::exists(user_account::table.select(user_account::name))).get_result(self.conn)?)
    }
}
