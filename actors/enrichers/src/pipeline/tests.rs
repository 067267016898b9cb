//! The whole pipeline: real stages, real actors, a real ledger.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::System;
use futures_util::future::LocalBoxFuture;
use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    clock::{ManualClock, SharedClock},
    ids::{AlertId, IncidentId},
    incident::{IncidentStatus, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{AlertFilter, IncidentDetail, IncidentFilter, Ledger, LedgerError, Options, Page, Priority, pipeline::Board};
use opspilot_runtime::{AskError, Module, ModuleContext, Overall, Phase, Requeue};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::Pipeline;
use crate::{
    DEDUP, INCIDENT_STORE, MODULES,
    stage::Item,
    stage_actor::{Answer, Decide, Decider, Poisoned, Stage, StageModule, Stages},
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

/// A stage during whose work somebody always changes the incident it works on, until it was changed so many times.
struct Crowded(Ledger, Arc<std::sync::atomic::AtomicU32>, u32);

impl Decider for Crowded {
    const ID: opspilot_kernel::module::ModuleId = DEDUP;

    fn decide(&self, board: &Board, items: Vec<Item>) -> Answer {
        if let Some(state) = board.incidents.values().next()
            && self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < self.2
        {
            let (ledger, id) = (self.0.clone(), state.incident.id.clone());
            let note = async move {
                let ada = Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
                ledger.write(Priority::Control, move |tx| tx.incident_note(&id, &ada, "hm").map(drop)).await.unwrap();
            };
            let own = std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(note));
            own.join().unwrap();
        }
        Answer { items, ..Answer::default() }
    }
}

async fn crowded(most: u32) -> (World, u32) {
    let world = World::new();
    world.claim(vec![record("a", Transition::Firing, 0)]).await;
    world.settled().await;
    world.ctx.supervisor.stop(DEDUP.as_str()).await;
    let rounds = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let crowd = Crowded(world.ledger.clone(), Arc::clone(&rounds), most);
    let stage = StageModule::start(&world.ctx, crowd, |_| Err(serde_json::from_str::<u8>("").unwrap_err()));
    world.stages.plug(&stage);
    world.claim(vec![record("a", Transition::Repeat, 1)]).await;
    world.settled().await;
    world.ctx.supervisor.stop_all().await;
    (world, rounds.load(std::sync::atomic::Ordering::SeqCst))
}

#[test]
fn a_record_that_is_always_in_conflict_does_not_hold_the_pipeline_up_for_ever() {
    run(|| async {
        let (world, rounds) = crowded(u32::MAX).await;
        let letters = world.ledger.read(|reader| reader.dead_letters(&Page::first(10))).await.unwrap().items;
        assert_eq!((letters.len(), letters[0].module.as_str(), letters[0].first_seq), (1, "core.pipeline", 2));
        assert!((20..100).contains(&rounds), "it was given many chances: {rounds}");
    });
}

#[test]
fn a_record_that_is_in_conflict_for_a_while_is_not_lost() {
    run(|| async {
        let (world, _) = crowded(15).await;
        assert_eq!(world.ledger.read(|reader| reader.dead_letters(&Page::first(10))).await.unwrap().items, []);
        assert_eq!(world.incidents().await[0].incident.occurrences, 2);
    });
}

/// A stage that fails on one kind of alert, until it is cured.
struct Fragile(Arc<std::sync::atomic::AtomicU32>);

impl Decider for Fragile {
    const ID: opspilot_kernel::module::ModuleId = DEDUP;

    fn decide(&self, _: &Board, items: Vec<Item>) -> Answer {
        let poisoned = items.iter().any(|item| match &item.entry {
            opspilot_ledger::AlertEntry::Record { record, .. } => record.title.starts_with("poison"),
            opspilot_ledger::AlertEntry::Tick { .. } => false,
        });
        if poisoned && self.0.load(std::sync::atomic::Ordering::SeqCst) != u32::MAX {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            panic!("told to fail");
        }
        Answer { items, ..Answer::default() }
    }
}

#[test]
fn s3_a_record_that_kills_a_stage_is_set_aside_and_can_be_tried_again() {
    run(|| async {
        let world = World::new();
        world.ctx.supervisor.stop(DEDUP.as_str()).await;
        let kills = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let fragile = StageModule::start(&world.ctx, Fragile(Arc::clone(&kills)), |_| Ok(Fragile(Arc::default())));
        world.stages.plug(&fragile);
        let names = ["a", "b", "poison", "c", "d"];
        world.claim((0..).zip(names).map(|(second, name)| record(name, Transition::Firing, second)).collect()).await;
        world.settled().await;
        let mut titles: Vec<_> = world.incidents().await.into_iter().map(|detail| detail.incident.title).collect();
        titles.sort();
        assert_eq!(titles, ["a is wrong", "b is wrong", "c is wrong", "d is wrong"], "its neighbours are not affected");
        assert!(kills.load(std::sync::atomic::Ordering::SeqCst) >= 3, "it was given three chances");
        let letters = world.ledger.read(|reader| reader.dead_letters(&Page::first(10))).await.unwrap().items;
        assert_eq!((letters.len(), letters[0].module.as_str(), letters[0].first_seq), (1, "core.pipeline", 3));

        kills.store(u32::MAX, std::sync::atomic::Ordering::SeqCst);
        let id = letters[0].id.clone();
        let own = id.clone();
        world.person(move |tx, ada| tx.requeue_dead_letter(&own, ada)).await.unwrap();
        world.pipeline.ask(Requeue(id), Duration::from_secs(10)).await.unwrap().unwrap();
        assert_eq!(world.incidents().await.len(), 5);
        assert!(world.ledger.read(|reader| reader.dead_letters(&Page::first(10))).await.unwrap().items.is_empty());
        world.check().await;
        world.ctx.supervisor.stop_all().await;
    });
}

/// A stage whose supervisor has given it up.
struct GivenUp;

impl Stage for GivenUp {
    fn id(&self) -> opspilot_kernel::module::ModuleId {
        DEDUP
    }

    fn ask(&self, _: Decide) -> LocalBoxFuture<'static, Result<Result<Answer, Poisoned>, AskError>> {
        Box::pin(async { Err(AskError::Unavailable) })
    }

    fn phase(&self) -> Phase {
        Phase::Failed
    }
}

