//! Who goes down with whom, in which order they come back, and when it is the end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opspilot_kernel::module::ModuleStatus;
use opspilot_runtime::{
    AttemptBook, Cause, ChildSpec, Exit, ExitReason, GroupSpec, Handle, Intensity, Overall, Phase, Report, Stopped, Strategy as Restarts,
    Supervisor,
};

use crate::world::{Ail, Do, Knobs, SICK, Sick, World, on_virtual_time, until};

const SOON: Duration = Duration::from_secs(2);
const GROUPS: [GroupSpec; 4] = [GroupSpec::STORAGE, GroupSpec::PIPELINE, GroupSpec::ACTIONS, GroupSpec::EDGE];

/// A child, and what it is told and did.
pub struct Member {
    pub handle: Handle<Sick>,
    pub knobs: Arc<Knobs>,
}

impl Member {
    /// Without jitter, so that a test knows when it comes back.
    pub async fn start(group: &Supervisor, mut spec: ChildSpec) -> Member {
        spec.backoff.jitter = 0.0;
        let knobs = Knobs::new();
        let made = Arc::clone(&knobs);
        let handle = group.start(spec, move || Sick::new(Arc::clone(&made)));
        handle.settled().await;
        Member { handle, knobs }
    }

    async fn fail(&self) {
        let _ = self.handle.ask(Ail::Panic, SOON).await;
    }

    async fn runs(&self, starts: usize) {
        until("it runs", || self.knobs.starts() == starts && self.handle.phase() == Phase::Running).await;
    }

    fn last_start(&self) -> tokio::time::Instant {
        *self.knobs.starts.lock().last().unwrap()
    }
}

async fn three(group: &Supervisor) -> [Member; 3] {
    let start = |id| Member::start(group, ChildSpec::core(id));
    [start("core.a").await, start("core.b").await, start("core.c").await]
}

fn starts(members: &[Member]) -> Vec<usize> {
    members.iter().map(|member| member.knobs.starts()).collect()
}

#[test]
fn s1_rest_for_one_restarts_the_child_and_those_started_after_it_in_order() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let members = three(&world.supervisor.group(GroupSpec::STORAGE)).await;
        let [_, b, c] = &members;
        assert_eq!(c.handle.ask(Do(1), SOON).await, Ok(1));
        assert_eq!(c.handle.ask(Do(2), SOON).await, Ok(2));
        // the second start of b fails as well: c must wait for the third
        b.knobs.fail_starts.store(1, Ordering::SeqCst);
        b.fail().await;
        assert_eq!(c.handle.phase(), Phase::Backoff, "it waits for what it stands on");
        assert_eq!(c.handle.ask(Do(3), SOON).await, Ok(1), "its mail waits with it, its state is fresh");
        c.runs(2).await;
        assert_eq!(starts(&members), [1, 3, 2], "a restart while it waits counts once");
        assert!(b.last_start() <= c.last_start());
        assert_eq!((world.restarts("panic"), world.restarts("start"), world.restarts("group")), (1, 1, 1));
        let reports = std::iter::from_fn(|| world.health.take_report());
        let told = reports.filter_map(|report| match report {
            Report::Restarted { child, cause, detail, .. } => Some((child, cause, detail)),
            Report::Changed { .. } => None,
        });
        assert!(told.into_iter().any(|told| told == ("core.c", Cause::Group, "restarted because core.b failed".to_owned())));
        assert_eq!(*world.exits.lock(), []);
    });
}

#[test]
fn s1_one_for_one_restarts_nobody_else() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let members = three(&world.supervisor.group(GroupSpec::PIPELINE)).await;
        members[1].fail().await;
        members[1].runs(2).await;
        assert_eq!(starts(&members), [1, 2, 1]);
    });
}

#[test]
fn s5_a_child_that_hangs_takes_along_those_that_stand_on_it() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let members = three(&world.supervisor.group(GroupSpec::STORAGE)).await;
        members[0].handle.tell(Ail::WaitForever).unwrap();
        members[2].runs(2).await;
        assert_eq!(starts(&members), [2, 2, 2]);
        assert_eq!((world.restarts("hang"), world.restarts("group")), (1, 2));
    });
}

#[test]
fn children_that_stand_on_each_other_start_one_after_the_other() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let group = world.supervisor.group(GroupSpec::STORAGE);
        let (first, second) = (Knobs::new(), Knobs::new());
        first.fail_starts.store(2, Ordering::SeqCst);
        let start = |id, knobs: &Arc<Knobs>| {
            let knobs = Arc::clone(knobs);
            group.start(ChildSpec::core(id), move || Sick::new(Arc::clone(&knobs)))
        };
        start("core.a", &first);
        start("core.b", &second).settled().await;
        assert_eq!((first.starts(), second.starts()), (3, 1));
        assert!(first.starts.lock()[2] <= second.starts.lock()[0]);
    });
}

#[test]
fn a_child_that_is_stopped_while_it_waits_for_its_turn_is_gone_and_holds_up_nobody() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let group = world.supervisor.group(GroupSpec::STORAGE);
        let a = Member::start(&group, ChildSpec::core("core.a")).await;
        let impatient = ChildSpec { shutdown: Duration::from_millis(1), ..ChildSpec::core("core.b") };
        let b = Member::start(&group, impatient).await;
        let c = Member::start(&group, ChildSpec::core("core.c")).await;
        a.fail().await;
        assert_eq!(b.handle.phase(), Phase::Backoff);
        assert_ne!(group.stop("core.b").await, Stopped::Unknown);
        c.runs(2).await;
        assert_eq!((b.handle.phase(), b.knobs.starts()), (Phase::Stopped, 1));
    });
}

