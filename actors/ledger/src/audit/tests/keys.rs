//! The keys that sign the log: replaced, revoked, put back.

use diesel::connection::SimpleConnection;
use opspilot_kernel::principal::Actor;

use super::rig::{Rig, checkpoint, runtime, write};
use crate::{
    KeyError, Ledger, Options, Priority,
    audit::{CheckpointError, Verdict, note::PublicKey},
    keyfile::{KeyFile, KeyPurpose},
};

fn opened(rig: &Rig) -> Result<(), CheckpointError> {
    let ledger = Ledger::open(rig.options()).unwrap();
    runtime().block_on(ledger.open_audit_key())
}

fn replaced(rig: &Rig, revoked: bool) -> Result<(), CheckpointError> {
    let ledger = Ledger::open(Options { tool: true, ..rig.options() }).unwrap();
    runtime().block_on(ledger.replace_key(KeyPurpose::Audit, Actor::System, revoked, "a drill".to_owned())).map(drop)
}

fn codes(rig: &Rig) -> Vec<String> {
    let filter = crate::AuditFilter { action: Some("SGN".to_owned()), ..crate::AuditFilter::default() };
    let found = rig.audit_data().read(|reader| reader.audit(&filter, &crate::Page::first(50))).unwrap();
    found.items.iter().rev().map(|record| record.leaf["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn f3_a_key_that_the_log_says_was_revoked_or_retired_is_refused_at_the_start_and_the_remedy_is_named() {
    for (revoked, how) in [(true, "revoked"), (false, "retired")] {
        let rig = Rig::new();
        drop(rig.open());
        let file = rig.file("keys/audit.key");
        let old = std::fs::read(&file).unwrap();
        replaced(&rig, revoked).unwrap();
        opened(&rig).unwrap();
        std::fs::write(&file, &old).unwrap();
        let public = std::fs::read(rig.file("keys/audit.pub")).unwrap();
        let refused = opened(&rig).unwrap_err();
        assert!(matches!(&refused, CheckpointError::Key(KeyError::Ended { .. })), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(how) && text.contains("opspilot keys revoke --purpose audit"), "{text}");
        assert_eq!(std::fs::read(rig.file("keys/audit.pub")).unwrap(), public, "it is not handed to verifiers either");
        // the remedy works
        replaced(&rig, true).unwrap();
        let ledger = rig.open();
        write(&ledger, 3);
        checkpoint(&ledger).unwrap();
        drop(ledger);
        assert_eq!(rig.verify().verdict, Verdict::Ok, "{:?}", rig.verify());
    }
}

#[test]
fn f3_a_key_that_was_revoked_is_refused_whatever_it_is_for() {
    let rig = Rig::new();
    for purpose in [KeyPurpose::Approval, KeyPurpose::Session] {
        let (old, _) = KeyFile::open(&rig.data(), purpose)
            .or_else(|_| {
                drop(rig.open());
                KeyFile::open(&rig.data(), purpose)
            })
            .unwrap();
        let ledger = Ledger::open(rig.options()).unwrap();
        runtime().block_on(ledger.replace_key(purpose, Actor::System, true, "a drill".to_owned())).unwrap();
        let dir = rig.data();
        let new = KeyFile::read(&dir, purpose).unwrap().unwrap();
        let refusal = |key: &KeyFile| ledger.read_blocking(|reader| reader.key_refusal(&dir, key)).unwrap();
        assert!(refusal(&new).is_none());
        assert!(refusal(&old).unwrap().to_string().contains("was revoked"));
    }
}

#[test]
fn f3_a_crash_between_a_new_key_and_its_record_leaves_a_service_that_starts_and_an_old_key_that_is_worth_nothing() {
    for revoked in [true, false] {
        let rig = Rig::new();
        let ledger = rig.open();
        let old = KeyFile::read(&rig.data(), KeyPurpose::Audit).unwrap().unwrap();
        // the record of what became of the old key cannot be written: as if the process ended before it
        let set = move |tx: &mut crate::Tx<'_>| {
            Ok(tx.conn.batch_execute(
                "CREATE TEMP TRIGGER fault BEFORE INSERT ON main.audit_leaf
                 WHEN instr(NEW.leaf, CAST('\"code\":\"SGN02I\"' AS BLOB)) OR instr(NEW.leaf, CAST('\"code\":\"SGN03W\"' AS BLOB))
                 BEGIN SELECT RAISE(ABORT, 'injected'); END",
            )?)
        };
        ledger.write_blocking(Priority::Control, set).unwrap();
        let failed = runtime().block_on(ledger.replace_key(KeyPurpose::Audit, Actor::System, revoked, "a drill".to_owned()));
        assert!(failed.unwrap_err().to_string().contains("injected"));
        let new = KeyFile::read(&rig.data(), KeyPurpose::Audit).unwrap().unwrap();
        assert_ne!(new.kid(), old.kid(), "the new key is there before the old one is given up");
        drop(ledger);
        assert!(!codes(&rig).iter().any(|code| code == "SGN02I" || code == "SGN03W"), "{:?}", codes(&rig));
        let ledger = rig.open();
        write(&ledger, 3);
        checkpoint(&ledger).unwrap();
        drop(ledger);
        assert_eq!(codes(&rig).last().map(String::as_str), Some("SGN02I"), "{:?}", codes(&rig));
        let origin = rig.own_key()[0].name().to_owned();
        let keys = vec![PublicKey::of(&origin, &new), PublicKey::of(&origin, &old)];
        let report = rig.audit_data().verify(keys, Vec::new(), |_, _| {}).unwrap();
        assert_eq!(report.verdict, Verdict::Ok, "{report:?}");
        old.store(&rig.data()).unwrap();
        assert!(opened(&rig).unwrap_err().to_string().contains("retired"));
    }
}
