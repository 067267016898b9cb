//! What every rule's configuration is checked for.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    config::{Problem, Span},
    fingerprint::Fingerprint,
};
use serde::Serialize;

use crate::template::Template;

/// Ids name rules in the API, in file names and in links.
const ID_BYTES: usize = 128;

/// A rule, as far as every list of rules is checked alike.
pub(crate) trait Rule {
    fn id(&self) -> &str;

    /// What is wrong with it, its id apart; `at` is where it stands.
    fn problems(&self, at: &str, problems: &mut Vec<Problem>);
}

/// What is wrong with `/rules`.
pub(crate) fn check_all(rules: &[impl Rule]) -> Vec<Problem> {
    check_list(rules, "/rules", &mut BTreeSet::new())
}

/// What is wrong with the list at `list`; the ids differ from those that were `seen` in others, too.
pub(crate) fn check_list<'a>(rules: &'a [impl Rule], list: &str, seen: &mut BTreeSet<&'a str>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{list}/{index}");
        check_id(rule.id(), seen, &at, &mut problems);
        rule.problems(&at, &mut problems);
    }
    problems
}

pub(crate) fn check_id<'a>(id: &'a str, seen: &mut BTreeSet<&'a str>, at: &str, problems: &mut Vec<Problem>) {
    let pointer = format!("{at}/id");
    if id.trim().is_empty() {
        problems.push(Problem::at(pointer, "the id is empty"));
    } else if id.len() > ID_BYTES || id.chars().any(char::is_control) {
        problems.push(Problem::at(pointer, format!("an id has at most {ID_BYTES} bytes and no control characters")));
    } else if !seen.insert(id) {
        problems.push(Problem::at(pointer, format!("there is another rule '{id}'; ids must differ")));
    }
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>, at: &str, problems: &mut Vec<Problem>) {
    let pointer = format!("{at}/labels");
    if labels.keys().any(String::is_empty) {
        problems.push(Problem::at(&pointer, "a label's name is empty"));
    }
    for name in ["alertname", "source"] {
        if labels.contains_key(name) {
            problems.push(Problem::at(format!("{pointer}/{name}"), format!("the label '{name}' is set by the detector itself")));
        }
    }
}

/// Checks the texts in which names stand for what was found; `unknown` tells of a name that stands for nothing.
pub(crate) fn check_texts(
    title: Option<&str>,
    description: &str,
    unknown: impl Fn(&str) -> Option<Problem>,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    for (key, text) in [("title", title.unwrap_or_default()), ("description", description)] {
        check_text(text, &unknown, &format!("{at}/{key}"), problems);
    }
}

/// Checks one of them.
pub(crate) fn check_text(text: &str, unknown: impl Fn(&str) -> Option<Problem>, pointer: &str, problems: &mut Vec<Problem>) {
    match Template::parse(text) {
        Err(unclosed) => problems.push(Problem::at(pointer, unclosed.to_string())),
        Ok(template) => problems.extend(template.names().filter_map(&unknown).map(|problem| problem.under(pointer))),
    }
}

pub(crate) fn check_resolve_after(span: Span, at: &str, problems: &mut Vec<Problem>) {
    if span < Span::seconds(1) {
        problems.push(Problem::at(format!("{at}/resolve_after"), "must be at least 1s").suggest("15m"));
    }
}

pub(crate) fn check_bound(bound: usize, pointer: &str, problems: &mut Vec<Problem>) {
    if bound == 0 {
        problems.push(Problem::at(pointer, "must be at least 1"));
    }
}

/// A number that changes when any of `parts` does: what stored state is compared by.
pub(crate) fn digest(parts: &impl Serialize) -> u64 {
    // rules are made of texts, numbers and maps with text keys: they can always be written
    let text = serde_json::to_string(parts).unwrap_or_default();
    Fingerprint::of_pairs([("rule", text.as_str())]).as_u64()
}
