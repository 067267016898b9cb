//! Alerts that are held back, through all stages, on a board kept in memory.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    config::ModuleConfig as _,
    ids::SilenceId,
    incident::TimelineKind,
    signal::Severity,
    silence::Silence as Stored,
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{Decision, SilenceSet},
};
use proptest::prelude::*;
use serde_json::json;

use super::{Config, decide, judge::Rules};
use crate::{
    dedup, incident_store,
    stage::Item,
    testkit::{Memory, alert, at, record},
};

/// 2027-01-15T08:00:00Z is second 0 of the tests.
struct Pipeline {
    memory: Memory,
    rules: Rules,
    dedup: bool,
    decisions: Vec<Decision>,
    seq: u64,
}

fn config(body: serde_json::Value) -> Config {
    let config: Config = serde_json::from_value(body).unwrap();
    assert_eq!(config.validate(), []);
    config
}

fn silence(id: &str, matchers: &[&str], from: i64, to: i64) -> Stored {
    Stored {
        id: SilenceId::given(id),
        matchers: matchers.iter().map(|text| text.parse().unwrap()).collect(),
        starts_at: at(from),
        ends_at: at(to),
        updated_at: at(from),
        created_by: "ada".to_owned(),
        account: "ada".to_owned(),
        comment: "disk is replaced".to_owned(),
    }
}

impl Pipeline {
    fn new(body: serde_json::Value) -> Pipeline {
        Pipeline { memory: Memory::default(), rules: Rules::from(&config(body)), dedup: true, decisions: Vec::new(), seq: 0 }
    }

    fn silenced(silences: Vec<Stored>) -> Pipeline {
        let mut pipeline = Pipeline::new(json!({}));
        pipeline.set(silences);
        pipeline
    }

    fn set(&mut self, silences: Vec<Stored>) -> &mut Pipeline {
        self.memory.board.silences = Arc::new(SilenceSet { rev: self.memory.board.silences.rev + 1, silences });
        self
    }

    fn take(&mut self, entries: Vec<AlertEntry>) {
        let board = self.memory.board.clone();
        let mut items: Vec<Item> = entries.into_iter().map(Item::new).collect();
        if self.dedup {
            self.decisions.extend(dedup::decide::decide(Duration::from_secs(1800), &board, &mut items));
        }
        let sweep = decide::decide(&self.rules, &board, &mut items);
        let rules = incident_store::Rules { enabled: true, quiet_period: Duration::ZERO, evidence_limit: 200, timeline_limit: 1000 };
        let (effects, decisions) = incident_store::decide::decide(&rules, &board, &items);
        self.decisions.extend(decisions);
        self.memory.apply(effects);
        if let Some(sweep) = sweep {
            self.memory.board.sweep = sweep;
        }
    }

    fn record(&mut self, record: AlertRecord) -> &mut Pipeline {
        self.seq += 1;
        self.take(vec![AlertEntry::Record { seq: self.seq, record: Arc::new(record) }]);
        self
    }

    fn fires(&mut self, name: &str, second: i64) -> &mut Pipeline {
        self.record(record(name, Transition::Firing, second))
    }

    fn ends(&mut self, name: &str, second: i64) -> &mut Pipeline {
        self.record(record(name, Transition::Resolved, second))
    }

    fn tick(&mut self, second: i64) -> &mut Pipeline {
        self.seq += 1;
        self.take(vec![AlertEntry::Tick { seq: self.seq, at: at(second) }]);
        self
    }

    /// Ticks as the service would, until nothing is due by `second`.
    fn until(&mut self, second: i64) -> &mut Pipeline {
        while let Some(due) = self.due().filter(|due| *due <= at(second)) {
            self.tick((due.millis().max(at(0).millis()) - at(0).millis()) / 1000);
        }
        self
    }

    fn due(&self) -> Option<Timestamp> {
        self.rules.due(&self.memory.board.silences, &self.memory.board.sweep)
    }

    fn by(&self, name: &str) -> Option<&str> {
        self.memory.board.alerts[&alert(name)].alert.suppressed_by.as_deref()
    }

    fn incidents(&self) -> usize {
        self.memory.board.incidents.len()
    }

    fn last(&self) -> (&str, &str) {
        let last = self.decisions.last().unwrap();
        (last.outcome, &last.text)
    }
}

