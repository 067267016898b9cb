//! Backup of a live ledger, and restore into a directory that is not in use.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::{clock::SharedClock, ids::Seq, principal::Actor};
use serde_json::json;

use crate::{
    audit::published,
    error::{FailureReason, LedgerError, OpenError, StorageFailure},
    ledger::{Ledger, Priority},
    lock::{self, DirLock, io_error, sync_dir},
    open::{DATABASE, MARKER, heads, text, url_of},
    options::Options,
    read::Reader,
    tables::{
        audit::{AuditEntry, Object},
        meta,
    },
    tx::Tx,
};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BackupReport {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The last signal in it.
    pub last_signal: Seq,
    /// The last event in it.
    pub last_event: Seq,
    /// How many audit entries are in it; all were verified.
    pub audit_entries: Seq,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError + use<> {
    let path = path.display().to_string();
    move |error| StorageFailure::new(FailureReason::Io, format!("{path}: {error}")).into()
}

/// Looks a database file through: its pages, its heads, its whole audit chain.
pub fn verify(path: &Path, clock: &SharedClock) -> Result<BackupReport, LedgerError> {
    let bytes = std::fs::metadata(path).map_err(io(path))?.len();
    // immutable: a file that nobody writes is read without making a log beside it
    let url = format!("{}?immutable=1", url_of(path, None));
    let mut conn = SqliteConnection::establish(&url)?;
    conn.batch_execute("PRAGMA query_only=1; PRAGMA trusted_schema=0; PRAGMA mmap_size=0;")?;
    let answer = text(&mut conn, "PRAGMA integrity_check(1)")?;
    if answer != "ok" {
        return Err(LedgerError::Damaged(answer));
    }
    let heads = heads(&mut conn)?;
    let audit_entries = Reader { conn: &mut conn, clock }.audit_verify()?;
    Ok(BackupReport { path: path.to_owned(), bytes, last_signal: heads.signal, last_event: heads.event, audit_entries })
}

/// Writes a verified copy of the ledger in `dir` to the new file `to`, also while a service works on it.
/// The copy is one moment of the ledger; nothing is there under its name before it is complete.
pub fn backup(dir: &Path, to: &Path, clock: &SharedClock) -> Result<BackupReport, LedgerError> {
    if to.exists() {
        return Err(LedgerError::Conflict(format!("{} exists already", to.display())));
    }
    let source = dir.join(DATABASE);
    if !source.exists() {
        return Err(LedgerError::NotFound(format!("the ledger {}", source.display())));
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let made = copy(&source, &partial, clock);
    let report = match made {
        Ok(report) => report,
        Err(error) => {
            drop(std::fs::remove_file(&partial));
            return Err(error);
        }
    };
    std::fs::rename(&partial, to).map_err(io(to))?;
    sync_dir(parent).map_err(|error| LedgerError::Internal(error.to_string()))?;
    Ok(BackupReport { path: to.to_owned(), ..report })
}

fn copy(source: &Path, partial: &Path, clock: &SharedClock) -> Result<BackupReport, LedgerError> {
    if partial.exists() {
        // left by a backup that was killed
        std::fs::remove_file(partial).map_err(io(partial))?;
    }
    let mut conn = SqliteConnection::establish(&url_of(source, None))?;
    conn.batch_execute("PRAGMA busy_timeout=5000; PRAGMA trusted_schema=0; PRAGMA mmap_size=0;")?;
    let target = partial.to_str().ok_or_else(|| LedgerError::Invalid("the path of a backup must be UTF-8".to_owned()))?;
    diesel::sql_query("VACUUM INTO ?").bind::<diesel::sql_types::Text, _>(target).execute(&mut conn)?;
    drop(conn);
    File::open(partial).and_then(|file| file.sync_all()).map_err(io(partial))?;
    restrict(partial)?;
    verify(partial, clock)
}

fn restrict(path: &Path) -> Result<(), LedgerError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io(path))
}

