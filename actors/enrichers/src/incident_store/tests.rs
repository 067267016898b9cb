//! The store's decisions, on a board kept in memory.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, ResolvedBy, Transition},
    ids::IncidentId,
    incident::{IncidentStatus, TimelineKind},
    signal::Severity,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{Board, Decision, IncidentState, Lifecycle},
};
use proptest::prelude::*;

use super::{Rules, decide::decide};
use crate::{
    correlator::Correlator,
    dedup,
    stage::Item,
    stage_actor::Decider,
    testkit::{Memory, alert, at, record},
};

const WINDOW: Duration = Duration::from_secs(1800);

pub(crate) fn rules() -> Rules {
    Rules { enabled: true, quiet_period: Duration::ZERO, evidence_limit: 200, timeline_limit: 1000 }
}

/// A memory that goes through both stages.
pub(crate) struct Pipeline {
    pub(crate) memory: Memory,
    pub(crate) correlator: Option<Correlator>,
    rules: Rules,
    window: Option<Duration>,
    pub(crate) decisions: Vec<Decision>,
    seq: u64,
}

impl Pipeline {
    pub(crate) fn new(rules: Rules) -> Pipeline {
        Pipeline { memory: Memory::default(), correlator: None, rules, window: Some(WINDOW), decisions: Vec::new(), seq: 0 }
    }

    pub(crate) fn take(&mut self, entries: Vec<AlertEntry>) {
        let board = self.correlator.as_ref().map_or_else(|| self.memory.board.clone(), |stage| self.memory.board_for(stage, &entries));
        let mut items: Vec<Item> = entries.into_iter().map(Item::new).collect();
        if let Some(window) = self.window {
            self.decisions.extend(dedup::decide::decide(window, &board, &mut items));
        }
        if let Some(correlator) = &self.correlator {
            let answer = correlator.decide(&board, items);
            self.decisions.extend(answer.decisions);
            items = answer.items;
        }
        let (effects, decisions) = decide(&self.rules, &board, &items);
        self.decisions.extend(decisions);
        self.memory.apply(effects);
    }

    pub(crate) fn record(&mut self, record: AlertRecord) -> &mut Pipeline {
        self.seq += 1;
        let entry = AlertEntry::Record { seq: self.seq, record: Arc::new(record) };
        self.take(vec![entry]);
        self
    }

    fn fires(&mut self, name: &str, second: i64) -> &mut Pipeline {
        self.record(record(name, Transition::Firing, second))
    }

    fn ends(&mut self, name: &str, second: i64) -> &mut Pipeline {
        self.record(record(name, Transition::Resolved, second))
    }

    pub(crate) fn tick(&mut self, second: i64) -> &mut Pipeline {
        self.seq += 1;
        let entry = AlertEntry::Tick { seq: self.seq, at: at(second) };
        self.take(vec![entry]);
        self
    }

    fn only(&self) -> &IncidentState {
        let incidents = &self.memory.board.incidents;
        assert_eq!(incidents.len(), 1, "{:?}", incidents.keys());
        incidents.values().next().unwrap()
    }

    fn kinds(&self, id: &IncidentId) -> Vec<TimelineKind> {
        self.memory.timeline[id].iter().map(|entry| entry.kind).collect()
    }

    fn person(&mut self, change: impl FnOnce(&mut IncidentState)) {
        let state = self.memory.board.incidents.values_mut().next().unwrap();
        change(state);
    }

    fn person_resolves(&mut self, second: i64) {
        self.memory.person_resolves(at(second));
    }
}

#[test]
fn a_firing_alert_opens_an_incident_that_looks_like_it() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    let state = pipeline.only();
    assert_eq!(state.incident.title, "disk is wrong");
    assert_eq!(state.incident.detected_by, "detector.test");
    assert_eq!((state.incident.occurrences, state.incident.alert_count, state.firing), (1, 1, 1));
    assert_eq!(state.incident.evidence_count, 1);
    assert_eq!(pipeline.kinds(&state.incident.id), [TimelineKind::Opened]);
    let episode = &pipeline.memory.board.alerts[&alert("disk")];
    assert_eq!(episode.alert.incident_id.as_ref(), Some(&state.incident.id));
}

