//! What can go wrong, and what a caller can do about it.

use std::fmt;

use opspilot_kernel::error::ErrorKind;

/// Why storage refuses to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// No space is left.
    Full,
    /// The file or its directory may not be written.
    ReadOnly,
    /// The device reported an error.
    Io,
    /// The file's content contradicts itself. The process must end: nothing it holds can be trusted.
    Damaged,
    /// What was written could not be forced to the device. The process must end, since what the
    /// operating system still holds in memory says nothing about what is on the device.
    Sync,
    /// Some other process holds the file.
    Locked,
    /// The ledger was shut down.
    Stopped,
}

impl FailureReason {
    /// The reason as the API and the metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureReason::Full => "full",
            FailureReason::ReadOnly => "read_only",
            FailureReason::Io => "io",
            FailureReason::Damaged => "damaged",
            FailureReason::Sync => "sync",
            FailureReason::Locked => "locked",
            FailureReason::Stopped => "stopped",
        }
    }

    /// Whether the process must end and start again before it may write.
    pub const fn is_fatal(self) -> bool {
        matches!(self, FailureReason::Damaged | FailureReason::Sync)
    }
}

/// Storage refuses to write, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("storage is not writable ({reason}): {detail}")]
pub struct StorageFailure {
    /// Why.
    pub reason: FailureReason,
    /// What SQLite or the system said.
    pub detail: String,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StorageFailure {
    /// A failure with its reason and what the system said.
    pub fn new(reason: FailureReason, detail: impl Into<String>) -> StorageFailure {
        StorageFailure { reason, detail: detail.into() }
    }
}

/// Every way in which the ledger refuses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// A queue is full; nothing was stored.
    #[error("the ledger is busy")]
    Busy,
    /// Storage is not writable; nothing was stored.
    #[error(transparent)]
    Unavailable(#[from] StorageFailure),
    /// The state of the thing does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The cursor of a page is none that the list gave.
    #[error("the cursor is not one that this list gave")]
    Cursor,
    /// Stored bytes are not what was written.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The job panicked; it alone was rolled back.
    #[error("a job of the ledger panicked")]
    Panicked,
    /// Our fault.
    #[error("internal error of the ledger: {0}")]
    Internal(String),
}

impl LedgerError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LedgerError::Busy => ErrorKind::Busy,
            LedgerError::Unavailable(_) => ErrorKind::Unavailable,
            LedgerError::Conflict(_) => ErrorKind::Conflict,
            LedgerError::NotFound(_) => ErrorKind::NotFound,
            LedgerError::Invalid(_) | LedgerError::Cursor => ErrorKind::Invalid,
            LedgerError::Damaged(_) | LedgerError::Panicked | LedgerError::Internal(_) => ErrorKind::Internal,
        }
    }

    /// The ledger was shut down, or its writer is gone.
    pub(crate) fn stopped() -> LedgerError {
        LedgerError::Unavailable(StorageFailure::new(FailureReason::Stopped, "the ledger is shut down"))
    }

    /// A number that does not fit where it is stored.
    pub(crate) fn out_of_range(what: &str) -> LedgerError {
        LedgerError::Internal(format!("{what} is out of range"))
    }

    /// The failure of storage behind this error, if that is what it is.
    pub(crate) fn storage(&self) -> Option<&StorageFailure> {
        match self {
            LedgerError::Unavailable(failure) => Some(failure),
            _ => None,
        }
    }
}

/// What SQLite's message says about the device. Diesel hands over the message only: the texts are those
/// of `sqlite3_errstr`, which are fixed for each primary result code.
fn reason_of(message: &str) -> Option<FailureReason> {
    const TEXTS: [(&str, FailureReason); 8] = [
        ("database or disk is full", FailureReason::Full),
        ("attempt to write a readonly database", FailureReason::ReadOnly),
        ("disk I/O error", FailureReason::Io),
        ("unable to open database file", FailureReason::Io),
        ("database disk image is malformed", FailureReason::Damaged),
        ("file is not a database", FailureReason::Damaged),
        ("database is locked", FailureReason::Locked),
        ("locking protocol", FailureReason::Locked),
    ];
    TEXTS.iter().find(|(text, _)| message.contains(text)).map(|(_, reason)| *reason)
}

