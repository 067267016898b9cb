//! The tables of alerts and incidents, on a real database.

use std::{collections::BTreeMap, sync::Arc};

use diesel::{prelude::*, sql_query, sql_types::Text};
use opspilot_kernel::{
    alert::{Alert, AlertStatus, Observation, ResolvedBy},
    clock::ManualClock,
    event::Event,
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};

use super::{
    incidents_list::{IncidentFilter, list_query},
    incidents_merge::{HOLDERS_OF, LOOKED_AT, STORMS_OF},
    incidents_pipeline::{FINGERPRINTS, INCIDENTS, NEWEST_EPISODES},
    incidents_state::{AlertState, BoardRequest, Commit, Decision, IncidentChange, IncidentState, Lifecycle},
};
use crate::{AlertFilter, AuditFilter, EventEntry, Ledger, LedgerError, Options, Page, Priority};

pub(super) const PIPELINE: &str = "core.pipeline";

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) clock: Arc<ManualClock>,
    pub(super) dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> World {
        World::over(tempfile::tempdir().unwrap(), ManualClock::at(at(0)))
    }

    pub(super) fn over(dir: tempfile::TempDir, clock: Arc<ManualClock>) -> World {
        let shared: Arc<ManualClock> = Arc::clone(&clock);
        let ledger = Ledger::open(Options::new(dir.path(), shared)).unwrap();
        World { ledger, clock, dir }
    }

    pub(super) fn commit(&self, commit: Commit) -> Result<(), LedgerError> {
        self.ledger.write_blocking(Priority::Bulk, move |tx| tx.apply_decisions(commit))
    }

    pub(super) fn person<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut crate::Tx<'_>, &Actor) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ada = Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
        self.ledger.write_blocking(Priority::Control, move |tx| job(tx, &ada))
    }

    pub(super) fn read<T>(&self, query: impl FnOnce(&mut crate::Reader<'_>) -> Result<T, LedgerError>) -> T {
        self.ledger.read_blocking(query).unwrap()
    }

    fn plan(&self, sql: &str) -> Vec<String> {
        self.read(|reader| {
            let rows: Vec<PlanRow> = sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load(reader.conn)?;
            Ok(rows.into_iter().map(|row| row.detail).collect())
        })
    }
}

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text)]
    detail: String,
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

pub(super) fn incident_id(name: &str) -> IncidentId {
    IncidentId::derived(&[name])
}

/// A commit that founds the incident `name` with one firing alert.
pub(super) fn founding(name: &str, condition: u64, from: Seq, second: i64) -> Commit {
    let module = Actor::Module { id: "enricher.incidentStore".to_owned() };
    let alert = Alert {
        id: AlertId::derived(&[name]),
        fingerprint: Fingerprint::from_u64(condition),
        status: AlertStatus::Firing,
        source: "shop".to_owned(),
        name: "payment-failed".to_owned(),
        detected_by: "detector.regex".to_owned(),
        title: format!("payments fail ({name})"),
        description: String::new(),
        severity: Severity::Critical,
        labels: BTreeMap::from([("host".to_owned(), "db-7".to_owned())]),
        occurrences: 1,
        first_seen_at: at(second),
        last_seen_at: at(second),
        resolved_at: None,
        suppressed_by: None,
        incident_id: Some(incident_id(name)),
    };
    let incident = Incident {
        id: incident_id(name),
        title: alert.title.clone(),
        description: String::new(),
        severity: alert.severity,
        status: IncidentStatus::Open,
        detected_by: alert.detected_by.clone(),
        rule: alert.name.clone(),
        source: alert.source.clone(),
        labels: alert.labels.clone(),
        occurrences: 1,
        opened_at: at(second),
        last_seen_at: at(second),
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: None,
        snoozed_until: None,
        resolved_at: None,
        resolution: None,
        merged_into: None,
        alert_count: 1,
        evidence_count: 1,
    };
    let observation = Observation::Log { at: at(second), source: "shop".to_owned(), text: "payment failed".to_owned() };
    let founded = IncidentChange::founding(incident);
    let change = IncidentChange {
        state: IncidentState { firing: 1, timeline_count: 1, ..founded.state.clone() },
        fingerprints: vec![alert.fingerprint],
        evidence: vec![(alert.id.clone(), observation)],
        timeline: vec![TimelineEntry { at: at(second), actor: module, kind: TimelineKind::Opened, text: "it fires".to_owned() }],
        lifecycle: vec![(Lifecycle::Opened, "it fires".to_owned())],
        ..founded
    };
    let decision = |repeats| Decision {
        seq: from + 1,
        at: at(second),
        stage: "enricher.incidentStore",
        alert: Some(alert.id.clone()),
        incident: Some(incident_id(name)),
        outcome: if repeats { "counted" } else { "opened" },
        text: "because".to_owned(),
        inputs: serde_json::json!({ "open_incident": null }),
        repeats,
    };
    let decisions = vec![decision(false), decision(true), decision(true)];
    let state =
        AlertState { claim: alert.id.clone(), last_logged_at: at(second), resolved_by: None, resolved_logged_at: None, aside: None, alert };
    Commit { module: PIPELINE, from, to: from + 1, alerts: vec![state], incidents: vec![change], decisions, ..Commit::default() }
}

