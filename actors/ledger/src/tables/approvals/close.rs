//! What ends approvals by itself: time, accounts, incidents, the catalogue, the epoch.

use diesel::prelude::*;
use opspilot_kernel::{
    consent::{Closed, Step, is_quorum, same_person},
    ids::IncidentId,
    principal::Actor,
    time::Timestamp,
};
use serde_json::json;

use super::{ApprovalRow, StoredPlan, in_words, standing};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{approval, approval_token, approval_vote},
    tables::{
        audit::{AuditEntry, Object},
        meta,
    },
    tx::Tx,
};

/// How many are looked at in one transaction of the sweep.
const IN_ONE_SWEEP: i64 = 500;

impl Tx<'_> {
    /// Ends what is due, and what belongs to an epoch that is over. Says how many; call again while it is not 0.
    pub fn approvals_sweep(&mut self) -> Result<usize, LedgerError> {
        let now = self.now().millis();
        let epoch = meta::get(self.conn, meta::EPOCH)?.unwrap_or_default();
        let due: Vec<ApprovalRow> = approval::table
            .filter(approval::status.eq("pending").and(approval::approve_by.le(now)))
            .or_filter(approval::status.eq("approved").and(approval::execute_by.le(now)))
            .order(approval::num)
            .limit(IN_ONE_SWEEP)
            .select(ApprovalRow::as_select())
            .load(self.conn)?;
        let mut ended = 0;
        for row in due {
            let next = standing(self.conn, &row)?.at(self.now());
            self.move_on(&row, &next, &Actor::System, "")?;
            ended += 1;
        }
        let foreign: Vec<i64> = approval_token::table
            .filter(approval_token::state.eq("active").and(approval_token::epoch.ne(epoch)))
            .limit(IN_ONE_SWEEP)
            .select(approval_token::approval)
            .load(self.conn)?;
        for num in foreign {
            ended += usize::from(self.close_one(num, Closed::Epoch, &Actor::System)?);
            self.close_tokens(num, "revoked")?;
        }
        Ok(ended)
    }

    /// Ends an approval that waits or is approved, for a reason of the service's own. Says whether it was one.
    fn close_one(&mut self, num: i64, why: Closed, actor: &Actor) -> Result<bool, LedgerError> {
        let row: ApprovalRow = approval::table.find(num).select(ApprovalRow::as_select()).first(self.conn)?;
        let before = standing(self.conn, &row)?;
        let Ok(next) = before.step(&Step::Close(why), self.now()) else { return Ok(false) };
        if next.status == before.status {
            return Ok(false);
        }
        let text = if next.closed == Some(Closed::Time) { "" } else { in_words(why) };
        self.move_on(&row, &next, actor, text)?;
        Ok(true)
    }

    fn open_ones(&mut self) -> Result<Vec<ApprovalRow>, LedgerError> {
        let open = approval::table.filter(approval::status.eq_any(["pending", "approved"])).order(approval::num);
        Ok(open.select(ApprovalRow::as_select()).load(self.conn)?)
    }

    /// The catalogue or the policy changed: ends what would not be rendered the same any more. Says how many.
    pub fn approvals_replan(&mut self, is_same: impl Fn(&StoredPlan) -> bool) -> Result<usize, LedgerError> {
        let mut ended = 0;
        for row in self.open_ones()? {
            if !is_same(&row.stored_plan()?) {
                ended += usize::from(self.close_one(row.num, Closed::PlanChanged, &Actor::System)?);
            }
        }
        Ok(ended)
    }

    /// An incident was resolved: what waits for it is withdrawn, what was approved for it is revoked.
    pub(crate) fn approvals_of_resolved(&mut self, incident: &IncidentId, actor: &Actor) -> Result<(), LedgerError> {
        let open: Vec<i64> = approval::table
            .filter(approval::incident.eq(incident.as_str()))
            .filter(approval::status.eq_any(["pending", "approved"]))
            .order(approval::num)
            .select(approval::num)
            .load(self.conn)?;
        for num in open {
            self.close_one(num, Closed::IncidentResolved, actor)?;
        }
        Ok(())
    }

    /// An account was disabled or may less: what it stood behind does not hold any more.
    pub(crate) fn approvals_of_changed(&mut self, user: &str, actor: &Actor) -> Result<(), LedgerError> {
        let voted: Vec<i64> =
            approval_vote::table.filter(approval_vote::user_name.eq(user)).select(approval_vote::approval).load(self.conn)?;
        for row in self.open_ones()? {
            let is_own = row.owner.as_deref().is_some_and(|owner| same_person(owner, user));
            if !is_own && !voted.contains(&row.num) {
                continue;
            }
            let now = standing(self.conn, &row)?;
            let owner_gone = is_own && !super::person(self.conn, user)?.is_some_and(|person| now.may_propose(&person));
            let quorum_lost = row.status == "approved" && !is_quorum(&now.clauses, &now.voters);
            if owner_gone || quorum_lost {
                self.close_one(row.num, Closed::NotEligible, actor)?;
            }
        }
        Ok(())
    }

    /// Revokes every approval that was not executed: the key that signed the tokens is not believed any more.
    pub fn approvals_revoke_all(&mut self, actor: &Actor, why: Closed) -> Result<usize, LedgerError> {
        let approved: Vec<i64> = approval::table.filter(approval::status.eq("approved")).select(approval::num).load(self.conn)?;
        let mut ended = 0;
        for num in approved {
            ended += usize::from(self.close_one(num, why, actor)?);
        }
        self.audit(AuditEntry {
            code: "TOK03I",
            actor: actor.clone(),
            object: Object::new("tokens", "outstanding"),
            body: json!({ "revoked": ended, "why": why }),
            ..AuditEntry::default()
        })?;
        Ok(ended)
    }

    /// Approvals are signed with this key from now on. If it is another one than before, nothing that was approved before
    /// holds. Says how many did.
    pub fn approval_key_in_use(&mut self, kid: &str) -> Result<usize, LedgerError> {
        let before = meta::get(self.conn, meta::APPROVAL_KEY)?;
        if before.as_deref() == Some(kid) {
            return Ok(0);
        }
        meta::set(self.conn, meta::APPROVAL_KEY, kid)?;
        if before.is_some() { self.approvals_revoke_all(&Actor::System, Closed::Key) } else { Ok(0) }
    }

    /// Somebody accepts the time as it is now, though it is behind what is on record: a new epoch, and no approval from
    /// before holds. `CLK01I`.
    pub fn clock_accept(&mut self, actor: &Actor, behind: std::time::Duration) -> Result<(), LedgerError> {
        let old = meta::get(self.conn, meta::EPOCH)?.unwrap_or_default();
        let new = hex::encode(rand::random::<[u8; 8]>());
        meta::set(self.conn, meta::EPOCH, &new)?;
        let was = self.work.heads.audit.last_ts;
        self.approvals_revoke_all(actor, Closed::Epoch)?;
        self.work.heads.audit.last_ts = Timestamp::ZERO;
        self.audit(AuditEntry {
            code: "CLK01I",
            actor: actor.clone(),
            object: Object::new("clock", ""),
            body: json!({
                "was": was, "now": self.now(), "behind_ms": i64::try_from(behind.as_millis()).unwrap_or(i64::MAX >> 11),
                "old_epoch": old, "epoch": new,
            }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A token was refused. `code` says why; who sent it and where stands with it, the token's SHA-256 too.
    pub fn token_refused(
        &mut self,
        actor: &Actor,
        code: &'static str,
        approval: &str,
        token: &[u8; 32],
        why: &str,
    ) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code,
            actor: actor.clone(),
            object: Object::new("approval", approval.chars().take(64).collect::<String>()),
            outcome: crate::tables::audit::Outcome::Denied,
            body: json!({ "token": hex::encode(token), "why": why }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

impl Reader<'_> {
    /// Whether tokens of an epoch that is over are still active.
    pub fn has_stale_tokens(&mut self) -> Result<bool, LedgerError> {
        let epoch = meta::get(self.conn, meta::EPOCH)?.unwrap_or_default();
        let stale = approval_token::table.filter(approval_token::state.eq("active").and(approval_token::epoch.ne(epoch)));
        Ok(stale.count().get_result::<i64>(self.conn)? > 0)
    }

    /// When the next approval expires or lapses.
    pub fn next_approval_deadline(&mut self) -> Result<Option<Timestamp>, LedgerError> {
        let pending: Option<i64> =
            approval::table.filter(approval::status.eq("pending")).select(diesel::dsl::min(approval::approve_by)).first(self.conn)?;
        let approved: Option<i64> =
            approval::table.filter(approval::status.eq("approved")).select(diesel::dsl::min(approval::execute_by)).first(self.conn)?;
        Ok(pending.into_iter().chain(approved).min().map(Timestamp::from_millis))
    }
}
