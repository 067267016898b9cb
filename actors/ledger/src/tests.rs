//! What needs to see inside: failing storage, migrations step by step, schema and migrations side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text};
use diesel_migrations::MigrationHarness;
use opspilot_kernel::{clock::ManualClock, principal::Actor, signal::SignalRef, time::Timestamp};

use crate::{
    FailureReason, Ledger, LedgerError, Limits, OpenError, Options, Priority, SignalBatch, SignalBatchBuilder, StorageFailure,
    StorageHealth,
    open::{DATABASE, MIGRATIONS},
};

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, ManualClock::at(Timestamp::from_millis(1_795_348_800_000)));
    options.limits = Limits {
        probe_every: Duration::from_millis(5),
        idle_after: Duration::from_millis(5),
        reserve_bytes: 1 << 16,
        headroom_bytes: 1 << 16,
        heal_after: Duration::ZERO,
        ..Limits::default()
    };
    options
}

fn batch(count: usize) -> SignalBatch {
    let now = Timestamp::from_millis(1_795_348_800_000);
    let mut builder = SignalBatchBuilder::new(now);
    let mut dice = 7_u64;
    for _ in 0..count {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        builder.push(&SignalRef::log(now, "shop", &format!("nothing two of these have in common: {dice:016x}")));
    }
    builder.seal()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn reason(error: &LedgerError) -> Option<FailureReason> {
    error.storage().map(|failure| failure.reason)
}

/// Makes the writer's own connection behave like one on a failing device, until it is made anew.
fn spoil(ledger: &Ledger, pragma: &'static str) -> Result<(), LedgerError> {
    // the first round of retention comes behind the first job; it must not be what meets the failure
    ledger.write_blocking(Priority::Control, |_| Ok(()))?;
    ledger.write_blocking(Priority::Control, move |tx| {
        tx.conn.batch_execute(pragma)?;
        Ok(())
    })
}

async fn healthy(ledger: &Ledger) {
    ledger.watch_storage().wait_for(StorageHealth::is_healthy).await.unwrap();
}

#[test]
fn a6_a_full_disk_refuses_everything_of_the_batch_and_heals_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    let rt = runtime();
    rt.block_on(ledger.append(batch(10))).unwrap();
    spoil(&ledger, "PRAGMA max_page_count=1").unwrap();
    let refused = rt.block_on(ledger.append(batch(5000))).unwrap_err();
    assert_eq!(reason(&refused), Some(FailureReason::Full), "{refused}");
    assert_eq!(ledger.read_blocking(|reader| reader.cursor("nobody")).unwrap(), 0, "reads go on");
    rt.block_on(healthy(&ledger));
    let appended = rt.block_on(ledger.append(batch(5))).unwrap();
    assert_eq!((appended.first_seq, appended.last_seq), (11, 15), "nothing of the refused batch is there");
}

#[test]
fn a6_room_that_has_just_appeared_is_not_trusted_before_it_has_lasted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(Timestamp::from_millis(1_795_348_800_000));
    let mut options = Options { clock: clock.clone(), ..options(dir.path()) };
    options.limits.heal_after = Duration::from_secs(10);
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    spoil(&ledger, "PRAGMA max_page_count=1").unwrap();
    rt.block_on(ledger.append(batch(5000))).unwrap_err();
    let look = || rt.block_on(ledger.write(Priority::Control, |_| Ok(()))).unwrap();
    for _ in 0..3 {
        // each is done in a look of its own at the disk
        look();
        clock.advance(Duration::from_secs(3));
        assert!(!ledger.storage().is_healthy());
    }
    look();
    assert!(!ledger.storage().is_healthy(), "nine seconds");
    clock.advance(Duration::from_secs(1));
    rt.block_on(healthy(&ledger));
}

