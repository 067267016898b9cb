//! A6, A7 and A8: the disk is full, read-only, or fails.

use std::{path::Path, sync::atomic::Ordering};

use opspilot_fault_vfs::{Failure, Fault, Op};
use opspilot_kernel::error::ErrorKind;
use opspilot_ledger::{Ledger, LedgerError, Priority};

use crate::support::{Rig, Writer, healed, long, runtime, stored, survey, transitions};

fn unavailable(error: &LedgerError) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// Appends until storage refuses; `false` if it never does.
async fn until_refused(writer: &mut Writer, ledger: &Ledger, tries: usize) -> Option<LedgerError> {
    for _ in 0..tries {
        if let Err(error) = writer.append(ledger).await {
            unavailable(&error);
            return Some(error);
        }
    }
    None
}

/// While storage fails: refused, readable, nothing lost. Healed: it goes on by itself.
fn refused_readable_and_back(rig: &Rig, reason: &str, arm: impl FnOnce()) {
    let dir = rig.dir.path().join(format!("data-{}", rig.vfs.fired()));
    let (ledger, registry) = rig.open_counting(&dir);
    let mut writer = Writer::new(5);
    let fired = rig.vfs.fired();
    runtime().block_on(async {
        for _ in 0..5 {
            writer.append(&ledger).await.unwrap();
        }
        arm();
        let error = until_refused(&mut writer, &ledger, 2000).await.expect("storage never refused");
        assert!(rig.vfs.fired() > fired, "the fault fired");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(stored(&ledger).unwrap(), writer.acked, "reads go on, and what was refused is not there");
        for _ in 0..20 {
            // People's work may still fit, and each round of it is one more look at the disk; signals wait for room.
            drop(ledger.write(Priority::Control, |_| Ok(())).await);
            unavailable(&writer.append(&ledger).await.unwrap_err());
            assert_eq!(stored(&ledger).unwrap(), writer.acked, "reads go on");
        }
        // whoever was refused heard of it before the writer had come to counting it
        let counted = async {
            while transitions(&registry).0 < 1.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("the failure is counted");
        assert_eq!(transitions(&registry), (1.0, 0.0), "failed once and for as long as there is no room");
        rig.vfs.heal();
        healed(&ledger).await;
        for _ in 0..5 {
            writer.append(&ledger).await.unwrap();
        }
        assert_eq!(stored(&ledger).unwrap(), writer.acked);
        assert_eq!(transitions(&registry), (1.0, 1.0), "healed once");
        ledger.shut_down().await.unwrap();
    });
    drop(ledger);
    assert_eq!(rig.fatal.load(Ordering::SeqCst), 0, "no reason to end the process");
    assert_eq!(survey(&dir).unwrap(), writer.acked);
}

#[test]
fn a6_a_full_disk_refuses_writes_keeps_reads_and_recovers_by_itself() {
    let rig = Rig::new("a6");
    let steps: u64 = if long() { 60 } else { 6 };
    for step in 0..steps {
        // At a byte that has nothing to do with pages.
        refused_readable_and_back(&rig, "full", || rig.vfs.limit_space(step * 20_011 % 120_000));
    }
}

#[test]
fn a7_a_read_only_file_system_refuses_writes_keeps_reads_and_recovers_by_itself() {
    let rig = Rig::new("a7");
    for nth in [1, 2, 5] {
        refused_readable_and_back(&rig, "read", || rig.vfs.arm(Fault { op: Op::Write, nth, failure: Failure::ReadOnly, lasting: true }));
    }
}

/// Which operations are made to fail.
fn numbers() -> impl Iterator<Item = u64> {
    (1..=300).step_by(if long() { 1 } else { 13 })
}

#[test]
fn a8_an_io_error_at_any_write_loses_nothing_and_is_recovered_from() {
    let rig = Rig::new("a8w");
    let (mut covered, mut refused) = (0, 0);
    for nth in numbers() {
        let dir = rig.dir.path().join(format!("data-{nth}"));
        let ledger = rig.open(&dir);
        let mut writer = Writer::new(nth);
        let fired = rig.vfs.fired();
        rig.vfs.arm(Fault { op: Op::Write, nth, failure: Failure::Io, lasting: false });
        runtime().block_on(async {
            for _ in 0..400 {
                if let Err(error) = writer.append(&ledger).await {
                    unavailable(&error);
                    refused += 1;
                    healed(&ledger).await;
                }
                if rig.vfs.fired() > fired {
                    break;
                }
            }
            assert_eq!(rig.vfs.fired(), fired + 1, "write {nth} was reached");
            covered += 1;
            // a fault that no append met, but the upkeep behind it, may not have shown in health yet
            while let Err(error) = writer.append(&ledger).await {
                unavailable(&error);
                healed(&ledger).await;
            }
            assert_eq!(stored(&ledger).unwrap(), writer.acked);
            ledger.shut_down().await.unwrap();
        });
        drop(ledger);
        assert_eq!(survey(&dir).unwrap(), writer.acked, "write {nth}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
    println!("a8 writes: {covered} covered, {refused} refused, 0 lost");
    assert!(refused > 0, "some of them were refused to somebody");
}

#[test]
fn a8_an_io_error_at_any_sync_ends_the_process_and_a_restart_finds_everything_acknowledged() {
    let rig = Rig::new("a8s");
    let mut covered = 0;
    for nth in numbers() {
        let dir = rig.dir.path().join(format!("data-{nth}"));
        let ledger = rig.open(&dir);
        let mut writer = Writer::new(nth);
        let (fired, fatal) = (rig.vfs.fired(), rig.fatal.load(Ordering::SeqCst));
        rig.vfs.arm(Fault { op: Op::Sync, nth, failure: Failure::Io, lasting: false });
        runtime().block_on(async {
            let error = until_refused(&mut writer, &ledger, 2000).await.unwrap_or_else(|| panic!("sync {nth} was never reached"));
            assert_eq!(rig.vfs.fired(), fired + 1, "{error}");
            covered += 1;
            // What a failed fsync left on the disk is unknown: going on would build on sand.
            unavailable(&writer.append(&ledger).await.unwrap_err());
        });
        // A process that ends here and now leaves the same as one that takes its time to end in order.
        let left = rig.dir.path().join(format!("left-{nth}"));
        copy(&dir, &left);
        drop(runtime().block_on(ledger.shut_down()));
        drop(ledger);
        assert_eq!(rig.fatal.load(Ordering::SeqCst), fatal + 1, "sync {nth}: the process is told to end, once");
        for dir in [&left, &dir] {
            let found = survey(dir).unwrap();
            assert!(writer.acked.is_subset(&found), "sync {nth}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::remove_dir_all(&left).unwrap();
    }
    println!("a8 syncs: {covered} covered, 0 lost");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
