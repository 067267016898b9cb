//! The whole pipeline: real stages, real actors, a real ledger.

mod failing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::System;
use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    clock::{ManualClock, SharedClock},
    ids::{AlertId, IncidentId},
    incident::{IncidentStatus, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{AlertFilter, IncidentDetail, IncidentFilter, Ledger, LedgerError, Options, Page, Priority};
use opspilot_runtime::{Module, ModuleContext};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::Pipeline;
use crate::{
    DEDUP, INCIDENT_STORE, MODULES,
    stage_actor::Stages,
    testkit::{alert, at, record},
};

struct World {
    dir: tempfile::TempDir,
    ledger: Ledger,
    clock: Arc<ManualClock>,
    ctx: ModuleContext,
    stages: Stages,
    modules: Vec<Box<dyn Module>>,
    pipeline: opspilot_runtime::Handle<Pipeline>,
    position: tokio::sync::watch::Receiver<opspilot_kernel::ids::Seq>,
}

impl World {
    fn new() -> World {
        World::at(tempfile::tempdir().unwrap(), serde_json::json!({}))
    }

    fn at(dir: tempfile::TempDir, store: serde_json::Value) -> World {
        let clock = ManualClock::at(at(0));
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        let ledger = Ledger::open(Options::new(dir.path(), Arc::clone(&shared))).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), shared, Arc::new(|_| {})).unwrap();
        let stages = Stages::in_order(&[DEDUP, INCIDENT_STORE]);
        let modules: Vec<Box<dyn Module>> = MODULES
            .iter()
            .filter(|entry| [DEDUP, INCIDENT_STORE].contains(&entry.id))
            .map(|entry| {
                let section = if entry.id == INCIDENT_STORE { store.clone() } else { serde_json::json!({}) };
                (entry.start)(&ctx, section).unwrap()
            })
            .collect();
        for module in &modules {
            assert!(stages.plug(&**module));
        }
        let (pipeline, position) = super::start_watched(&ctx, stages.clone()).unwrap();
        World { dir, ledger, clock, ctx, stages, modules, pipeline, position }
    }

    /// The same data in a new process, as it were.
    async fn reopened(self, store: serde_json::Value) -> World {
        self.ctx.supervisor.stop_all().await;
        let World { dir, ledger, ctx, stages, modules, pipeline, .. } = self;
        ledger.shut_down().await.unwrap();
        drop((ledger, ctx, stages, modules, pipeline));
        World::at(dir, store)
    }

    async fn claim(&self, records: Vec<AlertRecord>) {
        let commit =
            self.ledger.write(Priority::Bulk, move |tx| tx.commit_alerts("detector.test", i64::MAX.unsigned_abs(), records, Vec::new()));
        commit.await.unwrap();
    }

    /// Waits until the pipeline has read everything.
    async fn settled(&self) {
        let head = self.ledger.alerts().head();
        let mut position = self.position.clone();
        let done = position.wait_for(|position| *position >= head);
        let done = tokio::time::timeout(Duration::from_secs(30), done).await.expect("the pipeline gets through");
        assert!(done.is_ok(), "it is there");
    }

    async fn incidents(&self) -> Vec<IncidentDetail> {
        self.ledger.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(500))).await.unwrap().items
    }

    async fn person<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut opspilot_ledger::Tx<'_>, &Actor) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ada = Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
        self.ledger.write(Priority::Control, move |tx| job(tx, &ada)).await
    }

    async fn story(&self, id: &IncidentId) -> Vec<(TimelineKind, String)> {
        let id = id.clone();
        let listed = self.ledger.read(move |reader| reader.timeline(&id, &Page::first(1000))).await.unwrap();
        listed.items.into_iter().map(|entry| (entry.kind, entry.text)).collect()
    }

    /// What must hold whatever happened.
    async fn check(&self) {
        let alerts = self.ledger.read(|reader| reader.alerts(&AlertFilter::default(), &Page::first(500))).await.unwrap().items;
        let mut open = BTreeMap::new();
        for detail in self.incidents().await {
            let id = Some(detail.incident.id.clone());
            let own: Vec<_> = alerts.iter().filter(|alert| alert.incident_id == id).collect();
            assert_eq!(detail.incident.alert_count, u64::try_from(own.len()).unwrap());
            assert_eq!(detail.incident.occurrences, own.iter().map(|alert| alert.occurrences).sum::<u64>());
            let is_open = detail.incident.status != IncidentStatus::Resolved;
            assert!(is_open || own.iter().all(|alert| alert.status == AlertStatus::Resolved), "{detail:?}");
            for alert in own {
                let rival = open.insert(alert.fingerprint, detail.incident.id.clone()).filter(|_| is_open);
                let rival = rival.filter(|rival| *rival != detail.incident.id);
                assert!(rival.is_none() || !is_open || self.resolved(rival.as_ref()).await, "two open incidents of one alert");
            }
        }
        assert!(alerts.iter().all(|alert| alert.incident_id.is_some()), "every alert belongs to an incident");
    }

    async fn resolved(&self, id: Option<&IncidentId>) -> bool {
        let id = id.unwrap().clone();
        self.ledger.read(move |reader| reader.incident(&id)).await.unwrap().incident.status == IncidentStatus::Resolved
    }
}

fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    System::new().block_on(async { test().await })
}

#[test]
fn an_alert_becomes_an_incident_that_ends_with_it() {
    run(|| async {
        let world = World::new();
        world.claim(vec![record("disk", Transition::Firing, 0), record("disk", Transition::Repeat, 1)]).await;
        world.settled().await;
        let open = world.incidents().await;
        assert_eq!((open.len(), open[0].incident.occurrences, open[0].evidence.len()), (1, 2, 2));
        world.claim(vec![record("disk", Transition::Resolved, 2)]).await;
        world.settled().await;
        assert_eq!(world.incidents().await[0].incident.status, IncidentStatus::Resolved);
        let why = world.ledger.read(|reader| reader.alert_decisions(&alert("disk"), &Page::first(50))).await.unwrap().items;
        let stages: Vec<_> = why.iter().map(|decision| (decision.stage.as_str(), decision.outcome.as_str())).collect();
        let (dedup, store) = ("enricher.dedup", "enricher.incidentStore");
        assert_eq!(
            stages,
            [(dedup, "new"), (dedup, "counted"), (store, "opened"), (store, "counted"), (dedup, "ended"), (store, "resolved")]
        );
        world.check().await;
        world.ctx.supervisor.stop_all().await;
    });
}

#[test]
fn a_switched_off_store_keeps_alerts_and_a_switched_off_dedup_reopens_nothing() {
    run(|| async {
        let world = World::new();
        world.stages.unplug(INCIDENT_STORE);
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        world.settled().await;
        assert!(world.incidents().await.is_empty());
        world.stages.plug(&*world.modules[1]);
        world.stages.unplug(DEDUP);
        let script = [("cpu.1", Transition::Firing), ("cpu.1", Transition::Resolved), ("cpu.2", Transition::Firing)];
        world.claim((1..).zip(script).map(|(second, (name, what))| record(name, what, second)).collect()).await;
        world.settled().await;
        assert_eq!(world.incidents().await.len(), 2);
        world.ctx.supervisor.stop_all().await;
    });
}

#[test]
fn a_snooze_ends_with_a_tick_that_the_pipeline_asks_for() {
    run(|| async {
        let world = World::new();
        world.claim(vec![record("disk", Transition::Firing, 0)]).await;
        world.settled().await;
        let id = world.incidents().await[0].incident.id.clone();
        let until = at(60);
        world.person(move |tx, ada| tx.incident_snooze(&id, ada, until)).await.unwrap();
        let mut earliest = world.ctx.ticker.watch();
        let asked = earliest.wait_for(|earliest| *earliest == Some(until));
        let asked = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("a tick is asked for");
        assert!(asked.is_ok(), "the ticker is there");
        world.clock.set(at(61));
        world.ledger.tick(at(61)).await.unwrap();
        world.settled().await;
        assert_eq!(world.incidents().await[0].incident.snoozed_until, None);
        world.ctx.supervisor.stop_all().await;
    });
}

