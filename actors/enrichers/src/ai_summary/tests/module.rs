//! The module in a running service: the real pipeline, a real ledger, real actors.

use std::{sync::Arc, time::Duration};

use actix::System;
use opspilot_kernel::{
    alert::{AlertRecord, Observation, Transition},
    clock::{ManualClock, SharedClock},
    event::Event,
    ids::IncidentId,
    incident::TimelineKind,
    principal::Actor,
    signal::{Severity, SignalRef},
};
use opspilot_ledger::{
    EventEntry, IncidentDetail, IncidentFilter, Ledger, LedgerError, NewExplanation, Options, Page, Priority, SignalBatchBuilder,
    StoredExplanation,
};
use opspilot_runtime::{Module, ModuleContext};
use serde_json::json;

use super::super::{AiSummary, ENTRY, ExplainError, ID};
use crate::{
    DEDUP, INCIDENT_STORE, MODULES,
    stage_actor::Stages,
    testkit::{at, record},
};

struct World {
    dir: tempfile::TempDir,
    ledger: Ledger,
    ctx: ModuleContext,
    modules: Vec<Box<dyn Module>>,
    explainer: Option<Box<dyn Module>>,
}

impl World {
    fn new(config: serde_json::Value) -> World {
        let mut world = World::without(tempfile::tempdir().unwrap());
        world.begin(config);
        world
    }

    /// The service with the explainer switched off.
    fn without(dir: tempfile::TempDir) -> World {
        let clock: SharedClock = ManualClock::at(at(100));
        let ledger = Ledger::open(Options::new(dir.path(), Arc::clone(&clock))).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), clock, Arc::new(|_| {})).unwrap();
        let stages = Stages::in_order(&[DEDUP, INCIDENT_STORE]);
        let own = MODULES.iter().filter(|entry| [DEDUP, INCIDENT_STORE].contains(&entry.id));
        let modules: Vec<Box<dyn Module>> = own.map(|entry| (entry.start)(&ctx, json!({})).unwrap()).collect();
        assert!(modules.iter().all(|module| stages.plug(&**module)));
        crate::pipeline::start(&ctx, stages).unwrap();
        World { dir, ledger, ctx, modules, explainer: None }
    }

    fn begin(&mut self, mut config: serde_json::Value) {
        config["settle"] = json!("0ms");
        config["refresh"] = json!("1s");
        self.explainer = Some((ENTRY.start)(&self.ctx, config).unwrap());
    }

    fn explainer(&self) -> &AiSummary {
        self.explainer.as_ref().unwrap().as_any().downcast_ref().unwrap()
    }

    /// The same data in a new process, as it were; the explainer is not started yet.
    async fn reopened(self) -> World {
        self.ctx.supervisor.stop_all().await;
        let World { dir, ledger, ctx, modules, explainer } = self;
        ledger.shut_down().await.unwrap();
        drop((ledger, ctx, modules, explainer));
        World::without(dir)
    }

    async fn claim(&self, records: Vec<AlertRecord>) {
        let commit =
            self.ledger.write(Priority::Bulk, move |tx| tx.commit_alerts("detector.test", i64::MAX.unsigned_abs(), records, Vec::new()));
        commit.await.unwrap();
    }

    async fn log(&self, second: i64, lines: &[(&str, &str, Severity)]) {
        let mut batch = SignalBatchBuilder::new(at(second));
        for (source, message, severity) in lines {
            batch.push(&SignalRef { severity: *severity, ..SignalRef::log(at(second), source, message) });
        }
        self.ledger.append(batch.seal()).await.unwrap();
    }

    async fn details(&self) -> Vec<IncidentDetail> {
        self.ledger.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(500))).await.unwrap().items
    }

    /// Waits until `look` finds something, after each event that is committed.
    async fn until<T>(&self, look: impl Fn(&[IncidentDetail]) -> Option<T>) -> T {
        let mut events = self.ledger.events().watch();
        let found = async {
            loop {
                events.mark_unchanged();
                if let Some(found) = look(&self.details().await) {
                    return found;
                }
                events.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("it happens")
    }

    async fn explained(&self) -> IncidentDetail {
        self.until(|details| details.iter().find(|detail| detail.explanation.is_some()).cloned()).await
    }

    async fn stored(&self, id: &IncidentId) -> StoredExplanation {
        let id = id.clone();
        self.ledger.read(move |reader| reader.explanation(&id)).await.unwrap().unwrap()
    }

    /// Waits until the explainer is done with every event there is.
    async fn settled(&self) {
        let mut position = self.explainer().position();
        loop {
            let head = self.ledger.events().head();
            let done = position.wait_for(|position| *position >= head);
            drop(tokio::time::timeout(Duration::from_secs(30), done).await.expect("it gets through").unwrap());
            if self.ledger.events().head() == head {
                return;
            }
        }
    }

    fn told(&self) -> usize {
        let events = self.ledger.events().next(0, 10_000).unwrap();
        events
            .iter()
            .filter(|entry| matches!(entry, EventEntry::Event(event) if matches!(event.event, Event::EnrichmentCompleted { .. })))
            .count()
    }

    async fn story(&self, id: &IncidentId) -> Vec<(Actor, String)> {
        let id = id.clone();
        let listed = self.ledger.read(move |reader| reader.timeline(&id, &Page::first(1000))).await.unwrap();
        listed.items.into_iter().filter(|entry| entry.kind == TimelineKind::Explained).map(|entry| (entry.actor, entry.text)).collect()
    }
}

fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    System::new().block_on(async { test().await })
}

