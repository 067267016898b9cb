//! How fast bases are written, so that neither what is written nor the way back after a restart grows without bound.

use std::time::Duration;

/// Written at most and at least.
///
/// With `M` bytes kept, a commit after `n` signals and the time `t` writes up to
/// `min(most, max(n × clamp(M / span, 32, 256), M × t / hour))` bytes and one base more. As the longest waiting goes first,
/// every base is written again before `span` signals (as long as `M ≤ 256 × span`) or an hour have gone by since the
/// first it lacks, whichever is sooner, and the few commits that `most` may delay it: that much is read again after a restart.
/// Series that leave memory are written besides, when they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Signals to be read again after a restart, at most.
    pub(crate) span: u64,
    /// Time of the log to be read again, at most.
    pub(crate) hour: Duration,
    /// Bytes in a commit, at most.
    pub(crate) most: usize,
}

/// Bytes of bases for each signal that was read.
const LEAST_RATE: u64 = 32;
const MOST_RATE: u64 = 256;

impl Default for Pace {
    fn default() -> Pace {
        Pace { span: 4 << 20, hour: Duration::from_secs(3600), most: 16 << 20 }
    }
}

impl Pace {
    /// How many bytes may be written when `bytes` are kept, after so many signals and so much time.
    pub(crate) fn budget(&self, bytes: usize, signals: u64, time: Duration) -> usize {
        let kept = u64::try_from(bytes).unwrap_or(u64::MAX);
        let rate = (kept / self.span.max(1)).clamp(LEAST_RATE, MOST_RATE);
        let share = u128::from(kept).saturating_mul(time.as_millis()) / self.hour.as_millis().max(1);
        let by_time = usize::try_from(share).unwrap_or(usize::MAX);
        usize::try_from(signals.saturating_mul(rate)).unwrap_or(usize::MAX).max(by_time).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_goes_by_what_was_read_by_time_and_by_how_much_there_is() {
        let pace = Pace::default();
        let none = Duration::ZERO;
        assert_eq!(pace.budget(1 << 20, 1000, none), 32_000, "little is kept: everything is soon in its base");
        assert_eq!(pace.budget(1 << 30, 1000, none), 256_000);
        assert_eq!(pace.budget(1 << 40, 1000, none), 256_000);
        assert_eq!(pace.budget(1 << 40, 1 << 30, none), 16 << 20);
        assert_eq!(pace.budget(3_600_000, 0, Duration::from_secs(1)), 1_000, "whatever comes, an hour is enough");
    }
}