#[test]
fn a6_with_the_reserve_given_up_people_work_and_signals_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.reserve_bytes = 1 << 60;
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    spoil(&ledger, "PRAGMA max_page_count=1").unwrap();
    rt.block_on(ledger.append(batch(5000))).unwrap_err();
    for _ in 0..3 {
        rt.block_on(ledger.write(Priority::Control, |tx| tx.module_restarted(&Actor::System, "m", "r"))).unwrap();
        let refused = rt.block_on(ledger.append(batch(1))).unwrap_err();
        assert_eq!(reason(&refused), Some(FailureReason::Full));
    }
    assert!(!ledger.storage().is_healthy());
}

#[test]
fn a6_stopped_on_a_full_disk_the_next_start_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut with_no_room = options(dir.path());
    with_no_room.limits.reserve_bytes = 1 << 60;
    let ledger = Ledger::open(with_no_room).unwrap();
    let rt = runtime();
    rt.block_on(ledger.append(batch(10))).unwrap();
    spoil(&ledger, "PRAGMA max_page_count=1").unwrap();
    rt.block_on(ledger.append(batch(5000))).unwrap_err();
    rt.block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    assert!(dir.path().join("running").exists(), "the stop could not be recorded");
    let ledger = Ledger::open(options(dir.path())).unwrap();
    assert_eq!(ledger.signals().head(), 10);
}

#[test]
fn a7_a_database_that_became_read_only_refuses_with_its_reason_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    let rt = runtime();
    spoil(&ledger, "PRAGMA query_only=1").unwrap();
    let refused = rt.block_on(ledger.append(batch(1))).unwrap_err();
    assert_eq!(reason(&refused), Some(FailureReason::ReadOnly), "{refused}");
    rt.block_on(healthy(&ledger));
    assert_eq!(rt.block_on(ledger.append(batch(1))).unwrap().last_seq, 1);
}

fn fatal_run(spoiled: impl FnOnce(&mut Options)) -> (Ledger, tempfile::TempDir, mpsc::Receiver<FailureReason>) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    options.fatal = Arc::new(move |failure| tell.lock().unwrap().send(failure.reason).unwrap());
    spoiled(&mut options);
    (Ledger::open(options).unwrap(), dir, told)
}

fn fail_with(ledger: &Ledger, reason: FailureReason) -> LedgerError {
    let rt = runtime();
    rt.block_on(ledger.write(Priority::Bulk, move |_| Err::<(), _>(StorageFailure::new(reason, "injected").into()))).unwrap_err()
}

#[test]
fn a8_a_failed_fsync_ends_the_process_and_a_failed_write_does_not() {
    let sync = Arc::new(AtomicBool::new(false));
    let asked = sync.clone();
    let (ledger, _dir, told) = fatal_run(|options| options.sync_failed = Some(Arc::new(move || asked.load(Ordering::SeqCst))));
    let rt = runtime();
    assert_eq!(reason(&fail_with(&ledger, FailureReason::Io)), Some(FailureReason::Io));
    rt.block_on(healthy(&ledger));
    assert!(told.try_recv().is_err());
    sync.store(true, Ordering::SeqCst);
    assert_eq!(reason(&fail_with(&ledger, FailureReason::Io)), Some(FailureReason::Sync));
    let later = rt.block_on(ledger.append(batch(1))).unwrap_err();
    assert_eq!(reason(&later), Some(FailureReason::Sync), "nothing is tried again");
    assert_eq!(told.recv().unwrap(), FailureReason::Sync);
    assert!(told.try_recv().is_err(), "told once");
    ledger.read_blocking(|reader| reader.audit_verify()).unwrap();
}

#[test]
fn a9_damage_ends_the_process() {
    let (ledger, _dir, told) = fatal_run(|_| {});
    fail_with(&ledger, FailureReason::Damaged);
    assert_eq!(told.recv().unwrap(), FailureReason::Damaged);
    assert!(matches!(ledger.storage(), StorageHealth::Failed { failure, .. } if failure.reason == FailureReason::Damaged));
}