#[test]
fn what_is_committed_is_read_back_and_told() {
    let world = World::new();
    let commit = founding("one", u64::MAX - 5, 0, 0);
    let (alert, incident) = (commit.alerts[0].clone(), commit.incidents[0].state.clone());
    world.commit(commit).unwrap();

    let request =
        BoardRequest { claims: [alert.claim.clone()].into(), fingerprints: [alert.alert.fingerprint].into(), ..BoardRequest::default() };
    let board = world.read(|reader| reader.board(&request));
    assert_eq!(board.alerts[&alert.claim], alert);
    assert_eq!(board.incidents[&incident_id("one")], IncidentState { rev: 1, ..incident.clone() });
    let held = &board.fingerprints[&alert.alert.fingerprint];
    assert_eq!((held.open.clone(), held.latest.clone()), (Some(incident_id("one")), Some(incident_id("one"))));

    let detail = world.read(|reader| reader.incident(&incident_id("one")));
    assert_eq!((&detail.incident, &detail.alerts), (&incident.incident, &vec![alert.alert.clone()]));
    assert_eq!(detail.evidence[0].id, "e1");
    let timeline = world.read(|reader| reader.timeline(&incident_id("one"), &Page::first(10)));
    assert_eq!(timeline.items[0].kind, TimelineKind::Opened);
    let why = world.read(|reader| reader.alert_decisions(&alert.alert.id, &Page::first(10)));
    assert_eq!(why.items.iter().map(|one| (one.outcome.as_str(), one.times)).collect::<Vec<_>>(), [("opened", 1), ("counted", 2)]);
    let events = world.ledger.events().next(0, 10).unwrap();
    let told =
        events.iter().filter(|entry| matches!(entry, EventEntry::Event(envelope) if matches!(envelope.event, Event::IncidentCreated(_))));
    assert_eq!(told.count(), 1);
    let open = world.read(|reader| reader.open_incidents());
    assert_eq!((open[&Severity::Critical], open[&Severity::Info]), (1, 0));
}

#[test]
fn one_fingerprint_has_one_open_incident_whoever_races() {
    let world = World::new();
    world.commit(founding("one", 7, 0, 0)).unwrap();
    // the same pipeline, run twice: the slower one finds the cursor moved
    assert!(matches!(world.commit(founding("one", 7, 0, 0)), Err(LedgerError::Conflict(_))));
    // a pipeline that did not look: the index refuses, and nothing of the commit stays
    assert!(matches!(world.commit(founding("two", 7, 1, 1)), Err(LedgerError::Conflict(_))));
    assert_eq!(world.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(10))).items.len(), 1);
    assert_eq!(world.read(|reader| reader.alerts(&AlertFilter::default(), &Page::first(10))).items.len(), 1);
    assert_eq!(world.read(|reader| reader.cursor(PIPELINE)), 1);
    // once it is resolved another may be opened, and then the first cannot come back
    world.person(|tx, ada| tx.incident_resolve(&incident_id("one"), ada, "fixed")).unwrap();
    world.commit(founding("two", 7, 1, 1)).unwrap();
    let refused = world.person(|tx, ada| tx.incident_reopen(&incident_id("one"), ada)).unwrap_err();
    assert!(refused.to_string().contains(incident_id("two").as_str()), "{refused}");
}