#[test]
fn a_silence_keeps_an_alert_from_people_until_it_ends() {
    let mut pipeline = Pipeline::silenced(vec![silence("sil_1", &["alertname=disk"], 0, 100)]);
    pipeline.until(0).fires("disk", 10).fires("cpu", 11);
    assert_eq!((pipeline.by("disk"), pipeline.by("cpu")), (Some("silence:sil_1"), None));
    assert_eq!(pipeline.incidents(), 1, "the other one is told of");
    let held = pipeline.decisions.iter().find(|decision| decision.outcome == "held back").unwrap();
    assert_eq!(held.text, "no incident is opened: silenced by ada until 2027-01-15T08:01:40.000Z: disk is replaced");
    assert_eq!(held.inputs["found_on"]["silence"], "sil_1");
    pipeline.record(record("disk", Transition::Repeat, 50)).until(99);
    assert_eq!((pipeline.incidents(), pipeline.due()), (1, Some(at(100))));
    pipeline.until(100);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (None, 2));
    assert_eq!(
        pipeline.last(),
        (
            "opened",
            "nothing holds the alert back any more (silence:sil_1 is over), so it counts as if it began now: \
             opens an incident: none with this fingerprint is open or was resolved recently enough"
        )
    );
    let told = pipeline.memory.board.alerts[&alert("disk")].alert.incident_id.clone().unwrap();
    let incident = &pipeline.memory.board.incidents[&told].incident;
    assert_eq!((incident.opened_at, incident.occurrences, incident.evidence_count), (at(100), 2, 1));
    let evidence = serde_json::to_value(&pipeline.memory.evidence[&told][0].1).unwrap();
    assert_eq!(evidence["text"], "disk at 50", "with what was seen last");
    pipeline.memory.check();
    assert_eq!(pipeline.due(), None);
}

#[test]
fn what_is_over_before_its_silence_is_never_told() {
    let mut pipeline = Pipeline::silenced(vec![silence("sil_1", &["alertname=disk"], 0, 100)]);
    pipeline.until(0).fires("disk", 10).ends("disk", 20);
    assert_eq!(pipeline.last(), ("none", "no incident is touched: the alert was held back until its end"));
    pipeline.until(200);
    assert_eq!((pipeline.incidents(), pipeline.by("disk")), (0, Some("silence:sil_1")));
    pipeline.fires("disk", 300);
    assert_eq!((pipeline.incidents(), pipeline.by("disk")), (1, None), "and is told when it fires again");
    pipeline.memory.check();
}

#[test]
fn a_record_that_comes_before_the_tick_lets_an_alert_go() {
    let mut pipeline = Pipeline::silenced(vec![silence("sil_1", &["alertname=disk"], 0, 100)]);
    pipeline.until(0).fires("disk", 10).record(record("disk", Transition::Repeat, 101));
    assert_eq!((pipeline.incidents(), pipeline.by("disk")), (1, None));
    pipeline.until(200).record(record("disk", Transition::Repeat, 60));
    assert_eq!((pipeline.incidents(), pipeline.by("disk")), (1, None), "what was read late does not bring the silence back");
}

#[test]
fn an_alert_that_fires_when_its_silence_begins_is_marked_and_its_incident_stays_open() {
    let mut pipeline = Pipeline::new(json!({}));
    pipeline.fires("disk", 10).set(vec![silence("sil_1", &["source=shop"], 50, 100)]).until(50);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (Some("silence:sil_1"), 1));
    let incident = pipeline.memory.board.incidents.keys().next().unwrap().clone();
    let notes = |pipeline: &Pipeline| {
        let timeline = pipeline.memory.timeline[&incident].iter();
        timeline.filter(|entry| entry.kind == TimelineKind::Note).map(|entry| entry.text.clone()).collect::<Vec<_>>()
    };
    let once =
        ["disk is held back from now on, and the incident stays open: silenced by ada until 2027-01-15T08:01:40.000Z: disk is replaced"];
    assert_eq!(notes(&pipeline), once);
    pipeline.record(AlertRecord { severity: Severity::Critical, ..record("disk", Transition::Repeat, 60) });
    assert_eq!(notes(&pipeline), once, "once");
    assert_eq!(pipeline.memory.board.incidents[&incident].incident.severity, Severity::Warning, "nobody is told that it got worse");
    pipeline.until(100);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (None, 1));
    assert_eq!(pipeline.memory.board.incidents[&incident].incident.severity, Severity::Critical, "until the silence is over");
    pipeline.memory.check();
}

#[test]
fn of_several_silences_the_last_one_lets_go() {
    let silences = vec![silence("sil_1", &["alertname=disk"], 0, 100), silence("sil_2", &["alertname=~\"d.*\""], 50, 200)];
    let mut pipeline = Pipeline::silenced(silences);
    pipeline.until(0).fires("disk", 10);
    assert_eq!(pipeline.by("disk"), Some("silence:sil_1"));
    pipeline.until(199);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (Some("silence:sil_2"), 0));
    pipeline.until(200);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (None, 1));
}

