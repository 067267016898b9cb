//! Random sequences of failures and time in a group, checked against a small model of what groups promise.

use std::time::Duration;

use opspilot_runtime::{ChildSpec, GroupSpec, Phase, Strategy as Restarts};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    groups::Member,
    world::{Ail, World, on_virtual_time},
};

/// Two core children, a module between them, and another core child.
const CHILDREN: [(&str, bool); 4] = [("core.a", true), ("detector.m", false), ("core.b", true), ("core.c", true)];

#[derive(Debug, Clone, Copy)]
enum Op {
    Panic(usize),
    Stop(usize),
    /// Waits forever, and four minutes pass.
    Hang(usize),
    Pass(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Up,
    Down { until: u64, in_line: bool },
    GivenUp,
}

#[derive(Debug, Clone)]
struct Child {
    state: State,
    since: u64,
    streak: u32,
    /// The module's own restarts.
    recent: Vec<u64>,
    starts: usize,
}

/// Milliseconds; everything a person would say of the rules, and nothing of how they are carried out.
struct Model {
    now: u64,
    group: GroupSpec,
    children: Vec<Child>,
    of_group: Vec<u64>,
    of_root: Vec<u64>,
    exited: bool,
}

fn spend(recent: &mut Vec<u64>, restarts: usize, within: u64, at: u64) -> bool {
    recent.retain(|restart| at - restart <= within);
    let left = recent.len() < restarts;
    if left {
        recent.push(at);
    }
    left
}

impl Model {
    fn new(group: GroupSpec) -> Model {
        let child = Child { state: State::Up, since: 0, streak: 0, recent: Vec::new(), starts: 1 };
        Model { now: 0, group, children: vec![child; CHILDREN.len()], of_group: Vec::new(), of_root: Vec::new(), exited: false }
    }

    fn fail(&mut self, at: usize) {
        let now = self.now;
        let in_order = self.group.strategy == Restarts::RestForOne;
        let down = |child: &mut Child, counted: bool, in_line: bool| {
            if now - child.since >= 60_000 {
                child.streak = 0;
            }
            let wait = if counted { 100 * 2_u64.pow(child.streak).min(300) } else { 0 };
            child.streak += u32::from(counted);
            child.state = State::Down { until: now + wait, in_line };
        };
        if !CHILDREN[at].1 {
            let child = &mut self.children[at];
            if spend(&mut child.recent, 5, 30_000, now) {
                down(child, true, false);
            } else {
                child.state = State::GivenUp;
            }
            return;
        }
        let (restarts, within) = (self.group.intensity.restarts, self.group.intensity.within.as_millis());
        let granted = spend(&mut self.of_group, usize::try_from(restarts).unwrap(), u64::try_from(within).unwrap(), now);
        if !granted && !spend(&mut self.of_root, 3, 300_000, now) {
            self.children[at].state = State::GivenUp;
            self.exited = true;
            return;
        }
        down(&mut self.children[at], true, in_order);
        for (other, child) in self.children.iter_mut().enumerate() {
            let affected = other != at && (!granted || in_order && other > at);
            match &mut child.state {
                State::Up if affected => down(child, false, in_order),
                State::Down { in_line, .. } if affected => *in_line = in_order,
                State::Up | State::Down { .. } | State::GivenUp => {}
            }
        }
    }

    fn pass(&mut self, span: u64) {
        let end = self.now + span;
        loop {
            let mut first_in_line = true;
            let mut next: Option<(u64, usize)> = None;
            for (at, child) in self.children.iter().enumerate() {
                let State::Down { until, in_line } = child.state else { continue };
                let its_turn = !in_line || std::mem::replace(&mut first_in_line, false);
                let when = until.max(self.now);
                if its_turn && when <= end && next.is_none_or(|(earliest, _)| when < earliest) {
                    next = Some((when, at));
                }
            }
            let Some((when, at)) = next else { break };
            self.now = when;
            let child = &mut self.children[at];
            (child.state, child.since, child.starts) = (State::Up, when, child.starts + 1);
        }
        self.now = end;
    }
}

async fn check(group: GroupSpec, ops: &[Op]) -> Result<(), TestCaseError> {
    let world = World::virtual_time();
    let supervisor = world.supervisor.group(group);
    let mut members = Vec::new();
    for (id, core) in CHILDREN {
        members.push(Member::start(&supervisor, if core { ChildSpec::core(id) } else { ChildSpec::module(id) }).await);
    }
    let mut model = Model::new(group);
    for op in ops {
        let (Op::Panic(at) | Op::Stop(at) | Op::Hang(at)) = *op else {
            let Op::Pass(span) = *op else { continue };
            model.pass(span);
            tokio::time::sleep(Duration::from_millis(span)).await;
            compare(&world, &members, &model, op)?;
            continue;
        };
        if model.children[at].state != State::Up {
            continue;
        }
        let told = match op {
            Op::Hang(_) => members[at].handle.tell(Ail::WaitForever),
            Op::Stop(_) => members[at].handle.tell(Ail::Stop),
            Op::Panic(_) | Op::Pass(_) => members[at].handle.tell(Ail::Panic),
        };
        prop_assert!(told.is_ok());
        let after = if matches!(op, Op::Hang(_)) {
            // found out after two minutes and at most two heartbeats
            model.pass(123_000);
            117_001
        } else {
            3
        };
        let before = model.now;
        model.fail(at);
        model.pass(after);
        let span = if after == 3 { 3 } else { model.now - before + 123_000 };
        tokio::time::sleep(Duration::from_millis(span)).await;
        compare(&world, &members, &model, op)?;
        if model.exited {
            break;
        }
    }
    Ok(())
}

fn compare(world: &World, members: &[Member], model: &Model, op: &Op) -> Result<(), TestCaseError> {
    for ((member, child), (id, _)) in members.iter().zip(&model.children).zip(CHILDREN) {
        let phase = match child.state {
            State::Up => Phase::Running,
            State::Down { .. } => Phase::Backoff,
            State::GivenUp => Phase::Failed,
        };
        prop_assert_eq!(member.handle.phase(), phase, "{} after {:?}", id, op);
        prop_assert_eq!(member.knobs.starts(), child.starts, "starts of {} after {:?}", id, op);
    }
    prop_assert_eq!(world.exits.lock().len(), usize::from(model.exited), "after {:?}", op);
    Ok(())
}

#[test]
fn s2_any_sequence_of_failures_in_a_group_ends_as_the_rules_say() {
    // odd spans, so that no sum of them falls on the edge of a window
    let spans = prop::sample::select(vec![7, 150, 455, 1111, 5003, 17_007, 33_009, 61_013]);
    let child = || 0..CHILDREN.len();
    let op = prop_oneof![
        6 => child().prop_map(Op::Panic),
        2 => child().prop_map(Op::Stop),
        1 => child().prop_map(Op::Hang),
        6 => spans.prop_map(Op::Pass),
    ];
    let group = prop::sample::select(vec![GroupSpec::STORAGE, GroupSpec::PIPELINE]);
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = (group, prop::collection::vec(op, 1..40));
    runner.run(&strategy, |(group, ops)| on_virtual_time(|| async move { check(group, &ops).await })).unwrap();
}
