//! Reloads: which configuration a module that follows the signals goes by, numbered among them.

use std::sync::Arc;

use diesel::prelude::*;
use opspilot_kernel::{
    ids::Seq,
    signal::{LogEntry, Reload},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    audit::{AuditEntry, Object},
    meta, signals,
};
use crate::{error::LedgerError, schema::snapshot::dsl as t, tx::Tx};

/// The part of a follower's snapshot that is the configuration it goes by at its cursor, in JSON.
pub const CONFIG: &str = "config";

impl Tx<'_> {
    /// Says that `module` is to go by `config`. If that is another one than was said last, it is an entry of the signal
    /// log, and holds from there on; its number is returned. The first that is ever said holds from the beginning.
    pub fn configure(&mut self, module: &str, config: &Value) -> Result<Option<Seq>, LedgerError> {
        let name = format!("config/{module}");
        let known = meta::get(self.conn, &name)?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(config.to_string())));
        if known.as_ref() == Some(&digest) {
            return Ok(None);
        }
        meta::set(self.conn, &name, &digest)?;
        if known.is_none() {
            // a follower that dies before it first stores what it knows must not take a later one for the first
            diesel::replace_into(t::snapshot)
                .values((t::module.eq(module), t::key.eq(CONFIG), t::blob.eq(config.to_string().into_bytes())))
                .execute(self.conn)?;
            return Ok(None);
        }
        let (seq, at) = (self.work.heads.signal + 1, self.work.now);
        let reload = Reload { module: module.to_owned(), digest: digest.clone(), config: config.clone() };
        let body = serde_json::to_vec(&reload).map_err(|error| LedgerError::Internal(error.to_string()))?;
        self.work.heads.sizes.signals += signals::insert_mark(self.conn, seq, at, &body)?;
        self.work.heads.signal = seq;
        self.work.signals.push((LogEntry::Reload { seq, at, reload: Arc::new(reload) }, body.len() * 2 + 256));
        self.audit(AuditEntry {
            code: "CFG02I",
            object: Object::new("module", module),
            body: json!({ "digest": digest, "from_seq": seq }),
            ..AuditEntry::default()
        })?;
        Ok(Some(seq))
    }
}