#[test]
fn people_and_the_pipeline_race_and_nothing_is_lost() {
    run(|| async {
        let world = World::new();
        let mut second = 0;
        for round in 0..40_i64 {
            let records = ["disk.1", "disk.2", "cpu"].map(|name| {
                second += 1;
                let what = [Transition::Firing, Transition::Repeat, Transition::Firing, Transition::Resolved];
                let what = what[usize::try_from((round + second) % 4).unwrap()];
                AlertRecord { severity: if round > 30 { Severity::Critical } else { Severity::Warning }, ..record(name, what, second) }
            });
            world.clock.set(at(second));
            let claimed = world.claim(records.to_vec());
            let people = async {
                for detail in world.incidents().await {
                    let id = detail.incident.id;
                    // a refusal is an answer too: the incident changed since it was listed
                    drop(match round % 3 {
                        0 => world.person(move |tx, ada| tx.incident_acknowledge(&id, ada, "")).await,
                        1 => world.person(move |tx, ada| tx.incident_resolve(&id, ada, "")).await,
                        _ => world.person(move |tx, ada| tx.incident_note(&id, ada, "hm")).await,
                    });
                }
            };
            tokio::join!(claimed, people);
        }
        world.settled().await;
        world.check().await;
        world.ctx.supervisor.stop_all().await;
    });
}

/// Everything a user can see of the incidents, in an order that does not depend on when they were committed.
type Seen = BTreeMap<IncidentId, (IncidentDetail, Vec<(TimelineKind, String)>, Vec<(AlertId, String, u64)>)>;

async fn seen(world: &World) -> Seen {
    let mut all = Seen::new();
    for detail in world.incidents().await {
        let id = detail.incident.id.clone();
        let own = id.clone();
        let why = world.ledger.read(move |reader| reader.incident_decisions(&own, &Page::first(500))).await.unwrap().items;
        let mut why: Vec<_> = why
            .into_iter()
            .filter_map(|decision| Some((decision.alert_id?, format!("{} {}", decision.outcome, decision.text), decision.times)))
            .collect();
        why.sort();
        let story = world.story(&id).await;
        all.insert(id, (detail, story, why));
    }
    all
}

#[test]
fn cut_anywhere_and_stopped_anywhere_the_incidents_are_the_same() {
    let store = serde_json::json!({ "quiet_period": "40s" });
    let script = proptest::collection::vec((0..5_usize, 0..9_u8, prop_oneof![Just(0_i64), 0..60_i64, Just(1900_i64)]), 10..40);
    let cuts = proptest::collection::vec((1..7_usize, any::<bool>(), 0..6_u8), 40);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(5) });
    runner
        .run(&(script, cuts), |(script, cuts)| {
            let mut second = 0;
            let log: Vec<Fed> = (1..)
                .zip(&script)
                .map(|(seq, (name, what, pause))| {
                    second += pause;
                    let name = ["disk.1", "disk.2", "cpu.1", "cpu.2", "net"][*name];
                    let what = match what {
                        0..=2 => Transition::Firing,
                        3 | 4 => Transition::Repeat,
                        5..=7 => Transition::Resolved,
                        _ => return Fed::Tick(at(second)),
                    };
                    Fed::Record(Box::new(AlertRecord { signal_seq: seq, ..record(name, what, second) }))
                })
                .collect();
            let (whole, parts) = run(|| async {
                let world = World::at(tempfile::tempdir().unwrap(), store.clone());
                feed(&world, &log).await;
                world.settled().await;
                world.check().await;
                let whole = seen(&world).await;
                world.ctx.supervisor.stop_all().await;

                let mut world = World::at(tempfile::tempdir().unwrap(), store.clone());
                let mut rest = &log[..];
                for (size, wait, kill) in cuts {
                    let (part, behind) = rest.split_at(size.min(rest.len()));
                    feed(&world, part).await;
                    rest = behind;
                    if wait {
                        world.settled().await;
                    }
                    if kill == 0 {
                        world = world.reopened(store.clone()).await;
                    }
                }
                feed(&world, rest).await;
                world.settled().await;
                world.check().await;
                let parts = seen(&world).await;
                world.ctx.supervisor.stop_all().await;
                (whole, parts)
            });
            prop_assert_eq!(whole, parts);
            Ok(())
        })
        .unwrap();
}

/// What goes into the alert log.
enum Fed {
    Record(Box<AlertRecord>),
    Tick(Timestamp),
}

async fn feed(world: &World, log: &[Fed]) {
    for part in log.chunk_by(|one, next| matches!((one, next), (Fed::Record(_), Fed::Record(_)))) {
        if let [Fed::Tick(at)] = part {
            world.ledger.tick(*at).await.unwrap();
            continue;
        }
        let record = |fed: &Fed| match fed {
            Fed::Record(record) => Some((**record).clone()),
            Fed::Tick(_) => None,
        };
        world.claim(part.iter().filter_map(record).collect()).await;
    }
}