#[test]
fn a_persons_change_in_between_makes_the_pipeline_decide_again() {
    let world = World::new();
    world.commit(founding("one", 7, 0, 0)).unwrap();
    let request = BoardRequest { fingerprints: [Fingerprint::from_u64(7)].into(), ..BoardRequest::default() };
    let stale = world.read(|reader| reader.board(&request));
    world.person(|tx, ada| tx.incident_resolve(&incident_id("one"), ada, "fixed")).unwrap();
    let mut state = stale.incidents[&incident_id("one")].clone();
    state.incident.occurrences += 1;
    let change = IncidentChange::none(state);
    let read = vec![(incident_id("one"), 1)];
    let commit = Commit { module: PIPELINE, from: 1, to: 2, read, incidents: vec![change], ..Commit::default() };
    assert!(matches!(world.commit(commit), Err(LedgerError::Conflict(_))));
    let detail = world.read(|reader| reader.incident(&incident_id("one")));
    assert_eq!((detail.incident.status, detail.incident.occurrences), (IncidentStatus::Resolved, 1));
    assert_eq!(detail.alerts[0].status, AlertStatus::Resolved);
    let board = world.read(|reader| reader.board(&BoardRequest { claims: [AlertId::derived(&["one"])].into(), ..BoardRequest::default() }));
    assert_eq!(board.alerts[&AlertId::derived(&["one"])].resolved_by, Some(ResolvedBy::Person));
}

#[test]
fn people_take_snooze_assign_note_resolve_and_reopen_each_with_its_record() {
    let world = World::new();
    let id = incident_id("one");
    world.commit(founding("one", 7, 0, 0)).unwrap();
    world.clock.set(at(100));
    let own = id.clone();
    let taken = world.person(move |tx, ada| tx.incident_acknowledge(&own, ada, "on it")).unwrap();
    assert_eq!((taken.status, taken.acknowledged_by.as_deref()), (IncidentStatus::Acknowledged, Some("ada")));
    assert_eq!(taken.acknowledged_at, Some(at(100)));
    let own = id.clone();
    let again = world.person(move |tx, ada| tx.incident_acknowledge(&own, ada, "")).unwrap_err();
    assert_eq!(again.to_string(), "the incident is already acknowledged, by ada");
    for (until, fits) in [(at(100), false), (at(100 + 367 * 86_400), false), (at(200), true)] {
        let own = id.clone();
        assert_eq!(world.person(move |tx, ada| tx.incident_snooze(&own, ada, until)).is_ok(), fits, "{until}");
    }
    assert_eq!(world.read(|reader| reader.next_incident_timer()), Some(at(200)));
    let own = id.clone();
    world.person(move |tx, ada| tx.incident_assign(&own, ada, Some("grace"))).unwrap();
    let own = id.clone();
    world.person(move |tx, ada| tx.incident_note(&own, ada, "looks like the disk")).unwrap();
    let own = id.clone();
    let resolved = world.person(move |tx, ada| tx.incident_resolve(&own, ada, "more disk")).unwrap();
    assert_eq!((resolved.resolution.as_deref(), resolved.snoozed_until), (Some("more disk"), None));
    assert_eq!(world.read(|reader| reader.next_incident_timer()), None);
    for wrong in 0..3 {
        let own = id.clone();
        let refused = world.person(move |tx, ada| match wrong {
            0 => tx.incident_acknowledge(&own, ada, "").map(drop),
            1 => tx.incident_snooze(&own, ada, at(300)).map(drop),
            _ => tx.incident_resolve(&own, ada, "").map(drop),
        });
        assert!(matches!(refused, Err(LedgerError::Conflict(_))), "{refused:?}");
    }
    let own = id.clone();
    let open = world.person(move |tx, ada| tx.incident_reopen(&own, ada)).unwrap();
    assert_eq!((open.status, open.acknowledged_by, open.resolved_at), (IncidentStatus::Open, None, None));
    let unknown = world.person(|tx, ada| tx.incident_reopen(&incident_id("none"), ada)).unwrap_err();
    assert!(matches!(unknown, LedgerError::NotFound(_)));

    use TimelineKind::{Acknowledged, Assigned, Note, Opened, Reopened, Resolved, Snoozed};
    let kinds = [Opened, Acknowledged, Snoozed, Assigned, Note, Resolved, Reopened];
    let timeline = world.read(|reader| reader.timeline(&id, &Page::first(100))).items;
    assert_eq!(timeline.iter().map(|entry| entry.kind).collect::<Vec<_>>(), kinds);
    let filter = AuditFilter { action: Some("INC".to_owned()), ..AuditFilter::default() };
    assert_eq!(world.read(|reader| reader.audit(&filter, &Page::first(100))).items.len(), kinds.len());
    let changes: Vec<_> = world.ledger.events().next(0, 100).unwrap();
    assert_eq!(changes.len(), kinds.len(), "one event for each: {changes:?}");
}

