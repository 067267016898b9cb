//! How far back a window of points goes in time, without remembering the time of each.

use opspilot_kernel::time::Timestamp;

use super::wire::{Reader, Writer};

/// Into so many parts a window is divided.
const PARTS: u64 = 8;
const MARKS: usize = 9;

/// The times of every eighth part of a window.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    seen: u64,
    marks: [Timestamp; MARKS],
}

impl Reach {
    pub(super) fn new() -> Reach {
        Reach { seen: 0, marks: [Timestamp::ZERO; MARKS] }
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Where the mark of `part` is kept.
    fn place(part: u64) -> usize {
        usize::try_from(part % 9).unwrap_or(0)
    }

    /// The time of the oldest of the last `window` points that is marked; `at` if there is none.
    pub(super) fn since(&self, window: u32, at: Timestamp) -> Timestamp {
        if self.seen == 0 {
            return at;
        }
        let window = u64::from(window);
        let part = self.seen.saturating_sub(window).div_ceil(window.div_ceil(PARTS));
        self.marks.get(Reach::place(part)).copied().unwrap_or(at)
    }

    /// Another point came.
    pub(super) fn count(&mut self, window: u32, at: Timestamp) {
        let every = u64::from(window).div_ceil(PARTS);
        if self.seen.is_multiple_of(every)
            && let Some(mark) = self.marks.get_mut(Reach::place(self.seen / every))
        {
            *mark = at;
        }
        self.seen = self.seen.saturating_add(1);
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.u64(self.seen);
        self.marks.iter().for_each(|mark| to.i64(mark.millis()));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Reach, String> {
        let mut reach = Reach { seen: from.u64()?, ..Reach::new() };
        for mark in &mut reach.marks {
            *mark = Timestamp::from_millis(from.i64()?);
        }
        Ok(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reach_is_within_an_eighth_of_the_window() {
        for window in [2_u32, 7, 8, 9, 100, 1000] {
            let mut reach = Reach::new();
            for point in 0..5000_i64 {
                let truly = (point - i64::from(window)).max(0);
                let said = reach.since(window, Timestamp::from_millis(point)).millis();
                assert!(said >= truly && said <= truly + i64::from(window.div_ceil(8)), "{window} {point}: {said}");
                reach.count(window, Timestamp::from_millis(point));
            }
        }
    }
}
