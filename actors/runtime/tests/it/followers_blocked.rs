//! S5 for followers: one that was left behind must not commit any more.

use std::{sync::Arc, time::Duration};

use opspilot_runtime::{ChildSpec, FollowerOptions, Phase, Status, Stopped, follow};

use crate::{
    kit::{Adder, ID, SOON, Stage, caught_up, expected},
    world::{on_real_time, until},
};

#[test]
fn s5_a_follower_whose_thread_was_blocked_and_replaced_can_no_longer_commit() {
    on_real_time(|| async {
        let stage = Stage::new();
        let mut spec = ChildSpec::module(ID).on_own_arbiter();
        spec.heartbeat = opspilot_runtime::HeartbeatPolicy {
            every: Duration::from_millis(20),
            degraded: Duration::from_millis(50),
            failure: Duration::from_millis(150),
        };
        spec.backoff.first = Duration::from_millis(1);
        let faults = Arc::clone(&stage.faults);
        let follower = follow(&stage.ctx, spec, FollowerOptions::default(), move || Adder::new(&faults));
        *stage.faults.block.lock() = Some((2, Duration::from_millis(600)));
        let last = stage.append(&["alert a", "alert b", "alert c"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.world.restarts("hang"), 1, "the fault fired");
        let before = stage.alerts();
        assert_eq!(before, expected(&stage.ledger, &[]));
        // the old one wakes up and tries to commit what it made
        tokio::time::sleep(Duration::from_millis(700)).await;
        let last = stage.append(&["alert d"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}

#[test]
fn s5_a_follower_that_was_left_behind_when_it_was_stopped_can_no_longer_commit() {
    on_real_time(|| async {
        let stage = Stage::new();
        let mut spec = ChildSpec::module(ID).on_own_arbiter();
        spec.heartbeat.every = Duration::from_millis(20);
        spec.shutdown = Duration::from_millis(20);
        // everything is stored with every commit, so that an old one would take it back
        let options = FollowerOptions { save_every: Duration::ZERO, ..FollowerOptions::default() };
        let faults = Arc::clone(&stage.faults);
        let blocked = follow(&stage.ctx, spec, options, move || Adder::new(&faults));
        *stage.faults.block.lock() = Some((2, Duration::from_millis(900)));
        stage.append(&["alert a", "alert b", "alert c"]).await;
        until("blocked", || stage.faults.block.lock().is_none()).await;
        assert_eq!(stage.world.supervisor.stop(ID).await, Stopped::Skipped);
        assert_eq!(blocked.phase(), Phase::Stopped);
        assert_eq!(blocked.ask(Status, SOON).await, Err(opspilot_runtime::AskError::Unavailable));
        let follower = stage.follow(options);
        let last = stage.append(&["alert d"]).await;
        caught_up(&follower, last).await;
        let cursor = || stage.ledger.read_blocking(|reader| reader.cursor(ID)).unwrap();
        assert_eq!(cursor(), last);
        // the old one wakes up and tries to commit what it made
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(cursor(), last, "not taken back");
        let last = stage.append(&["alert e"]).await;
        caught_up(&follower, last).await;
        assert_eq!(stage.alerts(), expected(&stage.ledger, &[]));
    });
}