impl From<diesel::result::Error> for LedgerError {
    fn from(error: diesel::result::Error) -> LedgerError {
        use diesel::result::{DatabaseErrorKind, Error};
        match error {
            Error::NotFound => LedgerError::NotFound("the row".to_owned()),
            Error::DatabaseError(kind, info) => match reason_of(info.message()) {
                Some(reason) => StorageFailure::new(reason, info.message()).into(),
                None if matches!(kind, DatabaseErrorKind::UniqueViolation) => LedgerError::Conflict(info.message().to_owned()),
                None => LedgerError::Internal(info.message().to_owned()),
            },
            other => LedgerError::Internal(other.to_string()),
        }
    }
}

impl From<diesel::ConnectionError> for LedgerError {
    fn from(error: diesel::ConnectionError) -> LedgerError {
        let message = error.to_string();
        let reason = reason_of(&message).unwrap_or(FailureReason::Io);
        StorageFailure::new(reason, message).into()
    }
}

impl From<opspilot_kernel::canonical::NotCanonical> for LedgerError {
    fn from(error: opspilot_kernel::canonical::NotCanonical) -> LedgerError {
        LedgerError::Internal(error.to_string())
    }
}

impl From<opspilot_kernel::codec::Damaged> for LedgerError {
    fn from(error: opspilot_kernel::codec::Damaged) -> LedgerError {
        LedgerError::Damaged(error.to_string())
    }
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Some other process works on it.
    #[error("the data directory {dir} is in use by another process (lock file {lock})")]
    InUse {
        /// The directory.
        dir: String,
        /// The file that is locked.
        lock: String,
    },
    /// It lies on a file system that cannot keep the promises.
    #[error("the data directory {dir} lies on a network file system ({kind}), which cannot keep data safe; use a local disk")]
    NetworkFileSystem {
        /// The directory.
        dir: String,
        /// What kind of file system it is.
        kind: &'static str,
    },
    /// Something in the directory cannot be made, read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// What.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database does not have a setting that the promises rest on.
    #[error("the database setting {name} is {found}, not {wanted}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// This build carries an SQLite with a known loss of data.
    #[error("this build carries SQLite {found}; at least 3.51.3 is needed")]
    SqliteTooOld {
        /// Its version.
        found: String,
    },
    /// The database was made by a newer release.
    #[error("the database {path} was made by a newer release (it has the migration {migration}, which this release does not know)")]
    TooNew {
        /// The database file.
        path: String,
        /// The newest unknown migration.
        migration: String,
    },
    /// The database contradicts itself.
    #[error("the database {path} is damaged: {detail}; restore a backup (opspilot restore)")]
    Damaged {
        /// The database file.
        path: String,
        /// What was found.
        detail: String,
    },
    /// The audit log ends before what was published of it: the database was put back to an earlier state.
    #[error(
        "the audit log has {found} entries, but a checkpoint over {published} was published ({file}); the database was put back to an earlier state: put the newer one in its place again, or restore a backup with `opspilot restore`, which puts that on record"
    )]
    RolledBack {
        /// The file of published checkpoints.
        file: String,
        /// How many entries the newest of them covers.
        published: u64,
        /// How many there are.
        found: u64,
    },
    /// A migration failed.
    #[error("cannot migrate {path}: {detail}")]
    Migration {
        /// The database file.
        path: String,
        /// What the migration said.
        detail: String,
    },
    /// SQLite refuses.
    #[error("cannot open the database {path}: {source}")]
    Database {
        /// The database file.
        path: String,
        /// Why.
        source: LedgerError,
    },
}
