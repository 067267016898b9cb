//! What the writer does between groups: checkpoints, retention, marks of start and stop, probes.

use std::time::Duration;

use diesel::{
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    prelude::*,
    sql_types,
};
use opspilot_kernel::principal::Actor;
use serde_json::json;
use slog::warn;

use super::WriterState;
use crate::{
    audit::signer,
    error::{FailureReason, LedgerError, StorageFailure},
    failpoint::failpoint,
    options::Limits,
    tables::{
        audit::{self, AuditEntry, Object},
        meta,
    },
    tx::{Tx, Work},
};

/// When the writer last did what.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Something was written since the last checkpoint.
    pub(crate) dirty: bool,
    /// Bytes written since the last checkpoint, roughly. The size of the log's file does not tell: it is
    /// written from its beginning again after a checkpoint and never shrinks.
    pub(crate) written: u64,
    /// When to look for what is old again, by the monotonic clock; at once if never.
    pub(crate) retain_at: Option<Duration>,
    /// The last step of retention left something to do.
    pub(crate) retain_on: bool,
}

impl Upkeep {
    /// How long to wait for work before looking around.
    pub(crate) fn patience(&self, limits: &Limits) -> Option<Duration> {
        if self.retain_on {
            return Some(Duration::ZERO);
        }
        Some(if self.dirty { limits.idle_after } else { Duration::from_secs(30).max(limits.idle_after) })
    }
}

#[derive(QueryableByName)]
struct Checkpointed {
    #[diesel(sql_type = sql_types::Integer)]
    busy: i32,
    #[diesel(sql_type = sql_types::Integer)]
    log: i32,
}

impl WriterState {
    /// Writes outside a group: a transaction of the writer's own.
    pub(crate) fn own<T>(&mut self, job: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut work = Work::new(self.shared.options.clock.now(), self.heads);
        AnsiTransactionManager::begin_transaction_sql(&mut self.conn, "BEGIN IMMEDIATE")?;
        let done = job(&mut Tx { conn: &mut self.conn, work: &mut work, identity: &self.shared.identity }).and_then(|value| {
            if work.heads.audit != self.heads.audit {
                audit::store_head(&mut self.conn, &work.heads.audit)?;
            }
            Ok(value)
        });
        match done {
            Ok(value) => {
                AnsiTransactionManager::commit_transaction(&mut self.conn)?;
                self.upkeep.dirty |= work.heads != self.heads;
                self.publish(work);
                Ok(value)
            }
            Err(error) => {
                AnsiTransactionManager::rollback_transaction(&mut self.conn)?;
                Err(error)
            }
        }
    }

    /// Records that the service started, and how the last run ended.
    pub(crate) fn announce_start(&mut self, migrations: &[String], unclean: bool) -> Result<(), LedgerError> {
        let version = env!("CARGO_PKG_VERSION");
        let boot = self.shared.identity.boot.clone();
        let tool = self.shared.options.tool;
        let announced = self.own(|tx| {
            if meta::get(tx.conn, meta::INSTANCE)?.is_none() {
                meta::set(tx.conn, meta::INSTANCE, &hex::encode(rand::random::<[u8; 16]>()))?;
                meta::set(tx.conn, meta::EPOCH, &hex::encode(rand::random::<[u8; 8]>()))?;
            }
            let previous = meta::get(tx.conn, meta::BOOT)?.unwrap_or_default();
            meta::set(tx.conn, meta::BOOT, &boot)?;
            let service = || Object::new("service", "opspilot");
            if !migrations.is_empty() {
                tx.audit(AuditEntry {
                    code: "SYS04I",
                    object: service(),
                    body: json!({ "migrations": migrations }),
                    ..AuditEntry::default()
                })?;
            }
            if unclean {
                tx.audit(AuditEntry { code: "SYS03W", object: service(), body: json!({ "boot": previous }), ..AuditEntry::default() })?;
            }
            if !tool {
                tx.audit(AuditEntry {
                    code: "SYS01I",
                    actor: Actor::System,
                    object: service(),
                    body: json!({ "version": version }),
                    ..AuditEntry::default()
                })?;
            }
            Ok(())
        });
        self.watch_wal();
        announced
    }