#[test]
fn a_silence_that_is_ended_early_lets_go_at_once() {
    let mut pipeline = Pipeline::silenced(vec![silence("sil_1", &["alertname=disk"], 0, 10_000)]);
    pipeline.until(0).fires("disk", 10).set(vec![silence("sil_1", &["alertname=disk"], 0, 60)]).until(60);
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (None, 1));
}

#[test]
fn an_episode_that_goes_on_while_it_is_silenced_opens_its_incident_again_only_afterwards() {
    let mut pipeline = Pipeline::new(json!({}));
    pipeline.fires("disk", 10).ends("disk", 20).set(vec![silence("sil_1", &["alertname=disk"], 30, 100)]).fires("disk", 40);
    assert_eq!(pipeline.incidents(), 1);
    assert!(pipeline.memory.board.incidents.values().all(|state| state.incident.resolved_at.is_some()), "it stays resolved");
    pipeline.memory.check();
    pipeline.until(100);
    assert_eq!(pipeline.memory.board.incidents.values().filter(|state| state.incident.resolved_at.is_none()).count(), 1);
    pipeline.memory.check();
}

fn window(mode: &str) -> serde_json::Value {
    // 2027-01-15T08:00Z is 09:00 in Berlin
    json!({ "windows": [{ "id": "morning", "matchers": ["alertname=disk"], "times": [{ "from": "09:01", "to": "09:02" }],
        "timezone": "Europe/Berlin", "mode": mode, "comment": "backup" }] })
}

#[test]
fn a_window_tells_at_its_end_or_never_as_it_is_configured() {
    let mut recover = Pipeline::new(window("recover"));
    recover.until(0).until(60).fires("disk", 70);
    assert_eq!((recover.by("disk"), recover.incidents(), recover.due()), (Some("maintenance:morning"), 0, Some(at(120))));
    assert_eq!(recover.last(), ("held back", "no incident is opened: in the maintenance window morning: backup"));
    recover.until(120);
    assert_eq!((recover.by("disk"), recover.incidents()), (None, 1));

    let mut suppress = Pipeline::new(window("suppress"));
    suppress.until(0).until(60).fires("disk", 70).until(120).record(record("disk", Transition::Repeat, 130));
    assert_eq!((suppress.by("disk"), suppress.incidents()), (Some("maintenance:morning"), 0));
    assert!(suppress.last().1.ends_with("it began to fire inside the window, which is over, and is told of only if it fires again"));
    suppress.fires("disk", 140);
    assert_eq!((suppress.by("disk"), suppress.incidents()), (None, 1));
    suppress.memory.check();

    let mut before = Pipeline::new(window("suppress"));
    before.set(vec![silence("sil_1", &["alertname=disk"], 0, 90)]).until(0).fires("disk", 30).until(90);
    assert_eq!(before.by("disk"), Some("maintenance:morning"));
    before.until(120);
    assert_eq!((before.by("disk"), before.incidents()), (None, 1), "it began before the window, so it is told of");
}

#[test]
fn a_window_keeps_to_the_clocks_when_they_change() {
    // 2027-03-28 01:00Z: 02:00 becomes 03:00 in Berlin; the window goes from 01:30 to 03:30, which is an hour
    let mut pipeline = Pipeline::new(json!({ "windows": [{ "id": "w", "matchers": ["alertname=disk"],
        "times": [{ "from": "01:30", "to": "03:30" }], "timezone": "Europe/Berlin" }] }));
    let second = |text: &str| (text.parse::<Timestamp>().unwrap().millis() - at(0).millis()) / 1000;
    pipeline.tick(second("2027-03-28T00:00:00Z")).fires("disk", second("2027-03-28T00:29:59Z"));
    assert_eq!((pipeline.by("disk"), pipeline.incidents()), (None, 1));
    pipeline.ends("disk", second("2027-03-28T00:29:59Z"));
    pipeline.until(second("2027-03-28T00:30:00Z")).fires("disk.2", second("2027-03-28T01:29:59Z"));
    assert_eq!(
        (pipeline.by("disk.2"), pipeline.due().map(|due| due.to_string())),
        (Some("maintenance:w"), Some("2027-03-28T01:30:00.000Z".to_owned()))
    );
    pipeline.until(second("2027-03-28T01:30:00Z"));
    assert_eq!(pipeline.by("disk.2"), None);
}