#[test]
fn the_timeline_cannot_be_changed_even_by_the_writer() {
    let world = World::new();
    world.commit(founding("one", 7, 0, 0)).unwrap();
    for sql in ["UPDATE timeline SET text = 'nothing happened'", "DELETE FROM timeline"] {
        let refused = world.ledger.write_blocking(Priority::Control, move |tx| Ok(sql_query(sql).execute(tx.conn)?)).unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[test]
fn the_list_pages_through_inserts_and_finds_by_every_filter() {
    let world = World::new();
    for (n, name) in (0_u32..).zip(["a", "b", "c", "d", "e"]) {
        world.commit(founding(name, u64::from(n), Seq::from(n), i64::from(n) / 2)).unwrap();
    }
    let ids = |filter: &IncidentFilter, page: &Page| {
        let listed = world.read(|reader| reader.incidents(filter, page));
        (listed.items.into_iter().map(|item| item.incident.title).collect::<Vec<_>>(), listed.next_cursor)
    };
    let title = |name: &str| format!("payments fail ({name})");
    let all = IncidentFilter::default();
    let (first, next) = ids(&all, &Page::first(2));
    assert_eq!(first, [title("e"), title("d")]);
    world.commit(founding("f", 5, 5, 100)).unwrap();
    world.commit(founding("late", 6, 6, 0)).unwrap();
    let (second, next) = ids(&all, &Page { limit: 2, cursor: next });
    assert_eq!(second, [title("c"), title("late")], "newest first by when it began; nothing is shown twice");
    let (third, next) = ids(&all, &Page { limit: 10, cursor: next });
    assert_eq!((third, next), (vec![title("b"), title("a")], None));

    world.person(|tx, ada| tx.incident_resolve(&incident_id("f"), ada, "")).unwrap();
    let find = |filter: IncidentFilter| ids(&filter, &Page::first(10)).0;
    assert_eq!(find(IncidentFilter { status: Some(IncidentStatus::Resolved), ..all.clone() }), [title("f")]);
    assert_eq!(find(IncidentFilter { severity: Some(Severity::Info), ..all.clone() }), Vec::<String>::new());
    assert_eq!(find(IncidentFilter { source: Some("shop".to_owned()), since: Some(at(2)), ..all.clone() }), [title("f"), title("e")]);
    assert_eq!(find(IncidentFilter { until: Some(at(1)), ..all.clone() }).len(), 3);
    for (q, count) in [("PAYM", 7), ("payments late", 1), ("db-7 fail", 7), ("\"; DROP", 0), ("nothing", 0), ("()", 7), ("", 7)] {
        assert_eq!(find(IncidentFilter { q: Some(q.to_owned()), ..all.clone() }).len(), count, "{q}");
    }
    let bad = world.ledger.read_blocking(|reader| reader.incidents(&all, &Page { limit: 5, cursor: Some("x".to_owned()) }));
    assert!(matches!(bad, Err(LedgerError::Cursor)), "{bad:?}");
}

#[test]
fn every_list_and_every_look_up_of_the_pipeline_is_answered_from_an_index() {
    let world = World::new();
    let (status, severity) = (Some(IncidentStatus::Open), Some(Severity::Critical));
    let (source, since) = (Some("shop".to_owned()), Some(at(0)));
    let cursor = Page { limit: 50, cursor: Some("5.5".to_owned()) };
    for mask in 0..16_u8 {
        let on = |bit: u8| mask & (1 << bit) != 0;
        let filter = IncidentFilter {
            status: status.filter(|_| on(0)),
            severity: severity.filter(|_| on(1)),
            source: source.clone().filter(|_| on(2)),
            q: None,
            assignee: None,
            labels: Vec::new(),
            since: since.filter(|_| on(3)),
            until: since.filter(|_| on(3)),
        };
        for page in [&Page::first(50), &cursor] {
            let query = list_query(&filter, page).unwrap().limit(51);
            let text = diesel::debug_query::<diesel::sqlite::Sqlite, _>(&query).to_string();
            let plan = world.plan(text.split(" -- binds").next().unwrap());
            assert!(plan.iter().all(|step| step.contains("USING INDEX incident_by")), "{filter:?}: {plan:?}");
        }
    }
    let earliest = "SELECT min(due_at) FROM incident WHERE due_at IS NOT NULL";
    let firing = "SELECT num FROM alert WHERE incident = ? AND status = 'firing'";
    let by_claim = "SELECT num FROM decision WHERE alert = ? AND num > ? ORDER BY num LIMIT 50";
    for sql in [NEWEST_EPISODES, FINGERPRINTS, INCIDENTS, earliest, firing, by_claim] {
        for step in world.plan(sql) {
            let free = step.starts_with("SCAN c VIRTUAL") || step.starts_with("SCAN f VIRTUAL") || step.contains("SUBQUERY");
            assert!(
                free || step.contains("USING INDEX") || step.contains("COVERING INDEX") || step.contains("PRIMARY KEY"),
                "{sql}: {step}"
            );
        }
    }
    for sql in [HOLDERS_OF, STORMS_OF, LOOKED_AT] {
        let plan = world.plan(sql);
        let of_keys: Vec<&String> = plan.iter().filter(|step| step.contains(" k ") || step.contains(" o ")).collect();
        assert!(!of_keys.is_empty() && of_keys.iter().all(|step| step.starts_with("SEARCH")), "{sql}: {plan:?}");
    }
    assert!(world.plan(LOOKED_AT).iter().any(|step| step.contains("incident_key_young (key=? AND opened>?)")));
    for sql in [STORMS_OF, LOOKED_AT] {
        assert!(world.plan(sql).iter().any(|step| step.contains("incident_key_of_storm (key=?)")), "{sql}");
    }
    for column in ["status", "severity", "source", "fingerprint", "incident"] {
        let plan = world.plan(&format!("SELECT * FROM alert WHERE {column} = ? AND num < ? ORDER BY num DESC LIMIT 50"));
        assert!(plan.iter().all(|step| step.contains("USING INDEX alert_by")), "{column}: {plan:?}");
    }
}

#[test]
fn what_was_over_long_ago_goes_and_what_is_open_stays_whole() {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    let world = World::new();
    for (from, name) in [(0, "over"), (1, "open"), (2, "lately"), (3, "newest")] {
        world.commit(founding(name, from + 10, from, 0)).unwrap();
    }
    let resolve = |name: &'static str| world.person(move |tx, ada| tx.incident_resolve(&incident_id(name), ada, "fixed")).unwrap();
    resolve("over");
    resolve("newest");
    world.clock.advance(DAY * 60);
    resolve("lately");
    world.clock.advance(DAY * 31);
    let names = || {
        let all = world.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(10))).items;
        let title = |title: String| title["payments fail (".len()..].trim_end_matches(')').to_owned();
        let mut all: Vec<String> = all.into_iter().map(|detail| title(detail.incident.title)).collect();
        all.sort();
        all
    };
    let deadline = 10_000;
    let tries = (0..deadline).take_while(|_| {
        // each job gives the writer the occasion for a step of retention
        world.ledger.write_blocking(Priority::Control, |_| Ok(())).unwrap();
        names().len() > 3
    });
    assert!(tries.count() < deadline, "{:?}", names());
    assert_eq!(names(), ["lately", "newest", "open"], "what is open, was over lately, or has the highest number stays");
    let alerts = world.read(|reader| reader.alerts(&AlertFilter::default(), &Page::first(10))).items;
    assert_eq!(alerts.len(), 3);
    let counted = |sql: &str| world.read(|reader| Ok(diesel::dsl::sql::<diesel::sql_types::BigInt>(sql).get_result::<i64>(reader.conn)?));
    assert_eq!(counted("SELECT count(DISTINCT incident) FROM timeline"), 3);
    assert_eq!(counted("SELECT count(DISTINCT incident) FROM evidence"), 3);
    assert_eq!(counted("SELECT count(DISTINCT incident) FROM decision"), 3);
    assert_eq!(counted("SELECT count(*) FROM incident_fingerprint"), 3);
    assert_eq!(counted("SELECT count(*) FROM incident_text WHERE incident_text MATCH 'over'"), 0);
    assert_eq!(counted("SELECT count(*) FROM incident_text WHERE incident_text MATCH 'payments'"), 3);
    assert_eq!(counted("SELECT count(*) FROM incident_words"), 3);
    assert_eq!(world.read(|reader| reader.timeline(&incident_id("open"), &Page::first(10))).items.len(), 1);
    let record = world.read(|reader| {
        reader.audit_verify()?;
        reader.audit(&AuditFilter { action: Some("RET03".to_owned()), ..AuditFilter::default() }, &Page::first(10))
    });
    assert_eq!(record.items.len(), 1, "it is on record");
    let torn = world.ledger.write_blocking(Priority::Bulk, |tx| Ok(sql_query("DELETE FROM timeline").execute(tx.conn)?));
    assert!(torn.unwrap_err().to_string().contains("append-only"), "an incident that is there keeps its timeline");
}
