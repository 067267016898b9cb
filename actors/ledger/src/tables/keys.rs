//! API keys: each belongs to an account and never may more than that account.
//!
//! | code | meaning |
//! |---|---|
//! | `KEY01I` | an API key was made |
//! | `KEY02I` | an API key was revoked |

use diesel::prelude::*;
use opspilot_kernel::{
    ids::ApiKeyId,
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
    schema::{api_key, user_account},
    tx::Tx,
};

/// How many keys an account may have.
pub(crate) const MAX_KEYS: i64 = 1_000;

/// A key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Names the key.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it may do, unless its owner may less by now.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to within a minute.
    pub used_at: Option<Timestamp>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Names the key.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

/// A key and what its owner may do just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The key.
    pub key: KeyRecord,
    /// What the owner may do.
    pub owner_role: Role,
    /// The groups of the owner.
    pub groups: Vec<String>,
}

/// Whether somebody with the role `own` may make or use a key with the role `key`.
///
/// A key never may more than its owner; operators may make keys for integrators.
pub fn may_have_key(own: Role, key: Role) -> bool {
    own.includes(key) || (key == Role::Integrator && own.includes(Role::Operator))
}

type Row = (String, String, String, String, i64, Option<i64>, Option<i64>);

fn read((id, name, owner, role, created, expires, used): Row) -> Result<KeyRecord, LedgerError> {
    Ok(KeyRecord {
        id: ApiKeyId::given(id),
        name,
        owner,
        role: role_of(&role)?,
        created_at: Timestamp::from_millis(created),
        expires_at: expires.map(Timestamp::from_millis),
        used_at: used.map(Timestamp::from_millis),
    })
}

macro_rules! columns {
    () => {
        (api_key::id, api_key::name, api_key::owner, api_key::role, api_key::created_at, api_key::expires_at, api_key::used_at)
    };
}

impl Tx<'_> {
    /// Makes a key for an account that may have it. Audited.
    pub fn key_create(&mut self, actor: &Actor, key: NewKey) -> Result<KeyRecord, LedgerError> {
        let now = self.now();
        let owner = user_account::table
            .find(&key.owner)
            .filter(user_account::disabled.eq(false))
            .select((user_account::name, user_account::role))
            .first::<(String, String)>(self.conn)
            .optional()?;
        let (owner, role) = owner.ok_or_else(|| LedgerError::NotFound("this account".to_owned()))?;
        if !may_have_key(role_of(&role)?, key.role) {
            return Err(LedgerError::Invalid("a key cannot do more than its owner".to_owned()));
        }
        diesel::delete(api_key::table.filter(api_key::expires_at.le(now.millis()))).execute(self.conn)?;
        if api_key::table.filter(api_key::owner.eq(&owner)).count().get_result::<i64>(self.conn)? >= MAX_KEYS {
            return Err(LedgerError::Conflict(format!("this account has {MAX_KEYS} keys, which is the most it may have")));
        }
        diesel::insert_into(api_key::table)
            .values((
                api_key::id.eq(key.id.as_str()),
                api_key::name.eq(&key.name),
                api_key::owner.eq(&owner),
                api_key::role.eq(key.role.as_str()),
                api_key::hash.eq(key.hash.as_slice()),
                api_key::created_at.eq(now.millis()),
                api_key::expires_at.eq(key.expires_at.map(Timestamp::millis)),
            ))
            .execute(self.conn)?;
        let body = json!({ "name": key.name, "owner": owner, "role": key.role, "expires_at": key.expires_at });
        self.audit(entry("KEY01I", actor, Object::new("key", key.id.as_str()), body))?;
        Ok(KeyRecord { id: key.id, name: key.name, owner, role: key.role, created_at: now, expires_at: key.expires_at, used_at: None })
    }

    /// Revokes a key, at once and for good. Audited. With `owner`, only if it is theirs.
    pub fn key_revoke(&mut self, actor: &Actor, id: &ApiKeyId, owner: Option<&str>) -> Result<(), LedgerError> {
        let found =
            api_key::table.find(id.as_str()).select((api_key::name, api_key::owner)).first::<(String, String)>(self.conn).optional()?;
        let (name, whose) = found
            .filter(|(_, whose)| owner.is_none_or(|owner| owner.eq_ignore_ascii_case(whose)))
            .ok_or_else(|| LedgerError::NotFound("this key".to_owned()))?;
        diesel::delete(api_key::table.find(id.as_str())).execute(self.conn)?;
        let body = json!({ "name": name, "owner": whose });
        self.audit(entry("KEY02I", actor, Object::new("key", id.as_str()), body))?;
        Ok(())
    }

    /// Notes that a key is in use. Not audited.
    pub fn key_used(&mut self, id: &ApiKeyId, at: Timestamp) -> Result<(), LedgerError> {
        diesel::update(api_key::table.find(id.as_str())).set(api_key::used_at.eq(at.millis())).execute(self.conn)?;
        Ok(())
    }
}

impl Reader<'_> {
    /// Keys, oldest first, behind the id `after`: of one owner, or all.
    pub fn keys(&mut self, owner: Option<&str>, after: Option<(Timestamp, ApiKeyId)>, limit: i64) -> Result<Vec<KeyRecord>, LedgerError> {
        let mut query = api_key::table.order((api_key::created_at, api_key::id)).limit(limit).select(columns!()).into_boxed();
        if let Some(owner) = owner {
            query = query.filter(api_key::owner.eq(owner.to_owned()));
        }
        if let Some((at, id)) = after {
            let at = at.millis();
            query = query.filter(api_key::created_at.gt(at).or(api_key::created_at.eq(at).and(api_key::id.gt(id.as_str().to_owned()))));
        }
        query.load::<Row>(self.conn)?.into_iter().map(read).collect()
    }

    /// The key with this SHA-256 and its owner, unless the owner is disabled. Whether it is too old is the caller's to judge.
    pub fn key_owner(&mut self, hash: &[u8; 32]) -> Result<Option<KeyOwner>, LedgerError> {
        let found = api_key::table
            .inner_join(user_account::table)
            .filter(api_key::hash.eq(hash.as_slice()).and(user_account::disabled.eq(false)))
            .select((columns!(), user_account::role, user_account::groups))
            .first::<(Row, String, String)>(self.conn)
            .optional()?;
        let Some((row, role, groups)) = found else { return Ok(None) };
        Ok(Some(KeyOwner { key: read(row)?, owner_role: role_of(&role)?, groups: groups_of(&groups)? }))
    }

    /// The same, by the key's id.
    pub fn key_owner_by_id(&mut self, id: &ApiKeyId) -> Result<Option<KeyOwner>, LedgerError> {
        let hash = api_key::table.find(id.as_str()).select(api_key::hash).first::<Vec<u8>>(self.conn).optional()?;
        match hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()) {
            Some(hash) => self.key_owner(&hash),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_may_more_than_its_owner() {
        use Role::{Admin, Integrator, Operator, Viewer};
        for (own, key, may) in [
            (Admin, Admin, true),
            (Operator, Admin, false),
            (Operator, Operator, true),
            (Operator, Integrator, true),
            (Viewer, Integrator, false),
            (Viewer, Viewer, true),
            (Integrator, Integrator, true),
            (Integrator, Viewer, false),
        ] {
            assert_eq!(may_have_key(own, key), may, "{own:?} {key:?}");
        }
    }
}
