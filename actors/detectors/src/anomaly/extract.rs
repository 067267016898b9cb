//! Numbers out of log lines.

use opspilot_kernel::signal::SignalRef;
use regex_automata::{meta::Regex, util::captures::Captures};

use super::config::{self, VALUE};
use crate::evidence::cut;

/// A label taken out of a line is cut at this many bytes.
const LABEL_BYTES: usize = 256;

/// A pattern made ready, with room for what it finds.
#[derive(Debug)]
pub(super) struct Extractor {
    regex: Regex,
    captures: Captures,
    value: usize,
    /// Groups that become labels, by their names.
    labels: Vec<(String, usize)>,
}

impl Extractor {
    /// A pattern that was checked; nothing if it is none after all.
    pub(super) fn new(extract: &config::Extract) -> Option<Extractor> {
        let regex = Regex::new(&extract.pattern).ok()?;
        let captures = regex.create_captures();
        let names: Vec<(String, usize)> = captures
            .group_info()
            .pattern_names(regex_automata::PatternID::ZERO)
            .enumerate()
            .filter_map(|(group, name)| Some((name?.to_owned(), group)))
            .collect();
        let value = names.iter().find(|(name, _)| name == VALUE).map(|(_, group)| *group)?;
        let mut labels: Vec<(String, usize)> = names.into_iter().filter(|(name, _)| name != VALUE).collect();
        labels.sort_unstable();
        Some(Extractor { regex, captures, value, labels })
    }

    /// The number in a line, if there is one.
    pub(super) fn find(&mut self, line: &str) -> Option<f64> {
        self.regex.captures(line, &mut self.captures);
        let span = self.captures.get_group(self.value)?;
        line.get(span.range())?.parse::<f64>().ok()
    }

    /// The labels of the number that was found last, sorted by name.
    pub(super) fn labels<'a>(&'a self, signal: &SignalRef<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let line = signal.message;
        self.labels.iter().filter_map(move |(name, group)| {
            let span = self.captures.get_group(*group)?;
            Some((name.as_str(), cut(line.get(span.range())?, LABEL_BYTES)))
        })
    }
}
