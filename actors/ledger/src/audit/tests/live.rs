//! The log of a ledger on disk: signed as it grows, checked where it lies, and changed behind its back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::{clock::ManualClock, principal::Actor, time::Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::{
    DATABASE, Ledger, LedgerError, NewUser, OpenError, Options, Priority,
    audit::{
        AuditData, CheckpointError, CheckpointSchedule, PUBLISHED, Report, Verdict,
        actor::sign_along,
        export::verify_export,
        note::{PublicKey, SignedNote},
        notes,
        proof::verify_proof,
        public_path, published,
    },
    backup, restore,
};

struct Rig {
    dir: TempDir,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn write(ledger: &Ledger, count: u32) {
    let job = move |tx: &mut crate::Tx<'_>| (0..count).try_for_each(|n| tx.module_switched(&Actor::System, &format!("m{n}"), true));
    ledger.write_blocking(Priority::Control, job).unwrap();
}

fn queue(ledger: &Ledger, count: u32) {
    let job = move |tx: &mut crate::Tx<'_>| (0..count).try_for_each(|n| tx.module_switched(&Actor::System, &format!("m{n}"), true));
    drop(ledger.write(Priority::Control, job));
}

fn checkpoint(ledger: &Ledger) -> Result<SignedNote, CheckpointError> {
    runtime().block_on(ledger.checkpoint("test"))
}

impl Rig {
    fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn options(&self) -> Options {
        Options::new(self.data(), ManualClock::at(Timestamp::from_millis(1_795_348_800_000)))
    }

    /// A ledger whose log is signed.
    fn open(&self) -> Ledger {
        let ledger = Ledger::open(self.options()).unwrap();
        runtime().block_on(ledger.open_audit_key()).unwrap();
        runtime().block_on(ledger.recover_checkpoints()).unwrap();
        ledger
    }

    fn audit_data(&self) -> AuditData {
        AuditData::open(&self.data(), self.options().clock).unwrap()
    }

    fn own_key(&self) -> Vec<PublicKey> {
        self.audit_data().own_key().into_iter().collect()
    }

    fn verify(&self) -> Report {
        let keys = self.own_key();
        self.audit_data().verify(keys, Vec::new(), |_, _| {}).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    fn sql(&self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(self.file(DATABASE).to_str().unwrap()).unwrap();
        let triggers: Vec<String> =
            diesel::dsl::sql::<diesel::sql_types::Text>("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit%'")
                .load(&mut conn)
                .unwrap();
        assert!(triggers.len() >= 8, "{triggers:?}");
        for name in triggers {
            conn.batch_execute(&format!("DROP TRIGGER {name}")).unwrap();
        }
        conn
    }

    fn export(&self) -> Vec<u8> {
        let mut data = self.audit_data();
        let key = data.own_key();
        let (mut bytes, mut cursor) = data.read(|reader| reader.audit_export_begin(key.as_ref())).unwrap();
        while let Some((part, next)) = data.read(|reader| reader.audit_export_part(&cursor)).unwrap() {
            bytes.extend(part);
            cursor = next;
        }
        bytes
    }
}

/// Copies the files of a data directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        if file.path().is_dir() { copy(&file.path(), &target) } else { assert!(std::fs::copy(file.path(), target).is_ok()) }
    }
}

#[test]
fn a_log_is_signed_published_and_checked_beside_the_service_and_after_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..6 {
        write(&ledger, n * 3);
        let note = checkpoint(&ledger).unwrap();
        assert_eq!(note.signed_by(&rig.own_key()[0]), Some(true));
        let report = rig.verify();
        assert_eq!((report.verdict, report.covered), (Verdict::Ok, note.checkpoint().size), "{report:?}");
    }
    let published: Vec<SignedNote> = notes(&std::fs::read_to_string(rig.file(PUBLISHED)).unwrap()).collect();
    assert_eq!(published.len(), 5);
    runtime().block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    let report = rig.verify();
    assert_eq!((report.verdict, report.checkpoints), (Verdict::Ok, 6), "{report:?}");
    assert_eq!(report.covered, report.entries, "the last checkpoint is behind the last entry");
    assert!(report.warnings.is_empty(), "{report:?}");
    // each earlier note still holds, and an export says the same as the directory
    let exported = verify_export(rig.export().as_slice(), rig.own_key(), published, |_| {}).unwrap();
    assert_eq!((exported.verdict, exported.entries, &exported.root), (Verdict::Ok, report.entries, &report.root), "{exported:?}");
    let mut data = rig.audit_data();
    for seq in 1..=report.entries {
        let proof = data.read(|reader| reader.audit_proof(seq, None)).unwrap();
        let bytes = serde_json::to_vec(&proof).unwrap();
        assert_eq!(verify_proof(&bytes, rig.own_key()).unwrap().verdict, Verdict::Ok, "{seq}");
    }
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777;
    assert_eq!((mode(&rig.file("keys/audit.key")), mode(&public_path(&rig.data()))), (0o600, 0o644));
}