fn ada() -> Actor {
    Actor::User { id: "ada".to_owned(), via: "session".to_owned() }
}

#[test]
fn an_incident_is_explained_from_what_happened_around_it() {
    run(|| async {
        let world = World::new(json!({}));
        for second in -600..0 {
            world.log(second, &[("gateway", "GET /health 200", Severity::Info)]).await;
        }
        world.log(-30, &[("db", "could not write to file: No space left on device", Severity::Critical)]).await;
        world.log(0, &[("shop", "could not get a connection to db:5432 within 5s", Severity::Error)]).await;
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let detail = world.explained().await;
        let explanation = detail.explanation.unwrap();
        assert_eq!(explanation.causes[0].component, "db", "{explanation:#?}");
        assert!(!explanation.degraded, "{}", explanation.summary);
        let cited =
            explanation.claims.iter().flat_map(|claim| &claim.evidence).chain(explanation.causes.iter().flat_map(|cause| &cause.evidence));
        for id in cited {
            assert!(detail.evidence.iter().any(|piece| piece.id == *id), "{id} is cited and not there");
        }
        assert_eq!(detail.incident.evidence_count, u64::try_from(detail.evidence.len()).unwrap());
        world.settled().await;
        let story = world.story(&detail.incident.id).await;
        assert_eq!(story.len(), 1, "{story:?}");
        assert!(story[0].1.starts_with("likely cause: db ("), "{story:?}");
        assert_eq!((&story[0].0, world.told()), (&Actor::Module { id: ID.as_str().to_owned() }, 1));
    });
}

#[test]
fn a2_after_a_restart_nothing_is_explained_twice_and_nothing_is_missed() {
    run(|| async {
        let world = World::new(json!({}));
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let first = world.explained().await.incident.id;
        world.settled().await;
        let mut world = world.reopened().await;
        // it died after the explanation was stored, and before its cursor was
        world.ledger.write(Priority::Bulk, |tx| tx.save_cursor(ID.as_str(), 1, Vec::new())).await.unwrap();
        world.claim(vec![record("memory", Transition::Firing, 1)]).await;
        world.until(|details| (details.len() == 2).then_some(())).await;
        world.begin(json!({}));
        world.until(|details| details.iter().all(|detail| detail.explanation.is_some()).then_some(())).await;
        world.settled().await;
        assert_eq!((world.stored(&first).await.times, world.told()), (1, 2));
        assert_eq!(world.story(&first).await.len(), 1);
        let world = world.reopened().await;
        assert_eq!(world.ledger.read(|reader| reader.never_explained(10)).await.unwrap(), []);
    });
}

#[test]
fn an_incident_that_was_open_before_the_explainer_first_ran_is_explained() {
    run(|| async {
        let mut world = World::without(tempfile::tempdir().unwrap());
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        world.until(|details| details.first().map(|_| ())).await;
        world.begin(json!({}));
        world.explained().await;
    });
}

#[test]
fn whoever_asks_gets_it_explained_again_and_stands_in_the_timeline() {
    run(|| async {
        let world = World::new(json!({ "most_times": 1 }));
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let id = world.explained().await.incident.id;
        world.settled().await;
        world.explainer().explain(id.clone(), ada()).await.unwrap();
        assert_eq!(world.stored(&id).await.times, 2);
        let story = world.story(&id).await;
        assert_eq!(story.iter().map(|(actor, _)| actor.clone()).collect::<Vec<_>>()[1], ada());
        let unknown = world.explainer().explain(IncidentId::given("inc_nothing"), ada()).await;
        assert!(matches!(unknown, Err(ExplainError::NotFound(_))), "{unknown:?}");
        // by itself it is explained no more
        let worse = AlertRecord { severity: Severity::Critical, ..record("disk", Transition::Repeat, 5) };
        world.claim(vec![worse]).await;
        world.until(|details| (details[0].incident.severity == Severity::Critical).then_some(())).await;
        world.settled().await;
        assert_eq!(world.stored(&id).await.times, 2);
    });
}

#[test]
fn an_incident_that_gets_worse_is_explained_again() {
    run(|| async {
        let world = World::new(json!({}));
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let id = world.explained().await.incident.id;
        world.claim(vec![AlertRecord { severity: Severity::Critical, ..record("disk", Transition::Repeat, 5) }]).await;
        world.until(|details| (details[0].incident.severity == Severity::Critical).then_some(())).await;
        world.settled().await;
        let stored = world.stored(&id).await;
        assert_eq!(stored.times, 2);
        assert!(stored.explanation.summary.contains("seen twice"), "{}", stored.explanation.summary);
    });
}

