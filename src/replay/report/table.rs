//! What a replay found, in tables.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;

use super::{Difference, Facts, Side, diff::lead, grouped, many, span};
use crate::cli::{Table, moment, say};

fn at(time: Timestamp) -> String {
    moment(&time.to_string())
}

/// Prints what fired, at most `limit` alerts and as many incidents.
pub(crate) fn show(facts: &Facts, side: &Side, limit: usize) {
    let story = &side.story;
    if !story.episodes.is_empty() {
        let mut table = Table::new(&["fired at", "severity", "rule", "source", "for", "count", "title"]);
        for episode in story.episodes.iter().take(limit) {
            let held = episode.over_at.map_or_else(|| "still firing".to_owned(), |over| span(over.since(episode.fired_at)));
            let (severity, count) = (episode.severity.to_string(), grouped(episode.count));
            table.row([at(episode.fired_at), severity, episode.rule.clone(), episode.source.clone(), held, count, episode.title.clone()]);
        }
        table.print();
        beyond(story.alerts, limit, "alerts");
        say("");
        let mut table = Table::new(&["detector", "rule", "alerts", "observations", "first"]);
        for ((module, rule), sum) in &story.rules {
            table.row([module.clone(), rule.clone(), grouped(sum.alerts), grouped(sum.observations), at(sum.first)]);
        }
        table.print();
        say("");
    }
    incidents(side, limit);
    summary(facts, side);
}

fn incidents(side: &Side, limit: usize) {
    let count = side.story.incidents().count();
    if count == 0 {
        return;
    }
    let mut table = Table::new(&["incident", "severity", "source", "for", "alerts", "title"]);
    for incident in side.story.incidents().take(limit) {
        let held = incident.resolved_at.map_or_else(|| "still open".to_owned(), |over| span(over.since(incident.opened_at)));
        table.row([
            at(incident.opened_at),
            incident.severity.to_string(),
            incident.source.clone(),
            held,
            grouped(incident.alert_count),
            incident.title.clone(),
        ]);
    }
    table.print();
    beyond(u64::try_from(count).unwrap_or(u64::MAX), limit, "incidents");
    say("");
}

fn beyond(count: u64, limit: usize, what: &str) {
    let more = count.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
    if more > 0 {
        say(&format!("… and {} more {what}; --limit shows more, --json all", grouped(more)));
    }
}

fn summary(facts: &Facts, side: &Side) {
    about(facts);
    let story = &side.story;
    let incidents = u64::try_from(story.incidents().count()).unwrap_or(u64::MAX);
    say(&format!("{}, {}", many(story.alerts, "alert"), many(incidents, "incident")));
    for (id, counted) in &side.counted {
        if !counted.is_empty() {
            let counted: Vec<String> = counted.iter().map(|(what, count)| format!("{} {what}", grouped(*count))).collect();
            say(&format!("  {id}: {}", counted.join(", ")));
        }
    }
    if side.hurried {
        say("  more timers were due than are served between two signals: some were passed over");
    }
}

fn about(facts: &Facts) {
    let (Some(from), Some(to)) = (facts.from, facts.to) else { return say("no signals") };
    let length = facts.length();
    say(&format!("{} in {} ({} to {}){}", many(facts.signals, "signal"), span(length), at(from), at(to), pace(facts.signals, length)));
    let disorder = facts.disorder;
    if disorder.late > 0 {
        let by = span(Duration::from_millis(disorder.latest_ms));
        say(&format!("  {} were late, by up to {by}; --sort puts them in order first", grouped(disorder.late)));
    }
    if disorder.ahead > 0 {
        say(&format!("  more than a day ahead of their neighbours, so that they did not move time: {}", grouped(disorder.ahead)));
    }
    for file in &facts.files {
        let notes = [
            (file.bad_lines, "line", "could not be read"),
            (file.untimed, "signal", "without a time, given that of the one before"),
            (file.unparsed, "line", "in no known form, taken as they are"),
            (file.replaced, "line", "with bytes that are not UTF-8"),
        ];
        for (count, noun, what) in notes.into_iter().filter(|(count, ..)| *count > 0) {
            say(&format!("  {}: {} {what}", file.name, many(count, noun)));
        }
        if let Some(why) = &file.cut_off {
            say(&format!("  {}: not read to its end: {why}", file.name));
        }
    }
}

/// How often signals came.
fn pace(signals: u64, length: Duration) -> String {
    match length.as_secs() {
        0 => String::new(),
        seconds if signals >= seconds => {
            let rate = signals.saturating_mul(100) / seconds;
            format!(", {}.{:02} a second", grouped(rate / 100), rate % 100)
        }
        _ => format!(", one every {}", span(length / u32::try_from(signals).unwrap_or(u32::MAX).max(1))),
    }
}

/// Prints what the second configuration changes.
pub(crate) fn show_difference(facts: &Facts, difference: &Difference) {
    if !difference.changes.is_empty() {
        let mut table = Table::new(&["detector", "rule", "before", "after", "first alert", "summary"]);
        for change in &difference.changes {
            let first = change.first_earlier_ms.map_or_else(String::new, lead);
            table.row([change.module.clone(), change.rule.clone(), grouped(change.before), grouped(change.after), first, change.said()]);
        }
        table.print();
        say("");
    }
    about(facts);
    say(&difference.said());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_told_by_the_second_and_what_is_rare_by_its_pause() {
        let told = |signals, seconds| pace(signals, Duration::from_secs(seconds));
        assert_eq!((told(1234, 100), told(5, 0)), (", 12.34 a second".to_owned(), String::new()));
        assert_eq!((told(10_080, 1_728_000), told(0, 60)), (", one every 2m 51s".to_owned(), ", one every 1m".to_owned()));
    }
}
