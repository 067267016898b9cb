//! Writes a log of a million entries, or as many as are asked for, and says how long it takes to check it:
//! `cargo run --release -p opspilot-ledger --example audit_million -- [ENTRIES]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement that a person reads")]

use std::{io::BufReader, time::Instant};

use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{
    Ledger, Options, Priority, Tx,
    audit::{AuditData, verify_export},
};

fn main() {
    let entries: u32 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ledger = Ledger::open(Options::new(dir.path(), SystemClock::shared())).unwrap();
    rt.block_on(ledger.open_audit_key()).unwrap();
    let started = Instant::now();
    for round in 0..entries / 5_000 {
        let job =
            move |tx: &mut Tx<'_>| (0..5_000_u32).try_for_each(|n| tx.module_switched(&Actor::System, &format!("m{round}.{n}"), true));
        ledger.write_blocking(Priority::Control, job).unwrap();
        rt.block_on(ledger.checkpoint("measured")).unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    println!("written: {entries} entries in {took:.1} s, {:.0} a second", f64::from(entries) / took);
    rt.block_on(ledger.shut_down()).unwrap();
    drop(ledger);

    let mut data = AuditData::open(dir.path(), SystemClock::shared()).unwrap();
    let keys: Vec<_> = data.own_key().into_iter().collect();
    let started = Instant::now();
    let report = data.verify(keys.clone(), Vec::new(), |_, _| {}).unwrap();
    let took = started.elapsed().as_secs_f64();
    println!(
        "checked in the database: {:?}, {} entries, {} checkpoints in {took:.1} s",
        report.verdict, report.entries, report.checkpoints
    );

    let path = dir.path().join("export");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let started = Instant::now();
    let (first, mut cursor) = data.read(|reader| reader.audit_export_begin(None)).unwrap();
    std::io::Write::write_all(&mut file, &first).unwrap();
    while let Some((part, next)) = data.read(|reader| reader.audit_export_part(&cursor)).unwrap() {
        std::io::Write::write_all(&mut file, &part).unwrap();
        cursor = next;
    }
    drop(file);
    println!("exported: {} MB in {:.1} s", std::fs::metadata(&path).unwrap().len() >> 20, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let report = verify_export(BufReader::new(std::fs::File::open(&path).unwrap()), keys, Vec::new(), |_| {}).unwrap();
    println!("checked from the export: {:?} in {:.1} s", report.verdict, started.elapsed().as_secs_f64());
}
