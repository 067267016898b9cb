//! Opening: lock, settings, migrations, heads. Whatever is wrong is said here, exactly, before anything
//! is served.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use diesel::{connection::SimpleConnection, prelude::*, sql_types};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use slog::{info, warn};

use crate::{
    audit::published,
    error::{FailureReason, LedgerError, OpenError, StorageFailure},
    ledger::Shared,
    lock::{self, DirLock, FileSystem, io_error, sync_dir},
    logs::{AlertLog, EventLog, SignalLog},
    marker::{self, Acknowledged, Marker},
    metrics::Metrics,
    options::Options,
    read::ReadPool,
    storage::Storage,
    tables,
    tx::{Heads, Identity, Sizes},
    writer::{WriterState, queue::Queue},
};

pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// The database file in the data directory.
pub const DATABASE: &str = "opspilot.db";
/// There while a process works on the database; if it is there at start, the last run did not end in order.
pub(crate) const MARKER: &str = "running";
/// Given up when the disk is full, so that what people do can still be stored.
pub(crate) const RESERVE: &str = "reserve";

/// The first SQLite that does not lose commits when two connections write and checkpoint at once.
const NEEDED: (u32, u32, u32) = (3, 51, 3);

/// The files of a data directory, locked.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    pub(crate) reserve_bytes: u64,
    /// Open since before the first write: the kernel tells every open file once that forcing it to the
    /// device failed. Never closed before the connections: closing any handle on the file drops SQLite's
    /// locks on it.
    database: File,
    marker: OnceLock<Marker>,
    _lock: DirLock,
}

impl Files {
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    pub(crate) fn wal(&self) -> PathBuf {
        wal_of(&self.dir)
    }

    /// Makes the reserve if it is not there. An error means that there is no room for it and `margin` bytes besides.
    pub(crate) fn make_reserve(&self, margin: u64) -> std::io::Result<()> {
        let path = self.dir.join(RESERVE);
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= self.reserve_bytes) {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        // really taken, and the margin given back: a quota shows nowhere else
        let whole = self.reserve_bytes.saturating_add(margin);
        let made = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, whole);
        let unsupported = made == Err(rustix::io::Errno::OPNOTSUPP);
        if let Err(error) = made.map_err(std::io::Error::from).and_then(|()| file.set_len(self.reserve_bytes)) {
            drop(std::fs::remove_file(&path));
            // a file system that cannot set space aside has none to give up; that is no reason to stay failed
            return if unsupported && margin > 0 { Ok(()) } else { Err(error) };
        }
        Ok(())
    }

    /// Gives the reserve up; `true` if there was one.
    pub(crate) fn give_up_reserve(&self) -> bool {
        std::fs::remove_file(self.dir.join(RESERVE)).is_ok()
    }

    /// Whether forcing the database file to the device fails, or failed since it was last asked.
    pub(crate) fn sync_fails(&self) -> bool {
        self.database.sync_data().is_err()
    }

    /// Notes beside the database that work up to `heads` is committed.
    pub(crate) fn acknowledge(&self, heads: &Heads) {
        if let Some(marker) = self.marker.get() {
            // without it a loss may go unnoticed, but nothing is lost by it
            drop(marker.acknowledge(heads));
        }
    }

    /// Notes beside the database that it is damaged.
    pub(crate) fn note_damage(&self, detail: &str) -> std::io::Result<()> {
        self.marker.get().map_or(Ok(()), |marker| marker.damaged(detail))
    }

    /// Takes the mark of an orderly stop.
    pub(crate) fn mark_stopped(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.dir.join(MARKER))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn wal_of(dir: &Path) -> PathBuf {
    dir.join(format!("{DATABASE}-wal"))
}

/// The database as a URI; the path may hold any character.
pub(crate) fn url_of(path: &Path, vfs: Option<&str>) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut url = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => url.push(char::from(*byte)),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    if let Some(vfs) = vfs {
        url.push_str("?vfs=");
        url.push_str(vfs);
    }
    url
}