#[test]
fn p17_what_one_look_cannot_take_is_said_and_the_rest_is_explained() {
    run(|| async {
        let world = World::new(json!({ "most_signals": 100 }));
        for second in -600..0 {
            world.log(second, &[("gateway", "GET /health 200", Severity::Info)]).await;
        }
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let explanation = world.explained().await.explanation.unwrap();
        assert!(explanation.degraded);
        assert!(
            explanation.summary.contains("This is not complete: there are more signals than one look takes (100): those received before"),
            "{}",
            explanation.summary
        );
        assert!(explanation.claims.iter().any(|claim| claim.text.contains("fires on shop")), "{:?}", explanation.claims);
    });
}

#[test]
fn how_a_similar_incident_ended_is_told() {
    run(|| async {
        let world = World::new(json!({}));
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        let first = world.explained().await.incident.id;
        world.settled().await;
        let id = first.clone();
        world.ledger.write(Priority::Control, move |tx| tx.incident_resolve(&id, &ada(), "cleaned /var/tmp")).await.unwrap();
        world.claim(vec![record("disk.2", Transition::Firing, 7200)]).await;
        let second =
            world.until(|details| details.iter().find(|detail| detail.incident.id != first && detail.explanation.is_some()).cloned()).await;
        assert_eq!(second.similar.len(), 1, "{:?}", second.similar);
        assert_eq!((&second.similar[0].id, second.similar[0].resolution.as_deref()), (&first, Some("cleaned /var/tmp")));
        let explanation = second.explanation.unwrap();
        assert!(explanation.next_steps.iter().any(|step| step.contains("cleaned /var/tmp")), "{:?}", explanation.next_steps);
        assert!(explanation.claims.iter().any(|claim| claim.text.starts_with("a similar incident")), "{:?}", explanation.claims);
    });
}

#[test]
fn a_stale_explanation_does_not_take_the_place_of_a_newer_one_and_cited_evidence_is_always_shown() {
    run(|| async {
        let mut world = World::without(tempfile::tempdir().unwrap());
        let many: Vec<Observation> =
            (0..80).map(|n| Observation::Log { at: at(n), source: "shop".to_owned(), text: format!("line {n}") }).collect();
        world.claim(vec![AlertRecord { evidence: many, ..record("disk", Transition::Firing, 0) }]).await;
        let id = world.until(|details| details.first().map(|detail| detail.incident.id.clone())).await;
        world.begin(json!({}));
        let mut stored = {
            world.explained().await;
            world.stored(&id).await
        };
        let times = stored.times;
        let put = |stored: StoredExplanation, times| {
            let new = NewExplanation { incident: id.clone(), times, actor: ada(), stored, line: None };
            world.ledger.write(Priority::Bulk, move |tx| tx.explain(new))
        };
        stored.explanation.claims[0].evidence = vec!["e77".to_owned()];
        assert!(matches!(put(stored.clone(), times - 1).await, Err(LedgerError::Conflict(_))));
        let older = StoredExplanation { basis: 0, ..stored.clone() };
        assert!(matches!(put(older, times).await, Err(LedgerError::Conflict(_))));
        put(stored, times).await.unwrap();
        let detail = world.details().await.remove(0);
        assert!(detail.evidence.iter().any(|piece| piece.id == "e77") && !detail.evidence.iter().any(|piece| piece.id == "e76"));
    });
}

#[test]
fn its_configuration_is_documented_checked_and_read_back() {
    let defaults = (ENTRY.defaults)();
    assert_eq!((ENTRY.check)(defaults.clone()), []);
    assert_eq!(
        (ENTRY.check)(
            json!({ "provider": "deterministic", "runbooks": [{ "id": "rb-memory", "title": "…", "keywords": ["memory", "oom"], "steps": ["…"] }] })
        ),
        []
    );
    let pointers = |section: serde_json::Value| (ENTRY.check)(section).into_iter().map(|problem| problem.pointer).collect::<Vec<_>>();
    assert_eq!(pointers(json!({ "runboks": [] })), ["/runboks"]);
    assert_eq!(pointers(json!({ "lookback": "1s", "most_signals": 1 })), ["/lookback", "/most_signals"]);
    assert_eq!(
        pointers(json!({ "runbooks": [{ "id": "a", "title": "t" }, { "id": "a", "title": "" }] })),
        ["/runbooks/1/id", "/runbooks/1/title"]
    );
    let mut generator =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = (ENTRY.schema)(&mut generator).to_value();
    assert!(schema["description"].as_str().unwrap().contains("`enricher.aiSummary`"));
    for (name, property) in
        schema["properties"].as_object().unwrap().iter().chain(schema["properties"]["runbooks"]["items"]["properties"].as_object().unwrap())
    {
        assert!(property.get("description").is_some(), "{name} is not documented");
    }
}
