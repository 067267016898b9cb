//! The injected clock. Nothing else in the project may ask the machine for the time.

use std::{sync::Arc, time::Duration};

use crate::time::Timestamp;

/// Tells the time. Wall time may jump; [`Clock::elapsed`] never goes back.
pub trait Clock: Send + Sync + 'static {
    /// Wall time now.
    fn now(&self) -> Timestamp;
    /// Monotonic time since some fixed moment of this process.
    fn elapsed(&self) -> Duration;
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

    /// Lets `span` pass on both clocks.
    pub fn advance(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
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