#[test]
fn s2_a_module_that_is_given_up_takes_nobody_along_whatever_the_group() {
    on_virtual_time(|| async {
        for spec in GROUPS {
            let world = World::virtual_time();
            let group = world.supervisor.group(spec);
            let before = Member::start(&group, ChildSpec::core("core.a")).await;
            let module = Member::start(&group, ChildSpec::module(SICK)).await;
            let after = Member::start(&group, ChildSpec::core("core.b")).await;
            let neighbour = Member::start(&group, ChildSpec::module("detector.other")).await;
            module.knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
            module.fail().await;
            until("given up", || module.handle.phase() == Phase::Failed).await;
            assert_eq!(world.status(), ModuleStatus::Failed);
            assert_eq!(starts(&[before, after, neighbour]), [1, 1, 1], "in {}", spec.name);
            assert_eq!(world.health.overall().0, Overall::Degraded);
            assert_eq!(*world.exits.lock(), []);
        }
    });
}

#[test]
fn s2_a_group_that_cannot_go_on_is_restarted_by_the_root_and_then_the_process_ends_with_70() {
    on_virtual_time(|| async {
        for spec in GROUPS {
            let world = World::virtual_time();
            let group = world.supervisor.group(spec);
            let members = three(&group).await;
            let module = Member::start(&group, ChildSpec::module(SICK)).await;
            let elsewhere = world.supervisor.group(GroupSpec::one_for_one("other", Intensity::DEFAULT));
            let other = Member::start(&elsewhere, ChildSpec::core("core.x")).await;
            members[1].knobs.fail_starts.store(u32::MAX, Ordering::SeqCst);
            members[1].fail().await;
            until("given up", || members[1].handle.phase() == Phase::Failed).await;
            let restarts = u32::try_from(members[1].knobs.starts() - 1).unwrap();
            assert_eq!(restarts, spec.restarts_at_most(), "in {}", spec.name);
            let reason = ExitReason::GaveUp("told to fail in started".to_owned());
            assert_eq!(*world.exits.lock(), [Exit { code: 70, actor: "core.b", reason }]);
            assert_eq!(world.health.overall().0, Overall::Unhealthy);
            assert_eq!(members[0].knobs.starts(), 4, "with every restart of the whole group");
            if spec.strategy == Restarts::OneForOne {
                assert_eq!(module.knobs.starts(), 4, "a module is restarted with its whole group only");
            }
            assert_eq!(other.knobs.starts(), 1, "no other group is touched");
        }
    });
}

#[test]
fn s2_failures_that_are_far_apart_never_escalate() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let members = three(&world.supervisor.group(GroupSpec::STORAGE)).await;
        for round in 2..=22 {
            members[2].fail().await;
            members[2].runs(round).await;
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
        assert_eq!(starts(&members), [1, 1, 22], "two a minute are within the intensity");
        assert_eq!(*world.exits.lock(), []);
    });
}

/// What is counted: the restarts of one child that fails again as soon as it is started, until the process ends.
/// A child that works in between, for less than the window each time, is bounded by the rate alone.
#[test]
fn s2_the_product_of_intensities_and_the_restarts_before_the_end_are_at_most_twenty() {
    assert_eq!(GroupSpec::STORAGE.intensity, Intensity { restarts: 2, within: Duration::from_secs(60) });
    assert_eq!(GroupSpec::ROOT.intensity, Intensity { restarts: 3, within: Duration::from_secs(300) });
    for group in GROUPS {
        assert!(group.intensity.restarts * GroupSpec::ROOT.intensity.restarts <= 20, "{}", group.name);
        assert!(group.restarts_at_most() <= 20, "{}", group.name);
        assert!(group.intensity.within < GroupSpec::ROOT.intensity.within, "{}", group.name);
    }
    for readers in [ChildSpec::module(SICK).intensity, GroupSpec::PIPELINE.intensity] {
        assert!(AttemptBook::LIMIT < readers.restarts, "poison is found before its reader is given up");
    }
}

#[test]
fn a_group_stops_its_own_in_reverse_and_the_root_stops_all() {
    on_virtual_time(|| async {
        let world = World::virtual_time();
        let (storage, edge) = (world.supervisor.group(GroupSpec::STORAGE), world.supervisor.group(GroupSpec::EDGE));
        Member::start(&storage, ChildSpec::core("core.a")).await;
        Member::start(&edge, ChildSpec::module("connector.x")).await;
        Member::start(&storage, ChildSpec::core("core.b")).await;
        Member::start(&edge, ChildSpec::module("connector.y")).await;
        assert_eq!(storage.stop("connector.x").await, Stopped::Unknown, "it is not one of these");
        let named = |stopped: Vec<(&'static str, Stopped)>| stopped.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(world.supervisor.children().len(), 4);
        assert_eq!(named(edge.stop_all().await), ["connector.y", "connector.x"]);
        Member::start(&edge, ChildSpec::module("connector.z")).await;
        assert_eq!(named(world.supervisor.stop_all().await), ["connector.z", "core.b", "core.a"]);
    });
}
