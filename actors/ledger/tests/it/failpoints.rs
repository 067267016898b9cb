//! A fault in the middle of the writer itself; `cargo test -p opspilot-ledger --features failpoints`.

use opspilot_ledger::{LedgerError, Priority};

use crate::support::{Rig, lines, messages, runtime};

/// One test for all points: they are global to the process.
#[test]
fn a_writer_that_panics_outside_a_job_starts_anew_and_half_a_group_is_never_there() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    rt.block_on(ledger.append(lines("a", 0, 10))).unwrap();
    for point in ["ledger::after_insert", "ledger::before_commit", "ledger::write_job"] {
        let before = ledger.signals().head();
        fail::cfg(point, "1*panic(injected)").unwrap();
        let (job, stored) = rt.block_on(async {
            let job = ledger.write(Priority::Control, |tx| tx.save_cursor("m", 1, Vec::new()));
            let stored = ledger.append(lines("a", 10, 10));
            futures_util::future::join(job, stored).await
        });
        fail::remove(point);
        let failed =
            [job.err(), stored.err()].into_iter().flatten().inspect(|error| assert!(matches!(error, LedgerError::Panicked))).count();
        assert!(failed > 0, "{point} was met");
        assert!(u64::try_from(messages(&ledger).len()).unwrap() == ledger.signals().head());
        let head = ledger.signals().head();
        assert!(head == before || head == before + 10, "{point}: {head}");
        assert_eq!(rt.block_on(ledger.append(lines("a", 20, 5))).unwrap().first_seq, head + 1, "{point}: it goes on");
    }
    // committed, but the writer dies before it can say so: the sender must not know, the log must
    let before = ledger.signals().head();
    fail::cfg("ledger::after_commit_before_ack", "1*panic(injected)").unwrap();
    let unknown = rt.block_on(ledger.append(lines("a", 30, 5)));
    fail::remove("ledger::after_commit_before_ack");
    assert!(matches!(unknown, Err(LedgerError::Panicked)));
    assert_eq!(messages(&ledger).last().unwrap().0, before + 5);
    let everything = messages(&ledger);
    drop(ledger);
    assert_eq!(messages(&rig.open()), everything);
    assert!(rig.open().read_blocking(|reader| reader.audit_verify()).unwrap() > 0);
}