#[test]
fn what_only_supports_is_listed_with_the_reason_and_opens_nothing() {
    let mut pipeline = Pipeline::new(rules());
    let of = |name, transition, second, supports| AlertRecord { supports, ..record(name, transition, second) };
    pipeline.record(of("odd", Transition::Firing, 0, true)).record(of("odd", Transition::Repeat, 1, true));
    pipeline.record(of("odd", Transition::Firing, 60, true)).record(of("odd", Transition::Resolved, 70, true));
    assert!(pipeline.memory.board.incidents.is_empty());
    let episode = &pipeline.memory.board.alerts[&alert("odd")].alert;
    assert_eq!((episode.status, episode.incident_id.as_ref()), (AlertStatus::Resolved, None));
    assert!(pipeline.decisions.iter().any(|decision| decision.text.ends_with("it supports what others say, and opens none alone")));
    // with another word from its rule it does
    pipeline.record(of("odd.2", Transition::Firing, 80, false));
    assert_eq!(pipeline.only().incident.title, "odd is wrong");
}

#[test]
fn an_old_stamp_makes_no_old_incident() {
    let mut pipeline = Pipeline::new(rules());
    let stamped = |transition, event: i64, second| AlertRecord { at: at(event), ..record("disk", transition, second) };
    pipeline.record(stamped(Transition::Firing, -86_400, 5)).record(stamped(Transition::Repeat, -80_000, 9));
    let incident = &pipeline.only().incident;
    assert_eq!((incident.opened_at, incident.last_seen_at), (at(5), at(9)));
    let alert = &pipeline.memory.board.alerts[&alert("disk")].alert;
    assert_eq!((alert.first_seen_at, alert.last_seen_at), (at(-86_400), at(-80_000)));
}

#[test]
fn repeats_count_and_open_nothing() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.record(record("disk", Transition::Repeat, 0));
    assert!(pipeline.memory.board.incidents.is_empty());
    pipeline.fires("disk", 1).record(record("disk", Transition::Repeat, 2)).fires("disk", 3);
    assert_eq!(pipeline.only().incident.occurrences, 3);
    assert_eq!(pipeline.only().incident.last_seen_at, at(3));
    pipeline.ends("disk", 4).record(record("disk", Transition::Repeat, 5));
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Resolved, "a repeat does not reopen");
    assert_eq!(pipeline.only().incident.occurrences, 4, "but it counts");
}

#[test]
fn it_resolves_when_the_last_of_its_alerts_does() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk.1", 0).fires("disk.2", 1).ends("disk.1", 2);
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Open);
    pipeline.ends("disk.2", 3);
    let state = pipeline.only();
    assert_eq!(state.incident.status, IncidentStatus::Resolved);
    assert_eq!(state.incident.resolved_at, Some(at(3)));
    assert!(state.incident.resolution.as_ref().unwrap().contains("its clear condition held"));
    let kinds = pipeline.kinds(&state.incident.id);
    use TimelineKind::{AlertFiring, AlertResolved, Opened, Resolved};
    assert_eq!(kinds, [Opened, AlertFiring, AlertResolved, AlertResolved, Resolved]);
}

#[test]
fn within_the_window_it_is_reopened_and_after_it_a_new_one_is_opened() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk.1", 0).ends("disk.1", 10).fires("disk.2", 10 + 1800);
    let state = pipeline.only();
    assert_eq!(state.incident.status, IncidentStatus::Open);
    assert_eq!((state.incident.resolved_at, state.incident.resolution.clone()), (None, None));
    assert_eq!((state.incident.alert_count, state.firing), (2, 1));
    let first = state.incident.id.clone();
    assert!(pipeline.memory.came_back.is_empty());
    pipeline.ends("disk.2", 2000).fires("disk.3", 2000 + 1801);
    assert_eq!(pipeline.memory.board.incidents.len(), 2);
    let before: Vec<_> = pipeline.memory.came_back.values().collect();
    assert_eq!(before, [&first], "it names the one before it");
}

