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

/// Remembers a child's failures and judges the next one. Times are monotonic.
#[derive(Debug)]
pub struct Policy {
    restart: Restart,
    backoff: Backoff,
    intensity: Intensity,
    /// When the restarts within the intensity's window were decided.
    recent: VecDeque<Duration>,
    /// Failures since it last was healthy for long enough: the exponent of the backoff.
    streak: u32,
    /// When it last started to work.
    running_since: Option<Duration>,
    jitter: SmallRng,
}

impl Policy {
    /// A policy with no failure yet. The same seed gives the same jitter.
    pub fn new(restart: Restart, backoff: Backoff, intensity: Intensity, seed: u64) -> Policy {
        let jitter = SmallRng::seed_from_u64(seed);
        Policy { restart, backoff, intensity, recent: VecDeque::new(), streak: 0, running_since: None, jitter }
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
            (Restart::Permanent, _) => {}
            (Restart::Transient, Cause::Stop) => return Verdict::Finish,
            (Restart::Transient, _) => {}
            (Restart::Temporary, Cause::Stop) => return Verdict::Finish,
            (Restart::Temporary, _) => return Verdict::GiveUp,
        }
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) > self.intensity.within) {
            self.recent.pop_front();
        }
        if self.recent.len() >= usize::try_from(self.intensity.restarts).unwrap_or(usize::MAX) {
            return Verdict::GiveUp;
        }
        self.recent.push_back(now);
        let wait = self.backoff.nominal(self.streak);
        self.streak = self.streak.saturating_add(1);
        let jitter = self.backoff.jitter.clamp(0.0, 1.0);
        Verdict::Restart(wait.mul_f64(self.jitter.random_range(1.0 - jitter..=1.0 + jitter)))
    }

    /// The cause of the failures is known and removed: they no longer count.
    pub fn forgive(&mut self) {
        self.recent.clear();
        self.streak = 0;
    }
}
