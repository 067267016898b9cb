//! What people find incidents by, how they came back, and how long they took.

use std::collections::BTreeMap;

use diesel::{connection::SimpleConnection, prelude::*, sql_types::BigInt};
use opspilot_kernel::{
    alert::Observation,
    ids::{AlertId, Seq},
    incident::IncidentStatus,
    principal::Actor,
    signal::Severity,
};
use proptest::prelude::*;

use super::{
    incidents_list::IncidentFilter,
    incidents_state::{BoardRequest, IncidentChange},
    incidents_tests::{World, at, founding, incident_id},
};
use crate::{LedgerError, Page, Priority};

fn log(text: &str) -> Observation {
    Observation::Log { at: at(0), source: "shop".to_owned(), text: text.to_owned() }
}

impl World {
    /// Adds evidence to the incident `name` as the pipeline does.
    fn observe(&self, name: &str, from: Seq, pieces: &[&str]) -> Result<(), LedgerError> {
        let claims = [AlertId::derived(&[name])].into();
        let board = self.read(|reader| reader.board(&BoardRequest { claims, ..BoardRequest::default() }));
        let mut change = IncidentChange::none(board.incidents[&incident_id(name)].clone());
        let read = vec![(incident_id(name), change.state.rev)];
        change.state.incident.evidence_count += u64::try_from(pieces.len()).unwrap();
        change.evidence = pieces.iter().map(|text| (AlertId::derived(&[name]), log(text))).collect();
        let mut commit = founding(name, 0, from, 0);
        (commit.read, commit.alerts, commit.incidents, commit.decisions) = (read, Vec::new(), vec![change], Vec::new());
        self.commit(commit)
    }

    fn found(&self, filter: &IncidentFilter) -> Vec<String> {
        let listed = self.read(|reader| reader.incidents(filter, &Page::first(100)));
        assert_eq!(listed.next_cursor, None);
        let name = |title: String| title.trim_start_matches("payments fail (").trim_end_matches(')').to_owned();
        listed.items.into_iter().map(|item| name(item.incident.title)).collect()
    }

    fn search(&self, q: &str) -> Vec<String> {
        self.found(&IncidentFilter { q: Some(q.to_owned()), ..IncidentFilter::default() })
    }

    /// The index of words against the words themselves, as SQLite compares them.
    fn index_is_whole(&self) {
        let check = |tx: &mut crate::Tx<'_>| {
            tx.conn.batch_execute("INSERT INTO incident_text (incident_text, rank) VALUES ('integrity-check', 1)")?;
            Ok(())
        };
        self.ledger.write_blocking(Priority::Control, check).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        self.read(|reader| Ok(diesel::dsl::sql::<BigInt>(sql).get_result(reader.conn)?))
    }
}

#[test]
fn evidence_is_found_from_the_moment_it_was_stored_and_every_word_may_be_cut_short() {
    let world = World::new();
    world.commit(founding("one", 1, 0, 0)).unwrap();
    world.commit(founding("two", 2, 1, 1)).unwrap();
    assert_eq!(world.search("timeout"), [""; 0]);
    world.observe("one", 2, &["read TIMEOUT after 30 s at 10.0.0.7:5432", "größe=12"]).unwrap();
    world.observe("one", 3, &["out of file descriptors, timeout"]).unwrap();
    world.observe("two", 4, &["out of memory"]).unwrap();
    for (q, names) in [
        ("timeout", &["one"][..]),
        ("tim", &["one"]),
        ("timeouts", &[]),
        ("10.0.0.7", &["one"]),
        ("0.7:54", &["one"]),
        ("10.0.0.8", &[]),
        ("GRÖSSE", &[]),
        ("Größe", &["one"]),
        ("descriptors fail", &["one"]),
        ("mem fail pay", &["two"]),
        ("out of", &["two", "one"]),
        ("memory descriptors", &[]),
        ("db-7", &["two", "one"]),
        ("s", &["one"]),
    ] {
        assert_eq!(world.search(q), names, "{q}");
    }
    world.index_is_whole();
}

