//! S3: a signal that kills its consumer is found and set aside; its neighbours are processed once and in order.

use std::{sync::atomic::Ordering, time::Duration};

use opspilot_kernel::{module::ModuleStatus, principal::Actor};
use opspilot_ledger::{Page, Priority};
use opspilot_runtime::{Entries, FollowerOptions, Phase, Requeue, RequeueError, Status};

use crate::{
    kit::{Stage, caught_up, expected},
    world::on_real_time,
};

const SOON: Duration = Duration::from_secs(10);

async fn letters(stage: &Stage) -> Vec<opspilot_ledger::DeadLetter> {
    stage.ledger.read(|reader| reader.dead_letters(&Page::first(100))).await.unwrap().items
}

#[test]
fn s3_a_poison_signal_is_tried_three_times_then_set_aside_and_its_neighbours_are_processed() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.poison.store(true, Ordering::SeqCst);
        let mut lines = vec!["alert x"; 100];
        lines[57] = "alert poison";
        let follower = stage.follow(FollowerOptions::default());
        stage.append(&["alert before"]).await;
        stage.append(&lines).await;
        let last = stage.append(&["alert after"]).await;
        caught_up(&follower, last).await;
        let letters = letters(&stage).await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!((letters[0].first_seq, letters[0].last_seq, letters[0].log.as_str()), (59, 59, "signals"));
        assert!(letters[0].error.contains("told to fail") && !letters[0].payload.is_empty());
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[59]), "the neighbours, once and in order");
        assert_eq!(stage.world.restarts("panic"), 3, "three attempts; taking the range apart is no failure");
        let tally = follower.ask(Status, SOON).await.unwrap().tally;
        assert_eq!((tally.dead_lettered, tally.in_flight), (1, 0));
        assert_eq!(tally.received, tally.ok + tally.error + tally.retried + tally.dead_lettered);
    });
}

#[test]
fn s3_a_poison_signal_far_behind_what_was_last_stored_is_still_found() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.poison.store(true, Ordering::SeqCst);
        let faults = std::sync::Arc::clone(&stage.faults);
        // the restart intensity is the usual one: attempts that are not added up use it up
        let mut spec = opspilot_runtime::ChildSpec::module(crate::kit::ID);
        spec.backoff.first = Duration::from_millis(1);
        let never = Duration::from_secs(86_400);
        let options = FollowerOptions { chunk_bytes: 1, save_every: never, save_signals: u64::MAX, ..FollowerOptions::default() };
        let follower = opspilot_runtime::follow(&stage.ctx, spec, options, move || crate::kit::Adder::new(&faults));
        // what comes later was not there when the process started
        let mut last = stage.append(&["alert before"]).await;
        caught_up(&follower, last).await;
        for lines in [["alert a", "alert b"], ["alert c", "alert d"], ["alert e", "alert poison"], ["alert f", "alert g"]] {
            last = stage.append(&lines).await;
        }
        caught_up(&follower, last).await;
        let letters = letters(&stage).await;
        assert_eq!(letters.iter().map(|letter| letter.first_seq).collect::<Vec<_>>(), [7], "{letters:?}");
        assert_eq!(stage.world.restarts("panic"), 3, "three attempts, although each begins two chunks before it");
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[7]), "the neighbours, once and in order");
    });
}

#[test]
fn s3_many_poison_signals_do_not_use_up_the_restart_intensity() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.poison.store(true, Ordering::SeqCst);
        let faults = std::sync::Arc::clone(&stage.faults);
        let mut spec = opspilot_runtime::ChildSpec::module(crate::kit::ID);
        spec.backoff.first = Duration::from_millis(1);
        let follower = opspilot_runtime::follow(&stage.ctx, spec, FollowerOptions::default(), move || crate::kit::Adder::new(&faults));
        let mut poisoned = Vec::new();
        for _ in 0..4 {
            let last = stage.append(&["alert a", "poison", "alert b", "poison", "alert c"]).await;
            poisoned.extend([last - 3, last - 1]);
            caught_up(&follower, last).await;
        }
        assert_eq!(follower.phase(), Phase::Running, "twelve failures, each explained by a signal");
        assert_eq!(letters(&stage).await.len(), 8);
        assert_eq!(stage.alerts(), expected(&stage.ledger, &poisoned));
    });
}