/// Spoils a table that nobody looks at when a ledger is opened.
fn damage(dir: &Path) {
    use std::os::unix::fs::FileExt;
    let page: i64 = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT rootpage FROM sqlite_master WHERE name = 'dead_letter'")
        .get_result(&mut establish(dir))
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.join(DATABASE)).unwrap();
    file.write_all_at(&[0x5a; 4096], u64::try_from(page - 1).unwrap() * 4096).unwrap();
}

fn refused_for_damage(dir: &Path) {
    for _ in 0..2 {
        // the thread that found it may hold the directory for a moment longer
        let refused = std::iter::repeat_with(|| Ledger::open(options(dir)).unwrap_err())
            .inspect(|_| std::thread::yield_now())
            .find(|refused| !matches!(refused, OpenError::InUse { .. }))
            .unwrap();
        assert!(matches!(&refused, OpenError::Damaged { detail, .. } if detail.contains("page")), "{refused}");
    }
}

#[test]
fn a9_damage_found_behind_an_unclean_start_is_not_forgotten_by_an_orderly_stop() {
    let (ledger, dir, _told) = fatal_run(|_| {});
    drop(ledger);
    damage(dir.path());
    std::fs::write(dir.path().join("running"), "").unwrap();
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let fatal: crate::FatalHook = Arc::new(move |failure| tell.lock().unwrap().send(failure.reason).unwrap());
    let ledger = Ledger::open(Options { fatal, ..options(dir.path()) }).unwrap();
    assert_eq!(told.recv().unwrap(), FailureReason::Damaged);
    runtime().block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    refused_for_damage(dir.path());
}

#[test]
fn a9_damage_met_by_a_reader_ends_the_process() {
    let (ledger, dir, _told) = fatal_run(|_| {});
    drop(ledger);
    damage(dir.path());
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let fatal: crate::FatalHook = Arc::new(move |failure| tell.lock().unwrap().send(failure.reason).unwrap());
    let ledger = Ledger::open(Options { fatal, ..options(dir.path()) }).unwrap();
    for _ in 0..2 {
        let refused = ledger.read_blocking(|reader| reader.dead_letters(&crate::Page::first(1))).unwrap_err();
        assert_eq!(reason(&refused), Some(FailureReason::Damaged), "{refused}");
    }
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [FailureReason::Damaged], "told once");
    let refused = runtime().block_on(ledger.append(batch(1))).unwrap_err();
    assert_eq!(reason(&refused), Some(FailureReason::Damaged));
    drop(ledger);
    refused_for_damage(dir.path());
}

#[test]
fn a_commit_that_fails_leaves_no_claim_behind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    let rt = runtime();
    let with_id = || {
        let now = Timestamp::from_millis(1_795_348_800_000);
        let mut builder = SignalBatchBuilder::new(now);
        builder.push(&SignalRef { id: "1", ..SignalRef::log(now, "a", "once") });
        builder.seal()
    };
    spoil(&ledger, "PRAGMA query_only=1").unwrap();
    rt.block_on(ledger.append(with_id())).unwrap_err();
    rt.block_on(healthy(&ledger));
    assert_eq!(rt.block_on(ledger.append(with_id())).unwrap().accepted, 1, "the sender was told to try again");
    assert_eq!(rt.block_on(ledger.append(with_id())).unwrap().accepted, 0);
}

#[test]
fn the_audit_log_takes_no_update_no_delete_and_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    for sql in [
        "UPDATE audit_leaf SET leaf = zeroblob(1) WHERE seq = 1",
        "DELETE FROM audit_leaf WHERE seq = 1",
        "INSERT INTO audit_leaf (seq, leaf, leaf_hash) VALUES (99, zeroblob(1), zeroblob(32))",
    ] {
        let refused = spoil(&ledger, sql).unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{sql}: {refused}");
    }
    assert_eq!(ledger.read_blocking(|reader| reader.audit_verify()).unwrap(), 2);
}

fn establish(dir: &Path) -> SqliteConnection {
    SqliteConnection::establish(dir.join(DATABASE).to_str().unwrap()).unwrap()
}

fn texts(conn: &mut SqliteConnection, sql: &str) -> Vec<String> {
    diesel::dsl::sql::<Text>(sql).load(conn).unwrap()
}