#[test]
fn after_a_person_resolved_it_the_same_alert_fires_it_open_again() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    pipeline.person_resolves(60);
    pipeline.record(record("disk", Transition::Repeat, 60));
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Resolved, "what the person saw is counted, no more");
    pipeline.fires("disk", 90);
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Open);
    assert_eq!((pipeline.only().incident.alert_count, pipeline.only().firing), (1, 1));
    assert_eq!(pipeline.memory.board.alerts[&alert("disk")].alert.status, AlertStatus::Firing);
}

#[test]
fn after_a_person_resolved_it_what_its_detector_takes_for_a_repeat_opens_it_again() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    pipeline.person_resolves(5);
    pipeline.record(record("disk", Transition::Repeat, 6));
    assert_eq!((pipeline.only().incident.status, pipeline.only().firing), (IncidentStatus::Open, 1));
    assert_eq!(pipeline.memory.board.alerts[&alert("disk")].alert.status, AlertStatus::Firing);
    pipeline.person_resolves(7);
    pipeline.record(record("disk", Transition::Repeat, 7 + 1801));
    assert_eq!(pipeline.memory.board.incidents.len(), 2, "beyond the window it founds a new one");
    pipeline.memory.check();
}

#[test]
fn long_after_a_person_resolved_it_the_same_alert_founds_a_new_one() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    let first = pipeline.only().incident.id.clone();
    pipeline.person_resolves(60);
    pipeline.fires("disk", 60 + 1801).record(record("disk", Transition::Repeat, 2000));
    assert_eq!(pipeline.memory.board.incidents.len(), 2);
    assert_eq!(pipeline.memory.board.incidents[&first].incident.status, IncidentStatus::Resolved);
    let second = &pipeline.memory.board.alerts[&alert("disk")];
    assert_ne!(second.alert.id, alert("disk"), "the alert of the first incident stays with it");
    assert_eq!(second.alert.occurrences, 2);
    pipeline.ends("disk", 2100);
    let open = pipeline.memory.board.incidents.values().filter(|state| state.incident.status != IncidentStatus::Resolved);
    assert_eq!(open.count(), 0);
}

#[test]
fn an_acknowledged_incident_stays_so_unless_it_gets_worse() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    pipeline.person(|state| {
        state.incident.status = IncidentStatus::Acknowledged;
        state.incident.acknowledged_at = Some(at(1));
        state.incident.acknowledged_by = Some("ada".to_owned());
        state.incident.snoozed_until = Some(at(1000));
    });
    pipeline.fires("disk", 2);
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Acknowledged);
    pipeline.record(AlertRecord { severity: Severity::Critical, ..record("disk", Transition::Repeat, 3) });
    let state = pipeline.only();
    assert_eq!((state.incident.status, state.incident.severity), (IncidentStatus::Open, Severity::Critical));
    assert_eq!((&state.incident.acknowledged_by, state.incident.snoozed_until), (&None, None));
    use TimelineKind::{Opened, SeverityRaised, SnoozeEnded};
    assert_eq!(pipeline.kinds(&state.incident.id), [Opened, SeverityRaised, SnoozeEnded]);
    pipeline.record(AlertRecord { severity: Severity::Info, ..record("disk", Transition::Repeat, 4) });
    assert_eq!(pipeline.only().incident.severity, Severity::Critical, "the worst severity stays");
}