#[test]
fn f1_a_flipped_bit_in_any_cell_of_the_tables_is_found() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 0..6 {
        write(&ledger, 6 + n);
        checkpoint(&ledger).unwrap();
    }
    drop(ledger);
    let size = rig.verify().entries;
    assert!((60..70).contains(&size), "{size}");
    let mut conn = rig.sql();
    conn.batch_execute("PRAGMA journal_mode=DELETE").unwrap();
    let mut dice = StdRng::seed_from_u64(1);
    let (mut flipped, keys) = (0, rig.own_key());
    for (table, column, key) in [
        ("audit_leaf", "leaf", "seq"),
        ("audit_leaf", "leaf_hash", "seq"),
        ("audit_payload", "salt", "seq"),
        ("audit_payload", "body", "seq"),
        ("audit_node", "hash", "level * 1000 + idx"),
        ("audit_head", "last_hash", "id"),
        ("audit_head", "root", "id"),
        ("audit_head", "frontier", "id"),
        ("audit_checkpoint", "root", "size"),
        ("audit_checkpoint", "CAST(note AS BLOB)", "size"),
    ] {
        use diesel::{
            dsl::sql,
            sql_types::{BigInt, Binary},
        };
        let places: Vec<i64> = sql::<BigInt>(&format!("SELECT {key} FROM {table}")).load(&mut conn).unwrap();
        assert!(!places.is_empty());
        for place in places {
            let read = format!("SELECT {column} FROM {table} WHERE {key} = {place}");
            let bytes: Vec<u8> = sql::<Binary>(&read).get_result(&mut conn).unwrap();
            let mut changed = bytes.clone();
            let bit = dice.random_range(0..changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            let name = if column.starts_with("CAST") { "note" } else { column };
            let set = |conn: &mut SqliteConnection, bytes: &[u8]| {
                let value =
                    if name == "note" { format!("CAST(x'{}' AS TEXT)", hex::encode(bytes)) } else { format!("x'{}'", hex::encode(bytes)) };
                conn.batch_execute(&format!("UPDATE {table} SET {name} = {value} WHERE {key} = {place}")).unwrap();
            };
            set(&mut conn, &changed);
            let found = rig.audit_data().verify(keys.clone(), Vec::new(), |_, _| {});
            match found {
                Ok(report) => {
                    assert_eq!(report.verdict, Verdict::Tampered, "{table}.{column} {place} bit {bit}");
                    if table == "audit_leaf" || table == "audit_payload" {
                        assert_eq!(report.first_bad, u64::try_from(place).ok(), "{table}.{column} bit {bit}: {:?}", report.findings);
                    }
                }
                // text that is no text any more cannot even be read
                Err(error) => assert!(name == "note", "{table}.{column} {place}: {error}"),
            }
            set(&mut conn, &bytes);
            flipped += 1;
        }
    }
    assert_eq!(rig.verify().verdict, Verdict::Ok, "all is back");
    println!("{flipped} cells");
}

#[test]
fn f2_rows_that_are_deleted_or_moved_are_missed() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 20);
    checkpoint(&ledger).unwrap();
    write(&ledger, 5);
    let last = checkpoint(&ledger).unwrap().checkpoint().size;
    drop(ledger);
    let whole = std::fs::read(rig.file(DATABASE)).unwrap();
    for (change, first_bad) in [
        ("DELETE FROM audit_leaf WHERE seq = 7".to_owned(), 7),
        ("UPDATE audit_leaf SET seq = -seq WHERE seq = 9; UPDATE audit_leaf SET seq = 9 WHERE seq = 10; UPDATE audit_leaf SET seq = 10 WHERE seq = -9".to_owned(), 9),
        ("DELETE FROM audit_payload WHERE seq = 5".to_owned(), 5),
        (format!("DELETE FROM audit_checkpoint WHERE size < {last}"), 24),
        ("DELETE FROM audit_node WHERE level = 2 AND idx = 1".to_owned(), 8),
    ] {
        let mut conn = rig.sql();
        conn.batch_execute(&change).unwrap();
        drop(conn);
        let report = rig.verify();
        assert_eq!((report.verdict, report.first_bad), (Verdict::Tampered, Some(first_bad)), "{change}: {:?}", report.findings);
        std::fs::write(rig.file(DATABASE), &whole).unwrap();
    }
    // the end is cut off, with its head, its tree and its checkpoints: what was published tells
    let mut conn = rig.sql();
    conn.batch_execute("DELETE FROM audit_leaf WHERE seq > 12; DELETE FROM audit_payload WHERE seq > 12; DELETE FROM audit_checkpoint; UPDATE audit_head SET size = 12, root = x'', last_hash = (SELECT leaf_hash FROM audit_leaf WHERE seq = 12)").unwrap();
    drop(conn);
    let report = rig.verify();
    assert_eq!((report.verdict, report.first_bad.is_some_and(|seq| seq <= 13)), (Verdict::Tampered, true), "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.what.contains("cut off")), "{report:?}");
}

