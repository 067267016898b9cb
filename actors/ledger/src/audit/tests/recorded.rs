//! What is put on record, and what stays of it.

use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::principal::Actor;

use super::rig::{Rig, checkpoint, runtime, write};
use crate::{
    LedgerError, NewUser, Priority,
    audit::{Verdict, export::verify_export, proof::verify_proof},
    backup, restore,
};

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
    // somebody else agreed: an account, enabled, and not whoever asks
    let account = |name: &str| NewUser {
        name: name.to_owned(),
        role: opspilot_kernel::principal::Role::Admin,
        groups: Vec::new(),
        password_hash: "x".to_owned(),
    };
    let (bob, gone) = (account("bob"), account("gone"));
    let made = move |tx: &mut crate::Tx<'_>| {
        tx.user_create(&Actor::System, bob)?;
        tx.user_create(&Actor::System, gone)?;
        use crate::schema::user_account::dsl as t;
        diesel::update(t::user_account.find("gone")).set(t::disabled.eq(true)).execute(tx.conn)?;
        Ok(())
    };
    ledger.write_blocking(Priority::Control, made).unwrap();
    let asks = |name: &str| Actor::User { id: name.to_owned(), via: "cli".to_owned() };
    for (who, second) in [("ada", "nobody"), ("ada", ""), ("ada", "gone"), ("bob", "bob"), ("bob", "BOB")] {
        let actor = asks(who);
        let refused = ledger.write_blocking(Priority::Control, move |tx| tx.redact(&actor, 9, "asked for", second));
        assert!(refused.is_err(), "{who} {second}");
    }
    let ada = asks("ada");
    ledger.write_blocking(Priority::Control, move |tx| tx.redact(&ada, 9, "asked for", "bob")).unwrap();
    let filter = crate::AuditFilter { action: Some("RED01I".to_owned()), ..crate::AuditFilter::default() };
    let found = ledger.read_blocking(|reader| reader.audit(&filter, &crate::Page::first(9))).unwrap().items;
    assert_eq!(found.len(), 1, "what was refused is not done");
    assert_eq!(found[0].body.as_ref().unwrap()["consent"], "claimed", "nothing shows that they were asked");
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
