//! What lanes are given.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opspilot_kernel::{event::EventKind, ids::Seq, lifecycle::Heartbeat, module::ModuleStatus};
use opspilot_ledger::{EventEntry, Ledger, Priority};
use opspilot_runtime::{
    ChildSpec, Deliver, EventKinds, EventRouter, EventRouterHandle, Handle, HealthReporter, Inlet, Lane, LaneGuard, Overflow, TellError,
};
use parking_lot::Mutex;

use crate::{
    kit::ledger_in,
    world::{Ail, Knobs, SICK, World, on_real_time, quiet, until},
};

/// A lane's other end.
struct Probe {
    taken: Mutex<Vec<Seq>>,
    room: AtomicUsize,
    panics: AtomicBool,
}

struct Into(Arc<Probe>);

impl Inlet<Deliver> for Into {
    fn offer(&self, Deliver(envelope): Deliver) -> Result<(), TellError> {
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "told to fail");
        let room = self.0.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1));
        room.map_err(|_| TellError::Full)?;
        self.0.taken.lock().push(envelope.seq);
        Ok(())
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    world: World,
    ledger: Ledger,
    router: EventRouterHandle,
    actor: Handle<EventRouter>,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger_in(dir.path());
    stage_over(dir, ledger)
}

fn stage_over(dir: tempfile::TempDir, ledger: Ledger) -> Stage {
    let world = World::real_time();
    let router = EventRouterHandle::new(ledger.clone(), &world.registry, quiet()).unwrap();
    let made = router.clone();
    let mut spec = ChildSpec::core("runtime/router");
    spec.backoff.first = Duration::from_millis(1);
    let actor = world.supervisor.start(spec, move || made.actor());
    Stage { _dir: dir, world, ledger, router, actor }
}

impl Stage {
    fn lane(&self, room: usize, overflow: Overflow, wants: EventKinds) -> (Arc<Probe>, LaneGuard) {
        let probe = Arc::new(Probe { taken: Mutex::default(), room: AtomicUsize::new(room), panics: AtomicBool::new(false) });
        let inlet = Box::new(Into(Arc::clone(&probe)));
        (probe, self.router.register(Lane { name: "test", wants, overflow, inlet }))
    }

    async fn commit(&self, count: usize) -> Seq {
        for number in 0..count {
            let detail = number.to_string();
            let write = move |tx: &mut opspilot_ledger::Tx<'_>| {
                tx.module_health_changed("detector.x", ModuleStatus::Healthy, ModuleStatus::Degraded, &detail)
            };
            self.ledger.write(Priority::Control, write).await.unwrap();
        }
        self.ledger.events().head()
    }

    async fn handed_out(&self, upto: Seq) {
        until("it is handed out", || self.router.cursor() >= upto).await;
    }
}

#[test]
fn a_lane_gets_every_event_it_wants_in_order() {
    on_real_time(|| async {
        let stage = stage();
        let (all, guard) = stage.lane(1000, Overflow::MarkLagging, EventKinds::ALL);
        let (none, _incidents) = stage.lane(1000, Overflow::DropNewest, EventKinds::of([EventKind::IncidentCreated]));
        let head = stage.commit(20).await;
        stage.handed_out(head).await;
        assert_eq!(*all.taken.lock(), (guard.from + 1..=head).collect::<Vec<_>>());
        assert!(none.taken.lock().is_empty());
        drop(guard);
        let head = stage.commit(1).await;
        stage.handed_out(head).await;
        assert_eq!(all.taken.lock().len(), 20, "a lane that is gone gets nothing");
    });
}

#[test]
fn a_full_live_lane_drops_and_counts_and_delays_nobody() {
    on_real_time(|| async {
        let stage = stage();
        let (slow, slow_guard) = stage.lane(3, Overflow::DropNewest, EventKinds::ALL);
        let (quick, quick_guard) = stage.lane(1000, Overflow::DropNewest, EventKinds::ALL);
        let head = stage.commit(10).await;
        stage.handed_out(head).await;
        assert_eq!((slow.taken.lock().len(), slow_guard.counts().dropped), (3, 7));
        assert_eq!((quick.taken.lock().len(), quick_guard.counts().dropped), (10, 0));
        slow.room.store(100, Ordering::SeqCst);
        let head = stage.commit(1).await;
        stage.handed_out(head).await;
        assert_eq!(slow.taken.lock().last(), Some(&head), "it goes on when there is room");
    });
}