#[test]
fn s3_a_consumer_that_fails_at_everything_is_given_up_and_not_everything_set_aside() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.poison.store(true, Ordering::SeqCst);
        let faults = std::sync::Arc::clone(&stage.faults);
        let mut spec = opspilot_runtime::ChildSpec::module(crate::kit::ID);
        spec.backoff.first = Duration::from_millis(1);
        let options = FollowerOptions { most_dead_letters: 4, ..FollowerOptions::default() };
        let follower = opspilot_runtime::follow(&stage.ctx, spec, options, move || crate::kit::Adder::new(&faults));
        stage.append(&["poison"; 200]).await;
        crate::world::until("given up", || follower.phase() == Phase::Failed).await;
        let shown = stage.world.health.report().remove(0);
        assert!(shown.detail.contains("it fails at too much"), "{shown:?}");
        let set_aside = letters(&stage).await.len();
        assert!(set_aside < 40, "{set_aside}");
        assert_eq!(stage.world.health.status(opspilot_kernel::module::ModuleId::new(crate::kit::ID)), Some(ModuleStatus::Failed));
    });
}

#[test]
fn s3_a_dead_letter_can_be_tried_again() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.poison.store(true, Ordering::SeqCst);
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert a", "alert poison", "alert b"]).await;
        caught_up(&follower, last).await;
        let id = letters(&stage).await[0].id.clone();
        let mark = || {
            let id = id.clone();
            stage.ledger.write(Priority::Control, move |tx| tx.requeue_dead_letter(&id, &Actor::System))
        };
        assert_eq!(follower.ask(Requeue(id.clone()), SOON).await, Ok(Err(RequeueError::Unknown)), "nobody asked for it in the ledger");
        mark().await.unwrap();
        let again = follower.ask(Requeue(id.clone()), SOON).await;
        assert!(matches!(again, Ok(Err(RequeueError::FailsAgain(_)))), "{again:?}");
        assert_eq!(letters(&stage).await[0].attempts, 4, "still there, and counted");
        stage.faults.poison.store(false, Ordering::SeqCst);
        mark().await.unwrap();
        assert_eq!(follower.ask(Requeue(id.clone()), SOON).await, Ok(Ok(())));
        assert_eq!(letters(&stage).await, []);
        assert_eq!(stage.alerts().len(), 3, "what follows from it is there");
        let last = stage.append(&["alert c"]).await;
        caught_up(&follower, last).await;
        let before = stage.alerts();
        // what it did to the state is not forgotten by a restart
        let stage = stage.reopened().await;
        let follower = stage.follow(FollowerOptions::default());
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), before);
    });
}

#[test]
fn s3_attempts_that_ended_the_process_are_remembered_in_the_ledger() {
    on_real_time(|| async {
        let stage = Stage::new();
        // as if three runs of the process had died at these signals, and at each half that holds the second
        let last = stage.append(&["alert a", "alert b", "alert c", "alert d"]).await;
        for (first, last) in [(1, 4), (1, 2), (2, 2)] {
            for _ in 0..3 {
                let module = crate::kit::ID;
                stage.ledger.write(Priority::Bulk, move |tx| tx.count_attempt(module, first, last)).await.unwrap();
            }
        }
        let follower = stage.follow(FollowerOptions::default());
        caught_up(&follower, last).await;
        let letters = letters(&stage).await;
        assert_eq!(letters.iter().map(|letter| letter.first_seq).collect::<Vec<_>>(), [2], "{letters:?}");
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[2]));
        assert_eq!(stage.world.restarts("panic"), 0);
        let left = stage.ledger.read_blocking(|reader| reader.open_attempts(crate::kit::ID)).unwrap();
        assert_eq!(left, [], "and forgotten when it is past");
    });
}

#[test]
fn a_block_is_taken_apart_into_the_same_signals() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.append(&["a", "b", "c", "d"]).await;
        let whole = stage.ledger.signals().next(0, 1000).unwrap().remove(0);
        let part = whole.clone().within(2, 3).unwrap();
        assert_eq!((part.first_seq(), Entries::last_seq(&part)), (2, 3));
        assert!(whole.clone().within(5, 9).is_none());
        let opspilot_kernel::signal::LogEntry::Batch(block) = part else { panic!("a batch") };
        let lines: Vec<_> = block.iter().map(|(seq, record)| (seq, record.decode().unwrap().message.to_owned())).collect();
        assert_eq!(lines, [(2, "b".to_owned()), (3, "c".to_owned())]);
    });
}
