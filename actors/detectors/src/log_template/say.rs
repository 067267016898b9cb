//! What people are told about a template.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{fingerprint::Fingerprint, signal::Severity};

use super::{
    config::Rule,
    miner::{Miner, TemplateId},
};
use crate::{
    episodes::Face,
    evidence::cut,
    template::{DESCRIPTION_BYTES, TITLE_BYTES},
    words::spoken,
};

/// Of a template in a title, and of an example in a description, this much is enough.
const TEMPLATE_IN_TITLE: usize = 160;
const EXAMPLE: usize = 1024;
/// Values told of at most, and the share of lines that has to agree in one.
const VALUES: usize = 5;
const AGREE: usize = 90;
/// Of fewer lines nothing is said about values.
const FEW: usize = 5;

/// What is unusual about a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    New,
    Burst,
    Stopped,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Kind::New => "new",
            Kind::Burst => "burst",
            Kind::Stopped => "stopped",
        }
    }

    pub(super) fn fingerprint(self, rule: &str, source: &str, template: TemplateId) -> Fingerprint {
        let template = template.to_string();
        Fingerprint::of_pairs([("alertname", rule), ("kind", self.as_str()), ("source", source), ("template", template.as_str())])
    }
}

/// Words that tell of an error.
const WORDS: [&str; 18] = [
    "error",
    "fail",
    "exception",
    "panic",
    "fatal",
    "critical",
    "abort",
    "corrupt",
    "refused",
    "denied",
    "timed out",
    "timeout",
    "unable",
    "cannot",
    "traceback",
    "segfault",
    "out of memory",
    "killed",
];

/// Whether a line of this template and severity tells of an error.
pub(super) fn tells_of_an_error(template: &str, severity: Severity) -> bool {
    if severity >= Severity::Error {
        return true;
    }
    let lower = template.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// A template that something is to be said about.
pub(super) struct Subject<'a> {
    pub(super) rule: &'a Rule,
    pub(super) source: &'a str,
    pub(super) id: TemplateId,
    pub(super) text: &'a str,
}

impl Subject<'_> {
    fn face(&self, kind: Kind, title: String, mut description: String) -> Face {
        let mut labels: BTreeMap<String, String> = self.rule.labels.clone();
        for (name, value) in [
            ("alertname", self.rule.id.clone()),
            ("kind", kind.as_str().to_owned()),
            ("source", self.source.to_owned()),
            ("template", self.id.to_string()),
        ] {
            labels.insert(name.to_owned(), value);
        }
        let keep = cut(&description, DESCRIPTION_BYTES).len();
        description.truncate(keep);
        let title = cut(&title, TITLE_BYTES).to_owned();
        Face {
            rule: self.rule.id.clone(),
            source: self.source.to_owned(),
            title,
            description,
            severity: self.rule.severity,
            labels,
            supports: !self.rule.opens_incident,
        }
    }

    fn short(&self) -> &str {
        cut(self.text, TEMPLATE_IN_TITLE)
    }

    pub(super) fn new_template(&self, line: &str) -> Face {
        let title = format!("New in the log: {}", self.short());
        let description = format!("{} never wrote such a line since it is followed.\n{}", cut(self.source, EXAMPLE), self.example(line));
        self.face(Kind::New, title, description)
    }

    pub(super) fn burst(&self, (count, usual, spread): (u32, f64, f64), values: &str, line: &str) -> Face {
        let title = format!("Burst in the log: {}", self.short());
        let description = format!(
            "{} wrote {count} such lines in this minute so far; usual are {usual:.1} a minute (standard deviation {spread:.1}).\n{}{values}",
            cut(self.source, EXAMPLE),
            self.example(line)
        );
        self.face(Kind::Burst, title, description)
    }

    pub(super) fn stopped(&self, silent: Duration, usual: f64) -> Face {
        let title = format!("No longer in the log: {}", self.short());
        let description = format!(
            "{} wrote no such line for {}, and went on writing others; usually one comes every {}.\nTemplate: {}",
            cut(self.source, EXAMPLE),
            spoken(silent),
            spoken(Duration::try_from_secs_f64(usual.round().max(1.0)).unwrap_or_default()),
            cut(self.text, EXAMPLE)
        );
        self.face(Kind::Stopped, title, description)
    }

    fn example(&self, line: &str) -> String {
        format!("Template: {}\nExample: {}", cut(self.text, EXAMPLE), cut(line.trim(), EXAMPLE))
    }
}

/// Which values are the same in nearly all of these lines of a template, in words.
pub(super) fn values(miner: &mut Miner, id: TemplateId, lines: &[String]) -> String {
    let mut places: Vec<(String, BTreeMap<String, usize>)> = Vec::new();
    let mut read = 0;
    for line in lines {
        let values = miner.values(id, line);
        read += usize::from(!values.is_empty());
        for (at, (name, value)) in values.into_iter().enumerate() {
            if places.len() <= at {
                places.push((name, BTreeMap::new()));
            }
            if let Some((_, seen)) = places.get_mut(at) {
                *seen.entry(cut(value, 64).to_owned()).or_default() += 1;
            }
        }
    }
    if read < FEW {
        return String::new();
    }
    let agreed = places.iter().filter_map(|(name, seen)| {
        let (value, count) = seen.iter().max_by_key(|(_, count)| **count)?;
        (count * 100 >= read * AGREE).then(|| format!("\n{name} was {value} in {} % of the last {read} lines", count * 100 / read))
    });
    agreed.take(VALUES).collect()
}
