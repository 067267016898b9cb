//! Prints how fast incidents are found and acknowledged on this machine: `incidents [how many] [how many of them open]`.
//!
//! They are kept in `DIR`, by default `incidents-data`, and found there again by the next run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "an example that measures"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use opspilot_kernel::{
    alert::{Alert, AlertStatus, Observation},
    clock::SystemClock,
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{
    IncidentFilter, Ledger, LedgerError, Options, Page, Priority,
    pipeline::{AlertState, Commit, IncidentChange},
};

const MODULE: &str = "core.pipeline";
/// Incidents in one commit.
const AT_ONCE: u64 = 200;
const SERVICES: [&str; 8] = ["checkout", "cart", "payment", "search", "login", "catalogue", "shipping", "mail"];
const WORDS: [&str; 16] = [
    "timeout",
    "refused",
    "deadlock",
    "latency",
    "memory",
    "disk",
    "certificate",
    "queue",
    "replica",
    "upstream",
    "handshake",
    "quota",
    "garbage",
    "retry",
    "shard",
    "offset",
];

fn at(n: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + i64::try_from(n).unwrap() * 1000)
}

fn id(n: u64) -> IncidentId {
    IncidentId::derived(&["incident", &n.to_string()])
}

/// The incident `n` with an alert and a line of evidence, and the dice's choice of words.
fn founding(n: u64, open: bool) -> (AlertState, IncidentChange) {
    let mut dice = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
    let mut below = |limit: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % limit
    };
    let service = SERVICES[below(8) as usize];
    let (first, second) = (WORDS[below(16) as usize], WORDS[below(16) as usize]);
    let host = format!("host-{}", below(500));
    let severity = Severity::ALL[below(5) as usize];
    let status = if open { IncidentStatus::Open } else { IncidentStatus::Resolved };
    let title = format!("{service} fails: {first} on {host}");
    let rare = if n % 1000 == 7 { " kraken" } else { "" };
    let text = format!("error {second} after {} ms, request {:016x}, order {}{rare}", below(9000), below(u64::MAX), below(10_000_000));
    let alert = Alert {
        id: AlertId::derived(&[&n.to_string()]),
        fingerprint: Fingerprint::from_u64(n),
        status: if open { AlertStatus::Firing } else { AlertStatus::Resolved },
        source: service.to_owned(),
        name: format!("{service}-{first}"),
        detected_by: "detector.regex".to_owned(),
        title: title.clone(),
        description: "a rule matched a line of the log".to_owned(),
        severity,
        labels: BTreeMap::from([("host".to_owned(), host), ("service".to_owned(), service.to_owned())]),
        occurrences: 1,
        first_seen_at: at(n),
        last_seen_at: at(n),
        resolved_at: (!open).then(|| at(n + 60)),
        suppressed_by: None,
        incident_id: Some(id(n)),
    };
    let incident = Incident {
        id: id(n),
        title,
        description: alert.description.clone(),
        severity,
        status,
        detected_by: alert.detected_by.clone(),
        rule: alert.name.clone(),
        source: alert.source.clone(),
        labels: alert.labels.clone(),
        occurrences: 1,
        opened_at: at(n),
        last_seen_at: at(n),
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: (n % 100 == 3).then(|| format!("user{}", n % 7)),
        snoozed_until: None,
        resolved_at: (!open).then(|| at(n + 60)),
        resolution: None,
        merged_into: None,
        alert_count: 1,
        evidence_count: 1,
    };
    let mut change = IncidentChange::founding(incident);
    change.fingerprints = vec![alert.fingerprint];
    change.evidence = vec![(alert.id.clone(), Observation::Log { at: at(n), source: service.to_owned(), text })];
    let actor = Actor::Module { id: "enricher.incidentStore".to_owned() };
    change.timeline = vec![TimelineEntry { at: at(n), actor, kind: TimelineKind::Opened, text: String::new() }];
    if !open {
        change.changes.push(TimelineKind::Resolved);
    }
    change.state.firing = u64::from(open);
    change.state.timeline_count = 1;
    let state =
        AlertState { claim: alert.id.clone(), last_logged_at: at(n), resolved_by: None, resolved_logged_at: None, aside: None, alert };
    (state, change)
}

