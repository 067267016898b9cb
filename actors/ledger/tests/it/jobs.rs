//! Jobs: one savepoint each, control before bulk, bounded queues.

use std::sync::{Arc, Mutex};

use opspilot_ledger::{Ledger, LedgerError, Limits, Priority, Snapshot};

use crate::support::{Rig, hold_writer, lines, messages, runtime};

fn save(ledger: &Ledger, module: &'static str, seq: u64) -> impl Future<Output = Result<(), LedgerError>> + use<> {
    ledger.write(Priority::Bulk, move |tx| tx.save_cursor(module, seq, vec![Snapshot { key: "k".to_owned(), blob: vec![1] }]))
}

#[test]
fn a_job_that_fails_or_panics_takes_nothing_with_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    let held = hold_writer(&ledger);
    let rt = runtime();
    rt.block_on(async {
        let good = save(&ledger, "good", 7);
        let refused = ledger.write(Priority::Bulk, |tx| {
            tx.save_cursor("refused", 1, Vec::new())?;
            tx.module_restarted(&opspilot_kernel::principal::Actor::System, "refused", "test")?;
            Err::<(), _>(LedgerError::Conflict("not today".to_owned()))
        });
        let panics = ledger.write(Priority::Bulk, |tx| {
            tx.save_cursor("panics", 1, Vec::new())?;
            tx.module_restarted(&opspilot_kernel::principal::Actor::System, "panics", "test")?;
            panic!("a job that panics");
            #[allow(unreachable_code)]
            Ok(())
        });
        let audited = ledger.write(Priority::Bulk, |tx| tx.module_restarted(&opspilot_kernel::principal::Actor::System, "audited", "test"));
        let stored = ledger.append(lines("a", 0, 5));
        let mut stored = Box::pin(stored);
        assert!(futures_util::poll!(&mut stored).is_pending());
        drop(held);
        good.await.unwrap();
        assert!(matches!(refused.await, Err(LedgerError::Conflict(_))));
        assert!(matches!(panics.await, Err(LedgerError::Panicked)));
        audited.await.unwrap();
        assert_eq!(stored.await.unwrap().last_seq, 5);
    });
    ledger
        .read_blocking(|reader| {
            assert_eq!(reader.cursor("good")?, 7);
            assert_eq!((reader.cursor("refused")?, reader.cursor("panics")?), (0, 0));
            assert_eq!(reader.snapshots("good")?, [Snapshot { key: "k".to_owned(), blob: vec![1] }]);
            assert_eq!(reader.audit_verify()?, 3, "the migration, the start, and the one that went well");
            Ok(())
        })
        .unwrap();
    assert_eq!(messages(&ledger).len(), 5);
}

#[test]
fn control_goes_before_bulk_that_came_earlier() {
    let rig = Rig::new();
    let ledger = rig.open();
    let held = hold_writer(&ledger);
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |priority, name: &'static str| {
        let order = order.clone();
        ledger.write(priority, move |_| {
            order.lock().unwrap().push(name);
            Ok(())
        })
    };
    let all = [note(Priority::Bulk, "bulk"), note(Priority::Control, "control 1"), note(Priority::Control, "control 2")];
    drop(held);
    runtime().block_on(async {
        for done in all {
            done.await.unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), ["control 1", "control 2", "bulk"]);
}

#[test]
fn a_full_queue_is_busy_and_nothing_of_it_is_stored() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.limits = Limits { bulk_queue: 2, ..options.limits };
    let ledger = Ledger::open(options).unwrap();
    let held = hold_writer(&ledger);
    runtime().block_on(async {
        let mut waiting = Box::pin(futures_util::future::join(ledger.append(lines("a", 0, 1)), ledger.append(lines("a", 1, 1))));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(matches!(ledger.append(lines("a", 2, 1)).await, Err(LedgerError::Busy)));
        let mut patient = Box::pin(ledger.append_waiting(lines("a", 3, 1)));
        assert!(futures_util::poll!(&mut patient).is_pending(), "a patient sender waits");
    });
    drop(held);
    runtime().block_on(async {
        ledger.write(Priority::Control, |_| Ok(())).await.unwrap();
    });
    assert_eq!(messages(&ledger).len(), 2, "what was queued is stored although nobody waits for it, what was refused is not");
}

#[test]
fn a_job_runs_although_nobody_waits_for_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    drop(save(&ledger, "left alone", 3));
    runtime().block_on(ledger.write(Priority::Bulk, |_| Ok(()))).unwrap();
    assert_eq!(ledger.read_blocking(|reader| reader.cursor("left alone")).unwrap(), 3);
}

#[test]
fn after_shutting_down_work_is_refused() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    rt.block_on(async {
        let last = save(&ledger, "last", 9);
        ledger.shut_down().await.unwrap();
        last.await.unwrap();
        assert!(matches!(ledger.append(lines("a", 0, 1)).await, Err(LedgerError::Unavailable(_))));
        assert!(matches!(save(&ledger, "late", 1).await, Err(LedgerError::Unavailable(_))));
    });
    assert!(!rig.data().join("running").exists(), "the stop is marked as orderly");
}
