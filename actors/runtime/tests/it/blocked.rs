//! S5 on real threads: what blocks a thread cannot be killed, only left behind.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::module::ModuleStatus;
use opspilot_runtime::{AskError, ChildSpec, ExitReason, HeartbeatPolicy, Phase};

use crate::world::{Ail, Do, Knobs, SICK, World, on_real_time, until};

const QUICK: HeartbeatPolicy =
    HeartbeatPolicy { every: Duration::from_millis(20), degraded: Duration::from_millis(60), failure: Duration::from_millis(150) };

#[test]
fn s5_an_actor_whose_thread_is_blocked_is_replaced_behind_its_handle() {
    on_real_time(|| async {
        let (world, knobs) = (World::real_time(), Knobs::new());
        let spec = ChildSpec { heartbeat: QUICK, ..ChildSpec::module(SICK).on_own_arbiter() };
        let sick = world.start(spec, &knobs);
        assert_eq!(sick.ask(Do(1), Duration::from_secs(5)).await, Ok(1));
        let stuck = {
            let sick = sick.clone();
            actix::spawn(async move { sick.ask(Ail::Block(Duration::from_millis(900)), Duration::from_secs(60)).await })
        };
        until("shown", || world.status() == ModuleStatus::Degraded).await;
        assert_eq!(stuck.await.unwrap(), Err(AskError::Unavailable), "the question in flight is answered");
        assert_eq!(sick.ask(Do(2), Duration::from_secs(5)).await, Ok(1), "a fresh value, while the old thread is still blocked");
        assert_eq!(knobs.made.load(std::sync::atomic::Ordering::SeqCst), 2);
        assert_eq!(world.restarts("hang"), 1);
        let abandoned = world.registry.gather();
        let abandoned = abandoned.iter().find(|family| family.name() == "opspilot_module_abandoned_threads").unwrap();
        assert!((abandoned.get_metric()[0].get_gauge().get_value() - 1.0).abs() < f64::EPSILON);
        // the old one wakes up and must find that it is over
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(sick.ask(Do(3), Duration::from_secs(5)).await, Ok(2));
        assert_eq!(*knobs.handled.lock(), [1, 2, 3]);
    });
}

#[test]
fn s5_an_actor_that_blocks_again_and_again_is_given_up() {
    on_real_time(|| async {
        let (world, knobs) = (World::real_time(), Knobs::new());
        let mut spec = ChildSpec { heartbeat: QUICK, ..ChildSpec::core(SICK).on_own_arbiter() };
        spec.backoff.first = Duration::from_millis(1);
        let sick = world.start(spec, &knobs);
        for _ in 0..4 {
            sick.settled().await;
            let _ = sick.ask(Ail::Block(Duration::from_secs(2)), Duration::from_secs(60)).await;
        }
        until("given up", || sick.phase() == Phase::Failed).await;
        assert_eq!(world.exits.lock().len(), 1, "threads are not left behind without end");
    });
}

#[test]
fn an_actor_on_its_own_thread_is_restarted_there_and_stops_with_it() {
    on_real_time(|| async {
        let (world, knobs) = (World::real_time(), Knobs::new());
        let mut spec = ChildSpec::module(SICK).on_own_arbiter();
        spec.backoff.first = Duration::from_millis(1);
        let sick = world.start(spec, &knobs);
        assert_eq!(sick.ask(Do(1), Duration::from_secs(5)).await, Ok(1));
        assert_eq!(sick.ask(Ail::Panic, Duration::from_secs(5)).await, Err(AskError::Unavailable));
        assert_eq!(sick.ask(Do(2), Duration::from_secs(5)).await, Ok(1));
        world.supervisor.stop_all().await;
        assert_eq!(sick.phase(), Phase::Stopped);
    });
}

#[test]
fn s5_a_blocked_event_loop_is_seen_from_outside_and_ends_the_process() {
    on_real_time(|| async {
        let world = World::real_time();
        world.supervisor.guard_loop(QUICK).unwrap();
        let beats = world.supervisor.loop_beats();
        until("it turns", || world.supervisor.loop_beats() > beats + 3).await;
        assert_eq!(*world.exits.lock(), []);
        let exits = Arc::clone(&world.exits);
        // blocks the loop until the watchdog has spoken
        for _ in 0..500 {
            if !exits.lock().is_empty() {
                break;
            }
            #[allow(clippy::disallowed_methods, reason = "to block the loop is what is tested")]
            std::thread::sleep(Duration::from_millis(10));
        }
        let exits = exits.lock();
        assert_eq!((exits[0].code, exits[0].reason.clone()), (70, ExitReason::LoopBlocked));
    });
}