fn labelled(name: &str, labels: &[(&str, &str)], transition: Transition, second: i64) -> AlertRecord {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    AlertRecord { labels, ..record(name, transition, second) }
}

/// The documented behaviour of Alertmanager, case by case.
#[test]
fn inhibition_does_as_alertmanager_documents() {
    use Transition::Firing;
    let rule = |equal: &[&str]| json!({ "inhibit": [{ "id": "worse", "source": ["level=critical"], "target": ["level=~\"warning|critical-too|both\""], "equal": equal }] });
    let both = json!({ "inhibit": [{ "id": "worse", "source": ["level=~\"critical|both\""], "target": ["level=~\"warning|both\""], "equal": ["cluster"] }] });
    type Labels<'a> = &'a [(&'a str, &'a str)];
    let table: [(&str, serde_json::Value, Labels<'_>, Labels<'_>, bool); 8] = [
        (
            "the same in what must be equal",
            rule(&["cluster"]),
            &[("level", "critical"), ("cluster", "a")],
            &[("level", "warning"), ("cluster", "a")],
            true,
        ),
        (
            "another cluster",
            rule(&["cluster"]),
            &[("level", "critical"), ("cluster", "a")],
            &[("level", "warning"), ("cluster", "b")],
            false,
        ),
        ("missing on one side", rule(&["cluster"]), &[("level", "critical"), ("cluster", "a")], &[("level", "warning")], false),
        ("missing on both sides", rule(&["cluster"]), &[("level", "critical")], &[("level", "warning")], true),
        ("missing equals empty", rule(&["cluster"]), &[("level", "critical"), ("cluster", "")], &[("level", "warning")], true),
        ("nothing need be equal", rule(&[]), &[("level", "critical"), ("cluster", "a")], &[("level", "warning"), ("cluster", "b")], true),
        ("no target", rule(&[]), &[("level", "critical")], &[("level", "info")], false),
        ("both are on both sides", both.clone(), &[("level", "both")], &[("level", "both"), ("host", "2")], false),
    ];
    for (what, config, source, target, held) in table {
        let mut pipeline = Pipeline::new(config);
        pipeline.record(labelled("source", source, Firing, 1)).record(labelled("target", target, Firing, 2));
        let expected = held.then(|| format!("inhibition:worse:{}", alert("source")));
        assert_eq!(pipeline.by("target"), expected.as_deref(), "{what}");
        assert_eq!(pipeline.by("source"), None, "{what}: not by itself");
    }
    let mut pipeline = Pipeline::new(both);
    pipeline.record(labelled("source", &[("level", "critical")], Firing, 1)).record(labelled("target", &[("level", "both")], Firing, 2));
    assert!(pipeline.by("target").is_some(), "what is on both sides is held back by what is on one");
    pipeline.record(labelled("other", &[("level", "warning")], Firing, 3));
    assert_eq!(pipeline.by("other"), Some(&*format!("inhibition:worse:{}", alert("source"))));
}

#[test]
fn an_alert_is_let_go_when_what_inhibits_it_is_over_and_marked_when_it_begins() {
    let mut pipeline = Pipeline::new(
        json!({ "inhibit": [{ "id": "node", "source": ["alertname=node-down"], "target": ["alertname!=node-down"], "equal": ["host"] }] }),
    );
    pipeline.until(0).fires("disk", 1);
    assert_eq!(pipeline.incidents(), 1);
    pipeline.fires("node-down", 2);
    assert_eq!(pipeline.by("disk"), None, "until a tick");
    pipeline.until(3).fires("cpu", 4);
    let by = format!("inhibition:node:{}", alert("node-down"));
    assert_eq!((pipeline.by("disk"), pipeline.by("cpu")), (Some(&*by), Some(&*by)));
    assert_eq!(pipeline.incidents(), 2, "of the disk and of the node");
    let said = "no incident is opened: held back by the rule node while another alert fires: node-down is wrong";
    assert_eq!(pipeline.last(), ("held back", said));
    pipeline.ends("node-down", 5).until(6);
    assert_eq!((pipeline.by("disk"), pipeline.by("cpu"), pipeline.incidents()), (None, None, 3));
    pipeline.memory.check();
    pipeline.fires("node-down", 7).until(8).fires("mem", 9).memory.person_resolves(at(10));
    pipeline.until(11);
    assert_eq!((pipeline.by("mem"), pipeline.incidents()), (None, 4), "a person resolved what inhibited it");
}

