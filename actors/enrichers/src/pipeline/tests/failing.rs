//! Stages that fail, and records that they fail at.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use opspilot_kernel::{alert::Transition, principal::Actor};
use opspilot_ledger::{Ledger, Page, Priority, pipeline::Board};
use opspilot_runtime::{AskError, ModuleContext, Overall, Phase, Requeue};

use super::{World, run};
use crate::{
    DEDUP,
    stage::Item,
    stage_actor::{Answer, Decide, Decider, Poisoned, Stage, StageModule},
    testkit::record,
};

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
                let follows = health.until(|health| (health.overall().0 == Overall::Unhealthy) == unhealthy);
                tokio::time::timeout(Duration::from_secs(60), follows).await.expect("health follows");
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
        let (_pipeline, position) = crate::pipeline::start_watched(&next, world.stages.clone()).unwrap();
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
