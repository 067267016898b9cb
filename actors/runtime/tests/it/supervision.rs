//! Every way to fail, and what becomes of the actor.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opspilot_kernel::module::{ModuleId, ModuleStatus};
use opspilot_runtime::{AskError, ChildSpec, Exit, ExitReason, Intensity, Overall, Phase, Report, Restart, Stopped};

use crate::world::{Ail, Do, Knobs, SICK, Sick, World, on_virtual_time, until};

const SOON: Duration = Duration::from_secs(2);

/// Fails the actor once and checks that it comes back with fresh state behind the same handle.
fn comes_back_after(how: Ail, cause: &str) {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1));
        assert_eq!(sick.ask(Do(2), SOON).await, Ok(2));
        let _ = sick.ask(how, SOON).await;
        until("the failure", || world.restarts(cause) == 1).await;
        assert_eq!(sick.ask(Do(3), SOON).await, Ok(1), "the state is fresh after {how:?}");
        assert_eq!(world.restarts(cause), 1, "{how:?} is counted as {cause}");
        assert_eq!(knobs.made.load(Ordering::SeqCst), 1, "same value, same mailbox");
        assert_eq!(*knobs.handled.lock(), [1, 2, 3]);
        let tally = sick.tally();
        assert_eq!(tally.received, tally.ok + tally.error + tally.in_flight);
        assert_eq!(tally.in_flight, 0);
    });
}

#[test]
fn s1_a_panic_in_a_handler_restarts_the_actor() {
    comes_back_after(Ail::Panic, "panic");
}

#[test]
fn s1_a_panic_in_an_async_future_restarts_the_actor() {
    comes_back_after(Ail::PanicInFuture, "panic");
}

#[test]
fn s1_a_panic_in_a_timer_restarts_the_actor() {
    comes_back_after(Ail::PanicInTimer, "panic");
}

#[test]
fn s1_a_panic_in_an_interval_restarts_the_actor() {
    comes_back_after(Ail::PanicInInterval, "panic");
}

#[test]
fn s1_a_soft_stop_restarts_the_actor() {
    comes_back_after(Ail::Stop, "stop");
    comes_back_after(Ail::Terminate, "stop");
}

#[test]
fn s1_a_panic_in_started_restarts_the_actor() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.fail_starts.store(2, Ordering::SeqCst);
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1), "mail waits for the third start");
        assert_eq!((knobs.starts(), world.restarts("start")), (3, 2));
    });
}

#[test]
fn s1_a_factory_that_panics_is_called_again() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let left = Arc::new(std::sync::atomic::AtomicU32::new(2));
        let made = Arc::clone(&knobs);
        let sick = world.supervisor.start(ChildSpec::module(SICK), move || {
            assert!(!Knobs::take(&left), "told to fail");
            Sick::new(Arc::clone(&made))
        });
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1));
        assert_eq!(world.restarts("start"), 2);
    });
}

#[test]
fn s1_the_asker_is_told_and_never_hangs() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        sick.settled().await;
        let started = tokio::time::Instant::now();
        assert_eq!(sick.ask(Ail::Panic, SOON).await, Err(AskError::Unavailable));
        assert!(started.elapsed() < Duration::from_millis(50), "at once, not at the deadline");
    });
}

#[test]
fn timers_are_not_doubled_by_a_restart_and_a_stale_cancellation_takes_none_away() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        for how in [Ail::Panic, Ail::CancelAndPanic, Ail::Stop] {
            let _ = sick.ask(how, SOON).await;
            assert_eq!(sick.settled().await, Phase::Running);
            until("the restart", || sick.phase() == Phase::Running && world.status() != ModuleStatus::Restarting).await;
            let _ = sick.ask(Do(0), SOON).await;
            let before = knobs.ticks.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(10)).await;
            let ticks = knobs.ticks.load(Ordering::SeqCst) - before;
            assert!((9..=11).contains(&ticks), "{ticks} ticks in ten seconds after {how:?}");
        }
    });
}

