//! Faults of the files: A9, A10, and what an unclean stop leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use opspilot_ledger::{DATABASE, Ledger, Limits, OpenError, Options};

use crate::support::{Rig, lines, messages, runtime};

/// A data directory as a kill would leave it: copied while the service is idle, its log not checkpointed.
fn killed(rig: &Rig, batches: u32) -> (PathBuf, Vec<(u64, String)>) {
    let mut options = rig.options();
    options.limits = Limits { idle_after: Duration::from_secs(3600), ..options.limits };
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    for n in 0..batches {
        rt.block_on(ledger.append(lines("shop", n * 200, 200))).unwrap();
    }
    let image = rig.dir.path().join("image");
    copy(&rig.data(), &image);
    (image, messages(&ledger))
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn open(rig: &Rig, dir: &Path) -> Result<Ledger, OpenError> {
    Ledger::open(Options { dir: dir.to_owned(), ..rig.options() })
}

fn wal(dir: &Path) -> PathBuf {
    dir.join(format!("{DATABASE}-wal"))
}

#[test]
fn a10_a_second_opener_of_a_data_directory_is_refused_by_name() {
    let rig = Rig::new();
    let ledger = rig.open();
    let refused = Ledger::open(rig.options()).unwrap_err();
    let data = rig.data();
    assert_eq!(
        refused.to_string(),
        format!("the data directory {} is in use by another process (lock file {})", data.display(), data.join("lock").display())
    );
    runtime().block_on(ledger.append(lines("a", 0, 1))).unwrap();
    drop(ledger);
    assert_eq!(rig.open().signals().head(), 1, "the first one was not disturbed, and the lock is free again");
}

#[test]
fn everything_acknowledged_is_there_after_a_kill_and_the_kill_is_recorded() {
    let rig = Rig::new();
    let (image, acknowledged) = killed(&rig, 5);
    let ledger = open(&rig, &image).unwrap();
    assert_eq!(messages(&ledger), acknowledged);
    let codes = ledger
        .read_blocking(|reader| {
            reader.audit_verify()?;
            let page = reader.audit(&opspilot_ledger::AuditFilter::default(), &opspilot_ledger::Page::first(10))?;
            Ok(page.items.iter().map(|record| record.leaf["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
        })
        .unwrap();
    assert_eq!(codes, ["SYS01I", "SYS03W", "SYS01I", "SYS04I"], "newest first");
}

#[test]
fn a9_a_missing_log_after_a_kill_is_refused_with_the_reason() {
    let rig = Rig::new();
    let (image, _) = killed(&rig, 2);
    fs::remove_file(wal(&image)).unwrap();
    let refused = open(&rig, &image).unwrap_err().to_string();
    assert!(refused.contains("is damaged: the last run did not stop in order, and its write-ahead log"), "{refused}");
    fs::remove_file(image.join("running")).unwrap();
    let ledger = open(&rig, &image);
    assert!(ledger.is_ok(), "an operator may go on without it: {ledger:?}");
}

#[test]
fn a9_a_log_that_was_checkpointed_and_taken_away_after_a_kill_is_not_missed() {
    let rig = Rig::new();
    let (image, acknowledged) = killed(&rig, 3);
    let clock: opspilot_kernel::clock::SharedClock = rig.clock.clone();
    let report = opspilot_ledger::backup(&image, &rig.dir.path().join("copy.db"), &clock).unwrap();
    assert_eq!(report.last_signal, 600);
    assert!(!wal(&image).exists(), "the backup was the last to close, and SQLite took the log away");
    let ledger = open(&rig, &image).unwrap();
    assert_eq!(messages(&ledger), acknowledged);
}

#[test]
fn a9_a_database_copied_without_its_log_is_refused_as_often_as_it_is_tried() {
    let rig = Rig::new();
    let (image, _) = killed(&rig, 3);
    fs::remove_file(wal(&image)).unwrap();
    fs::remove_file(image.join(format!("{DATABASE}-shm"))).unwrap();
    for _ in 0..2 {
        let refused = open(&rig, &image).unwrap_err().to_string();
        assert!(refused.contains("is missing, with acknowledged data in it"), "{refused}");
    }
}

#[test]
fn a9_a_truncated_log_gives_a_prefix_and_nothing_else() {
    let rig = Rig::new();
    let (image, acknowledged) = killed(&rig, 6);
    let whole = fs::metadata(wal(&image)).unwrap().len();
    let mut shorter = 0;
    for part in [0, 1, 31, 32, 500, whole / 3, whole / 2, whole - 5000, whole - 1] {
        let torn = rig.dir.path().join("torn");
        copy(&image, &torn);
        fs::OpenOptions::new().write(true).open(wal(&torn)).unwrap().set_len(part).unwrap();
        match open(&rig, &torn) {
            Ok(ledger) => {
                let found = messages(&ledger);
                assert_eq!(found[..], acknowledged[..found.len()], "cut at {part}");
                shorter += u32::from(found.len() < acknowledged.len());
                assert_eq!(runtime().block_on(ledger.append(lines("a", 0, 1))).unwrap().last_seq, u64::try_from(found.len()).unwrap() + 1);
                ledger.read_blocking(|reader| reader.audit_verify()).unwrap();
            }
            Err(error) => panic!("cut at {part}: {error}"),
        }
    }
    assert!(shorter > 0, "the cuts took something");
}

#[test]
fn a9_a_stale_or_missing_index_is_made_anew() {
    let rig = Rig::new();
    let (image, acknowledged) = killed(&rig, 3);
    let shm = format!("{DATABASE}-shm");
    for spoil in [None, Some(vec![0_u8; 32768]), Some(vec![0xa5; 32768]), Some(Vec::new())] {
        let spoiled = rig.dir.path().join("spoiled");
        copy(&image, &spoiled);
        match spoil {
            None => drop(fs::remove_file(spoiled.join(&shm))),
            Some(bytes) => fs::write(spoiled.join(&shm), bytes).unwrap(),
        }
        assert_eq!(messages(&open(&rig, &spoiled).unwrap()), acknowledged);
    }
}

#[test]
fn a9_a_damaged_page_is_an_error_and_never_a_wrong_signal() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    for n in 0..6 {
        rt.block_on(ledger.append(lines("shop", n * 300, 300))).unwrap();
    }
    let acknowledged = messages(&ledger);
    drop(ledger);
    let database = rig.data().join(DATABASE);
    let pages = fs::metadata(&database).unwrap().len() / 4096;
    let (mut refused, mut failed, mut whole) = (0, 0, 0);
    for page in 0..pages {
        let spoiled = rig.dir.path().join("spoiled");
        copy(&rig.data(), &spoiled);
        let mut bytes = fs::read(&database).unwrap();
        let from = usize::try_from(page * 4096 + 1500).unwrap();
        bytes[from..from + 2000].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(spoiled.join(DATABASE), bytes).unwrap();
        let Ok(ledger) = open(&rig, &spoiled) else {
            refused += 1;
            continue;
        };
        let mut found = Vec::new();
        let mut after = 0;
        let outcome = loop {
            match ledger.signals().next(after, 1) {
                Ok(entries) if entries.is_empty() => break Ok(()),
                Ok(entries) => {
                    for entry in entries {
                        after = entry.last_seq();
                        if let opspilot_kernel::signal::LogEntry::Batch(block) = entry {
                            found.extend(block.iter().map(|(seq, record)| (seq, record.decode().unwrap().message.to_owned())));
                        }
                    }
                }
                Err(error) => break Err(error),
            }
        };
        assert_eq!(found[..], acknowledged[..found.len()], "page {page}");
        match outcome {
            Ok(()) if found.len() == acknowledged.len() => whole += 1,
            _ => failed += 1,
        }
    }
    assert!(failed > 0 && whole > 0, "{refused} refused, {failed} failed, {whole} whole of {pages} pages");
}

#[test]
fn a9_a_file_that_is_no_database_is_refused() {
    let rig = Rig::new();
    fs::create_dir_all(rig.data()).unwrap();
    fs::write(rig.data().join(DATABASE), vec![b'x'; 8192]).unwrap();
    let refused = Ledger::open(rig.options()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}
