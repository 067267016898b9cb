//! Which alerts become one incident, through all stages, on a board kept in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::{IncidentStatus, TimelineKind},
    topology::{ComponentLabels, ComponentName, Graph, Known},
};
use opspilot_ledger::{AlertEntry, pipeline::IncidentState};
use opspilot_runtime::TopologyView;
use proptest::prelude::*;

use super::{Config, Correlator, config::Storm};
use crate::{
    incident_store::{
        Rules,
        tests::{Pipeline, rules},
    },
    testkit::{at, record},
};

/// An alert about `service`, called `name`.
fn alert(service: &str, name: &str, second: i64) -> AlertRecord {
    let id = format!("{service}/{name}");
    let labels = BTreeMap::from([("service".to_owned(), service.to_owned()), ("env".to_owned(), "prod".to_owned())]);
    AlertRecord {
        alert: AlertId::derived(&[&id]),
        rule: name.to_owned(),
        fingerprint: Fingerprint::of_pairs([("id", id.as_str())]),
        source: service.to_owned(),
        title: format!("{name} of {service}"),
        labels,
        ..record(&id, Transition::Firing, second)
    }
}

fn over(fired: &AlertRecord, second: i64) -> AlertRecord {
    let ended = record("x", Transition::Resolved, second);
    AlertRecord { alert: fired.alert.clone(), rule: fired.rule.clone(), fingerprint: fired.fingerprint, ..ended }
}

/// Another label, and so another alert.
fn with_label(mut record: AlertRecord, name: &str, value: &str) -> AlertRecord {
    record.labels.insert(name.to_owned(), value.to_owned());
    record.alert = AlertId::derived(&[record.alert.as_str(), name, value]);
    record.fingerprint = Fingerprint::of_pairs([("id", record.alert.as_str())]);
    record
}

fn graph(edges: &[(&str, &str)]) -> TopologyView {
    let name = |text: &str| ComponentName::new(text).unwrap();
    let edges = edges.iter().map(|(from, to)| ((name(from), name(to)), Known { configured: true, ..Known::default() })).collect();
    let view = TopologyView::default();
    view.publish(Graph::new(BTreeMap::new(), edges, Arc::new(ComponentLabels::default())));
    view
}

fn pipeline(view: TopologyView) -> Pipeline {
    let mut pipeline = Pipeline::new(Rules { quiet_period: std::time::Duration::ZERO, ..rules() });
    pipeline.correlator = Some(Correlator::new(Config::default(), view));
    pipeline
}

/// The incidents that are not part of another.
fn incidents(pipeline: &Pipeline) -> Vec<&IncidentState> {
    pipeline.memory.board.incidents.values().filter(|state| state.incident.merged_into.is_none()).collect()
}

fn counts(pipeline: &Pipeline) -> Vec<u64> {
    let mut counts: Vec<u64> = incidents(pipeline).iter().map(|state| state.incident.alert_count).collect();
    counts.sort_unstable();
    counts
}

fn only(pipeline: &Pipeline) -> &IncidentState {
    let found = incidents(pipeline);
    assert_eq!(found.len(), 1, "{:?}", found.iter().map(|state| &state.incident.title).collect::<Vec<_>>());
    found[0]
}

#[test]
fn alerts_of_one_component_are_one_incident_while_they_come_within_the_window() {
    let mut pipeline = pipeline(TopologyView::default());
    pipeline.record(alert("cart", "errors", 0)).record(alert("cart", "latency", 300)).record(alert("web", "errors", 301));
    assert_eq!(counts(&pipeline), [1, 2]);
    pipeline.record(alert("cart", "memory", 800));
    assert_eq!(counts(&pipeline), [1, 3], "the newest alert counts, not the first");
    pipeline.record(alert("cart", "disk", 1401));
    assert_eq!(counts(&pipeline), [1, 1, 3], "beyond the window it stands by itself");
    pipeline.memory.check();
    let said: Vec<&str> = pipeline.decisions.iter().map(|decision| decision.text.as_str()).collect();
    assert!(said.contains(&"joins an open incident, since both are about cart"), "{said:#?}");
}