#[test]
fn s1_a_panic_in_stopped_does_not_end_the_process() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        knobs.fail_stopped.store(1, Ordering::SeqCst);
        let _ = sick.ask(Ail::Stop, SOON).await;
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1), "restarted after `stopped` panicked");
        // given up on a broken value: its hooks must not run at all
        knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
        knobs.fail_stopped.store(u32::MAX, Ordering::SeqCst);
        let _ = sick.ask(Ail::Panic, SOON).await;
        until("given up", || sick.phase() == Phase::Failed).await;
        // and at an ordered stop
        let (other, knobs) = (ChildSpec::module("detector.other"), Knobs::new());
        let other = world.start(other, &knobs);
        other.settled().await;
        knobs.fail_stopped.store(1, Ordering::SeqCst);
        assert_eq!(world.supervisor.stop("detector.other").await, Stopped::Drained);
    });
}

fn near(wait: Duration, nominal_ms: u64) -> bool {
    (nominal_ms * 8 / 10..=nominal_ms * 12 / 10 + 1).contains(&u64::try_from(wait.as_millis()).unwrap())
}

#[test]
fn s2_a_crash_loop_backs_off_and_is_given_up() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        let neighbour = world.start(ChildSpec::module("detector.other"), &Knobs::new());
        until("the backoff", || world.status() == ModuleStatus::Restarting).await;
        assert_eq!(world.health.overall().0, Overall::Degraded, "degraded while in backoff");
        until("given up", || sick.phase() == Phase::Failed).await;
        let starts = knobs.starts.lock().clone();
        assert_eq!(starts.len(), 6, "five restarts, no more");
        let waits: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (wait, nominal) in waits.iter().zip([100, 200, 400, 800, 1600]) {
            assert!(near(*wait, nominal), "{waits:?}");
        }
        assert_eq!(world.status(), ModuleStatus::Failed);
        assert_eq!(world.health.overall().0, Overall::Degraded, "the service goes on without it");
        assert_eq!(sick.ask(Do(1), SOON).await, Err(AskError::Unavailable));
        assert_eq!(neighbour.ask(Do(1), SOON).await, Ok(1), "nobody else is touched");
        assert_eq!(*world.exits.lock(), []);
    });
}

#[test]
fn s2_a_core_actor_that_is_given_up_ends_the_process_with_70() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
        let sick = world.start(ChildSpec::core(SICK), &knobs);
        until("given up", || sick.phase() == Phase::Failed).await;
        let reason = ExitReason::GaveUp("told to fail in started".to_owned());
        assert_eq!(*world.exits.lock(), [Exit { code: 70, actor: SICK, reason }]);
        assert_eq!(world.health.overall().0, Overall::Unhealthy);
    });
}

#[test]
fn s2_the_backoff_grows_to_its_maximum_and_starts_anew_after_a_healthy_minute() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let mut spec = ChildSpec::module(SICK);
        spec.intensity = Intensity { restarts: 1000, within: Duration::from_secs(1) };
        knobs.fail_starts.store(12, Ordering::SeqCst);
        let sick = world.start(spec, &knobs);
        until("health", || sick.phase() == Phase::Running).await;
        let starts = knobs.starts.lock().clone();
        let waits: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(near(waits[8], 25_600) && near(waits[9], 30_000) && near(waits[11], 30_000), "{waits:?}");
        let restart_after = |healthy: u64| {
            let (sick, knobs) = (sick.clone(), Arc::clone(&knobs));
            async move {
                tokio::time::sleep(Duration::from_secs(healthy)).await;
                let before = tokio::time::Instant::now();
                let _ = sick.ask(Ail::Panic, SOON).await;
                let known = knobs.starts();
                until("the restart", || knobs.starts() > known).await;
                knobs.starts.lock().last().unwrap().duration_since(before)
            }
        };
        assert!(restart_after(50).await > Duration::from_secs(20), "not yet forgotten");
        assert!(near(restart_after(61).await, 100), "forgotten after a minute");
    });
}

