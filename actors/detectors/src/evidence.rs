//! A bounded sample of what was observed since an episode's previous record.

use std::collections::VecDeque;

use opspilot_kernel::alert::Observation;
use serde::{Deserialize, Serialize};

/// How many observations are kept from each end.
const KEPT: usize = 25;
/// So much of it in bytes from each end; the newest is kept whatever its size.
const KEPT_BYTES: usize = 16 << 10;
/// A line kept as evidence is cut at this many bytes.
pub(crate) const LINE_BYTES: usize = 4096;

/// The first observations and the last ones; those between are only counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    first: Vec<Observation>,
    last: VecDeque<Observation>,
}

impl Sample {
    /// Keeps an observation, letting go of one from the middle if need be.
    pub(crate) fn push(&mut self, observation: Observation) {
        let bytes = |kept: &mut dyn Iterator<Item = &Observation>| kept.map(weight).sum::<usize>().saturating_add(weight(&observation));
        if self.last.is_empty() && self.first.len() < KEPT && bytes(&mut self.first.iter()) <= KEPT_BYTES {
            self.first.push(observation);
            return;
        }
        let mut held = bytes(&mut self.last.iter());
        while self.last.len() >= KEPT || held > KEPT_BYTES {
            let Some(oldest) = self.last.pop_front() else { break };
            held = held.saturating_sub(weight(&oldest));
        }
        self.last.push_back(observation);
    }

    /// Everything kept, oldest first; the sample is empty afterwards.
    pub(crate) fn take(&mut self) -> Vec<Observation> {
        let mut all = std::mem::take(&mut self.first);
        all.extend(std::mem::take(&mut self.last));
        all
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.first.iter().chain(&self.last).map(weight).sum()
    }
}

fn weight(observation: &Observation) -> usize {
    64 + match observation {
        Observation::Log { source, text, .. } => source.len() + text.len(),
        Observation::Metric { source, name, .. } | Observation::Change { source, name, .. } => source.len() + name.len(),
    }
}

/// The longest beginning of `text` that has at most `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opspilot_kernel::time::Timestamp;

    #[test]
    fn the_first_and_the_last_are_kept() {
        let line = |n: i64| Observation::Log { at: Timestamp::from_millis(n), source: "s".into(), text: n.to_string() };
        let mut sample = Sample::default();
        (0..60).for_each(|n| sample.push(line(n)));
        assert_eq!(sample.take(), (0..25).chain(35..60).map(line).collect::<Vec<_>>());
        assert_eq!(sample, Sample::default());
        (0..4).for_each(|n| sample.push(line(n)));
        assert_eq!(sample.take(), [0, 1, 2, 3].map(line));
    }

    #[test]
    fn long_lines_are_fewer() {
        let text = "x".repeat(LINE_BYTES);
        let mut sample = Sample::default();
        for n in 0..60 {
            sample.push(Observation::Log { at: Timestamp::from_millis(n), source: "s".into(), text: text.clone() });
            assert!(sample.bytes() <= 2 * KEPT_BYTES);
        }
        assert_eq!(sample.take().len(), 6);
    }
}
