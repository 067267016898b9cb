//! How long an incident waits for its explanation, by the number of signals in the hour before it.
//!
//! ```text
//! cargo bench -p opspilot-enrichers --bench explanation
//! ```
//!
//! What is timed: from the moment a person asks until the explanation is stored, fsync included. The signals are lines and
//! metric points of six services, committed in batches of a hundred; the last minute holds an outage of one of them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock, prints and fails loudly"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use opspilot_enrichers::{MODULES, Stages, ai_summary::AiSummary};
use opspilot_kernel::{
    alert::{AlertRecord, Observation, Transition},
    clock::{ManualClock, SharedClock},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    principal::Actor,
    signal::{Severity, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{IncidentFilter, Ledger, Options, Page, Priority, SignalBatchBuilder};
use opspilot_runtime::{Module, ModuleContext};

/// Signals in the hour before the incident.
const SIGNALS: [i64; 3] = [1_000, 10_000, 50_000];
const START: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

async fn fill(ledger: &Ledger, signals: i64) {
    let services = ["gateway", "checkout", "payments", "inventory", "search", "db"];
    for first in (0..signals).step_by(100) {
        let mut batch = SignalBatchBuilder::new(at((first + 99) * HOUR / signals));
        for number in first..(first + 100).min(signals) {
            let (millis, service) = (number * HOUR / signals, services[usize::try_from(number % 6).unwrap()]);
            if number % 4 == 0 {
                batch.push(&SignalRef::metric(at(millis), service, "latency_ms", f64::from(i32::try_from(number % 17).unwrap())));
            } else if millis > HOUR - 60_000 && number % 2 == 0 {
                let line = format!("could not get a connection to db:5432 within 5s: pool exhausted ({number} waiting)");
                batch.push(&SignalRef { severity: Severity::Error, ..SignalRef::log(at(millis), "payments", &line) });
            } else {
                batch.push(&SignalRef::log(
                    at(millis),
                    service,
                    &format!("request {number} answered 200 in {} ms for user {number:08x}", number % 90),
                ));
            }
        }
        ledger.append(batch.seal()).await.unwrap();
    }
}

fn record() -> AlertRecord {
    let evidence =
        vec![Observation::Log { at: at(HOUR), source: "payments".to_owned(), text: "could not get a connection to db:5432".to_owned() }];
    AlertRecord {
        alert: AlertId::derived(&["bench"]),
        detected_by: "detector.bench".to_owned(),
        rule: "database-unreachable".to_owned(),
        fingerprint: Fingerprint::of_pairs([("rule", "bench")]),
        transition: Transition::Firing,
        resolved_by: None,
        at: at(HOUR),
        logged_at: at(HOUR),
        signal_seq: 1,
        count: 1,
        source: "payments".to_owned(),
        title: "No connection to db".to_owned(),
        description: String::new(),
        severity: Severity::Error,
        labels: std::collections::BTreeMap::new(),
        supports: false,
        evidence,
    }
}

struct Service {
    ledger: Ledger,
    modules: Vec<Box<dyn Module>>,
    incident: IncidentId,
    _dir: tempfile::TempDir,
}

async fn service(signals: i64) -> Service {
    let dir = tempfile::tempdir().unwrap();
    let clock: SharedClock = ManualClock::at(at(HOUR));
    let ledger = Ledger::open(Options::new(dir.path(), Arc::clone(&clock))).unwrap();
    let ctx = ModuleContext::alone(ledger.clone(), clock, Arc::new(|_| {})).unwrap();
    fill(&ledger, signals).await;
    let stages = Stages::in_order(&[opspilot_enrichers::DEDUP, opspilot_enrichers::INCIDENT_STORE]);
    // the look may take as long as it takes: it is what is measured
    let section = serde_json::json!({ "settle": "0ms", "budget": "10s", "most_signals": 1_000_000 });
    let start = |entry: &opspilot_runtime::Entry| {
        let section = if entry.id == opspilot_enrichers::ai_summary::ID { section.clone() } else { serde_json::json!({}) };
        (entry.start)(&ctx, section).unwrap()
    };
    let modules: Vec<Box<dyn Module>> = MODULES.iter().map(start).collect();
    for module in &modules {
        stages.plug(&**module);
    }
    opspilot_enrichers::pipeline::start(&ctx, stages).unwrap();
    ledger
        .write(Priority::Bulk, |tx| tx.commit_alerts("detector.bench", i64::MAX.unsigned_abs(), vec![record()], Vec::new()))
        .await
        .unwrap();
    let incident = loop {
        let found = ledger.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(1))).await.unwrap().items;
        if let Some(detail) = found.into_iter().find(|detail| detail.explanation.is_some()) {
            break detail.incident.id;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    Service { ledger, modules, incident, _dir: dir }
}

fn explanation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("explanation");
    group.sample_size(10);
    for signals in SIGNALS {
        group.bench_function(BenchmarkId::new("asked until stored", signals), |bencher| {
            bencher.iter_custom(|rounds| {
                actix::System::new().block_on(async {
                    let service = service(signals).await;
                    let explainer = service.modules.iter().find_map(|module| module.as_any().downcast_ref::<AiSummary>()).unwrap();
                    let began = Instant::now();
                    for _ in 0..rounds {
                        explainer
                            .explain(service.incident.clone(), Actor::User { id: "ada".to_owned(), via: "session".to_owned() })
                            .await
                            .unwrap();
                    }
                    let took = began.elapsed();
                    let id = service.incident.clone();
                    let stored = service.ledger.read(move |reader| reader.explanation(&id)).await.unwrap().unwrap();
                    assert_eq!(
                        stored.explanation.causes.first().map(|cause| cause.component.as_str()),
                        Some("db"),
                        "{}",
                        stored.explanation.summary
                    );
                    assert!(!stored.explanation.degraded, "{}", stored.explanation.summary);
                    took
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, explanation);
criterion_main!(benches);