#[test]
fn an_incident_is_over_when_the_last_that_joined_is_and_takes_in_nothing_then() {
    let mut pipeline = pipeline(TopologyView::default());
    let (first, second) = (alert("cart", "errors", 0), alert("cart", "latency", 5));
    pipeline.record(first.clone()).record(second.clone()).record(over(&first, 10));
    assert_eq!(only(&pipeline).incident.status, IncidentStatus::Open);
    pipeline.record(over(&second, 20));
    assert_eq!(only(&pipeline).incident.status, IncidentStatus::Resolved);
    pipeline.record(alert("cart", "memory", 30));
    assert_eq!(counts(&pipeline), [1, 2]);
    pipeline.memory.check();
}

#[test]
fn what_shares_no_label_name_or_text_stays_apart_however_much_comes_at_once() {
    let mut pipeline = pipeline(TopologyView::default());
    for n in 0..60_i64 {
        let mut one = alert(&format!("thing{n}"), &format!("odd{n}"), 0);
        one.labels.clear();
        one.source = "everybody".to_owned();
        one.title = format!("problem number {n} somewhere");
        pipeline.record(one);
    }
    pipeline.tick(1);
    assert_eq!(counts(&pipeline).len(), 60);
}

#[test]
fn a_thousand_unrelated_alerts_of_five_hundred_services_are_five_hundred_incidents() {
    let mut pipeline = pipeline(TopologyView::default());
    let kinds = ["cpu", "disk", "latency", "errors", "memory", "queue", "restarts"];
    for n in 0..1000_usize {
        // names come from a small stock, as they do; every label but the service's says nothing
        pipeline.record(alert(&format!("svc-{}", n % 500), kinds[n % kinds.len()], 0));
    }
    pipeline.tick(1);
    assert_eq!(counts(&pipeline), vec![2; 500]);
}

/// 3,000 alerts of 200 components within a minute, with a tick for each second; `shape` says what they share.
fn storm(pipeline: &mut Pipeline, shape: impl Fn(AlertRecord) -> AlertRecord) {
    let mut seq = 0;
    for second in 0..60_i64 {
        let records = (second * 50..second * 50 + 50).map(|number| {
            let kind = ["slow", "errors", "timeouts", "restarts"][usize::try_from(number % 4).unwrap()];
            shape(alert(&format!("svc-{}", number % 200), &format!("{kind}-{}", number / 200), second))
        });
        let entries = records.map(|record| {
            seq += 1;
            AlertEntry::Record { seq, record: Arc::new(record) }
        });
        pipeline.take(entries.collect());
        pipeline.tick(second + 1);
    }
}

#[test]
fn a_storm_whose_alerts_speak_of_one_thing_is_one_incident() {
    let shapes: [fn(AlertRecord) -> AlertRecord; 4] = [
        |one| AlertRecord { title: format!("{}: cannot reach orders-db", one.title), ..one },
        |one| with_label(one, "upstream", "orders-db"),
        |one| with_label(one, "shard", "orders-db"),
        // one kind of trouble and nothing else
        |one| AlertRecord { rule: "UpstreamTimeout".to_owned(), ..one },
    ];
    for shape in shapes {
        let mut pipeline = pipeline(TopologyView::default());
        storm(&mut pipeline, shape);
        assert_eq!(only(&pipeline).incident.alert_count, 3000);
        pipeline.memory.check();
    }
}

#[test]
fn one_kind_of_trouble_in_a_few_dozen_places_is_no_storm() {
    let mut pipeline = pipeline(TopologyView::default());
    for n in 0..80 {
        pipeline.record(alert(&format!("svc-{n}"), "slow", 0));
    }
    pipeline.tick(1);
    assert_eq!(counts(&pipeline).len(), 80);
}