/// Without those that SQLite keeps behind a virtual table.
const OWN_TABLES: &str = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%'
    AND name <> '__diesel_schema_migrations' ORDER BY name";

#[test]
fn migrations_go_up_down_and_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = establish(dir.path());
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    let schema = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name";
    let first = texts(&mut conn, schema);
    conn.revert_all_migrations(MIGRATIONS).unwrap();
    assert_eq!(texts(&mut conn, OWN_TABLES), [""; 0]);
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    assert_eq!(texts(&mut conn, schema), first);
}

/// The `diesel::table!` blocks as text, against what the migrations make.
#[test]
fn the_schema_in_the_code_is_the_schema_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = establish(dir.path());
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    let mut in_database: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for table in texts(&mut conn, OWN_TABLES) {
        let columns =
            texts(&mut conn, &format!("SELECT name || CASE WHEN \"notnull\" THEN '' ELSE '?' END FROM pragma_table_info('{table}')"));
        in_database.insert(table, columns.into_iter().collect());
    }
    let mut in_code: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for block in source.split("table! {").skip(1) {
            let mut lines =
                block.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with('#'));
            let name = lines.next().unwrap().split(' ').next().unwrap().to_owned();
            let columns = lines
                .take_while(|line| *line != "}")
                .filter_map(|line| line.split_once(" -> "))
                .map(|(column, kind)| if kind.starts_with("Nullable") { format!("{column}?") } else { column.to_owned() });
            in_code.insert(name, columns.collect());
        }
    }
    assert_eq!(in_code, in_database);
}

/// Statements of a script; triggers hold semicolons of their own.
fn statements(script: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = String::new();
    for line in script.lines().filter(|line| !line.trim_start().starts_with("--")) {
        open.push_str(line);
        open.push('\n');
        let in_trigger = open.trim_start().starts_with("CREATE TRIGGER") && !open.trim_end().ends_with("END;");
        if line.trim_end().ends_with(';') && !in_trigger {
            all.push(std::mem::take(&mut open));
        }
    }
    all
}

#[test]
fn a15_killed_at_any_step_of_a_migration_the_next_start_resumes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
    let mut names: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    names.sort();
    let mut steps = 0;
    for (done, migration) in names.iter().enumerate() {
        let script = statements(&std::fs::read_to_string(migration.join("up.sql")).unwrap());
        for killed_after in (0..=script.len()).step_by(3) {
            let (live, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut conn = establish(live.path());
            conn.batch_execute("PRAGMA journal_mode=WAL; PRAGMA cache_size=1; PRAGMA cache_spill=1;").unwrap();
            for _ in 0..done {
                conn.run_next_migration(MIGRATIONS).unwrap();
            }
            conn.batch_execute("BEGIN IMMEDIATE").unwrap();
            for statement in script.iter().take(killed_after) {
                conn.batch_execute(statement).unwrap();
            }
            // what a process that is killed now leaves behind
            for file in std::fs::read_dir(live.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
            }
            let ledger = Ledger::open(options(image.path())).unwrap();
            assert_eq!(runtime().block_on(ledger.append(batch(1))).unwrap().last_seq, 1);
            ledger.read_blocking(|reader| reader.audit_verify()).unwrap();
            steps += 1;
        }
    }
    assert!(steps > 10, "{steps} steps");
}

#[test]
fn a15_a_database_of_a_newer_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ledger::open(options(dir.path())).unwrap());
    establish(dir.path()).batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')").unwrap();
    let refused = Ledger::open(options(dir.path())).unwrap_err();
    assert!(matches!(&refused, OpenError::TooNew { migration, .. } if migration == "9999"), "{refused}");
}

#[test]
fn files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let _ledger = Ledger::open(options(&data)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in [DATABASE.to_owned(), format!("{DATABASE}-wal"), "lock".to_owned(), "running".to_owned(), "reserve".to_owned()] {
        assert_eq!(mode(&data.join(&name)), 0o600, "{name}");
    }
}
