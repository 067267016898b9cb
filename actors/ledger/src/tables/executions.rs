//! `execution`, `target_lock`: the runs of approved plans, and what they act on.
//!
//! | code | meaning |
//! |---|---|
//! | `EXE01I` | a token was used up, and a run began |
//! | `EXE01E` | a good token was refused: what it needs does not hold any more |
//! | `EXE02I` | a run ended well |
//! | `EXE02E` | a run ended otherwise, or nobody knows how |
//! | `EXE03I` | a person said how a run of unknown end ended |

use diesel::prelude::*;
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus},
    consent::{Closed, Refusal, Standing, Step, Voter},
    event::Event,
    execution::{Execution, ExecutionEnd, ExecutionStatus},
    ids::{ApprovalId, ExecutionId},
    incident::TimelineKind,
    plan::{Executor, Plan, PlanDigest},
    principal::{Actor, Role},
    time::Timestamp,
};
use serde_json::json;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    approvals::{self, ApprovalRow, Ruled, StoredPlan},
    audit::{AuditEntry, Object, Outcome},
    incidents_rows as rows, kill_switch, meta,
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{approval, approval_token, execution, target_lock},
    tx::Tx,
};

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = execution, check_for_backend(diesel::sqlite::Sqlite))]
struct ExecutionRow {
    id: String,
    approval: i64,
    approval_id: String,
    status: String,
    reason: Option<String>,
    exit_code: Option<i32>,
    stdout: String,
    stderr: String,
    truncated: bool,
    started_at: i64,
    finished_at: Option<i64>,
    boot: String,
    containment: Option<String>,
    sandbox: Option<String>,
    verified: Option<bool>,
}

impl ExecutionRow {
    fn read(self) -> Result<Execution, LedgerError> {
        Ok(Execution {
            id: ExecutionId::given(self.id),
            approval_id: ApprovalId::given(self.approval_id),
            status: self.status.parse().map_err(|_| LedgerError::Damaged("an unknown status of an execution".to_owned()))?,
            reason: self.reason,
            exit_code: self.exit_code,
            stdout: self.stdout,
            stderr: self.stderr,
            truncated: self.truncated,
            started_at: Timestamp::from_millis(self.started_at),
            finished_at: self.finished_at.map(Timestamp::from_millis),
            containment: self.containment,
            sandbox: self.sandbox.as_deref().map(rows::parsed).transpose()?,
            verified: self.verified,
        })
    }
}

fn find(conn: &mut SqliteConnection, id: &ExecutionId) -> Result<ExecutionRow, LedgerError> {
    let row = execution::table.filter(execution::id.eq(id.as_str())).select(ExecutionRow::as_select()).first(conn).optional()?;
    row.ok_or_else(|| LedgerError::NotFound("this execution".to_owned()))
}

/// One run.
pub(crate) fn load(conn: &mut SqliteConnection, id: &ExecutionId) -> Result<Execution, LedgerError> {
    find(conn, id)?.read()
}

/// A token that is to be used up.
#[derive(Debug, Clone)]
pub struct Consumption {
    /// The approval that the caller and the token name.
    pub approval: ApprovalId,
    /// The token's name.
    pub jti: String,
    /// SHA-256 of the token as it came.
    pub hash: [u8; 32],
    /// What the token is bound to.
    pub digest: PlanDigest,
    /// The epoch that the token names.
    pub epoch: String,
    /// Who executes.
    pub caller: Voter,
    /// As the audit log names them.
    pub actor: Actor,
    /// The run's name.
    pub execution: ExecutionId,
    /// Monotonic time.
    pub elapsed: Duration,
}

/// A run that has begun: on record, and only now may anything be started. Only [`Tx::consume`] makes one, and there is
/// one for each used token.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// The run.
    pub execution: Execution,
    /// The plan.
    pub plan: Plan,
    /// The plan as it was approved.
    pub bytes: Vec<u8>,
    /// SHA-256 over these bytes.
    pub digest: PlanDigest,
}

/// A run that has no end on record.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The run.
    pub id: ExecutionId,
    /// What carries it out.
    pub executor: Executor,
    /// Whether it began in this run of the process.
    pub is_ours: bool,
}

