//! Any detector by its name, driven with no service around it: for replay, for evaluation, for tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use opspilot_kernel::{alert::AlertRecord, config::Problem, signal::LogEntry, time::Timestamp};
use opspilot_runtime::Offline;

use crate::{Detect, MODULES, Shelf};

/// So many signals are taken in before what changed is asked for, as a follower would ask to store it.
const STORED_AFTER: u64 = 10_000;

/// A detector that nobody follows a log for.
pub(crate) struct Alone<D> {
    detector: D,
    shelf: Memory,
    /// Signals and ticks since what changed was last asked for.
    unstored: u64,
}

impl<D: Detect> Alone<D> {
    pub(crate) fn new(config: &D::Config) -> Alone<D> {
        let (mut detector, shelf) = (D::build(config), Memory::default());
        // a shelf with nothing on it cannot be read wrong
        drop(detector.begin(Box::new(shelf.clone())));
        Alone { detector, shelf, unstored: 0 }
    }

    /// What a follower does between two commits. What is small stays where it is; a detector that puts series away to make
    /// room finds them on the shelf.
    fn store(&mut self) {
        self.unstored = 0;
        drop(self.detector.changed());
        let mut parts = self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in self.detector.shelve() {
            match change.body {
                Some(body) => parts.insert(change.key, body),
                None => parts.remove(&change.key),
            };
        }
    }
}

/// A shelf in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Shelf for Memory {
    fn keys(&self) -> Result<Vec<String>, String> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }
}

impl<D: Detect> Offline for Alone<D> {
    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        self.detector.consume(entry, out);
        self.unstored += entry.last_seq().saturating_sub(entry.first_seq()) + 1;
        if self.unstored >= STORED_AFTER || self.detector.is_urgent() {
            self.store();
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.detector.next_due()
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let counts = self.detector.counts();
        let all = [
            ("held back", counts.held_back),
            ("ignored", counts.ignored),
            ("late", counts.late),
            ("damaged", counts.damaged),
            ("evicted", counts.evicted),
            ("forgotten", counts.forgotten),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// Why there is no detector to drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchDetector {
    /// None has this name.
    #[error("there is no detector '{0}'")]
    Unknown(String),
    /// Its section of the configuration does not do.
    #[error("{}", said(.0))]
    Config(Vec<Problem>),
}

fn said(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect::<Vec<_>>().join("; ")
}

/// The detector `id` as the service would run it with this section of the configuration; an empty section (or `null`) gives
/// its defaults.
///
/// It is pure: fed with batches and with a tick whenever [`Offline::next_due`] has come, it gives the records that the service
/// would have put into its alert log.
pub fn offline(id: &str, section: serde_json::Value) -> Result<Box<dyn Offline>, NoSuchDetector> {
    let entry = MODULES.iter().find(|entry| entry.id.as_str() == id);
    let make = entry.and_then(|entry| entry.offline).ok_or_else(|| NoSuchDetector::Unknown(id.to_owned()))?;
    make(section).map_err(NoSuchDetector::Config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Step, log_of, outline, say};

    #[test]
    fn every_detector_can_be_driven_by_its_name_with_its_defaults() {
        for entry in MODULES {
            let mut detector = offline(entry.id.as_str(), serde_json::Value::Null).unwrap();
            detector.consume(&log_of(&[Step::tick(0)], |_| true)[0], &mut Vec::new());
        }
    }

    #[test]
    fn by_its_name_it_says_what_the_service_would_say() {
        let section = json!({ "rules": [{ "id": "e", "pattern": "error", "resolve_after": "1m" }] });
        let steps = [Step::log(0, "s", "an error"), Step::log(500, "s", "another error"), Step::tick(62_000)];
        let mut detector = offline("detector.regex", section.clone()).unwrap();
        let mut out = Vec::new();
        log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
        assert_eq!(outline(&out).len(), 3, "{:?}", outline(&out));
        assert_eq!(out, say(<crate::regex::Detector as Detect>::build(&serde_json::from_value(section).unwrap()), &steps));
    }

    #[test]
    fn a_wrong_name_and_a_wrong_section_are_refused_in_words() {
        assert_eq!(offline("detector.none", json!({})).err(), Some(NoSuchDetector::Unknown("detector.none".to_owned())));
        let error = offline("detector.regex", json!({ "rules": [{ "id": "e", "pattern": "(" }] })).err().unwrap().to_string();
        assert!(error.starts_with("/rules/0/pattern: "), "{error}");
    }
}
