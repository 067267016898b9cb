//! What a caller sees of an actor's troubles.

use std::{sync::atomic::Ordering, time::Duration};

use opspilot_runtime::{AskError, ChildSpec, Phase, TellError};

use crate::world::{Ail, Do, Knobs, SICK, World, on_virtual_time, until};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn the_mailbox_bound_holds_for_all_clones_of_a_handle_together() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK).with_mailbox(8), &knobs);
        sick.settled().await;
        sick.tell(Ail::WaitForever).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let taken = (0..1000).filter(|number| sick.clone().tell(Do(*number)).is_ok()).count();
        assert_eq!(taken, 8);
        assert_eq!(sick.clone().tell(Do(0)), Err(TellError::Full));
        assert_eq!(sick.clone().ask(Do(0), SOON).await, Err(AskError::Busy));
    });
}

#[test]
fn a_full_mailbox_does_not_keep_out_the_heartbeat_or_the_stop() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK).with_mailbox(1), &knobs);
        sick.settled().await;
        sick.tell(Ail::WaitForever).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        sick.tell(Do(1)).unwrap();
        assert_eq!(sick.tell(Do(2)), Err(TellError::Full));
        until("the hang is found", || world.restarts("hang") == 1).await;
        until("the mail", || *knobs.handled.lock() == [1]).await;
    });
}

#[test]
fn an_answer_that_does_not_come_in_time_is_timed_out_and_the_question_withdrawn() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        sick.settled().await;
        sick.tell(Ail::WaitForever).unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(sick.ask(Do(1), SOON).await, Err(AskError::TimedOut));
        assert_eq!(began.elapsed().as_secs(), 2);
        until("the restart", || world.restarts("hang") == 1 && sick.phase() == Phase::Running).await;
        assert_eq!(sick.ask(Do(2), SOON).await, Ok(1));
        assert_eq!(*knobs.handled.lock(), [2], "what nobody waits for is not done");
    });
}

#[test]
fn a_restarting_actor_is_unavailable_past_the_deadline_and_answers_within() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let mut spec = ChildSpec::module(SICK);
        spec.backoff.first = Duration::from_secs(10);
        let sick = world.start(spec, &knobs);
        assert_eq!(sick.ask(Ail::Panic, SOON).await, Err(AskError::Unavailable));
        assert_eq!(sick.phase(), Phase::Backoff);
        let began = tokio::time::Instant::now();
        assert_eq!(sick.ask(Do(1), SOON).await, Err(AskError::Unavailable));
        assert_eq!(began.elapsed().as_secs(), 2, "within its deadline");
        assert_eq!(sick.ask(Do(2), Duration::from_secs(30)).await, Ok(1), "waits for the restart");
    });
}

#[test]
fn an_actor_that_is_given_up_answers_what_still_waits() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        let began = tokio::time::Instant::now();
        assert_eq!(sick.ask(Do(1), Duration::from_secs(600)).await, Err(AskError::Unavailable));
        assert!(began.elapsed() < Duration::from_secs(10), "when it is given up, not at the deadline");
        assert_eq!(sick.tell(Do(2)), Err(TellError::Closed));
    });
}

#[test]
fn whoever_stops_waiting_is_counted() {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let sick = world.start(ChildSpec::module(SICK), &knobs);
        sick.settled().await;
        drop(tokio::time::timeout(Duration::from_millis(10), sick.ask(Ail::WaitForever, SOON)).await);
        drop(tokio::time::timeout(Duration::from_millis(10), sick.ask(Do(1), SOON)).await);
        let tally = sick.tally();
        assert_eq!((tally.received, tally.ok + tally.error, tally.in_flight), (2, 2, 0));
    });
}