#[test]
fn while_alerts_wait_for_a_failed_stage_the_service_is_unhealthy_and_says_why() {
    run(|| async {
        let world = World::new();
        let until = |unhealthy: bool| {
            let health = world.ctx.health.clone();
            async move {
                let seen = async {
                    while (health.overall().0 == Overall::Unhealthy) != unhealthy {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), seen).await.expect("health follows");
                health.lacking()
            }
        };
        world.ctx.supervisor.stop(DEDUP.as_str()).await;
        assert_ne!(world.ctx.health.overall().0, Overall::Unhealthy);
        world.stages.plug(&StageModule::over(&world.ctx, Arc::new(GivenUp)));
        world.claim(vec![record("a", Transition::Firing, 0)]).await;
        let lacking = until(true).await;
        assert_eq!(lacking.len(), 1);
        assert!(lacking[0].starts_with("core.pipeline: enricher.dedup failed"), "{lacking:?}");
        assert!(world.ctx.health.overall().1.contains("enricher.dedup failed"));
        world.stages.unplug(DEDUP);
        world.settled().await;
        assert_eq!(until(false).await, Vec::<String>::new());
        assert_eq!(world.incidents().await.len(), 1, "nothing was lost meanwhile");
        world.ctx.supervisor.stop_all().await;
    });
}

/// A stage that tells which attempts were on record when it was asked.
struct Witness(Ledger, Arc<std::sync::Mutex<Vec<(u64, u64, u32)>>>);

impl Decider for Witness {
    const ID: opspilot_kernel::module::ModuleId = DEDUP;

    fn decide(&self, _: &Board, items: Vec<Item>) -> Answer {
        let open = self.0.read_blocking(|reader| reader.open_attempts("core.pipeline")).unwrap();
        self.1.lock().unwrap().extend(open);
        Answer { items, ..Answer::default() }
    }
}

#[test]
fn s3_a_record_that_ends_the_process_is_set_aside_after_three_attempts() {
    run(|| async {
        let world = World::new();
        world.settled().await;
        for id in ["core.pipeline", DEDUP.as_str()] {
            world.ctx.supervisor.stop(id).await;
        }
        world.claim((0..).zip(["a", "b", "c"]).map(|(second, name)| record(name, Transition::Firing, second)).collect()).await;
        // what processes leave that ended in the middle: once over all three, three times over the second alone
        let left = world.ledger.write(Priority::Bulk, |tx| {
            tx.count_attempt("core.pipeline", 1, 3)?;
            (0..3).try_for_each(|_| tx.count_attempt("core.pipeline", 2, 2).map(drop))
        });
        left.await.unwrap();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let witness = Witness(world.ledger.clone(), Arc::clone(&seen));
        let witness = StageModule::start(&world.ctx, witness, |_| Err(serde_json::from_str::<u8>("").unwrap_err()));
        world.stages.plug(&witness);
        let next = ModuleContext { registry: prometheus::Registry::new(), ..world.ctx.clone() };
        let (_pipeline, position) = super::start_watched(&next, world.stages.clone()).unwrap();
        let world = World { position, ..world };
        world.settled().await;
        let letters = world.ledger.read(|reader| reader.dead_letters(&Page::first(10))).await.unwrap().items;
        assert_eq!((letters.len(), letters[0].first_seq, letters[0].attempts), (1, 2, 3));
        assert_eq!(world.incidents().await.len(), 2, "its neighbours are processed");
        let seen = seen.lock().unwrap().clone();
        assert!(seen.contains(&(1, 1, 1)) && seen.contains(&(3, 3, 1)), "counted before they are tried: {seen:?}");
        let open = world.ledger.read(|reader| reader.open_attempts("core.pipeline")).await.unwrap();
        assert_eq!(open, [], "and forgotten once they are done");
        world.claim(vec![record("d", Transition::Firing, 9)]).await;
        world.settled().await;
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
