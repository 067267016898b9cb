//! Random sequences of failures and time, checked against a small model of what supervision promises.

use std::{collections::VecDeque, time::Duration};

use opspilot_runtime::{ChildSpec, Phase};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::world::{Ail, Do, Knobs, SICK, World, on_virtual_time};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Do,
    Panic,
    Stop,
    /// Waits forever, and four minutes pass.
    Hang,
    Pass(u64),
}

/// Milliseconds; everything a person would say of the rules, and nothing of how they are carried out.
#[derive(Default)]
struct Model {
    now: u64,
    /// `None` while it runs, else when it will.
    wakes: Option<u64>,
    failed: bool,
    since: u64,
    hangs_until: Option<u64>,
    recent: Vec<u64>,
    streak: u32,
    restarts: u64,
    queue: VecDeque<Op>,
    handled: usize,
    lost: u64,
}

impl Model {
    fn fail(&mut self, at: u64) {
        if at - self.since >= 60_000 {
            self.streak = 0;
        }
        if self.hangs_until.take().is_some() {
            self.lost += 1;
        }
        self.recent.retain(|restart| at - restart <= 30_000);
        if self.recent.len() == 5 {
            self.failed = true;
            self.lost += u64::try_from(self.queue.len()).unwrap();
            self.queue.clear();
            return;
        }
        self.recent.push(at);
        self.restarts += 1;
        self.wakes = Some(at + 100 * 2_u64.pow(self.streak).min(300));
        self.streak += 1;
    }

    fn pass(&mut self, span: u64) {
        let end = self.now + span;
        while !self.failed {
            match (self.wakes, self.hangs_until) {
                (Some(wakes), _) if wakes <= end => {
                    self.now = self.now.max(wakes);
                    self.since = wakes;
                    self.wakes = None;
                }
                (None, Some(until)) if until <= end => {
                    self.now = until;
                    self.fail(until);
                }
                (None, None) => match self.queue.pop_front() {
                    None => break,
                    Some(Op::Do) => self.handled += 1,
                    // whoever asked for it is not answered
                    Some(Op::Panic | Op::Stop) => {
                        self.lost += 1;
                        self.fail(self.now);
                    }
                    // found out after two minutes and at most two heartbeats
                    Some(Op::Hang) => self.hangs_until = Some(self.now + 123_000),
                    Some(Op::Pass(_)) => {}
                },
                _ => break,
            }
        }
        self.now = end;
    }
}

async fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let (world, knobs) = (World::virtual_time(), Knobs::new());
    let mut spec = ChildSpec::module(SICK);
    spec.backoff.jitter = 0.0;
    let sick = world.start(spec, &knobs);
    sick.settled().await;
    let mut model = Model::default();
    for op in ops {
        let told = match op {
            Op::Do => sick.tell(Do(0)).is_ok(),
            Op::Panic => sick.tell(Ail::Panic).is_ok(),
            Op::Stop => sick.tell(Ail::Stop).is_ok(),
            Op::Hang => sick.tell(Ail::WaitForever).is_ok(),
            Op::Pass(_) => false,
        };
        prop_assert_eq!(told, !model.failed && !matches!(op, Op::Pass(_)));
        if told {
            model.queue.push_back(*op);
        }
        let span = match op {
            Op::Pass(span) => *span,
            Op::Hang => 240_001,
            _ => 3,
        };
        model.pass(span);
        tokio::time::sleep(Duration::from_millis(span)).await;
        let phase = match (model.failed, model.wakes) {
            (true, _) => Phase::Failed,
            (false, Some(_)) => Phase::Backoff,
            (false, None) => Phase::Running,
        };
        prop_assert_eq!(sick.phase(), phase, "after {:?}", op);
        let restarts = world.restarts("panic") + world.restarts("stop") + world.restarts("hang");
        prop_assert_eq!(restarts, model.restarts, "after {:?}", op);
        prop_assert_eq!(knobs.handled.lock().len(), model.handled, "after {:?}", op);
        let tally = sick.tally();
        prop_assert_eq!(tally.error, model.lost, "after {:?}", op);
        prop_assert_eq!(tally.received, tally.ok + tally.error + tally.in_flight);
        let waiting = model.queue.len() + usize::from(model.hangs_until.is_some());
        prop_assert_eq!(usize::try_from(tally.in_flight).unwrap(), waiting, "after {:?}", op);
    }
    Ok(())
}

#[test]
fn s2_any_sequence_of_failures_ends_as_the_rules_say() {
    // odd spans, so that no sum of them falls on the edge of a window
    let spans = prop::sample::select(vec![7, 150, 455, 1111, 5003, 17_007, 33_009, 61_013]);
    let op = prop_oneof![
        3 => Just(Op::Do),
        3 => Just(Op::Panic),
        1 => Just(Op::Stop),
        1 => Just(Op::Hang),
        4 => spans.prop_map(Op::Pass),
    ];
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(&prop::collection::vec(op, 1..40), |ops| on_virtual_time(|| async move { check(&ops).await })).unwrap();
}