#[test]
fn a_transient_actor_may_finish_and_a_temporary_one_is_never_restarted() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        for (restart, how, phase) in [
            (Restart::Transient, Ail::Stop, Phase::Stopped),
            (Restart::Temporary, Ail::Stop, Phase::Stopped),
            (Restart::Temporary, Ail::Panic, Phase::Failed),
        ] {
            let knobs = Knobs::new();
            let sick = world.start(ChildSpec { restart, ..ChildSpec::module(SICK) }, &knobs);
            let _ = sick.ask(how, SOON).await;
            until("the end", || sick.phase() == phase).await;
            assert_eq!(knobs.starts(), 1, "{restart:?} {how:?}");
            assert_eq!(sick.ask(Do(1), SOON).await, Err(AskError::Unavailable));
        }
        let sick = world.start(ChildSpec { restart: Restart::Transient, ..ChildSpec::module(SICK) }, &Knobs::new());
        let _ = sick.ask(Ail::Panic, SOON).await;
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1), "a panic is no way to finish");
    });
}

#[test]
fn s4_a_thousand_queued_messages_survive_a_panic_in_their_midst() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.poison.store(501, Ordering::SeqCst);
        let sick = world.start(ChildSpec::module(SICK).with_mailbox(1000), &knobs);
        for number in 1..=1000 {
            sick.tell(Do(number)).unwrap();
        }
        until("all of it", || sick.tally().in_flight == 0).await;
        let tally = sick.tally();
        assert_eq!((tally.received, tally.ok, tally.error), (1000, 999, 1), "lost=0");
        let expected: Vec<u32> = (1..=1000).filter(|number| *number != 500).collect();
        assert_eq!(*knobs.handled.lock(), expected, "in order");
        assert_eq!(world.restarts("panic"), 1);
    });
}

#[test]
fn s4_asked_messages_are_answered_or_refused_in_a_panic() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.poison.store(51, Ordering::SeqCst);
        let sick = world.start(ChildSpec::module(SICK).with_mailbox(100), &knobs);
        let asks = (1..=100).map(|number| sick.ask(Do(number), SOON));
        let answers = futures_util::future::join_all(asks).await;
        let refused: Vec<usize> = answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(at, _)| at + 1).collect();
        assert_eq!(refused, [50]);
        let tally = sick.tally();
        assert_eq!((tally.received, tally.ok, tally.error, tally.in_flight), (100, 99, 1, 0));
    });
}

#[test]
fn s5_an_actor_that_waits_forever_is_shown_and_then_restarted() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        sick.settled().await;
        sick.tell(Ail::WaitForever).unwrap();
        sick.tell(Do(1)).unwrap();
        let began = tokio::time::Instant::now();
        until("shown", || world.status() == ModuleStatus::Degraded).await;
        assert!(began.elapsed() <= Duration::from_secs(36), "{:?}", began.elapsed());
        until("restarted", || world.restarts("hang") == 1).await;
        assert!(began.elapsed() <= Duration::from_secs(130), "{:?}", began.elapsed());
        until("the mail", || *knobs.handled.lock() == [1]).await;
        assert_eq!(world.status(), ModuleStatus::Healthy);
        assert_eq!(knobs.made.load(Ordering::SeqCst), 1, "restarted in its place");
    });
}

#[test]
fn often_restarted_is_shown_as_degraded_for_five_minutes() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        for restarts in 1..=3_u64 {
            let _ = sick.ask(Ail::Panic, SOON).await;
            until("the restart", || world.restarts("panic") == restarts && sick.phase() == Phase::Running).await;
            let expected = if restarts > 2 { ModuleStatus::Degraded } else { ModuleStatus::Healthy };
            assert_eq!(world.status(), expected, "after {restarts}");
        }
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert_eq!(world.status(), ModuleStatus::Healthy);
        assert_eq!(world.health.report()[0].restarts, 3, "the count stays");
    });
}

#[test]
fn every_restart_and_every_change_of_health_is_reported_once() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        sick.settled().await;
        assert_eq!(world.health.take_report(), None, "to start is no change");
        let _ = sick.ask(Ail::Panic, SOON).await;
        let Some(Report::Restarted { child, .. }) = world.health.take_report() else { panic!("no restart") };
        assert_eq!(child, SICK);
        let Some(Report::Changed { from, to, .. }) = world.health.take_report() else { panic!("no change") };
        assert_eq!((from, to), (ModuleStatus::Healthy, ModuleStatus::Restarting));
        until("the restart", || sick.phase() == Phase::Running).await;
        let Some(Report::Changed { from, to, .. }) = world.health.take_report() else { panic!("no change") };
        assert_eq!((from, to), (ModuleStatus::Restarting, ModuleStatus::Healthy));
        assert_eq!(world.health.take_report(), None);
    });
}