#[test]
fn f6_a_database_that_was_put_back_does_not_start_unless_a_restore_says_so() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 5);
    checkpoint(&ledger).unwrap();
    let saved = rig.dir.path().join("saved.db");
    backup(&rig.data(), &saved, &rig.options().clock).unwrap();
    write(&ledger, 20);
    let newest = checkpoint(&ledger).unwrap();
    let epoch = |ledger: &Ledger| ledger.read_blocking(|reader| reader.epoch()).unwrap();
    let first_epoch = epoch(&ledger);
    runtime().block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    // somebody puts the old file in the place of the new one
    std::fs::copy(&saved, rig.file(DATABASE)).unwrap();
    for _ in 0..2 {
        let refused = Ledger::open(rig.options()).unwrap_err();
        assert!(matches!(&refused, OpenError::RolledBack { published, found, .. } if published > found), "{refused}");
        assert!(refused.to_string().contains("opspilot restore"), "{refused}");
    }
    let report = rig.verify();
    assert!(report.verdict == Verdict::Tampered && report.findings[0].what.contains("cut off"), "{report:?}");
    let mut conn = SqliteConnection::establish(rig.file(DATABASE).to_str().unwrap()).unwrap();
    assert_ne!(crate::tables::meta::get(&mut conn, "epoch").unwrap().unwrap(), first_epoch, "what was used up must not be usable again");
    drop(conn);
    // a restore is on record, and the service starts and signs again
    restore(&saved, rig.options(), &Actor::System).unwrap();
    let ledger = rig.open();
    assert_ne!(epoch(&ledger), first_epoch);
    write(&ledger, 3);
    let note = checkpoint(&ledger).unwrap();
    assert!(note.checkpoint().size < newest.checkpoint().size);
    drop(ledger);
    let report = rig.verify();
    assert_eq!(report.verdict, Verdict::Ok, "{report:?}");
    // whoever holds the note from before still sees that the log went back
    let held = rig.audit_data().verify(rig.own_key(), vec![newest], |_, _| {}).unwrap();
    assert_eq!(held.verdict, Verdict::Tampered);
    drop(rig.open());
}

#[test]
fn a_log_that_does_not_continue_what_was_signed_is_not_signed() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 5);
    checkpoint(&ledger).unwrap();
    drop(ledger);
    let saved = std::fs::read(rig.file(DATABASE)).unwrap();
    let ledger = rig.open();
    write(&ledger, 10);
    checkpoint(&ledger).unwrap();
    drop(ledger);
    // the old state, grown beyond what was published while nobody looked
    let log = std::fs::read(rig.file(PUBLISHED)).unwrap();
    std::fs::write(rig.file(DATABASE), saved).unwrap();
    std::fs::remove_file(rig.file(PUBLISHED)).unwrap();
    let ledger = Ledger::open(rig.options()).unwrap();
    write(&ledger, 40);
    drop(ledger);
    std::fs::write(rig.file(PUBLISHED), log).unwrap();
    let ledger = Ledger::open(rig.options()).unwrap();
    let rt = runtime();
    rt.block_on(ledger.open_audit_key()).unwrap();
    assert_eq!(ledger.audit_refusal(), None);
    let trouble = std::sync::Arc::default();
    // it ends by itself: there is nothing left to do
    rt.block_on(sign_along(ledger.clone(), CheckpointSchedule::default(), std::sync::Arc::clone(&trouble)));
    assert!(trouble.lock().is_some());
    let why = ledger.audit_refusal().unwrap();
    assert!(why.contains("the last published checkpoint"), "{why}");
    assert!(matches!(rt.block_on(ledger.checkpoint("again")), Err(CheckpointError::Inconsistent(_))));
    let size = ledger.read_blocking(|reader| reader.audit_checkpoint()).unwrap().map(|checkpoint| checkpoint.size);
    drop(ledger);
    let ledger = Ledger::open(rig.options()).unwrap();
    assert_eq!(
        ledger.read_blocking(|reader| reader.audit_checkpoint()).unwrap().map(|checkpoint| checkpoint.size),
        size,
        "not at the stop either"
    );
    let refusals = ledger.read_blocking(|reader| {
        let filter = crate::AuditFilter { action: Some("CHK01E".to_owned()), ..crate::AuditFilter::default() };
        Ok(reader.audit(&filter, &crate::Page::first(9))?.items.len())
    });
    assert_eq!(refusals.unwrap(), 1, "on record");
}

