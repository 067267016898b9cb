//! How fast a counter grows, as Prometheus says it.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;

/// Values in the order of their time, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub(crate) count: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) first: f64,
    pub(crate) last_at: Timestamp,
    pub(crate) last: f64,
    /// What the counter showed before each time that it began anew, together.
    pub(crate) lost: f64,
}

impl Run {
    pub(crate) fn of(at: Timestamp, value: f64) -> Run {
        Run { count: 1, first_at: at, first: value, last_at: at, last: value, lost: 0.0 }
    }

    /// Takes in what follows: a counter that shows less than before began anew at zero in between.
    pub(crate) fn append(&mut self, next: &Run) {
        if next.first < self.last {
            self.lost += self.last;
        }
        self.lost += next.lost;
        self.count = self.count.saturating_add(next.count);
        (self.last_at, self.last) = (next.last_at, next.last);
    }

    /// By how much a counter grew within `span` up to the newest value; none with fewer than two values.
    ///
    /// The values rarely lie at the window's edges, so what they show is extrapolated: to the edge, if the first lies as
    /// near as values usually do (1.1 times their mean distance), else by half of that distance; and never beyond the
    /// time at which the counter would have been zero. Rules that were written for Prometheus so keep their limits.
    ///
    /// Source: Prometheus 3, `promql/functions.go` (`extrapolatedRate`), with the newest value's time as the moment of
    /// evaluation.
    pub(crate) fn increase(&self, span: Duration) -> Option<f64> {
        let grown = self.last - self.first + self.lost;
        let to_zero = (grown > 0.0 && self.first >= 0.0).then_some(self.first / grown);
        self.extrapolated(grown, to_zero, span)
    }

    /// By how much a gauge changed, extrapolated in the same way.
    pub(crate) fn delta(&self, span: Duration) -> Option<f64> {
        self.extrapolated(self.last - self.first, None, span)
    }

    /// `to_zero` is how far back zero lies, in parts of the time between the first value and the last.
    fn extrapolated(&self, change: f64, to_zero: Option<f64>, span: Duration) -> Option<f64> {
        let between = self.last_at.since(self.first_at).as_secs_f64();
        if self.count < 2 || between <= 0.0 {
            return None;
        }
        let usual = between / f64::from(u32::try_from(self.count - 1).unwrap_or(u32::MAX));
        let mut before = (span.as_secs_f64() - between).max(0.0);
        if before >= usual * 1.1 {
            before = usual / 2.0;
        }
        if let Some(to_zero) = to_zero {
            before = before.min(between * to_zero);
        }
        Some(change * ((between + before) / between))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(samples: &[(i64, f64)]) -> Run {
        let mut samples = samples.iter().map(|(at, value)| Run::of(Timestamp::from_millis(at * 1000), *value));
        let mut run = samples.next().unwrap();
        samples.for_each(|sample| run.append(&sample));
        run
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_counter_is_extrapolated_to_the_edges_as_prometheus_does() {
        // 15 s apart, the first 15 s from the edge: 30 in 45 s are 40 in 60 s
        assert_eq!(run(&[(15, 100.0), (30, 110.0), (45, 120.0), (60, 130.0)]).increase(MINUTE), Some(40.0));
        // the first lies 40 s from the edge, more than 1.1 × 10 s: only 5 s more are believed
        assert_eq!(run(&[(40, 100.0), (50, 110.0), (60, 120.0)]).increase(MINUTE), Some(25.0));
        // the counter was zero 3 s before the first value
        assert_eq!(run(&[(15, 2.0), (30, 12.0), (45, 22.0), (60, 32.0)]).increase(MINUTE), Some(32.0));
    }

    #[test]
    fn a_counter_that_begins_anew_has_grown_by_what_it_shows() {
        // 10 → 20 → 5 → 15: grew by 10, 5 and 10
        let run = run(&[(15, 10.0), (30, 20.0), (45, 5.0), (60, 15.0)]);
        assert_eq!((run.last - run.first + run.lost, run.increase(MINUTE)), (25.0, Some(25.0 * (60.0 / 45.0))));
        assert_eq!(run.delta(MINUTE), Some(5.0 * (60.0 / 45.0)));
    }

    #[test]
    fn one_value_shows_no_growth_and_a_standing_counter_none() {
        assert_eq!(run(&[(60, 5.0)]).increase(MINUTE), None);
        assert_eq!(run(&[(30, 5.0), (60, 5.0)]).increase(MINUTE), Some(0.0));
    }
}
