//! Sentences: each is a function of the pieces of evidence it cites, and of nothing else. So whoever has the evidence can make
//! the sentence again, and one that comes out otherwise is not true of it.

use std::time::Duration;

use opspilot_kernel::{
    alert::{Measure, Observation},
    explanation::ClaimKind,
    time::Timestamp,
};

use super::words::{alias, clean, endpoint, names, quotable};

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Condition,
    First,
    New,
    Burst,
    Stopped,
    Silent,
    Metric,
    Deed,
    Over,
    Names,
    Errors,
    Looked,
    NoBefore,
    Similar,
}

/// Everything there is to say.
pub(super) const ALL: [Say; 14] = [
    Say::Condition,
    Say::First,
    Say::New,
    Say::Burst,
    Say::Stopped,
    Say::Silent,
    Say::Metric,
    Say::Deed,
    Say::Over,
    Say::Names,
    Say::Errors,
    Say::Looked,
    Say::NoBefore,
    Say::Similar,
];

/// A sentence, how it is known, and the words it quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) kind: ClaimKind,
    pub(super) quote: Option<String>,
}

/// A change, taken apart.
struct Seen<'a> {
    at: Timestamp,
    until: Timestamp,
    source: &'a str,
    name: &'a str,
    usual: Option<f64>,
    spread: Option<f64>,
    value: f64,
    count: u64,
}

fn change(observation: &Observation, of: Measure) -> Option<Seen<'_>> {
    match observation {
        Observation::Change { at, until, source, name, measure, usual, spread, value, count } if *measure == of => {
            Some(Seen { at: *at, until: *until, source, name, usual: *usual, spread: *spread, value: *value, count: *count })
        }
        _ => None,
    }
}

fn line(observation: &Observation) -> Option<(Timestamp, &str, &str)> {
    match observation {
        Observation::Log { at, source, text } => Some((*at, source, text)),
        _ => None,
    }
}

/// The time of day, by UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..19).unwrap_or(&text).to_owned()
}

fn day(at: Timestamp) -> String {
    let text = at.to_string();
    let minutes = text.get(..16).unwrap_or(&text);
    minutes.replace('T', " ")
}

/// A length of time in words.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A number as people write it: no more digits than matter.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

pub(super) fn name(text: &str) -> String {
    clean(text, 64)
}