/// The version as numbers, if it is one.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next().and_then(Result::ok).unwrap_or(0)))
}

pub(crate) fn text(conn: &mut SqliteConnection, query: &str) -> Result<String, LedgerError> {
    Ok(diesel::dsl::sql::<sql_types::Text>(query).get_result(conn)?)
}

/// A setting that is a number. One that has no row is compiled out, which is as good as 0.
fn number(conn: &mut SqliteConnection, query: &str) -> Result<String, LedgerError> {
    let found: Option<i64> = diesel::dsl::sql::<sql_types::BigInt>(query).get_result(conn).optional()?;
    Ok(found.unwrap_or(0).to_string())
}

/// A writing connection with every setting that the promises rest on, read back.
pub(crate) fn connect(url: &str, path: &Path, busy_ms: u128) -> Result<SqliteConnection, OpenError> {
    let refused = |source: LedgerError| classify(path, source);
    let mut conn = SqliteConnection::establish(url).map_err(|error| refused(error.into()))?;
    let found = text(&mut conn, "SELECT sqlite_version()").map_err(refused)?;
    if version(&found).is_none_or(|found| found < NEEDED) {
        return Err(OpenError::SqliteTooOld { found });
    }
    let settings = format!(
        "PRAGMA busy_timeout={busy_ms}; PRAGMA trusted_schema=0; PRAGMA mmap_size=0; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         PRAGMA foreign_keys=1; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864;"
    );
    conn.batch_execute(&settings).map_err(|error| refused(error.into()))?;
    let found = text(&mut conn, "PRAGMA journal_mode").map_err(refused)?;
    if found != "wal" {
        return Err(OpenError::Setting { name: "journal_mode", found, wanted: "wal" });
    }
    for (name, wanted, query) in [
        ("synchronous", "2", "PRAGMA synchronous"),
        ("foreign_keys", "1", "PRAGMA foreign_keys"),
        ("trusted_schema", "0", "PRAGMA trusted_schema"),
        ("mmap_size", "0", "PRAGMA mmap_size"),
        ("wal_autocheckpoint", "0", "PRAGMA wal_autocheckpoint"),
    ] {
        let found = number(&mut conn, query).map_err(refused)?;
        if found != wanted {
            return Err(OpenError::Setting { name, found, wanted });
        }
    }
    Ok(conn)
}

/// Tells damage from other refusals.
fn classify(path: &Path, source: LedgerError) -> OpenError {
    let path = path.display().to_string();
    match &source {
        LedgerError::Unavailable(failure) if failure.reason == FailureReason::Damaged => {
            OpenError::Damaged { path, detail: failure.detail.clone() }
        }
        LedgerError::Damaged(detail) => OpenError::Damaged { path, detail: detail.clone() },
        _ => OpenError::Database { path, source },
    }
}

/// Brings the schema up to this release. Says which migrations were made.
fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<Vec<String>, OpenError> {
    let failed = |detail: String| OpenError::Migration { path: path.display().to_string(), detail };
    let applied = conn.applied_migrations().map_err(|error| failed(error.to_string()))?;
    let known: Vec<String> = diesel::migration::MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
        .map_err(|error| failed(error.to_string()))?
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect();
    if let Some(unknown) = applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        return Err(OpenError::TooNew { path: path.display().to_string(), migration: unknown });
    }
    let made = conn.run_pending_migrations(MIGRATIONS).map_err(|error| failed(error.to_string()))?;
    Ok(made.iter().map(ToString::to_string).collect())
}

/// The last numbers of all logs and the end of the audit chain, checked.
pub(crate) fn heads(conn: &mut SqliteConnection) -> Result<Heads, LedgerError> {
    Ok(Heads {
        signal: tables::signals::head(conn)?,
        alert: tables::alert_log::head(conn)?,
        event: tables::events::head(conn)?,
        audit: tables::audit::load_head(conn)?,
        tick: tables::ticks::held(conn)?,
        sizes: Sizes::default(),
    })
}