#[test]
fn children_stop_in_reverse_order_and_a_slow_one_is_cut_at_its_deadline() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let mut handles = Vec::new();
        for id in ["detector.a", "detector.b", "detector.c"] {
            let handle = world.start(ChildSpec::module(id), &Knobs::new());
            handle.settled().await;
            handles.push(handle);
        }
        handles[1].tell(Ail::WaitForever).unwrap();
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        let stopped = world.supervisor.stop_all().await;
        assert_eq!(stopped, [("detector.c", Stopped::Drained), ("detector.b", Stopped::Cut), ("detector.a", Stopped::Drained)]);
        assert_eq!(began.elapsed().as_secs(), 5, "its shutdown time and no more");
        assert!(handles.iter().all(|handle| handle.phase() == Phase::Stopped));
    });
}

#[test]
fn a_module_can_be_stopped_and_started_again_under_the_same_id() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let first = world.start(ChildSpec::module(SICK), &knobs);
        first.settled().await;
        assert_eq!(world.supervisor.stop(SICK).await, Stopped::Drained);
        assert_eq!(world.status(), ModuleStatus::Disabled);
        assert_eq!(world.supervisor.stop(SICK).await, Stopped::Unknown);
        let second = world.start(ChildSpec::module(SICK), &knobs);
        assert_eq!(second.ask(Do(1), SOON).await, Ok(1));
        assert_eq!(first.ask(Do(1), SOON).await, Err(AskError::Unavailable));
        assert_eq!(world.status(), ModuleStatus::Healthy);
    });
}

#[test]
fn a_module_that_is_off_or_cannot_start_is_shown_so_from_the_beginning() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let (off, lost) = (ModuleId::new("detector.off"), ModuleId::new("detector.lost"));
        world.health.disabled(off, "by configuration");
        world.health.failed(lost, "its file cannot be read");
        assert_eq!(world.health.take_report(), None, "how it begins is no change");
        assert_eq!(world.health.status(off), Some(ModuleStatus::Disabled));
        assert_eq!(world.health.overall(), (Overall::Degraded, "detector.lost is failed".to_owned()));
        world.health.enabled(lost);
        world.health.disabled(lost, "given up");
        assert_eq!(world.health.overall().0, Overall::Healthy, "what is off is no loss");
    });
}

#[test]
fn a_module_without_an_actor_is_listed_from_its_start_and_works_again_once_it_is_switched_on() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let page = ModuleId::new("ui.page");
        world.health.enabled(page);
        assert_eq!(world.health.status(page), None, "it is not started yet");
        world.health.present(page);
        assert_eq!(world.health.status(page), Some(ModuleStatus::Healthy));
        world.health.disabled(page, "by an admin");
        assert_eq!(world.health.status(page), Some(ModuleStatus::Disabled));
        world.health.enabled(page);
        assert_eq!(world.health.status(page), Some(ModuleStatus::Healthy), "not as it was when it was off");
        world.health.failed(page, "half of it");
        world.health.present(page);
        assert_eq!(world.health.status(page), Some(ModuleStatus::Failed), "what was said of it stays");
    });
}

#[test]
fn the_metric_of_messages_adds_up() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        for number in 0..10 {
            sick.ask(Do(number), SOON).await.unwrap();
        }
        let _ = sick.ask(Ail::Panic, SOON).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let families = world.registry.gather();
        let family = families.iter().find(|family| family.name() == "opspilot_actor_messages").unwrap();
        let value = |outcome: &str| -> f64 {
            let metric = family.get_metric().iter().find(|metric| metric.get_label().iter().any(|label| label.value() == outcome));
            metric.unwrap().get_gauge().get_value()
        };
        let sum: f64 = ["ok", "error", "retried", "dead_lettered", "in_flight"].into_iter().map(value).sum();
        assert!((value("received") - 11.0).abs() < 0.1 && (sum - 11.0).abs() < 0.1 && (value("error") - 1.0).abs() < 0.1);
    });
}