impl Tx<'_> {
    /// Uses a token up and begins the run, all or nothing: the token is active and this one, the epoch is the current
    /// one, whoever agreed still may, nobody approved their own, nothing is frozen, the plan would be rendered the same
    /// (`is_same`), something is there to carry it out (`can_run`), its targets are free, and so is a turn (`take_turn`, asked
    /// last): between this and the start nothing waits. The caller hands the plan over only after this is committed.
    pub fn consume(
        &mut self,
        with: &Consumption,
        can_run: bool,
        is_same: impl FnOnce(&StoredPlan) -> bool,
        take_turn: impl FnOnce() -> Result<(), Refusal>,
    ) -> Ruled<Started> {
        let row = self.caught_up(&with.approval)?;
        let refusal = match self.may_start(&row, with, can_run, is_same, take_turn)? {
            Ok(()) => return self.start(&row, with).map(Ok),
            Err(refusal) => refusal,
        };
        // these end it for good: what was agreed to does not hold any more
        let over = match refusal {
            Refusal::PlanChanged => Some(Closed::PlanChanged),
            Refusal::NotEligible => Some(Closed::NotEligible),
            _ => None,
        };
        if let Some(over) = over {
            let before = approvals::standing(self.conn, &row)?;
            if let Ok(next) = before.step(&Step::Close(over), self.now())
                && next.status != before.status
            {
                self.move_on(&row, &next, &Actor::System, approvals::in_words(over))?;
            }
        }
        if matches!(
            refusal,
            Refusal::PlanChanged | Refusal::NotEligible | Refusal::TargetBusy { .. } | Refusal::NoTurn(_) | Refusal::Frozen(_)
        ) {
            let body = json!({ "jti": with.jti, "token": hex::encode(with.hash), "refusal": refusal.code() });
            self.audit_approval(&with.actor, "EXE01E", &row, Outcome::Denied, body)?;
        }
        Ok(Err(refusal))
    }

    fn may_start(
        &mut self,
        row: &ApprovalRow,
        with: &Consumption,
        can_run: bool,
        is_same: impl FnOnce(&StoredPlan) -> bool,
        take_turn: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Result<(), Refusal>, LedgerError> {
        let now = self.now();
        let token: Option<(i64, Vec<u8>, String, String, i64)> = approval_token::table
            .find(&with.jti)
            .select((
                approval_token::approval,
                approval_token::hash,
                approval_token::state,
                approval_token::epoch,
                approval_token::expires_at,
            ))
            .first(self.conn)
            .optional()?;
        let Some((approval, hash, state, epoch, expires_at)) = token else { return Ok(Err(Refusal::BadToken)) };
        if approval != row.num {
            return Ok(Err(Refusal::WrongAction));
        }
        // in constant time, though what is compared is public once it was used
        if !bool::from(hash.ct_eq(&with.hash)) {
            return Ok(Err(Refusal::BadToken));
        }
        if epoch != with.epoch || epoch != meta::get(self.conn, meta::EPOCH)?.unwrap_or_default() {
            return Ok(Err(Refusal::BadToken));
        }
        match state.as_str() {
            "active" => {}
            "consumed" => return Ok(Err(Refusal::TokenUsed)),
            "expired" => return Ok(Err(Refusal::TokenExpired)),
            _ => {
                // why the approval was taken back says more than that it was
                let standing = approvals::standing(self.conn, row)?;
                return Ok(Err(match standing.closed {
                    Some(Closed::PlanChanged) => Refusal::PlanChanged,
                    Some(Closed::NotEligible) => Refusal::NotEligible,
                    _ => Refusal::BadToken,
                }));
            }
        }
        let before = approvals::standing(self.conn, row)?;
        if let Err(refusal) = before.step(&Step::Start, now) {
            return Ok(Err(refusal));
        }
        if now.millis() >= expires_at || self.has_run_out(row, with.elapsed) {
            return Ok(Err(Refusal::TokenExpired));
        }
        if row.digest()? != with.digest {
            return Ok(Err(Refusal::PlanChanged));
        }
        if !may_execute(&before, &self.now_as(&with.caller)?) {
            return Ok(Err(Refusal::NotPermitted));
        }
        if self.is_clock_behind() {
            return Ok(Err(Refusal::ClockRegression));
        }
        if let Some(why) = kill_switch::engaged(self.conn)? {
            return Ok(Err(Refusal::Frozen(why)));
        }
        // while nothing offers and carries out actions, nothing can be said about the plan either
        if !can_run {
            return Ok(Err(Refusal::NoExecutor));
        }
        if !is_same(&row.stored_plan()?) {
            return Ok(Err(Refusal::PlanChanged));
        }
        for target in row.plan()?.targets {
            let held = target_lock::table.find(&target).select(target_lock::execution).first::<String>(self.conn).optional()?;
            if let Some(run) = held {
                return Ok(Err(Refusal::TargetBusy { target, run: ExecutionId::given(run) }));
            }
        }
        Ok(take_turn())
    }

    /// Whether the 15 minutes are over by monotonic time, however the clock was set meanwhile.
    fn has_run_out(&self, row: &ApprovalRow, elapsed: Duration) -> bool {
        let same_boot = row.boot.as_deref() == Some(&*self.identity.boot);
        let then = row.elapsed_ms.and_then(|then| u64::try_from(then).ok()).map(Duration::from_millis);
        same_boot && then.is_some_and(|then| elapsed.saturating_sub(then) >= opspilot_kernel::consent::TOKEN_LIFETIME)
    }

    fn start(&mut self, row: &ApprovalRow, with: &Consumption) -> Result<Started, LedgerError> {
        let now = self.now();
        let used = approval_token::table
            .find(&with.jti)
            .filter(approval_token::state.eq("active"))
            .filter(approval_token::approval.eq(row.num))
            .filter(approval_token::expires_at.gt(now.millis()));
        let used = diesel::update(used)
            .set((approval_token::state.eq("consumed"), approval_token::closed_at.eq(now.millis())))
            .execute(self.conn)?;
        if used != 1 {
            return Err(LedgerError::Conflict("the token changed meanwhile".to_owned()));
        }
        let plan = row.plan()?;
        diesel::insert_into(execution::table)
            .values((
                execution::id.eq(with.execution.as_str()),
                execution::approval.eq(row.num),
                execution::approval_id.eq(&row.id),
                execution::approval_jti.eq(&with.jti),
                execution::status.eq(ExecutionStatus::Executing.as_str()),
                execution::stdout.eq(""),
                execution::stderr.eq(""),
                execution::truncated.eq(false),
                execution::started_at.eq(now.millis()),
                execution::boot.eq(&*self.identity.boot),
            ))
            .execute(self.conn)?;
        for target in &plan.targets {
            diesel::insert_into(target_lock::table)
                .values((target_lock::target.eq(target), target_lock::execution.eq(with.execution.as_str())))
                .execute(self.conn)?;
        }
        let moved = approval::table.find(row.num).filter(approval::status.eq("approved"));
        let moved = diesel::update(moved)
            .set((approval::status.eq("executing"), approval::execution.eq(with.execution.as_str())))
            .execute(self.conn)?;
        if moved != 1 {
            return Err(LedgerError::Conflict("the approval changed meanwhile".to_owned()));
        }
        let shown = self.shown_approval(row.num)?;
        let body = json!({
            "approval": row.id, "incident": row.incident, "action": row.action, "plan": row.digest()?, "jti": with.jti,
            "jti_sha256": hex::encode(Sha256::digest(with.jti.as_bytes())), "token": hex::encode(with.hash), "approvers": shown.quorum.approved_by, "targets": plan.targets,
        });
        self.audit_execution(&with.actor, "EXE01I", &with.execution, Outcome::Success, body)?;
        let text = format!("{} is executed: {}", shown.title, shown.preview.text);
        self.incident_line(&row.incident(), &with.actor, TimelineKind::ActionStarted, text)?;
        let execution = find(self.conn, &with.execution)?.read()?;
        Ok(Started { execution, plan, bytes: row.plan.clone(), digest: row.digest()? })
    }

    fn audit_execution(
        &mut self,
        actor: &Actor,
        code: &'static str,
        id: &ExecutionId,
        outcome: Outcome,
        body: serde_json::Value,
    ) -> Result<(), LedgerError> {
        let object = Object::new("execution", id.as_str());
        self.audit(AuditEntry { code, actor: actor.clone(), object, outcome, body, ..AuditEntry::default() })?;
        Ok(())
    }

    /// A run ended. Releases what it acted on, unless nobody knows how it ended: then something of it may still be at work,
    /// and a person has to look before anything else acts there ([`Tx::execution_closed`]). Told twice, the first end stays. `recovered` says that it was found out
    /// afterwards, from evidence.
    pub fn execution_finished(&mut self, id: &ExecutionId, end: &ExecutionEnd, recovered: bool) -> Result<Execution, LedgerError> {
        let row = find(self.conn, id)?;
        if row.status != ExecutionStatus::Executing.as_str() {
            return row.read();
        }
        let status = match end.status {
            ExecutionStatus::Executing => ExecutionStatus::Unknown,
            other => other,
        };
        let sandbox = end.sandbox.as_ref().map(rows::json).transpose()?;
        diesel::update(execution::table.filter(execution::id.eq(id.as_str())))
            .set((
                execution::status.eq(status.as_str()),
                execution::reason.eq(end.reason.as_deref()),
                execution::exit_code.eq(end.exit_code),
                execution::stdout.eq(&end.stdout),
                execution::stderr.eq(&end.stderr),
                execution::truncated.eq(end.truncated),
                execution::finished_at.eq(self.now().millis()),
                execution::containment.eq(end.containment.as_deref()),
                execution::sandbox.eq(sandbox),
            ))
            .execute(self.conn)?;
        if status != ExecutionStatus::Unknown {
            diesel::delete(target_lock::table.filter(target_lock::execution.eq(id.as_str()))).execute(self.conn)?;
        }
        let (code, outcome) = match status {
            ExecutionStatus::Succeeded => ("EXE02I", Outcome::Success),
            _ => ("EXE02E", Outcome::Failure),
        };
        let body = json!({
            "approval": row.approval_id, "status": status, "reason": end.reason, "exit_code": end.exit_code,
            "stdout_bytes": end.stdout.len(), "stderr_bytes": end.stderr.len(), "truncated": end.truncated,
            "stdout_sha256": hex::encode(Sha256::digest(&end.stdout)), "stderr_sha256": hex::encode(Sha256::digest(&end.stderr)),
            "containment": end.containment, "sandbox": end.sandbox, "recovered": recovered,
        });
        self.audit_execution(&Actor::System, code, id, outcome, body)?;
        self.told(row.approval, id, status, &Actor::System, end.reason.as_deref())
    }

    /// A person found out how a run of unknown end ended.
    pub fn execution_closed(
        &mut self,
        id: &ExecutionId,
        caller: &Voter,
        actor: &Actor,
        outcome: ExecutionStatus,
        reason: &str,
    ) -> Ruled<Execution> {
        let row = find(self.conn, id)?;
        if !self.now_as(caller)?.role.includes(Role::Operator) {
            return Ok(Err(Refusal::NotPermitted));
        }
        if row.status != ExecutionStatus::Unknown.as_str() {
            return Ok(Err(Refusal::Conflict(format!("this run is {}; only one of unknown end is closed", row.status))));
        }
        diesel::update(execution::table.filter(execution::id.eq(id.as_str())))
            .set((execution::status.eq(outcome.as_str()), execution::reason.eq(format!("closed by a person: {reason}"))))
            .execute(self.conn)?;
        diesel::delete(target_lock::table.filter(target_lock::execution.eq(id.as_str()))).execute(self.conn)?;
        let body = json!({ "approval": row.approval_id, "outcome": outcome, "reason": reason });
        self.audit_execution(actor, "EXE03I", id, Outcome::Success, body)?;
        Ok(Ok(self.told(row.approval, id, outcome, actor, Some(reason))?))
    }

    /// The approval follows its run, and everybody is told.
    fn told(
        &mut self,
        num: i64,
        id: &ExecutionId,
        status: ExecutionStatus,
        actor: &Actor,
        reason: Option<&str>,
    ) -> Result<Execution, LedgerError> {
        let of_approval = match status {
            ExecutionStatus::Succeeded => ApprovalStatus::Succeeded,
            ExecutionStatus::Failed | ExecutionStatus::TimedOut => ApprovalStatus::Failed,
            ExecutionStatus::Unknown | ExecutionStatus::Executing => ApprovalStatus::Unknown,
        };
        diesel::update(approval::table.find(num)).set(approval::status.eq(of_approval.as_str())).execute(self.conn)?;
        let approval: Approval = self.shown_approval(num)?;
        let execution = find(self.conn, id)?.read()?;
        let incident = approval.incident_id.clone();
        let because = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let code = execution.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let text = format!("{}: {}{code}{because}", approval.title, status.as_str());
        // the outputs may be long, and whoever wants them asks for them
        let told = Execution { stdout: String::new(), stderr: String::new(), ..execution.clone() };
        self.event(Event::ActionExecuted { approval: Box::new(approval), execution: Box::new(told) })?;
        self.incident_line(&incident, actor, TimelineKind::ActionFinished, text)?;
        Ok(execution)
    }
}

/// Whoever may decide about it may also start it.
fn may_execute(standing: &Standing, person: &Voter) -> bool {
    standing.may_decide(person)
}

impl Reader<'_> {
    /// One run.
    pub fn execution(&mut self, id: &ExecutionId) -> Result<Execution, LedgerError> {
        load(self.conn, id)
    }

    /// Every run without an end on record. `boot` names this run of the process.
    pub fn unfinished_executions(&mut self, boot: &str) -> Result<Vec<Unfinished>, LedgerError> {
        let rows: Vec<ExecutionRow> = execution::table
            .filter(execution::status.eq(ExecutionStatus::Executing.as_str()))
            .order(execution::num)
            .select(ExecutionRow::as_select())
            .load(self.conn)?;
        rows.into_iter()
            .map(|row| {
                let plan: Vec<u8> = approval::table.find(row.approval).select(approval::plan).first(self.conn)?;
                let plan: Plan = serde_json::from_slice(&plan).map_err(|error| LedgerError::Damaged(format!("a stored plan: {error}")))?;
                Ok(Unfinished { is_ours: row.boot == boot, id: ExecutionId::given(row.id), executor: plan.executor })
            })
            .collect()
    }
}