/// The same with the tree over the audit log, which a log that is older than the tree is given now, and with what the logs take.
pub(crate) fn heads_with_tree(conn: &mut SqliteConnection) -> Result<Heads, LedgerError> {
    let mut heads = heads(conn)?;
    heads.audit.tree = tables::audit::tree::load_or_fill(conn, &heads.audit)?;
    heads.sizes = Sizes { signals: tables::signals::total(conn)?, events: tables::events::total(conn)? };
    Ok(heads)
}

/// Opens everything but the writer thread.
pub(crate) fn open(options: Options) -> Result<(Arc<Shared>, WriterState), OpenError> {
    let dir = options.dir.clone();
    lock::make_dir(&dir)?;
    match lock::file_system(&dir)? {
        FileSystem::Network(kind) => return Err(OpenError::NetworkFileSystem { dir: dir.display().to_string(), kind }),
        FileSystem::Volatile(kind) => {
            warn!(options.log, "the data directory lies on a file system that may not survive a loss of power"; "dir" => %dir.display(), "kind" => kind);
        }
        FileSystem::Local => {}
    }
    let lock = DirLock::take(&dir)?;
    let path = dir.join(DATABASE);
    let marker = dir.join(MARKER);
    let left = marker::left(&marker).map_err(io_error(&marker))?;
    if let Some(acknowledged) = left.as_ref().and_then(|left| left.acknowledged)
        && path.exists()
        && !wal_of(&dir).exists()
    {
        nothing_lost(&options, &path, &acknowledged)?;
    }
    // made here and not by SQLite, so that nobody else can read it
    let database = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io_error(&path))?;
    let files = Arc::new(Files {
        url: url_of(&path, options.vfs.as_deref()),
        dir: dir.clone(),
        reserve_bytes: options.limits.reserve_bytes,
        database,
        marker: OnceLock::new(),
        _lock: lock,
    });
    let mut conn = connect(&files.url, &path, options.limits.busy_timeout.as_millis())?;
    if let Some(met) = left.as_ref().and_then(|left| left.damage.as_deref()) {
        warn!(options.log, "the last run met damage; the database is looked through before anything is served"; "detail" => met);
        let answer = text(&mut conn, "PRAGMA quick_check(1)").map_err(|source| classify(&path, source))?;
        if answer != "ok" {
            return Err(OpenError::Damaged { path: path.display().to_string(), detail: answer });
        }
    }
    let made = migrate(&mut conn, &path)?;
    tables::incidents_words::fill(&mut conn).map_err(|source| classify(&path, source))?;
    let heads = heads_with_tree(&mut conn).map_err(|source| classify(&path, source))?;
    if !options.after_restore {
        published::not_behind(&dir, &mut conn, heads.audit.size)?;
    }
    options.clock.not_before(heads.audit.last_ts);
    if let Err(error) = files.make_reserve(0) {
        warn!(options.log, "no room for the reserve"; "bytes" => options.limits.reserve_bytes, "error" => %error);
    }
    let metrics = Metrics::register(&options.registry)
        .map_err(|error| OpenError::Database { path: path.display().to_string(), source: LedgerError::Internal(error.to_string()) })?;
    let boot: Arc<str> = hex::encode(rand::random::<[u8; 8]>()).into();
    let identity = Identity { node: options.node.as_str().into(), boot };
    let limits = &options.limits;
    let pool = ReadPool::new(&files.url, limits, options.clock.clone());
    let shared = Arc::new(Shared {
        queue: Queue::new(limits),
        storage: Storage::new(),
        metrics,
        signals: SignalLog::new(heads.signal, limits.signal_ring_bytes, pool.clone()),
        alerts: AlertLog::new(heads.alert, limits.alert_ring_bytes, pool.clone()),
        events: EventLog::new(heads.event, limits.event_ring_bytes, pool.clone()),
        pool,
        files,
        identity,
        high_water: std::sync::atomic::AtomicI64::new(heads.audit.last_ts.millis()),
        fatal_told: std::sync::atomic::AtomicBool::new(false),
        audit: tokio::sync::watch::Sender::new(heads.audit.size),
        checkpoint_wanted: tokio::sync::Notify::new(),
        signer: OnceLock::new(),
        options,
    });
    shared.pool.tell_damage_to(&shared);
    let unclean = left.is_some();
    let mut state = WriterState::new(&shared, conn, heads);
    state.announce_start(&made, unclean).map_err(|source| classify(&path, source))?;
    let running = Marker::set(&marker, &shared.identity.boot, state.heads()).map_err(io_error(&marker))?;
    drop(shared.files.marker.set(running));
    sync_dir(&dir)?;
    info!(shared.options.log, "the ledger is open"; "dir" => %dir.display(), "signals" => heads.signal, "events" => heads.event, "unclean" => unclean);
    if unclean {
        check_in_background(shared.clone());
    }
    Ok((shared, state))
}