/// Why a restore was not made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory cannot be used; above all because a service works on it.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The backup cannot be used.
    #[error("the backup {path} cannot be used: {source}")]
    Backup {
        /// The file.
        path: String,
        /// Why.
        source: LedgerError,
    },
    /// The restored ledger does not take the record of its restore.
    #[error("the restored ledger does not take writes: {0}")]
    Ledger(#[from] LedgerError),
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoreReport {
    /// What is in the ledger now.
    pub restored: BackupReport,
    /// Where the database that was there before is kept.
    pub replaced: Option<PathBuf>,
}

/// Puts the backup `from` into the directory of `options`. Refuses a directory that is in use. What was
/// there before is moved aside, never deleted. The epoch is new afterwards, so that nothing which was
/// used up after the backup can be used again; the restore is the next audit entry.
pub fn restore(from: &Path, options: Options, actor: &Actor) -> Result<RestoreReport, RestoreError> {
    let dir = options.dir.clone();
    let unusable = |source| RestoreError::Backup { path: from.display().to_string(), source };
    lock::make_dir(&dir)?;
    let lock = DirLock::take(&dir)?;
    let found = verify(from, &options.clock).map_err(unusable)?;
    let incoming = dir.join("restoring.db");
    std::fs::copy(from, &incoming).map_err(io_error(&incoming))?;
    restrict(&incoming)?;
    File::open(&incoming).and_then(|file| file.sync_all()).map_err(io_error(&incoming))?;
    verify(&incoming, &options.clock).map_err(unusable)?;
    let replaced = set_aside(&dir, options.clock.now().millis())?;
    std::fs::rename(&incoming, dir.join(DATABASE)).map_err(io_error(&incoming))?;
    sync_dir(&dir)?;
    drop(lock);
    let published = dir.join(published::PUBLISHED);
    let behind = published::newest(&published).map_err(io_error(&published))?.map(|note| published::digest(&note));
    let ledger = Ledger::open(Options { after_restore: true, ..options })?;
    let (actor, details) = (actor.clone(), found.clone());
    ledger.write_blocking(Priority::Control, move |tx| tx.restored(&actor, &details, behind.as_deref()))?;
    Ok(RestoreReport { restored: found, replaced })
}

/// Moves the database that is there, and what belongs to it, into a directory of its own.
fn set_aside(dir: &Path, now: i64) -> Result<Option<PathBuf>, OpenError> {
    // the log goes first: without it the old database must not be taken for complete where it was. One that
    // lies there without its database must go too, or it would be taken for that of the restored one
    let names = [format!("{DATABASE}-wal"), format!("{DATABASE}-shm"), DATABASE.to_owned(), MARKER.to_owned()];
    let left: Vec<&String> = names.iter().filter(|name| dir.join(name).exists()).collect();
    if left.is_empty() {
        return Ok(None);
    }
    let aside = dir.join(format!("replaced-{now}"));
    std::fs::create_dir(&aside).map_err(io_error(&aside))?;
    for name in left {
        let path = dir.join(name);
        std::fs::rename(&path, aside.join(name)).map_err(io_error(&path))?;
    }
    sync_dir(&aside)?;
    Ok(Some(aside))
}

impl Tx<'_> {
    /// The ledger is a restored backup: new epoch, and the entry that says so.
    /// `behind` names the published checkpoint that it went back behind.
    pub(crate) fn restored(&mut self, actor: &Actor, found: &BackupReport, behind: Option<&str>) -> Result<(), LedgerError> {
        let old = meta::get(self.conn, meta::EPOCH)?.unwrap_or_default();
        let new = hex::encode(rand::random::<[u8; 8]>());
        meta::set(self.conn, meta::EPOCH, &new)?;
        self.audit(AuditEntry {
            code: "RES01I",
            actor: actor.clone(),
            object: Object::new("ledger", found.path.display().to_string()),
            body: json!({
                "audit_entries": found.audit_entries, "last_signal": found.last_signal, "last_event": found.last_event,
                "old_epoch": old, "epoch": new, "behind": behind,
            }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

impl Reader<'_> {
    /// The epoch: another one after every restore.
    pub fn epoch(&mut self) -> Result<String, LedgerError> {
        Ok(meta::get(self.conn, meta::EPOCH)?.unwrap_or_default())
    }

    /// The identity of this instance, kept by backups.
    pub fn instance(&mut self) -> Result<String, LedgerError> {
        Ok(meta::get(self.conn, meta::INSTANCE)?.unwrap_or_default())
    }
}

impl Ledger {
    /// A verified copy of this ledger in the new file `to`, while it works; recorded in the audit chain.
    pub async fn backup(&self, to: PathBuf, actor: Actor) -> Result<BackupReport, LedgerError> {
        let options = &self.shared().options;
        let (dir, clock) = (options.dir.clone(), options.clock.clone());
        let made = tokio::task::spawn_blocking(move || backup(&dir, &to, &clock)).await;
        let report = made.map_err(|_| LedgerError::Panicked)??;
        let details = report.clone();
        self.write(Priority::Control, move |tx| {
            tx.audit(AuditEntry {
                code: "BAK01I",
                actor,
                object: Object::new("backup", details.path.display().to_string()),
                body: json!({ "bytes": details.bytes, "audit_entries": details.audit_entries, "last_signal": details.last_signal }),
                ..AuditEntry::default()
            })
        })
        .await?;
        Ok(report)
    }
}
