//! The points at which a test of the running binary makes any actor fail, by its name. Only with the feature.

use std::time::Duration;

use opspilot_runtime::{ChildSpec, Phase};

use crate::world::{Do, Knobs, World, on_virtual_time, until};

const SOON: Duration = Duration::from_secs(2);

fn recovers_from(id: &'static str, point: &str, cause: &str) {
    on_virtual_time(|| async {
        let (world, knobs) = (World::virtual_time(), Knobs::new());
        let neighbour = world.start(ChildSpec::module("detector.neighbour"), &Knobs::new());
        let sick = world.start(ChildSpec::module(id), &knobs);
        assert_eq!(sick.ask(Do(1), SOON).await, Ok(1));
        fail::cfg(point, "1*panic(told to fail)").unwrap();
        if point.ends_with("started") {
            // it is only reached by a restart
            let _ = sick.ask(crate::world::Ail::Stop, SOON).await;
        } else {
            let _ = sick.ask(Do(2), SOON).await;
        }
        until("the fault fired", || world.restarts(cause) >= 1).await;
        fail::remove(point);
        until("the restart", || sick.phase() == Phase::Running).await;
        assert!(sick.ask(Do(3), SOON).await.is_ok());
        assert_eq!(neighbour.ask(Do(1), SOON).await, Ok(1));
    });
}

#[test]
fn s1_every_actor_can_be_made_to_fail_by_name_wherever_it_runs() {
    let scenario = fail::FailScenario::setup();
    recovers_from("detector.one", "actor::detector.one", "panic");
    recovers_from("detector.two", "actor::detector.two::started", "start");
    recovers_from("detector.three", "actor::detector.three::future", "panic");
    recovers_from("detector.four", "actor::detector.four::timer", "panic");
    scenario.teardown();
}