#[test]
fn another_configuration_lets_go_what_nothing_holds_back_any_more() {
    let mut pipeline = Pipeline::new(window("suppress"));
    pipeline.until(60).fires("disk", 70);
    assert!(pipeline.by("disk").is_some());
    pipeline.rules = Rules::none();
    pipeline.until(71);
    assert_eq!((pipeline.by("disk"), pipeline.incidents(), pipeline.due()), (None, 1, None));
}

#[test]
fn more_than_a_tick_takes_is_gone_through_in_parts() {
    let mut pipeline = Pipeline::silenced(vec![silence("sil_1", &["source=shop"], 0, 100)]);
    pipeline.until(0);
    let many = 2 * i64::from(decide::SWEPT_PER_TICK) + 5;
    let entries =
        (1..).zip(0..many).map(|(seq, n)| AlertEntry::Record { seq, record: Arc::new(record(&format!("a{n}"), Transition::Firing, 1)) });
    pipeline.take(entries.collect());
    pipeline.tick(100);
    assert_eq!(pipeline.incidents(), 1000);
    pipeline.tick(100).tick(100);
    assert_eq!((pipeline.incidents(), pipeline.due()), (2005, None));
}

fn any_entry() -> impl Strategy<Value = (usize, u8, i64)> {
    (0..6_usize, 0..9_u8, prop_oneof![Just(0_i64), 0..40_i64, 1000..2500_i64])
}

fn entries(script: &[(usize, u8, i64)]) -> Vec<AlertEntry> {
    const NAMES: [&str; 6] = ["disk.1", "disk.2", "cpu.1", "cpu.2", "node.1", "net.1"];
    let mut second = 0;
    (1..)
        .zip(script)
        .map(|(seq, (name, what, pause))| {
            second += pause;
            let transition = match what {
                0..=2 => Transition::Firing,
                3 | 4 => Transition::Repeat,
                5 | 6 => Transition::Resolved,
                _ => return AlertEntry::Tick { seq, at: at(second) },
            };
            let mut record = record(NAMES[*name], transition, second);
            record.signal_seq = seq;
            if second % 7 == 0 {
                record.severity = Severity::Critical;
            }
            AlertEntry::Record { seq, record: Arc::new(record) }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn however_the_log_is_cut_the_same_alerts_are_held_back(
        script in proptest::collection::vec(any_entry(), 1..60),
        cuts in proptest::collection::vec(1..9_usize, 1..30),
        spans in proptest::collection::vec((0..3000_i64, 1..2000_i64, 0..3_usize), 0..4),
        mode in prop_oneof![Just("suppress"), Just("recover")],
        dedup in any::<bool>(),
    ) {
        const MATCHERS: [&str; 3] = ["alertname=disk", "severity=critical", "alertname=~\"c.*\""];
        let body = json!({
            "windows": [{ "id": "w", "matchers": ["alertname=net"], "times": [{ "from": "08:05", "to": "08:20" }], "mode": mode }],
            "inhibit": [{ "id": "n", "source": ["alertname=node"], "target": ["alertname=~\"cpu|net\""], "equal": ["host"] }],
        });
        let mut silences: Vec<Stored> = spans.iter().enumerate().map(|(n, (from, long, which))| silence(&format!("sil_{n}"), &[MATCHERS[*which]], *from, from + long)).collect();
        silences.sort_by_key(|silence| silence.ends_at);
        let start = || {
            let mut pipeline = Pipeline::new(body.clone());
            pipeline.dedup = dedup;
            pipeline.set(silences.clone());
            pipeline
        };
        let log = entries(&script);
        let mut one_by_one = start();
        for entry in &log {
            one_by_one.take(vec![entry.clone()]);
            one_by_one.memory.check();
        }
        let mut cut = start();
        let mut rest = &log[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, behind) = rest.split_at((*size).min(rest.len()));
            cut.take(batch.to_vec());
            rest = behind;
        }
        prop_assert_eq!(&one_by_one.memory, &cut.memory);
        let text = |pipeline: &Pipeline| {
            let mut all: Vec<_> = pipeline.decisions.iter().map(|d| (d.seq, d.stage, d.outcome, d.text.clone())).collect();
            all.sort();
            all
        };
        prop_assert_eq!(text(&one_by_one), text(&cut));
        // whatever happened: when everything that holds alerts back is over, nothing that fires is hidden
        one_by_one.rules = Rules::none();
        one_by_one.until(1_000_000);
        for state in one_by_one.memory.board.alerts.values().filter(|state| state.alert.status == AlertStatus::Firing) {
            prop_assert_eq!(&state.alert.suppressed_by, &None);
            prop_assert!(state.alert.incident_id.is_some());
        }
        one_by_one.memory.check();
    }
}