#[test]
fn timers_go_off_on_ticks_and_only_there() {
    let mut pipeline = Pipeline::new(Rules { quiet_period: Duration::from_secs(60), ..rules() });
    pipeline.fires("disk.1", 0).ends("disk.1", 10);
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Open);
    assert_eq!(pipeline.only().due_at(), Some(at(70)));
    pipeline.fires("cpu.1", 500).ends("cpu.1", 501);
    let open = |pipeline: &Pipeline| {
        pipeline.memory.board.incidents.values().filter(|state| state.incident.status == IncidentStatus::Open).count()
    };
    assert_eq!(open(&pipeline), 2, "a record, however late, lets no timer go off");
    pipeline.tick(69);
    assert_eq!(open(&pipeline), 2);
    pipeline.tick(70);
    assert_eq!(open(&pipeline), 1);
    pipeline.fires("cpu.2", 520).tick(600);
    assert_eq!(open(&pipeline), 1, "firing again within the quiet period keeps it open");
}

#[test]
fn a_snooze_ends_on_a_tick() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0);
    pipeline.person(|state| state.incident.snoozed_until = Some(at(100)));
    pipeline.fires("disk", 200);
    assert_eq!(pipeline.only().incident.snoozed_until, Some(at(100)));
    pipeline.tick(200);
    assert_eq!(pipeline.only().incident.snoozed_until, None);
    assert_eq!(pipeline.decisions.last().unwrap().outcome, "woken");
}

#[test]
fn evidence_and_timeline_are_bounded_and_count_what_is_beyond() {
    let mut pipeline = Pipeline::new(Rules { evidence_limit: 2, timeline_limit: 3, ..rules() });
    for second in 0..10 {
        pipeline.fires(&format!("disk.{second}"), second).ends(&format!("disk.{second}"), second);
    }
    let state = pipeline.only();
    assert_eq!((state.incident.evidence_count, state.evidence_beyond), (2, 8));
    assert_eq!((state.timeline_count, state.timeline_beyond), (3, 27));
    assert_eq!(pipeline.memory.timeline[&state.incident.id].len(), 3);
}

#[test]
fn what_a_record_counts_beyond_its_sample_is_counted_as_not_kept() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk", 0).record(AlertRecord { count: 59, ..record("disk", Transition::Repeat, 1) });
    pipeline.ends("disk", 2);
    let state = pipeline.only();
    assert_eq!((state.incident.occurrences, state.incident.evidence_count, state.evidence_beyond), (60, 2, 58));
}

#[test]
fn without_dedup_every_episode_founds_its_own_unless_one_is_open() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.window = None;
    pipeline.fires("disk.1", 0).fires("disk.2", 1).ends("disk.1", 2).ends("disk.2", 3).fires("disk.3", 4);
    assert_eq!(pipeline.memory.board.incidents.len(), 2, "nothing is reopened");
    pipeline.person_resolves(5);
    pipeline.fires("disk.3", 6);
    assert_eq!(pipeline.memory.board.incidents.len(), 3, "not even by the same alert");
}

#[test]
fn without_the_store_alerts_are_kept_and_found_incidents_when_it_is_back() {
    let mut pipeline = Pipeline::new(Rules { enabled: false, ..rules() });
    pipeline.fires("disk", 0).record(record("disk", Transition::Repeat, 1));
    assert!(pipeline.memory.board.incidents.is_empty());
    assert_eq!(pipeline.memory.board.alerts[&alert("disk")].alert.occurrences, 2);
    pipeline.rules.enabled = true;
    pipeline.record(record("disk", Transition::Repeat, 2));
    assert!(pipeline.memory.board.incidents.is_empty());
    pipeline.fires("disk", 3);
    assert_eq!(pipeline.only().firing, 1);
}

#[test]
fn an_incident_that_lived_through_a_pause_of_the_store_still_counts_its_alerts() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk.1", 0).fires("disk.2", 1);
    pipeline.rules.enabled = false;
    pipeline.ends("disk.1", 2);
    pipeline.rules.enabled = true;
    assert_eq!(pipeline.only().firing, 1);
    pipeline.ends("disk.2", 3);
    assert_eq!(pipeline.only().incident.status, IncidentStatus::Resolved);
}

