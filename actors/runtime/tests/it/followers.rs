//! What a follower promises: the same output, in order, once, whatever happens to it in between.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::module::{ModuleId, ModuleStatus};
use opspilot_runtime::{FollowerOptions, Reconfigure, Status, Stopped};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    kit::{Adder, ID, SOON, Stage, caught_up, expected},
    world::{on_real_time, until},
};

#[test]
fn a_follower_commits_what_its_consumer_makes_of_the_log() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.append(&["a", "alert b", "c"]).await;
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert d"; 50]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
        assert_eq!(stage.alerts().len(), 51);
        let tally = follower.ask(Status, SOON).await.unwrap().tally;
        assert_eq!((tally.received, tally.ok), (53, 53));
    });
}

#[test]
fn the_backlog_is_replayed_after_a_restart_of_the_process() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert a", "b", "c"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.world.supervisor.stop(ID).await, Stopped::Drained);
        stage.append(&["alert d", "e"]).await;
        let stage = stage.reopened().await;
        let last = stage.append(&["f", "alert g"]).await;
        let follower = stage.follow(FollowerOptions::default());
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}

#[test]
fn what_the_consumer_knows_is_stored_within_a_second_without_output() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions { save_every: Duration::from_millis(50), ..FollowerOptions::default() });
        let last = stage.append(&["a", "b", "c"]).await;
        until("stored", || stage.ledger.read_blocking(|reader| reader.cursor(ID)).unwrap() == last).await;
        let snapshots = stage.ledger.read_blocking(|reader| reader.snapshots(ID)).unwrap();
        assert!(snapshots.iter().any(|snapshot| snapshot.key == "even"), "{snapshots:?}");
        drop(follower);
    });
}

#[test]
fn s1_a_panic_in_the_middle_of_a_batch_changes_nothing_of_the_output() {
    on_real_time(|| async {
        let stage = Stage::new();
        stage.faults.once.lock().extend([2, 5, 9]);
        let follower = stage.follow(FollowerOptions::default());
        stage.append(&["alert a", "alert b", "alert c", "d"]).await;
        let last = stage.append(&["alert e", "f", "alert g", "alert h", "alert i", "j"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.faults.fired.load(std::sync::atomic::Ordering::SeqCst), 3, "the faults fired");
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
        let tally = follower.ask(Status, SOON).await.unwrap().tally;
        assert_eq!(tally.received, tally.ok + tally.error + tally.retried + tally.dead_lettered + tally.in_flight);
        assert!(tally.retried > 0);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<&'static str>),
    Kill(u64),
    Reopen,
}

async fn run(steps: &[Step], options: FollowerOptions) -> Result<(), TestCaseError> {
    let mut stage = Stage::new();
    let mut follower = stage.follow(options);
    let mut last = 0;
    for step in steps {
        match step {
            Step::Append(lines) => last = stage.append(lines).await,
            Step::Kill(ahead) => {
                stage.faults.once.lock().insert(last + 1 + ahead);
            }
            Step::Reopen => {
                drop(follower);
                stage = stage.reopened().await;
                follower = stage.follow(options);
            }
        }
    }
    caught_up(&follower, last).await;
    prop_assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    Ok(())
}

#[test]
fn s1_the_same_signals_give_the_same_alerts_however_cut_and_wherever_killed() {
    let line = prop::sample::select(vec!["alert x", "quiet", "alert y"]);
    let step = prop_oneof![
        6 => prop::collection::vec(line, 1..30).prop_map(Step::Append),
        3 => (0..40_u64).prop_map(Step::Kill),
        1 => Just(Step::Reopen),
    ];
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = (prop::collection::vec(step, 1..15), 1..2000_usize, 1..50_u64);
    runner
        .run(&strategy, |(steps, chunk_bytes, save_signals)| {
            let options = FollowerOptions { chunk_bytes, save_signals, ..FollowerOptions::default() };
            on_real_time(|| async move { run(&steps, options).await })
        })
        .unwrap();
}

#[test]
fn a_changed_consumer_takes_over_at_a_committed_point() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["alert a", "b"]).await;
        caught_up(&follower, last).await;
        let before = stage.alerts();
        let faults = Arc::clone(&stage.faults);
        let change = Reconfigure::new(move || Adder::new(&faults).salted(1000));
        assert_eq!(follower.ask(change, SOON).await, Ok(Ok(())));
        let last = stage.append(&["alert c"]).await;
        caught_up(&follower, last).await;
        let after = stage.alerts();
        assert_eq!(after[..1], before[..]);
        let sum = stage.ledger.read_blocking(|reader| reader.snapshots(ID)).unwrap();
        assert!(!sum.is_empty());
        assert_eq!(after[1].title, format!("alert c {}", 31 + 3 + 1000), "the old state, the new rule");
    });
}

#[test]
fn a_follower_shows_how_far_behind_it_is() {
    on_real_time(|| async {
        let stage = Stage::new();
        let follower = stage.follow(FollowerOptions::default());
        let last = stage.append(&["a", "b"]).await;
        caught_up(&follower, last).await;
        let pulse = follower.ask(opspilot_kernel::lifecycle::Heartbeat, SOON).await.unwrap();
        assert_eq!(pulse.queue, 0);
        assert_eq!(stage.world.health.status(ModuleId::new(ID)), Some(ModuleStatus::Healthy));
    });
}
