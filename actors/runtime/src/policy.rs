//! The rule by which a child is restarted or given up: pure, so that a model can check it.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    cell::Cause,
    spec::{Backoff, Intensity, Restart},
};

/// What to do with a child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this wait.
    Restart(Duration),
    /// It failed too often.
    GiveUp,
    /// It is done; that is no failure.
    Finish,
}

/// So many restarts within so long, of one child or of a whole group. Times are monotonic.
#[derive(Debug)]
pub(crate) struct Budget {
    intensity: Intensity,
    /// When a restart was granted, and to whom.
    granted: VecDeque<(Duration, u64)>,
}

impl Budget {
    /// Nothing is spent yet.
    pub(crate) fn new(intensity: Intensity) -> Budget {
        Budget { intensity, granted: VecDeque::new() }
    }

    /// Takes a restart for child number `whose`; false if there is none left.
    pub(crate) fn spend(&mut self, whose: u64, now: Duration) -> bool {
        while self.granted.front().is_some_and(|(at, _)| now.saturating_sub(*at) > self.intensity.within) {
            self.granted.pop_front();
        }
        let left = self.granted.len() < usize::try_from(self.intensity.restarts).unwrap_or(usize::MAX);
        if left {
            self.granted.push_back((now, whose));
        }
        left
    }

    /// The restarts of `whose` no longer count.
    pub(crate) fn forgive(&mut self, whose: u64) {
        self.granted.retain(|(_, other)| *other != whose);
    }
}

/// Remembers a child's failures and judges the next one. Times are monotonic.
#[derive(Debug)]
pub struct Policy {
    restart: Restart,
    backoff: Backoff,
    /// What the child may spend; none if its group counts for it.
    budget: Option<Budget>,
    /// Failures since it last was healthy for long enough: the exponent of the backoff.
    streak: u32,
    /// When it last started to work.
    running_since: Option<Duration>,
    jitter: SmallRng,
}

impl Policy {
    /// A policy with no failure yet; without an intensity it never gives up. The same seed gives the same jitter.
    pub fn new(restart: Restart, backoff: Backoff, intensity: Option<Intensity>, seed: u64) -> Policy {
        let jitter = SmallRng::seed_from_u64(seed);
        Policy { restart, backoff, budget: intensity.map(Budget::new), streak: 0, running_since: None, jitter }
    }

    /// The child works.
    pub fn running(&mut self, now: Duration) {
        self.running_since = Some(now);
    }

    /// The child ended for `cause`.
    pub fn ended(&mut self, cause: Cause, now: Duration) -> Verdict {
        let healthy_for = self.running_since.take().map(|since| now.saturating_sub(since));
        if healthy_for.is_some_and(|span| span >= self.backoff.reset) {
            self.streak = 0;
        }
        match (self.restart, cause) {
            (Restart::Permanent | Restart::Transient, Cause::Group) => return Verdict::Restart(Duration::ZERO),
            (Restart::Transient, Cause::Stop) | (Restart::Temporary, Cause::Stop | Cause::Group) => return Verdict::Finish,
            (Restart::Temporary, _) => return Verdict::GiveUp,
            (Restart::Permanent | Restart::Transient, _) => {}
        }
        if self.budget.as_mut().is_some_and(|budget| !budget.spend(0, now)) {
            return Verdict::GiveUp;
        }
        let wait = self.backoff.nominal(self.streak);
        self.streak = self.streak.saturating_add(1);
        let jitter = self.backoff.jitter.clamp(0.0, 1.0);
        Verdict::Restart(wait.mul_f64(self.jitter.random_range(1.0 - jitter..=1.0 + jitter)))
    }

    /// The cause of the failures is known and removed: they no longer count.
    pub fn forgive(&mut self) {
        if let Some(budget) = self.budget.as_mut() {
            budget.forgive(0);
        }
        self.streak = 0;
    }
}