#[test]
fn an_incident_keeps_a_bounded_number_of_words_and_those_it_has_cost_nothing() {
    let world = World::new();
    world.commit(founding("one", 1, 0, 0)).unwrap();
    let before = world.number("SELECT length(words) FROM incident_words");
    world.observe("one", 1, &["payments fail again and again", "again payments fail and"]).unwrap();
    assert_eq!(world.number("SELECT length(words) FROM incident_words"), before + 10, "again and");
    let many: Vec<String> = (0..200).map(|n| (0..100).map(|m| format!("word{n}x{m} ")).collect()).collect();
    world.observe("one", 2, &many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let full = world.number("SELECT length(words) FROM incident_words");
    assert!((16_000..=16_384).contains(&full), "{full}");
    world.observe("one", 3, &["straw"]).unwrap();
    assert_eq!(world.number("SELECT length(words) FROM incident_words"), full);
    assert_eq!(world.search("payments again"), ["one"], "what was there first is found");
    world.index_is_whole();
}

#[test]
fn hostile_searches_are_words_and_nothing_else() {
    let world = World::new();
    world.commit(founding("one", 1, 0, 0)).unwrap();
    let long = "payments ".repeat(1200);
    let hostile = [
        ("payments\" OR \"1", false),
        ("payments AND", false),
        ("NEAR(payments fail, 1)", false),
        ("words: payments", false),
        ("pay* ^payments", true),
        ("payments\0fail", true),
        ("{payments} + -fail", true),
        ("'payments'", true),
        ("%pay_%", true),
        (long.as_str(), true),
        ("\u{202e}payments\u{0}", true),
        ("\"", true),
        ("*", true),
    ];
    for (q, finds) in hostile {
        assert_eq!(world.search(q).len(), usize::from(finds), "{q:.80}");
    }
}

#[test]
fn labels_and_assignees_are_exact_and_narrow_a_search() {
    let world = World::new();
    for (from, (name, host)) in (0..).zip([("a", "db-7"), ("b", "db-7 "), ("c", "db")]) {
        let mut commit = founding(name, from + 1, from, i64::try_from(from).unwrap());
        let labels = BTreeMap::from([("host".to_owned(), host.to_owned()), ("env".to_owned(), "prod".to_owned())]);
        commit.incidents[0].state.incident.labels.clone_from(&labels);
        commit.incidents[0].founded.as_mut().unwrap().labels = labels;
        world.commit(commit).unwrap();
    }
    world.person(|tx, ada| tx.incident_assign(&incident_id("a"), ada, Some("grace"))).unwrap();
    let labels = |pairs: &[(&str, &str)]| IncidentFilter {
        labels: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..IncidentFilter::default()
    };
    assert_eq!(world.found(&labels(&[("host", "db-7")])), ["a"]);
    assert_eq!(world.found(&labels(&[("host", "db-7 ")])), ["b"]);
    assert_eq!(world.found(&labels(&[("env", "prod")])), ["c", "b", "a"]);
    assert_eq!(world.found(&labels(&[("env", "prod"), ("host", "db")])), ["c"]);
    assert_eq!(world.found(&labels(&[("host", "prod")])), [""; 0]);
    let graces = IncidentFilter { assignee: Some("grace".to_owned()), ..IncidentFilter::default() };
    assert_eq!(world.found(&graces), ["a"]);
    assert_eq!(world.found(&IncidentFilter { q: Some("payments".to_owned()), ..graces.clone() }), ["a"]);
    assert_eq!(world.found(&IncidentFilter { source: Some("shop".to_owned()), ..labels(&[("env", "prod")]) }).len(), 3);
    assert_eq!(world.found(&IncidentFilter { source: Some("sho".to_owned()), ..labels(&[("env", "prod")]) }).len(), 0);
    assert_eq!(world.found(&IncidentFilter { status: Some(IncidentStatus::Resolved), ..graces }), [""; 0]);
}

#[test]
fn a_search_is_paged_through_whatever_is_opened_meanwhile() {
    let world = World::new();
    for (from, name) in (0..).zip(["a", "b", "c", "d", "e"]) {
        world.commit(founding(name, from, from, 0)).unwrap();
    }
    for filter in [
        IncidentFilter { q: Some("payments".to_owned()), ..IncidentFilter::default() },
        IncidentFilter { q: Some("payments".to_owned()), status: Some(IncidentStatus::Open), ..IncidentFilter::default() },
    ] {
        let mut titles = Vec::new();
        let mut page = Page::first(2);
        loop {
            let listed = world.read(|reader| reader.incidents(&filter, &page));
            titles.extend(listed.items.into_iter().map(|item| item.incident.title));
            match listed.next_cursor {
                Some(cursor) => page.cursor = Some(cursor),
                None => break,
            }
        }
        assert_eq!(titles, ["e", "d", "c", "b", "a"].map(|name| format!("payments fail ({name})")));
        let bad = world.ledger.read_blocking(|reader| reader.incidents(&filter, &Page { limit: 2, cursor: Some("x5".to_owned()) }));
        assert!(matches!(bad, Err(LedgerError::Cursor)), "{bad:?}");
    }
}

#[test]
fn incidents_from_before_there_was_a_search_for_evidence_are_found_after_the_next_start() {
    let World { ledger, clock, dir } = {
        let world = World::new();
        world.commit(founding("one", 1, 0, 0)).unwrap();
        world.observe("one", 1, &["read timeout"]).unwrap();
        world
    };
    // as it is after the migration
    let empty = "INSERT INTO incident_text (incident_text) VALUES ('delete-all'); DELETE FROM incident_words;";
    ledger.write_blocking(Priority::Control, move |tx| Ok(tx.conn.batch_execute(empty)?)).unwrap();
    drop(ledger);
    let world = World::over(dir, clock);
    assert_eq!(world.search("timeout payments"), ["one"]);
    world.index_is_whole();
}

#[test]
fn an_incident_that_came_back_names_the_one_before_it_and_counts_the_chain() {
    let world = World::new();
    let mut before = None;
    for (from, name) in (0..).zip(["first", "second", "third"]) {
        let mut commit = founding(name, 7, from, 0);
        commit.incidents[0].recurrence_of = before.replace(incident_id(name));
        world.commit(commit).unwrap();
        world.person(move |tx, ada| tx.incident_resolve(&incident_id(name), ada, "fixed")).unwrap();
    }
    let chain = |name: &str| {
        let detail = world.read(|reader| reader.incident(&incident_id(name)));
        (detail.recurrence_of, detail.recurrence)
    };
    assert_eq!(chain("first"), (None, 0));
    assert_eq!(chain("second"), (Some(incident_id("first")), 1));
    assert_eq!(chain("third"), (Some(incident_id("second")), 2));
}

#[test]
fn how_long_people_took_is_computed_and_a_reopening_takes_nothing_away() {
    let world = World::new();
    for (from, name) in (0..).zip(["a", "b", "c", "d"]) {
        let mut commit = founding(name, from, from, 0);
        if name == "d" {
            commit.incidents[0].state.incident.severity = Severity::Info;
        }
        world.commit(commit).unwrap();
    }
    let after = |second: i64, job: fn(&mut crate::Tx<'_>, &Actor) -> Result<(), LedgerError>| {
        world.clock.set(at(second));
        world.person(job).unwrap();
    };
    after(10, |tx, ada| tx.incident_acknowledge(&incident_id("a"), ada, "").map(drop));
    after(40, |tx, ada| tx.incident_acknowledge(&incident_id("b"), ada, "").map(drop));
    after(60, |tx, ada| tx.incident_resolve(&incident_id("a"), ada, "").map(drop));
    after(70, |tx, ada| tx.incident_reopen(&incident_id("a"), ada).map(drop));
    after(80, |tx, ada| tx.incident_acknowledge(&incident_id("a"), ada, "").map(drop));
    after(100, |tx, ada| tx.incident_resolve(&incident_id("a"), ada, "").map(drop));
    after(200, |tx, ada| tx.incident_resolve(&incident_id("c"), ada, "").map(drop));
    let stats = world.read(|reader| reader.incident_stats(&IncidentFilter::default()));
    assert!(stats.complete);
    assert_eq!((stats.all.incidents, stats.all.open, stats.all.acknowledged, stats.all.resolved), (4, 1, 1, 2));
    assert_eq!((stats.all.reopened, stats.all.reopened_share, stats.all.recurring), (1, Some(0.25), 0));
    let took = stats.all.time_to_acknowledge;
    assert_eq!((took.count, took.mean_secs, took.median_secs), (2, Some(25.0), Some(25.0)), "the first time counts");
    let took = stats.all.time_to_resolve;
    assert_eq!((took.count, took.mean_secs, took.median_secs), (2, Some(150.0), Some(150.0)));
    assert_eq!(stats.by_severity.keys().copied().collect::<Vec<_>>(), [Severity::Info, Severity::Critical]);
    assert_eq!(stats.by_severity[&Severity::Info].incidents, 1);
    let none = IncidentFilter { since: Some(at(1)), ..IncidentFilter::default() };
    let none = world.read(|reader| reader.incident_stats(&none));
    assert_eq!((none.all.incidents, none.all.reopened_share, none.oldest), (0, None, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_index_holds_exactly_the_words_however_they_came(texts in prop::collection::vec(".{0,40}", 1..8), q in ".{0,40}") {
        let world = World::new();
        world.commit(founding("one", 1, 0, 0)).unwrap();
        for (from, text) in (1..).zip(&texts) {
            world.observe("one", from, &[text]).unwrap();
        }
        world.index_is_whole();
        for text in &texts {
            prop_assert_eq!(world.search(text), ["one"], "{:?}", text);
        }
        world.search(&q);
        world.ledger.write_blocking(Priority::Control, |tx| {
            super::incidents_words::forget(tx.conn, 1)
        }).unwrap();
        world.index_is_whole();
        prop_assert_eq!(world.number("SELECT count(*) FROM incident_text WHERE incident_text MATCH '\"pa\"*'"), 0);
    }
}
