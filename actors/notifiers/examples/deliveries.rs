//! How many webhooks a channel delivers in a second: from committed incidents, through the outbox, over HTTP, to marked
//! as delivered. `cargo run --release -p opspilot-notifiers --example deliveries [-- COUNT]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a driver that cannot go on should stop and say where"
)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opspilot_kernel::{
    clock::SystemClock,
    fingerprint::Fingerprint,
    ids::IncidentId,
    incident::{Incident, IncidentStatus},
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{
    Ledger, Options, Priority,
    pipeline::{Commit, IncidentChange},
};
use opspilot_runtime::{ModuleContext, Outbound, outbound::OutboundOptions};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(2000);
    actix::System::new().block_on(run(count));
}

async fn run(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let ledger = Ledger::open(Options::new(dir.path(), Arc::clone(&clock))).unwrap();
    let allow_private = vec!["127.0.0.1".parse().unwrap()];
    let ctx = ModuleContext {
        outbound: Outbound::new(OutboundOptions { allow_private, ..OutboundOptions::default() }, &prometheus::Registry::new()).unwrap(),
        ..ModuleContext::alone(ledger.clone(), Arc::clone(&clock), Arc::new(|exit| panic!("the service would end: {exit:?}"))).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    // on a thread of its own, so that it does not share the time of what is measured
    let listener = listener.into_std().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move { receive(TcpListener::from_std(listener).unwrap(), counter).await });
    });
    let entry = opspilot_notifiers::MODULES[0];
    let hook = json!({ "id": "hook", "type": "webhook", "url": format!("http://127.0.0.1:{port}/"), "secret": "0123456789abcdef" });
    let module = (entry.start)(&ctx, json!({ "channels": [hook] })).unwrap_or_else(|error| panic!("{error}"));
    while ledger.read(|reader| reader.cursors()).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = clock.elapsed();
    for first in (0..count).step_by(100) {
        let incidents = (first..count.min(first + 100)).map(change).collect();
        let commit = Commit { module: "bench", from: first, to: first + 100, incidents, ..Commit::default() };
        ledger.write(Priority::Bulk, move |tx| tx.apply_decisions(commit)).await.unwrap();
    }
    let committed = clock.elapsed() - begun;
    loop {
        let waiting = ledger.read(|reader| reader.outbox_waiting("hook")).await.unwrap();
        if taken.load(Ordering::SeqCst) >= usize::try_from(count).unwrap() && waiting.count == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = clock.elapsed() - begun;
    let rate = f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64();
    println!(
        "{count} incidents committed in {committed:?}; {} webhooks delivered and marked in {took:?}: {rate:.0}/s",
        taken.load(Ordering::SeqCst)
    );
    module.stop().await;
    ledger.shut_down().await.unwrap();
}

async fn receive(listener: TcpListener, taken: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            let (mut buffer, mut held) = (vec![0; 64 << 10], Vec::new());
            while let Ok(read) = stream.read(&mut buffer).await
                && read > 0
            {
                held.extend_from_slice(&buffer[..read]);
                while let Some(end) = whole(&held) {
                    held.drain(..end);
                    taken.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
            }
        });
    }
}

/// Where the first whole request ends.
fn whole(held: &[u8]) -> Option<usize> {
    let head = held.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&held[..head]).ok()?.to_ascii_lowercase();
    let length: usize = text.split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    (held.len() >= head + length).then_some(head + length)
}

fn change(number: u64) -> IncidentChange {
    let incident = Incident {
        id: IncidentId::derived(&[&number.to_string()]),
        title: format!("payments fail ({number})"),
        description: String::new(),
        severity: Severity::Critical,
        status: IncidentStatus::Open,
        detected_by: "detector.regex".to_owned(),
        rule: "payment-failed".to_owned(),
        source: "shop".to_owned(),
        labels: BTreeMap::new(),
        occurrences: 1,
        opened_at: Timestamp::ZERO,
        last_seen_at: Timestamp::ZERO,
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: None,
        snoozed_until: None,
        resolved_at: None,
        resolution: None,
        merged_into: None,
        alert_count: 0,
        evidence_count: 0,
    };
    IncidentChange { fingerprints: vec![Fingerprint::from_u64(number)], ..IncidentChange::founding(incident) }
}
