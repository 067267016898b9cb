//! What the record of an action costs: entries appended to the audit log, tree and all, and proofs taken from it.
//! `cargo bench -p opspilot-ledger --bench audit`
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should stop and say where")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{Ledger, Options, Priority, Tx};

fn append(ledger: &Ledger, count: u32) {
    let job = move |tx: &mut Tx<'_>| (0..count).try_for_each(|_| tx.module_switched(&Actor::System, "detector.regex", true));
    ledger.write_blocking(Priority::Control, job).unwrap();
}

fn audit(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options::new(dir.path(), SystemClock::shared())).unwrap();
    let mut group = c.benchmark_group("audit");
    for entries in [1_u32, 1_000] {
        group.throughput(Throughput::Elements(u64::from(entries)));
        group.bench_function(format!("append {entries} in one commit"), |bench| bench.iter(|| append(&ledger, entries)));
    }
    let size = ledger.read_blocking(|reader| reader.audit_size()).unwrap().0;
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("inclusion proof among {size}"), |bench| {
        bench.iter(|| ledger.read_blocking(|reader| reader.audit_inclusion(size / 3, size)).unwrap())
    });
    group.bench_function(format!("consistency proof within {size}"), |bench| {
        bench.iter(|| ledger.read_blocking(|reader| reader.audit_consistency(size / 3, size)).unwrap())
    });
    group.finish();
}

criterion_group!(benches, audit);
criterion_main!(benches);