    /// A write that reaches the device, to see whether storage takes writes.
    pub(crate) fn probe(&mut self) -> Result<(), StorageFailure> {
        let now = self.shared.options.clock.now();
        let tried = self.own(|tx| meta::set(tx.conn, meta::PROBE, &now.to_string()));
        self.watch_wal();
        tried.map_err(|error| self.settled(as_failure(error)))
    }

    /// After a group: a checkpoint if the log has grown large.
    pub(crate) fn after_commit(&mut self) -> Result<(), StorageFailure> {
        self.upkeep.dirty = true;
        if self.upkeep.written > self.shared.options.limits.checkpoint_bytes {
            self.checkpoint("PASSIVE")?;
        }
        self.retain()
    }

    /// Nothing is queued: checkpoint what was written.
    pub(crate) fn when_idle(&mut self) -> Result<(), StorageFailure> {
        if self.upkeep.dirty {
            self.upkeep.dirty = false;
            self.checkpoint("PASSIVE")?;
        }
        self.retain()
    }

    fn checkpoint(&mut self, mode: &str) -> Result<(), StorageFailure> {
        failpoint!("ledger::checkpoint");
        let bytes = std::fs::metadata(self.shared.files.wal()).map_or(0, |meta| meta.len());
        self.shared.metrics.wal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        // also if a reader holds a part back: then it is tried again after as much has been written again
        self.upkeep.written = 0;
        let clock = self.shared.options.clock.clone();
        let started = clock.elapsed();
        let done: Result<Checkpointed, _> = diesel::sql_query(format!("PRAGMA wal_checkpoint({mode})")).get_result(&mut self.conn);
        let metrics = &self.shared.metrics;
        metrics.checkpoints.inc();
        metrics.checkpoint_seconds.observe(clock.elapsed().saturating_sub(started).as_secs_f64());
        match done.map_err(LedgerError::from) {
            Ok(done) => {
                if done.busy != 0 {
                    slog::debug!(self.shared.options.log, "a reader holds the checkpoint back"; "frames" => done.log);
                }
                Ok(())
            }
            Err(error) => Err(self.settled(as_failure(error))),
        }
    }

    /// The last act: mark the stop as orderly, checkpoint, close.
    pub(crate) fn stop(mut self) {
        let log = self.shared.options.log.clone();
        let tool = self.shared.options.tool;
        let stopped = self.own(|tx| {
            let now = tx.now().millis();
            tx.denied_summaries(now.saturating_add(60_000))?;
            if !tool {
                tx.audit(AuditEntry { code: "SYS02I", object: Object::new("service", "opspilot"), ..AuditEntry::default() })?;
            }
            Ok(())
        });
        if stopped.is_ok()
            && let Err(error) = signer::at_stop(&mut self)
        {
            warn!(log, "the last entries are not under a signed checkpoint"; "error" => %error);
        }
        let done = stopped.and_then(|()| Ok(self.conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE);")?));
        match done {
            Ok(()) => {
                if let Err(error) = self.shared.files.mark_stopped() {
                    warn!(log, "the mark of this run cannot be taken away"; "error" => %error);
                }
            }
            Err(error) => warn!(log, "the stop could not be recorded"; "error" => %error),
        }
    }

    /// Opens the write-ahead log beside SQLite, once it is there.
    pub(crate) fn watch_wal(&mut self) {
        self.wal = std::fs::File::open(self.shared.files.wal()).ok();
    }

    /// What an error of the device really was. Diesel says only "disk I/O error", whether a write or the
    /// forcing to the device failed; but the kernel reports a failed forcing once to every file that was
    /// open, so asking it through our own handles tells. After that what lies in memory says nothing about
    /// what is on the device, and the process must end.
    pub(crate) fn settled(&self, failure: StorageFailure) -> StorageFailure {
        if failure.reason != FailureReason::Io {
            return failure;
        }
        let told = self.shared.options.sync_failed.as_ref().is_some_and(|sync_failed| sync_failed());
        let wal = self.wal.as_ref().is_some_and(|wal| wal.sync_data().is_err());
        if told || wal || self.shared.files.sync_fails() { StorageFailure { reason: FailureReason::Sync, ..failure } } else { failure }
    }
}

/// An error of the writer's own transaction, as a failure of storage.
pub(crate) fn as_failure(error: LedgerError) -> StorageFailure {
    match error {
        LedgerError::Unavailable(failure) => failure,
        other => StorageFailure::new(FailureReason::Io, other.to_string()),
    }
}
