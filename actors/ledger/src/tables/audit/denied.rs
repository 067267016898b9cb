//! Denied attempts: the first is an entry of its own, repeats within a minute are counted and become one.

use diesel::prelude::*;
use opspilot_kernel::{principal::Actor, time::Timestamp};
use serde_json::json;

use super::{AuditEntry, Object, Outcome};
use crate::{error::LedgerError, schema::denied::dsl as t, tx::Tx};

/// How many different (actor, what) pairs are told apart within a minute; a scan of names would otherwise
/// write an entry for each. The rest is counted together.
const TOLD_APART: i64 = 256;
const MINUTE_MS: i64 = 60_000;

impl Tx<'_> {
    /// Somebody was denied something. Written at once the first time; counted, never dropped, when it
    /// repeats.
    pub fn denied(&mut self, actor: &Actor, what: &str) -> Result<(), LedgerError> {
        let now = self.now().millis();
        self.denied_summaries(now)?;
        let minute = now.div_euclid(MINUTE_MS);
        let label = serde_json::to_string(actor).map_err(|error| LedgerError::Internal(error.to_string()))?;
        let known = diesel::update(t::denied.find((&label, what))).set(t::count.eq(t::count + 1)).execute(self.conn)?;
        if known == 1 {
            return Ok(());
        }
        let pairs: i64 = t::denied.count().get_result(self.conn)?;
        if pairs >= TOLD_APART {
            let everybody = serde_json::to_string(&Actor::Anonymous { via: "many".to_owned() }).unwrap_or_default();
            diesel::insert_into(t::denied)
                .values((t::actor.eq(&everybody), t::what.eq("many"), t::minute.eq(minute), t::count.eq(1)))
                .on_conflict((t::actor, t::what))
                .do_update()
                .set(t::count.eq(t::count + 1))
                .execute(self.conn)?;
            return Ok(());
        }
        diesel::insert_into(t::denied)
            .values((t::actor.eq(&label), t::what.eq(what), t::minute.eq(minute), t::count.eq(0)))
            .execute(self.conn)?;
        self.audit(AuditEntry {
            code: "DEN01W",
            actor: actor.clone(),
            object: Object::new("access", what),
            outcome: Outcome::Denied,
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// Writes the summaries of minutes that are over at `now`; says how many attempts they hold.
    pub(crate) fn denied_summaries(&mut self, now: i64) -> Result<u64, LedgerError> {
        let minute = now.div_euclid(MINUTE_MS);
        // also a minute from before the clock was set back
        let over: Vec<(String, String, i64, i64)> =
            t::denied.filter(t::minute.ne(minute)).order((t::minute, t::actor, t::what)).load(self.conn)?;
        let mut total = 0_u64;
        for (label, what, past, count) in over {
            diesel::delete(t::denied.find((&label, &what))).execute(self.conn)?;
            if count > 0 {
                let actor = serde_json::from_str(&label).map_err(|error| LedgerError::Damaged(format!("denied: {error}")))?;
                let since = Timestamp::from_millis(past.saturating_mul(MINUTE_MS));
                self.audit(AuditEntry {
                    code: "DEN02W",
                    actor,
                    object: Object::new("access", what),
                    outcome: Outcome::Denied,
                    request: None,
                    body: json!({ "count": count, "minute": since.to_string() }),
                })?;
                total = total.saturating_add(u64::try_from(count).unwrap_or(0));
            }
        }
        Ok(total)
    }
}