#[test]
fn a_lagging_lane_reads_on_from_the_ledger_and_misses_nothing() {
    on_real_time(|| async {
        let stage = stage();
        let (probe, guard) = stage.lane(3, Overflow::MarkLagging, EventKinds::ALL);
        let first = guard.from + 1;
        let head = stage.commit(10).await;
        stage.handed_out(head).await;
        assert_eq!((probe.taken.lock().len(), guard.lagging(), guard.counts().lagged), (3, Some(first + 3), 1));
        let mut seen = probe.taken.lock().clone();
        let mut upto = *seen.last().unwrap();
        // committed while it reads: the first attempt to resume must be refused
        let mut goal = stage.ledger.events().head();
        stage.commit(5).await;
        stage.handed_out(goal + 5).await;
        loop {
            for entry in stage.ledger.events().next(upto, 4).unwrap() {
                let EventEntry::Event(envelope) = entry else { panic!("a gap") };
                if envelope.seq <= goal {
                    seen.push(envelope.seq);
                    upto = envelope.seq;
                }
            }
            if upto < goal {
                continue;
            }
            match guard.resume(upto) {
                Ok(()) => break,
                Err(further) => {
                    assert!(further > goal);
                    goal = further;
                }
            }
        }
        assert_eq!(guard.lagging(), None);
        probe.taken.lock().clear();
        probe.room.store(100, Ordering::SeqCst);
        let head = stage.commit(5).await;
        stage.handed_out(head).await;
        seen.extend(probe.taken.lock().iter());
        assert_eq!(seen, (first..=head).collect::<Vec<_>>(), "no gap and no repeat");
    });
}

#[test]
fn s1_a_restart_of_the_router_loses_and_repeats_nothing() {
    on_real_time(|| async {
        let stage = stage();
        let (before, guard) = stage.lane(1000, Overflow::DropNewest, EventKinds::ALL);
        let (failing, _failing) = stage.lane(1000, Overflow::DropNewest, EventKinds::ALL);
        let (after, _after) = stage.lane(1000, Overflow::DropNewest, EventKinds::ALL);
        for _ in 0..3 {
            failing.panics.store(true, Ordering::SeqCst);
            let head = stage.commit(4).await;
            stage.handed_out(head).await;
        }
        assert_eq!(stage.world.restarts("panic"), 3, "the fault fired");
        let expected: Vec<Seq> = (guard.from + 1..=stage.router.cursor()).collect();
        for probe in [before, failing, after] {
            assert_eq!(*probe.taken.lock(), expected);
        }
        assert!(stage.actor.tally().in_flight == 0);
    });
}

#[test]
fn a_router_that_cannot_read_the_events_says_why_until_it_can() {
    on_real_time(|| async {
        let dir = tempfile::tempdir().unwrap();
        // nothing in memory, and the one connection that reads is taken
        let mut options = opspilot_ledger::Options::new(dir.path(), opspilot_kernel::clock::SystemClock::shared());
        options.limits =
            opspilot_ledger::Limits { event_ring_bytes: 0, readers: 1, read_wait: Duration::from_millis(10), ..options.limits };
        let stage = stage_over(dir, Ledger::open(options).unwrap());
        let (take, taken) = std::sync::mpsc::channel();
        let (give_back, given_back) = std::sync::mpsc::channel::<()>();
        let reads = stage.ledger.clone();
        let reader = std::thread::spawn(move || {
            reads.read_blocking(|_| {
                take.send(()).unwrap();
                given_back.recv().unwrap_err();
                Ok(())
            })
        });
        taken.recv().unwrap();
        stage.commit(2).await;
        let trouble = || async { stage.actor.ask(Heartbeat, Duration::from_secs(5)).await.unwrap().trouble };
        let mut said = trouble().await;
        while said.is_none() {
            tokio::task::yield_now().await;
            said = trouble().await;
        }
        assert!(said.as_ref().is_some_and(|said| said.starts_with("the events cannot be read: ")), "{said:?}");
        drop(give_back);
        reader.join().unwrap().unwrap();
        stage.handed_out(stage.ledger.events().head()).await;
        assert_eq!(trouble().await, None);
    });
}

#[test]
fn a_module_that_fails_is_told_as_an_event_and_audited() {
    on_real_time(|| async {
        let stage = stage();
        let (probe, _guard) = stage.lane(1000, Overflow::DropNewest, EventKinds::of([EventKind::ModuleHealthChanged]));
        let (health, ledger) = (stage.world.health.clone(), stage.ledger.clone());
        stage.world.supervisor.start(ChildSpec::core("runtime/health"), move || HealthReporter::new(health.clone(), ledger.clone()));
        let sick = stage.world.start(ChildSpec::module(SICK), &Knobs::new());
        sick.settled().await;
        let _ = sick.ask(Ail::Panic, Duration::from_secs(5)).await;
        until("restarting and healthy again", || probe.taken.lock().len() >= 2).await;
        let filter = opspilot_ledger::AuditFilter::default();
        let audited = stage.ledger.read(move |reader| reader.audit(&filter, &opspilot_ledger::Page::first(100))).await.unwrap();
        assert!(format!("{audited:?}").contains("MOD02I"), "{audited:?}");
    });
}