/// After an unclean stop without a write-ahead log: refuses a database that ends before what was
/// acknowledged. Read as a file that nobody writes, so that no new log is made beside it.
fn nothing_lost(options: &Options, path: &Path, acknowledged: &Acknowledged) -> Result<(), OpenError> {
    let url = url_of(path, options.vfs.as_deref());
    let separator = if options.vfs.is_some() { '&' } else { '?' };
    let found = SqliteConnection::establish(&format!("{url}{separator}immutable=1")).map_err(LedgerError::from).and_then(|mut conn| {
        conn.batch_execute("PRAGMA query_only=1; PRAGMA trusted_schema=0; PRAGMA mmap_size=0;")?;
        heads(&mut conn)
    });
    let lost = match found {
        Ok(heads) => match acknowledged.missing_in(&Acknowledged::from(&heads)) {
            Some(missing) => missing,
            None => return Ok(()),
        },
        Err(LedgerError::Unavailable(failure)) if failure.reason != FailureReason::Damaged => {
            return Err(classify(path, failure.into()));
        }
        // a database that was still empty, or a checkpoint that was cut off
        Err(error) => error.to_string(),
    };
    Err(OpenError::Damaged {
        path: path.display().to_string(),
        detail: format!(
            "the last run did not stop in order, and its write-ahead log {} is missing, with acknowledged data in it ({lost}); put it back, or delete {} to go on without that data",
            wal_of(&options.dir).display(),
            options.dir.join(MARKER).display()
        ),
    })
}

/// After an unclean stop the whole file is looked through while it is already in use.
fn check_in_background(shared: Arc<Shared>) {
    let log = shared.options.log.clone();
    let check = move || {
        let path = shared.files.database();
        let found = SqliteConnection::establish(&shared.files.url).map_err(LedgerError::from).and_then(|mut conn| {
            conn.batch_execute("PRAGMA query_only=1; PRAGMA trusted_schema=0; PRAGMA mmap_size=0;")?;
            text(&mut conn, "PRAGMA quick_check(1)")
        });
        match found {
            Ok(answer) if answer == "ok" => info!(shared.options.log, "the check after the unclean stop found nothing"),
            Ok(answer) => found_damage(&shared, &path, answer),
            Err(error) if error.storage().is_some_and(|failure| failure.reason == FailureReason::Damaged) => {
                found_damage(&shared, &path, error.to_string());
            }
            Err(error) => shared.storage.notice("check", format!("the check after the unclean stop could not be made: {error}")),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("ledger-check".to_owned()).spawn(check) {
        warn!(log, "the check after the unclean stop could not be started"; "error" => %error);
    }
}

fn found_damage(shared: &Shared, path: &Path, detail: String) {
    let failure = StorageFailure::new(FailureReason::Damaged, format!("{}: {detail}", path.display()));
    shared.fail(&failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri_whatever_it_holds() {
        assert_eq!(url_of(Path::new("/data/a b?c#d%/ü.db"), Some("shim")), "file:/data/a%20b%3Fc%23d%25/%C3%BC.db?vfs=shim");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("3.51.2").unwrap() < NEEDED && version("3.51.3").unwrap() >= NEEDED && version("3.100.0").unwrap() >= NEEDED);
        assert_eq!(version("unknown"), None);
    }
}
