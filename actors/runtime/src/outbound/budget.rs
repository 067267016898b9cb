//! How often a call may be repeated, and when.

use std::time::Duration;

use parking_lot::Mutex;

/// What one repetition costs.
const REPEAT: u32 = 10;
/// So many repetitions can be saved up.
const SAVED: u32 = 3 * REPEAT;
/// Before the first repetition.
const FIRST: Duration = Duration::from_millis(100);
/// Never longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// Lets a tenth of the calls to a target be repeated, and three besides: when everything fails, repetitions must not
/// multiply what the target has to bear.
#[derive(Debug)]
pub(super) struct Budget {
    saved: Mutex<u32>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { saved: Mutex::new(SAVED) }
    }
}

impl Budget {
    /// A call was made.
    pub(super) fn earn(&self) {
        let mut saved = self.saved.lock();
        *saved = saved.saturating_add(1).min(SAVED);
    }

    /// Whether there is a repetition left; takes it.
    pub(super) fn spend(&self) -> bool {
        let mut saved = self.saved.lock();
        match saved.checked_sub(REPEAT) {
            Some(rest) => {
                *saved = rest;
                true
            }
            None => false,
        }
    }
}

/// How long to wait before repetition number `n` (the first is 0): doubled each time, half of it at random.
pub(super) fn wait(n: u32) -> Duration {
    let full = 2_u32.checked_pow(n).and_then(|factor| FIRST.checked_mul(factor)).unwrap_or(LONGEST).min(LONGEST);
    full.mul_f64(rand::random_range(0.5..1.0))
}
