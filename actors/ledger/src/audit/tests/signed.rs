//! The log of a ledger on disk, signed as it grows: when, and when not.

use std::{path::Path, time::Duration};

use super::rig::{Rig, checkpoint, queue, runtime, write};
use crate::{
    DATABASE, Ledger,
    audit::{
        CheckpointError, CheckpointSchedule, PUBLISHED, Verdict, actor::sign_along, export::verify_export, note::SignedNote, notes,
        proof::verify_proof, public_path,
    },
};

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