#[test]
fn checkpoints_are_made_on_schedule() {
    let never = CheckpointSchedule {
        dirty_for: Duration::from_secs(3600),
        records: 1_000_000,
        always_after: Duration::from_secs(36_000),
        retry_after: Duration::from_millis(5),
    };
    let reason = |schedule: CheckpointSchedule, then: &dyn Fn(&Ledger)| {
        let rig = Rig::new();
        let ledger = rig.open();
        let rt = runtime();
        let mut head = ledger.shared().audit.subscribe();
        let announced = |ledger: &Ledger| -> Vec<String> {
            let filter = crate::AuditFilter { action: Some("CHK01I".to_owned()), ..crate::AuditFilter::default() };
            let found = ledger.read_blocking(|reader| reader.audit(&filter, &crate::Page::first(100))).unwrap();
            found.items.iter().rev().map(|record| record.body.as_ref().unwrap()["reason"].as_str().unwrap().to_owned()).collect()
        };
        let mut until = async |count: usize| {
            while announced(&ledger).len() < count {
                head.changed().await.unwrap();
            }
        };
        rt.block_on(async {
            let story = async {
                until(1).await;
                then(&ledger);
                until(2).await;
            };
            tokio::select! {
                () = sign_along(ledger.clone(), schedule, std::sync::Arc::default()) => panic!("it gave up"),
                () = story => {}
            }
        });
        let found = announced(&ledger);
        assert_eq!(found[0], "start");
        found[1].clone()
    };
    assert_eq!(reason(CheckpointSchedule { records: 256, ..never }, &|ledger| queue(ledger, 300)), "records");
    assert_eq!(reason(CheckpointSchedule { dirty_for: Duration::from_millis(5), ..never }, &|ledger| queue(ledger, 1)), "interval");
    assert_eq!(reason(CheckpointSchedule { always_after: Duration::from_millis(5), ..never }, &|_| {}), "hourly");
    let asked = |ledger: &Ledger| {
        queue(ledger, 1);
        ledger.checkpoint_soon();
    };
    assert_eq!(reason(never, &asked), "asked");
}

#[test]
fn f7_what_cannot_be_put_on_record_does_not_happen() {
    for table in ["audit_leaf", "audit_payload", "audit_node", "audit_head"] {
        let rig = Rig::new();
        let ledger = rig.open();
        // the next entry completes a subtree, so that each of the tables is written
        while ledger.read_blocking(|reader| reader.audit_size()).unwrap().0.is_multiple_of(2) {
            write(&ledger, 1);
        }
        let verb = if table == "audit_head" { "UPDATE" } else { "INSERT" };
        let (point, verb) = (table.to_owned(), verb.to_owned());
        let set = move |tx: &mut crate::Tx<'_>| {
            tx.conn.batch_execute(&format!(
                "CREATE TEMP TRIGGER fault BEFORE {verb} ON main.{point} BEGIN SELECT RAISE(ABORT, 'injected'); END"
            ))?;
            Ok(())
        };
        ledger.write_blocking(Priority::Control, set).unwrap();
        let eve = NewUser {
            name: "eve".to_owned(),
            role: opspilot_kernel::principal::Role::Admin,
            groups: Vec::new(),
            password_hash: "x".to_owned(),
        };
        let refused = ledger.write_blocking(Priority::Control, move |tx| tx.user_create(&Actor::System, eve)).unwrap_err();
        assert!(refused.to_string().contains("injected"), "{table}: {refused}");
        assert!(ledger.read_blocking(|reader| reader.users()).unwrap().is_empty(), "{table}");
        drop(ledger);
        assert_ne!(rig.verify().verdict, Verdict::Tampered, "{table}");
    }
}

#[test]
fn f8_a_record_is_written_though_nobody_waits_for_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    drop(ledger.write(Priority::Control, |tx| tx.module_switched(&Actor::System, "unheard", true)));
    write(&ledger, 1);
    let filter = crate::AuditFilter { target: Some("module:unheard".to_owned()), ..crate::AuditFilter::default() };
    assert_eq!(ledger.read_blocking(|reader| reader.audit(&filter, &crate::Page::first(2))).unwrap().items.len(), 1);
}