#[test]
fn the_title_of_a_storm_says_around_what_it_is() {
    let mut pipeline = pipeline(TopologyView::default());
    for n in 0..40 {
        pipeline.record(with_label(alert(&format!("svc-{n}"), "slow", 0), "shard", "orders-7"));
    }
    assert_eq!(counts(&pipeline).len(), 40, "until its second is over");
    pipeline.tick(1);
    let storm = &only(&pipeline);
    assert_eq!(storm.incident.title, "Alert storm around orders-7");
    assert!(storm.incident.description.starts_with("It began with: slow of svc-"), "{}", storm.incident.description);
    let told = &pipeline.memory.timeline[&storm.incident.id];
    assert!(told.iter().any(|line| line.kind == TimelineKind::Storm && line.text.starts_with("40 incidents that began within 60 s share")));
    // what shares it later joins at once, what does not stays apart
    pipeline.record(with_label(alert("late", "slow", 300), "shard", "orders-7")).record(alert("other", "cpu", 300));
    assert_eq!(counts(&pipeline), [1, 41]);
    pipeline.memory.check();
}

#[test]
fn with_the_graph_whoever_depends_on_what_fails_is_part_of_its_incident_in_whatever_order_they_come() {
    let edges = [("web", "cart"), ("cart", "db"), ("mail", "queue")];
    for order in [["web", "cart", "db"], ["db", "cart", "web"], ["cart", "db", "web"], ["web", "db", "cart"]] {
        let mut pipeline = pipeline(graph(&edges));
        for (second, service) in (0..).zip(order) {
            pipeline.record(alert(service, "errors", second));
        }
        pipeline.record(alert("mail", "errors", 9)).tick(10);
        assert_eq!(counts(&pipeline), [1, 3], "{order:?}");
        let big = incidents(&pipeline).into_iter().find(|state| state.incident.alert_count == 3).unwrap();
        assert_eq!(big.incident.title, "errors of db", "{order:?}: it is named after what the others depend on");
        pipeline.memory.check();
    }
}

#[test]
fn with_the_graph_a_storm_is_named_after_the_dependency_that_its_components_have_in_common() {
    let names: Vec<String> = (0..40).map(|n| format!("svc-{n}")).collect();
    let edges: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "orders-db")).collect();
    let mut pipeline = pipeline(graph(&edges));
    for (n, name) in names.iter().enumerate() {
        pipeline.record(alert(name, &format!("symptom{n}"), 0));
    }
    pipeline.tick(1);
    assert_eq!(only(&pipeline).incident.title, "Alert storm around orders-db");
}

#[test]
fn what_people_took_apart_and_what_something_approved_is_under_way_for_is_not_joined() {
    let mut pipeline = pipeline(TopologyView::default());
    pipeline.record(alert("cart", "errors", 0));
    let id = only(&pipeline).incident.id.clone();
    pipeline.memory.board.incidents.get_mut(&id).unwrap().pinned = true;
    pipeline.record(alert("cart", "latency", 1));
    assert_eq!(counts(&pipeline), [1, 1]);
    let mut pipeline = self::pipeline(TopologyView::default());
    pipeline.record(alert("cart", "errors", 0)).record(alert("db", "errors", 1));
    pipeline.memory.board.under_way = pipeline.memory.board.incidents.keys().cloned().collect();
    let both = with_label(alert("cart", "timeouts", 2), "upstream", "db");
    pipeline.record(both);
    assert_eq!(counts(&pipeline), [1, 2], "an alert that belongs to both does not end either");
    pipeline.memory.check();
}

#[test]
fn an_acknowledged_incident_takes_the_others_in() {
    let mut pipeline = pipeline(TopologyView::default());
    pipeline.record(alert("cart", "errors", 0)).record(alert("db", "errors", 1));
    let taken = pipeline.memory.board.incidents.values().find(|state| state.incident.source == "db").unwrap().incident.id.clone();
    let incident = &mut pipeline.memory.board.incidents.get_mut(&taken).unwrap().incident;
    (incident.status, incident.acknowledged_by) = (IncidentStatus::Acknowledged, Some("ada".to_owned()));
    pipeline.record(with_label(alert("cart", "timeouts", 2), "upstream", "db"));
    assert_eq!(only(&pipeline).incident.id, taken);
    assert_eq!(only(&pipeline).incident.status, IncidentStatus::Acknowledged);
}

