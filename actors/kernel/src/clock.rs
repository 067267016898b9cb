//! The injected clock. Nothing else in the project may ask the machine for the time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::time::Timestamp;

/// Wall time may be behind by so much without anybody being told: it is being adjusted.
pub const TOLERANCE: Duration = Duration::from_secs(5);

/// Tells the time. The machine's wall time may jump; [`Clock::elapsed`] never goes back.
pub trait Clock: Send + Sync + 'static {
    /// The time that everything goes by.
    fn now(&self) -> Timestamp;

    /// Monotonic time since some fixed moment of this process.
    fn elapsed(&self) -> Duration;

    /// What the machine takes for the time, right or wrong.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// Tells of a time that was already: a clock that never goes back goes on from there.
    fn not_before(&self, _was: Timestamp) {}

    /// Takes the machine's time as it is now, also if that was already: somebody looked at it.
    fn accept(&self) {}

    /// By how much the machine is behind a time that was already, if by more than the [`TOLERANCE`].
    fn regression(&self) -> Option<Duration> {
        Some(self.now().since(self.wall())).filter(|behind| *behind > TOLERANCE)
    }
}

/// A clock that can be handed to every part.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// The machine's clock, ready to share.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock { origin: std::time::Instant::now() })
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock over another one that never goes back.
///
/// * Set back, or standing still, by more than the [`TOLERANCE`]: it goes on by monotonic time, from the latest time
///   there was, until the other clock has caught up; [`Clock::regression`] tells by how much that one is behind.
/// * Behind by less: it goes a little slower than monotonic time until the other clock has caught up, so that small
///   corrections do not add up.
/// * Set ahead: it follows at once. What falls due by the new time fires; nothing fires earlier than that.
pub struct SteadyClock {
    raw: SharedClock,
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Since 1970, finer than a [`Timestamp`]: a clock that is read often must not lose the rest of each millisecond.
    time: Duration,
    elapsed: Duration,
}

/// One part in so many is what a clock that is a little ahead loses.
const SLEW: u32 = 16;

impl SteadyClock {
    /// A clock that goes on from what `raw` shows now.
    pub fn over(raw: SharedClock) -> SharedClock {
        let last = Mutex::new(Reading { time: since_1970(raw.now()), elapsed: raw.elapsed() });
        Arc::new(SteadyClock { raw, last })
    }

    fn read(&self) -> Timestamp {
        // the other clock is read under the lock: a reading that waited for it would be from the past
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, elapsed) = (since_1970(self.raw.now()), self.raw.elapsed());
        let passed = elapsed.saturating_sub(last.elapsed);
        let ahead = last.time.saturating_add(passed).saturating_sub(wall);
        let lost = if ahead > TOLERANCE { Duration::ZERO } else { ahead.min(passed / SLEW) };
        let time = wall.max(last.time.saturating_add(passed - lost));
        *last = Reading { time, elapsed };
        Timestamp::from_millis(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
    }
}

fn since_1970(time: Timestamp) -> Duration {
    time.since(Timestamp::ZERO)
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.read()
    }

    fn elapsed(&self) -> Duration {
        self.raw.elapsed()
    }

    fn wall(&self) -> Timestamp {
        self.raw.wall()
    }

    fn accept(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Reading { time: since_1970(self.raw.now()), elapsed: self.raw.elapsed() };
    }

    fn not_before(&self, was: Timestamp) {
        self.read();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.time = last.time.max(since_1970(was));
    }
}