/// Part of a line, as it can stand in a sentence.
pub(super) fn excerpt(text: &str) -> String {
    format!("“{}”", clean(text, 120))
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

fn observed(text: String) -> Said {
    Said { text, kind: ClaimKind::Observed, quote: None }
}

fn inferred(text: String) -> Said {
    Said { text, kind: ClaimKind::Inferred, quote: None }
}

fn quoting(mut said: Said, text: &str) -> Said {
    said.quote = quotable(text).map(str::to_owned);
    said
}

/// Whom a line names that another piece of evidence comes from, or else somebody it speaks of as `host:port`.
pub(super) fn named(from: &str, text: &str, by: Option<&Observation>) -> Option<String> {
    match by {
        Some(other) => {
            let source = other.source();
            let called = [Some(source.to_lowercase()), alias(source)];
            let named = names(text);
            (source != from && called.into_iter().flatten().any(|called| named.contains(&called))).then(|| name(source))
        }
        None => endpoint(text).map(name),
    }
}

impl Say {
    /// The sentence about these pieces of evidence, if there is one.
    pub(super) fn about(self, cited: &[&Observation]) -> Option<Said> {
        match (self, cited) {
            (Say::Condition, [alert]) => {
                let seen = change(alert, Measure::Alert)?;
                let (rule, source) = (name(seen.name), name(seen.source));
                let last = if seen.until > seen.at { format!(", last at {}", clock(seen.until)) } else { String::new() };
                Some(observed(format!("the alert {rule} fires on {source} since {}: seen {}{last}", clock(seen.at), times(seen.count))))
            }
            (Say::First, [first]) => match first {
                Observation::Log { at, source, text } => {
                    let said = format!("the first sign of it came from {} at {}: {}", name(source), clock(*at), excerpt(text));
                    Some(quoting(observed(said), text))
                }
                Observation::Metric { at, source, name: metric, value, .. } => {
                    let said =
                        format!("the first sign of it came from {} at {}: {} = {}", name(source), clock(*at), name(metric), number(*value));
                    Some(observed(said))
                }
                Observation::Change { .. } => None,
            },
            (Say::New, [lines, said, looked]) => {
                let (seen, (_, _, text)) = (change(lines, Measure::Lines)?, line(said)?);
                let looked = change(looked, Measure::Looked)?;
                let before = span(seen.at.since(looked.at));
                let count = times(seen.count);
                let said = format!(
                    "{} says since {} what it had not said for {before}: {}, {count}",
                    name(seen.source),
                    clock(seen.at),
                    excerpt(text)
                );
                Some(quoting(observed(said), text))
            }
            (Say::Deed, [lines, said]) => {
                let (seen, (at, _, text)) = (change(lines, Measure::Lines)?, line(said)?);
                Some(quoting(observed(format!("{} was changed at {}: {}", name(seen.source), clock(at), excerpt(text))), text))
            }
            (Say::Burst, [lines, said]) => {
                let (seen, (_, _, text)) = (change(lines, Measure::Lines)?, line(said)?);
                let (value, usual) = (number(seen.value), number(seen.usual.filter(|usual| *usual < seen.value)?));
                let said = format!(
                    "{} says {} far more often since {}: {value} times a minute, usually {usual}",
                    name(seen.source),
                    excerpt(text),
                    clock(seen.at)
                );
                Some(quoting(observed(said), text))
            }
            (Say::Stopped, [lines, said]) => {
                let (seen, (_, _, text)) = (change(lines, Measure::Lines)?, line(said)?);
                let usual = number(seen.usual.filter(|_| seen.value <= 0.0)?);
                let said = format!(
                    "{} no longer says {} since {}, usually {usual} times a minute",
                    name(seen.source),
                    excerpt(text),
                    clock(seen.at)
                );
                Some(quoting(observed(said), text))
            }
            (Say::Silent, [lines]) => {
                let seen = change(lines, Measure::AllLines)?;
                let usual = number(seen.usual?);
                Some(observed(format!("{} is silent since {}, usually {usual} lines a minute", name(seen.source), clock(seen.at))))
            }
            (Say::Metric, [finding, point]) => {
                let seen = change(finding, Measure::Value)?;
                let Observation::Metric { at, source, name: metric, value, .. } = point else { return None };
                if source != seen.source || metric != seen.name || *at != seen.at {
                    return None;
                }
                let (usual, spread) = (number(seen.usual?), number(seen.spread?));
                let (first, furthest) = (number(*value), number(seen.value));
                let further = if first == furthest { String::new() } else { format!(", then {furthest}") };
                let said = format!(
                    "{} of {} left its usual range at {}: {first}{further}, usually {usual} ± {spread}",
                    name(metric),
                    name(source),
                    clock(*at)
                );
                Some(observed(said))
            }
            (Say::Over, [what, alert]) => {
                let alert = change(alert, Measure::Alert)?;
                let Observation::Change { until, source, name: of, measure: Measure::Value | Measure::Lines, .. } = what else {
                    return None;
                };
                let gap = (*until < alert.at).then(|| span(alert.at.since(*until)))?;
                let said = format!(
                    "{} changed too ({}), but was over at {}, {gap} before {} fired",
                    name(source),
                    name(of),
                    clock(*until),
                    name(alert.name)
                );
                Some(inferred(said))
            }
            (Say::Names, [said, by @ ..]) if by.len() <= 1 => {
                let (at, source, text) = line(said)?;
                let whom = named(source, text, by.first().copied())?;
                Some(quoting(observed(format!("{} names {whom} at {}: {}", name(source), clock(at), excerpt(text))), text))
            }
            (Say::Errors, [lines]) => {
                let seen = change(lines, Measure::Errors)?;
                let (value, usual) = (number(seen.value), number(seen.usual?));
                Some(observed(format!("since {} {value} % of {} lines tell of trouble, before {usual} %", clock(seen.at), seen.count)))
            }
            (Say::Looked, [looked]) => {
                let seen = change(looked, Measure::Looked)?;
                let range = match seen.count {
                    1 => format!("only one signal, of {}, was looked at", clock(seen.at)),
                    count => format!("{count} signals from {} to {} were looked at", clock(seen.at), clock(seen.until)),
                };
                let found = if seen.value <= 0.0 {
                    "nothing else changed".to_owned()
                } else {
                    format!("{} things changed in all", number(seen.value))
                };
                Some(observed(format!("{range}: {found}")))
            }
            (Say::NoBefore, [looked, alert]) => {
                let (looked, alert) = (change(looked, Measure::Looked)?, change(alert, Measure::Alert)?);
                let known = alert.at.since(looked.at);
                let little = known < super::changes::BEFORE;
                little.then(|| {
                    observed(format!(
                        "only {} from before {} fired are known, too little to tell what is usual",
                        span(known),
                        name(alert.name)
                    ))
                })
            }
            (Say::Similar, [earlier]) => {
                let seen = change(earlier, Measure::Incident)?;
                let of = format!("a similar incident, {}, was opened on {}", name(seen.name), day(seen.at));
                let took = if seen.until > seen.at {
                    format!(" and was over after {}", span(seen.until.since(seen.at)))
                } else {
                    " and is not over".to_owned()
                };
                Some(observed(format!("{of}{took}")))
            }
            _ => None,
        }
    }
}

/// Whether a line names the component.
fn calls(component: &str, text: &str) -> bool {
    let named = names(text);
    let called = [Some(component.to_lowercase()), alias(component)];
    called.into_iter().flatten().any(|called| named.contains(&called)) || endpoint(text).map(name).as_deref() == Some(component)
}

/// Why a component is suspected, from the evidence cited: first the alert, then what speaks for it.
pub(super) fn cause(component: &str, cited: &[&Observation]) -> Option<String> {
    let (alert, speaks) = cited.split_first()?;
    let alert = change(alert, Measure::Alert)?;
    let own = |source: &str| name(source) == component || alias(source).as_deref() == Some(component);
    let mut said: Vec<String> = Vec::new();
    let mut first: Option<Timestamp> = None;
    let mut shows = 0_usize;
    for observation in speaks {
        let phrase = match observation {
            Observation::Log { at, source, text } if own(source) => {
                first = Some(first.map_or(*at, |first| first.min(*at)));
                Some(format!("it says {} at {}", excerpt(text), clock(*at)))
            }
            Observation::Log { at, source, text } => {
                if !calls(component, text) {
                    return None;
                }
                Some(format!("{} names it at {}", name(source), clock(*at)))
            }
            Observation::Change { at, source, name: metric, measure: Measure::Value, value, usual, .. } if own(source) => {
                first = Some(first.map_or(*at, |first| first.min(*at)));
                let usual = usual.map(|usual| format!(", usually {}", number(usual))).unwrap_or_default();
                Some(format!("its {} came to {}{usual}", name(metric), number(*value)))
            }
            Observation::Change { at, source, measure: Measure::Lines | Measure::AllLines, .. } if own(source) => {
                first = Some(first.map_or(*at, |first| first.min(*at)));
                None
            }
            Observation::Metric { at, source, .. } if own(source) => {
                first = Some(first.map_or(*at, |first| first.min(*at)));
                None
            }
            _ => return None,
        };
        shows += 1;
        if let Some(phrase) = phrase.filter(|phrase| !said.contains(phrase)) {
            said.push(phrase);
        }
    }
    if shows == 0 {
        return None;
    }
    let when = match first {
        Some(first) if first < alert.at => {
            format!("its trouble began at {}, {} before {} fired", clock(first), span(alert.at.since(first)), name(alert.name))
        }
        Some(first) => format!("its trouble began at {}", clock(first)),
        None => "nothing was seen of it but what others say".to_owned(),
    };
    said.insert(0, when);
    Some(said.join("; "))
}