#[test]
fn what_only_supports_others_joins_and_brings_nobody() {
    let mut pipeline = pipeline(TopologyView::default());
    let odd = |name, second| AlertRecord { supports: true, ..alert("cart", name, second) };
    pipeline.record(odd("unusual", 0));
    assert_eq!(counts(&pipeline), Vec::<u64>::new());
    pipeline.record(alert("cart", "errors", 1)).record(odd("odd", 2));
    assert_eq!(counts(&pipeline), [2]);
}

/// Who is together with whom.
fn partition(pipeline: &Pipeline) -> BTreeSet<BTreeSet<AlertId>> {
    let mut groups: BTreeMap<IncidentId, BTreeSet<AlertId>> = BTreeMap::new();
    for (claim, state) in &pipeline.memory.board.alerts {
        groups.entry(state.alert.incident_id.clone().unwrap()).or_default().insert(claim.clone());
    }
    groups.into_values().collect()
}

fn any_alert() -> impl Strategy<Value = AlertRecord> {
    (0..24_usize, 0..6_usize, 0..4_usize, 0..3_usize).prop_map(|(service, name, upstream, shard)| {
        let mut one = alert(&format!("svc-{service}"), &format!("kind{name}"), 0);
        if upstream > 1 {
            one = with_label(one, "upstream", &format!("svc-{}", service / 3));
        }
        if shard > 0 {
            one = with_label(one, "shard", &format!("shard-{shard}"));
        }
        one
    })
}

#[test]
fn a_storm_that_shows_only_as_it_goes_on_is_seen_when_it_does() {
    let mut pipeline = pipeline(TopologyView::default());
    for n in 0..40 {
        pipeline.record(alert(&format!("svc-{n}"), &format!("first{n}"), 0));
    }
    pipeline.tick(1);
    assert_eq!(counts(&pipeline).len(), 40);
    for n in 0..40 {
        pipeline.record(with_label(alert(&format!("svc-{n}"), &format!("second{n}"), 10), "shard", "orders-7"));
    }
    pipeline.tick(11);
    assert_eq!(only(&pipeline).incident.alert_count, 80);
    pipeline.memory.check();
}

fn at_second(mut one: AlertRecord, second: i64) -> AlertRecord {
    one.at = at(second);
    one.logged_at = at(second);
    one
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_order_within_a_second_and_the_cut_of_batches_change_nothing(
        seconds in proptest::collection::vec(proptest::collection::vec(any_alert(), 1..30), 1..5),
        swaps in proptest::collection::vec((0..30_usize, 0..30_usize), 0..60),
        cut in 1..17_usize,
    ) {
        let view = || graph(&[("svc-1", "svc-2"), ("svc-2", "svc-3"), ("svc-10", "svc-3"), ("svc-20", "svc-21")]);
        let (mut straight, mut shuffled) = (pipeline(view()), pipeline(view()));
        for one in [&mut straight, &mut shuffled] {
            let storm = Storm { incidents: 4, ..Storm::default() };
            one.correlator = Some(Correlator::new(Config { storm, ..Config::default() }, view()));
        }
        let mut seq = 0;
        for (second, records) in (0..).map(|n: i64| n * 7).zip(seconds) {
            let mut other = records.clone();
            for (a, b) in &swaps {
                let (a, b) = (a % other.len(), b % other.len());
                other.swap(a, b);
            }
            for one in records {
                straight.record(at_second(one, second));
            }
            let entries: Vec<AlertEntry> = other
                .into_iter()
                .map(|one| {
                    seq += 1;
                    AlertEntry::Record { seq, record: Arc::new(at_second(one, second)) }
                })
                .collect();
            for batch in entries.chunks(cut) {
                shuffled.take(batch.to_vec());
            }
            straight.tick(second + 1);
            shuffled.tick(second + 1);
        }
        straight.memory.check();
        shuffled.memory.check();
        prop_assert_eq!(partition(&straight), partition(&shuffled));
    }
}
