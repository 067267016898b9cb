//! Refusals that are all alike, told in the log now and then with their number: a full disk must not fill the log.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

/// How often at most a refusal of one kind is told.
const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Told {
    at: Duration,
    since: u64,
}

/// When refusals were last told, by their code. The codes are a closed set, so this stays small.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<&'static str, Told>>);

impl Refusals {
    /// Counts one. `Some` if it is to be told now, with how many there were since the last time, itself included.
    pub(super) fn count(&self, code: &'static str, now: Duration) -> Option<u64> {
        let mut told = self.0.lock();
        let first = !told.contains_key(code);
        let told = told.entry(code).or_default();
        told.since += 1;
        if !first && now.saturating_sub(told.at) < EVERY {
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_told_at_once_and_the_others_by_their_number() {
        let refusals = Refusals::default();
        let at = Duration::from_secs;
        assert_eq!(refusals.count("full", at(0)), Some(1));
        assert_eq!((1..10).filter_map(|second| refusals.count("full", at(second))).count(), 0);
        assert_eq!(refusals.count("other", at(9)), Some(1), "of another kind");
        assert_eq!(refusals.count("full", at(10)), Some(10));
        assert_eq!(refusals.count("full", at(60)), Some(1));
    }
}