fn fill(ledger: &Ledger, count: u64, open: u64) {
    let from = ledger.read_blocking(|reader| reader.cursor(MODULE)).unwrap();
    let started = Instant::now();
    let mut n = from;
    while n < count {
        let to = (n + AT_ONCE).min(count);
        let (alerts, incidents) = (n..to).map(|n| founding(n, n + open >= count)).unzip();
        let commit = Commit {
            module: MODULE,
            from: n,
            to,
            read: Vec::new(),
            silences: 0,
            sweep: None,
            alerts,
            incidents,
            merges: Vec::new(),
            decisions: Vec::new(),
        };
        ledger.write_blocking(Priority::Bulk, move |tx| tx.apply_decisions(commit)).unwrap();
        n = to;
        if n.is_multiple_of(50_000) {
            println!("{n} incidents, {:.0} a second", (n - from) as f64 / started.elapsed().as_secs_f64());
        }
    }
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    println!("{what:<44} p50 {:>8.2} ms   p99 {:>8.2} ms   most {:>8.2} ms", at(50), at(99), at(100));
}

fn measure(what: &str, runs: u32, mut work: impl FnMut(u32)) {
    let times = (0..runs).map(|run| {
        let started = Instant::now();
        work(run);
        started.elapsed()
    });
    let times = times.collect();
    told(what, times);
}

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let (count, open) = (*arguments.first().unwrap_or(&1_000_000), *arguments.get(1).unwrap_or(&100_000));
    let dir = std::env::var_os("DIR").map_or_else(|| std::path::PathBuf::from("incidents-data"), Into::into);
    let mut options = Options::new(&dir, SystemClock::shared());
    options.retention.incidents = Duration::from_secs(100 * 365 * 86_400);
    let ledger = Ledger::open(options).unwrap();
    fill(&ledger, count, open);
    let filter = |q: &str| IncidentFilter { q: Some(q.to_owned()), ..IncidentFilter::default() };
    let label = |name: &str, value: &str| IncidentFilter { labels: vec![(name.to_owned(), value.to_owned())], ..IncidentFilter::default() };
    let status = Some(IncidentStatus::Open);
    let hostile = "\" OR NEAR(a b) * ^ ".repeat(500);
    for (what, filter) in [
        ("every incident", filter("fails")),
        ("every incident, four words", filter("error after request rule")),
        ("every incident, cut short", filter("fai")),
        ("every incident, by two letters", filter("er")),
        ("one in eight", filter("checkout")),
        ("one in eight of the open", IncidentFilter { status, ..filter("checkout") }),
        ("one in eight of the resolved", IncidentFilter { status: Some(IncidentStatus::Resolved), ..filter("checkout") }),
        (
            "one in eight, of one severity and source",
            IncidentFilter { severity: Some(Severity::Critical), source: Some("checkout".to_owned()), ..filter("fails") },
        ),
        ("two words of evidence, one in 128", filter("deadlock timeout")),
        ("one in a thousand", filter("kraken")),
        ("one in a thousand of the open", IncidentFilter { status, ..filter("kraken") }),
        ("one incident by its id", filter(id(12_345).as_str())),
        ("nothing", filter("leviathan")),
        ("nothing, of two common words", filter("checkout cart")),
        ("the oldest of a common word", IncidentFilter { until: Some(at(2000)), ..filter("fails") }),
        ("the oldest half of a common word", IncidentFilter { until: Some(at(count / 2)), ..filter("fails") }),
        ("the oldest half of the open", IncidentFilter { until: Some(at(count - open / 2)), status, ..filter("kraken") }),
        ("a label of one in eight", label("service", "checkout")),
        ("a label of one in 500", label("host", "host-7")),
        ("a label of one in 500, open, with a word", IncidentFilter { status, q: Some("deadlock".to_owned()), ..label("host", "host-7") }),
        ("an assignee", IncidentFilter { assignee: Some("user3".to_owned()), ..filter("fails") }),
        ("ten kilobytes of syntax", filter(&hostile)),
        ("no search at all", IncidentFilter::default()),
    ] {
        let mut found = 0;
        measure(what, 100, |_| found = ledger.read_blocking(|reader| reader.incidents(&filter, &Page::first(50))).unwrap().items.len());
        println!("{:<44} {found} on the page", "");
    }
    measure("statistics of the newest 50,000", 20, |_| {
        drop(ledger.read_blocking(|reader| reader.incident_stats(&IncidentFilter::default())))
    });
    let ada = || Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
    measure("an acknowledgement", 1000, |run| {
        let id = id(count - open + u64::from(run) * (open / 1000));
        let done = ledger.write_blocking(Priority::Control, move |tx| tx.incident_acknowledge(&id, &ada(), "on it"));
        assert!(matches!(done, Ok(_) | Err(LedgerError::Conflict(_))), "{done:?}");
    });
}