#[test]
fn f9_redaction_export_backup_and_restore_leave_every_proof_valid() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 20);
    let early = checkpoint(&ledger).unwrap();
    let proof = |seq| ledger.read_blocking(|reader| reader.audit_proof(seq, None)).unwrap();
    let before = serde_json::to_vec(&proof(9)).unwrap();
    ledger.write_blocking(Priority::Control, |tx| tx.redact(&Actor::System, 9, "asked for", "bob")).unwrap();
    let again = ledger.write_blocking(Priority::Control, |tx| tx.redact(&Actor::System, 9, "asked for", "bob"));
    assert!(matches!(again, Err(LedgerError::Conflict(_))), "once");
    let key = ledger.write_blocking(Priority::Control, |tx| tx.redact(&Actor::System, 3, "asked for", "bob"));
    assert!(key.unwrap_err().to_string().contains("SGN01I"), "without it nobody could check");
    checkpoint(&ledger).unwrap();
    let keys = rig.own_key();
    assert_eq!(verify_proof(&before, keys.clone()).unwrap().verdict, Verdict::Ok, "a proof made before still holds");
    assert_eq!(verify_proof(&serde_json::to_vec(&proof(9)).unwrap(), keys.clone()).unwrap().verdict, Verdict::OkWithDeletions);
    let saved = rig.dir.path().join("saved.db");
    backup(&rig.data(), &saved, &rig.options().clock).unwrap();
    drop(ledger);
    let report = rig.audit_data().verify(keys.clone(), vec![early.clone()], |_, _| {}).unwrap();
    assert_eq!((report.verdict, report.deleted), (Verdict::OkWithDeletions, 1), "{report:?}");
    let exported = verify_export(rig.export().as_slice(), keys.clone(), vec![early.clone()], |_| {}).unwrap();
    assert_eq!(exported.verdict, Verdict::OkWithDeletions);
    restore(&saved, rig.options(), &Actor::System).unwrap();
    let report = rig.audit_data().verify(keys, vec![early], |_, _| {}).unwrap();
    assert_eq!(report.verdict, Verdict::OkWithDeletions, "{report:?}");
}

#[test]
fn f11_a_flood_of_denied_attempts_is_counted_and_takes_no_room() {
    let rig = Rig::new();
    let ledger = rig.open();
    for round in 0..20_u32 {
        let flood = move |tx: &mut crate::Tx<'_>| {
            (0..5_000_u32).try_for_each(|n| tx.denied(&Actor::Anonymous { via: format!("10.{round}.{}.{}", n % 3, n % 250) }, "login"))
        };
        ledger.write_blocking(Priority::Bulk, flood).unwrap();
    }
    runtime().block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    let mut data = rig.audit_data();
    let filter = crate::AuditFilter { action: Some("DEN".to_owned()), ..crate::AuditFilter::default() };
    let (mut total, mut written, mut page) = (0, 0, crate::Page::first(500));
    loop {
        let found = data.read(|reader| reader.audit(&filter, &page)).unwrap();
        for record in found.items {
            written += 1;
            total += record.body.as_ref().and_then(|body| body["count"].as_u64()).unwrap_or(1);
        }
        page.cursor = found.next_cursor;
        if page.cursor.is_none() {
            break;
        }
    }
    assert_eq!(total, 100_000, "none is dropped uncounted");
    assert!(written < 1_000, "{written} entries");
    assert_eq!(rig.verify().verdict, Verdict::Ok);
}

#[test]
fn a_copy_that_cannot_be_written_is_checked_all_the_same() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 30);
    checkpoint(&ledger).unwrap();
    // with its write-ahead log, as somebody copies it who does not stop the service
    let live = Rig::new();
    copy(&rig.data(), &live.data());
    drop(ledger);
    let still = Rig::new();
    copy(&rig.data(), &still.data());
    for (rig, name) in [(&live, "live"), (&still, "still")] {
        let before: Vec<_> = std::fs::read_dir(rig.data()).unwrap().map(|file| file.unwrap().file_name()).collect();
        let bytes = std::fs::read(rig.file(DATABASE)).unwrap();
        assert_eq!(rig.verify().verdict, Verdict::Ok, "{name}");
        assert_eq!(std::fs::read(rig.file(DATABASE)).unwrap(), bytes, "{name}: it reads");
        if name == "still" {
            let after: Vec<_> = std::fs::read_dir(rig.data()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(before.len(), after.len());
        }
    }
    assert!(published::newest(&still.file(PUBLISHED)).unwrap().is_some());
}