/// A clock on tokio's timer: under `tokio::time::pause` wall time and timers move together.
#[derive(Debug)]
pub struct VirtualClock {
    epoch: Timestamp,
    origin: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock that shows `epoch` now; made inside the runtime whose time it follows.
    pub fn starting_at(epoch: Timestamp) -> SharedClock {
        Arc::new(VirtualClock { epoch, origin: tokio::time::Instant::now() })
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.epoch.after(self.origin.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that a test sets by hand, from any thread.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: std::sync::atomic::AtomicI64,
    elapsed_ms: std::sync::atomic::AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Arc<ManualClock> {
        let clock = ManualClock::default();
        clock.set(now);
        Arc::new(clock)
    }

    /// Sets wall time, forward or back, without monotonic time passing.
    pub fn set(&self, now: Timestamp) {
        self.wall.store(now.millis(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Lets `span` pass on the monotonic clock while wall time stands still.
    pub fn freeze(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }

    /// Lets `span` pass on both clocks.
    pub fn advance(&self, span: Duration) {
        self.freeze(span);
        self.set(self.now().after(span));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn clocks() -> (Arc<ManualClock>, SharedClock) {
        let raw = ManualClock::at(NOON);
        let shared: SharedClock = raw.clone();
        (raw, SteadyClock::over(shared))
    }

    #[test]
    fn a11_a_clock_that_is_right_is_followed_to_the_millisecond() {
        let (raw, clock) = clocks();
        for span in [1, 999, 250, 60_000, 3] {
            raw.advance(Duration::from_millis(span));
            assert_eq!((clock.now(), clock.regression()), (raw.now(), None));
        }
    }

    #[test]
    fn a11_set_back_it_goes_on_by_monotonic_time_until_the_other_has_caught_up() {
        for back in [HOUR, DAY] {
            let (raw, clock) = clocks();
            raw.advance(Duration::from_secs(10));
            let before = clock.now();
            raw.set(raw.now().before(back));
            assert_eq!((clock.now(), clock.wall()), (before, before.before(back)));
            assert_eq!(clock.regression(), Some(back));
            for second in 1..=300 {
                raw.advance(Duration::from_secs(1));
                assert_eq!(clock.now(), before.after(Duration::from_secs(second)), "neither early nor late");
            }
            assert_eq!(clock.regression(), Some(back), "it is shown as long as it lasts");
            raw.set(raw.now().after(back));
            assert_eq!((clock.now(), clock.regression()), (before.after(Duration::from_secs(300)), None));
        }
    }

    #[test]
    fn a11_while_the_other_stands_still_it_goes_on() {
        let (raw, clock) = clocks();
        for _ in 0..600 {
            raw.freeze(Duration::from_secs(1));
            clock.now();
        }
        let late = NOON.after(Duration::from_secs(600)).since(clock.now());
        assert!(late < Duration::from_millis(400), "only what it lost before it was sure: {late:?}");
        assert!(clock.regression().is_some_and(|behind| behind > Duration::from_secs(599)));
    }

    #[test]
    fn a11_set_ahead_it_follows_at_once_and_no_further() {
        let (raw, clock) = clocks();
        raw.set(NOON.after(HOUR));
        assert_eq!((clock.now(), clock.regression()), (NOON.after(HOUR), None));
        raw.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), NOON.after(HOUR + Duration::from_secs(1)));
        // and back to what is right: it stays, since that time was
        raw.set(NOON.after(Duration::from_secs(2)));
        assert_eq!(clock.now(), NOON.after(HOUR + Duration::from_secs(1)));
        assert!(clock.regression().is_some());
    }

    #[test]
    fn a11_small_corrections_are_made_up_for_and_do_not_add_up() {
        let (raw, clock) = clocks();
        for _ in 0..10 {
            raw.set(raw.now().before(Duration::from_secs(3)));
            let mut before = clock.now();
            for _ in 0..600 {
                raw.advance(Duration::from_millis(100));
                let now = clock.now();
                assert!(now.since(before) >= Duration::from_millis(93), "it loses a sixteenth at most");
                assert_eq!(clock.regression(), None);
                before = now;
            }
            assert_eq!(clock.now(), raw.now(), "after a minute");
        }
    }

    #[test]
    fn a11_read_very_often_it_loses_nothing() {
        let (raw, clock) = clocks();
        raw.set(NOON.before(HOUR));
        for _ in 0..10_000 {
            raw.freeze(Duration::from_millis(1));
            clock.now();
        }
        assert_eq!(clock.now(), NOON.after(Duration::from_secs(10)));
    }

    #[test]
    fn a11_once_accepted_the_machines_time_is_gone_by_again() {
        let (raw, clock) = clocks();
        raw.set(NOON.before(DAY));
        assert_eq!((clock.now(), clock.regression()), (NOON, Some(DAY)));
        clock.accept();
        assert_eq!((clock.now(), clock.regression()), (NOON.before(DAY), None));
    }

    #[test]
    fn a11_a_time_that_was_before_the_process_started_is_gone_on_from() {
        let (raw, clock) = clocks();
        clock.not_before(NOON.after(HOUR));
        assert_eq!((clock.now(), clock.regression()), (NOON.after(HOUR), Some(HOUR)));
        clock.not_before(NOON);
        raw.advance(Duration::from_secs(7));
        assert_eq!(clock.now(), NOON.after(HOUR + Duration::from_secs(7)));
    }
}