#[test]
fn the_same_condition_claimed_by_two_detectors_is_one_incident() {
    let mut pipeline = Pipeline::new(rules());
    pipeline.fires("disk.a", 0).fires("disk.b", 0).ends("disk.a", 1);
    assert_eq!((pipeline.only().firing, pipeline.only().incident.alert_count), (1, 2));
    pipeline.person_resolves(2);
    // one goes on here, the other elsewhere: neither may be lost, and there is one open incident at most
    pipeline.record(AlertRecord { resolved_by: Some(ResolvedBy::Source), ..record("disk.a", Transition::Resolved, 3) });
    pipeline.fires("disk.c", 3 + 1800 + 60).fires("disk.b", 3 + 1800 + 61);
    let open: Vec<_> = pipeline.memory.board.incidents.values().filter(|state| state.incident.status != IncidentStatus::Resolved).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].firing, 2);
}

#[test]
fn what_changed_is_told_once_and_what_matters_is_audited() {
    let board = Board::default();
    let rules = rules();
    let mut items: Vec<Item> = (1..)
        .zip([record("disk", Transition::Firing, 0), record("disk", Transition::Repeat, 1), record("disk", Transition::Resolved, 2)])
        .map(|(seq, record)| Item::new(AlertEntry::Record { seq, record: Arc::new(record) }))
        .collect();
    dedup::decide::decide(WINDOW, &board, &mut items);
    let (effects, decisions) = decide(&rules, &board, &items);
    let change = &effects.incidents[0];
    assert_eq!(change.changes, [TimelineKind::AlertResolved, TimelineKind::Resolved]);
    assert_eq!(change.founded.as_ref().unwrap().status, IncidentStatus::Open, "it is told as it was founded");
    assert_eq!(change.founded.as_ref().unwrap().occurrences, 2, "with what was counted until it changed");
    let audited: Vec<_> = change.lifecycle.iter().map(|(what, _)| *what).collect();
    assert_eq!(audited, [Lifecycle::Opened, Lifecycle::Resolved]);
    assert_eq!(decisions.iter().map(|decision| decision.outcome).collect::<Vec<_>>(), ["opened", "counted", "resolved"]);
}

fn any_entry() -> impl Strategy<Value = (usize, u8, i64)> {
    // which episode, what happens, seconds since the entry before (0: the same second)
    (0..6_usize, 0..8_u8, prop_oneof![Just(0_i64), 0..100_i64, 1000..2500_i64])
}

fn entries(script: &[(usize, u8, i64)]) -> Vec<AlertEntry> {
    const NAMES: [&str; 6] = ["disk.1", "disk.2", "disk.3", "cpu.1", "cpu.2", "net.1"];
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
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn however_the_log_is_cut_the_incidents_are_the_same(
        script in proptest::collection::vec(any_entry(), 1..60),
        cuts in proptest::collection::vec(1..9_usize, 1..30),
        quiet in prop_oneof![Just(0_u64), Just(50_u64)],
    ) {
        let rules = Rules { quiet_period: Duration::from_secs(quiet), evidence_limit: 5, timeline_limit: 12, ..rules() };
        let log = entries(&script);
        let mut one_by_one = Pipeline::new(rules.clone());
        for entry in &log {
            one_by_one.take(vec![entry.clone()]);
        }
        let mut cut = Pipeline::new(rules);
        let mut rest = &log[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, behind) = rest.split_at((*size).min(rest.len()));
            // as the pipeline reads them: a tick is a batch by itself
            for part in batch.chunk_by(|a, b| matches!((a, b), (AlertEntry::Record { .. }, AlertEntry::Record { .. }))) {
                cut.take(part.to_vec());
            }
            rest = behind;
        }
        prop_assert_eq!(&one_by_one.memory, &cut.memory);
        let text = |pipeline: &Pipeline| {
            let mut all: Vec<_> = pipeline.decisions.iter().map(|d| (d.seq, d.stage, d.outcome, d.text.clone())).collect();
            all.sort();
            all
        };
        prop_assert_eq!(text(&one_by_one), text(&cut));
        one_by_one.memory.check();
    }
}
