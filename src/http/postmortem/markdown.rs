//! The document as Markdown. Whatever somebody else wrote stands in a span of code: there nothing is markup, no address
//! becomes a link, and no line begins with it.

use opspilot_kernel::{approval::Proposer, time::Timestamp};
use serde::Serialize;

use super::{Action, Draft, Impact, Postmortem};
use crate::{
    http::{alerts::Doer, incidents::Evidence},
    plain,
};

/// A text of somebody else: one line, nothing hidden in it, and nothing in it means anything.
fn said(text: &str) -> String {
    let line = plain::stripped(text);
    let line = line.trim();
    if line.is_empty() {
        return "–".to_owned();
    }
    // a fence that is longer than any in the text; a blank keeps one at its ends apart
    let longest = line.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    if line.starts_with('`') || line.ends_with('`') { format!("{fence} {line} {fence}") } else { format!("{fence}{line}{fence}") }
}

/// One of our own words.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(|word| word.replace('_', " "))).unwrap_or_default()
}

/// A span of time in its two largest units, and exactly.
fn took(seconds: f64) -> String {
    let whole = seconds.round();
    let (days, hours, minutes) = ((whole / 86_400.0).floor(), (whole / 3600.0).floor(), (whole / 60.0).floor());
    let largest = if days >= 1.0 {
        format!("{days} d {} h", hours - days * 24.0)
    } else if hours >= 1.0 {
        format!("{hours} h {} min", minutes - hours * 60.0)
    } else if minutes >= 1.0 {
        format!("{minutes} min {} s", whole - minutes * 60.0)
    } else {
        return format!("{seconds:.3} s");
    };
    format!("{largest} ({seconds:.3} s)")
}

fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "–".to_owned(), |at| at.to_string())
}

fn cites(ids: &[String]) -> String {
    ids.iter().map(|id| said(id)).collect::<Vec<_>>().join(", ")
}

/// The whole document.
pub(super) fn document(of: &Postmortem) -> String {
    let mut out = String::with_capacity(16 << 10);
    let incident = &of.incident;
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("# Post-mortem: {}\n", said(&incident.title)));
    line("Every time and number is computed from the record. What is marked as a draft was written by the explainer;".to_owned());
    line("check it before you pass it on.\n".to_owned());
    line("## Summary\n".to_owned());
    let labels: Vec<String> = incident.labels.iter().map(|(name, value)| said(&format!("{name}={value}"))).collect();
    let before = incident
        .recurrence_of
        .as_ref()
        .map_or_else(|| "–".to_owned(), |before| format!("{} came before, the last one {}", incident.recurrence, said(before)));
    for (name, value) in [
        ("Incident", said(&incident.id)),
        ("Severity", word(&incident.severity)),
        ("Status", word(&incident.status)),
        ("Source", said(&incident.source)),
        ("Rule", format!("{} of {}", said(&incident.rule), said(&incident.detected_by))),
        ("Labels", if labels.is_empty() { "–".to_owned() } else { labels.join(", ") }),
        ("Observations", incident.occurrences.to_string()),
        ("Alerts", incident.alert_count.to_string()),
        ("Acknowledged by", said(incident.acknowledged_by.as_deref().unwrap_or_default())),
        ("Assigned to", said(incident.assignee.as_deref().unwrap_or_default())),
        ("Resolution", said(incident.resolution.as_deref().unwrap_or_default())),
        ("Recurrence", before),
        ("Description", said(&incident.description)),
    ] {
        line(format!("- {name}: {value}"));
    }
    if let Some(draft) = &of.draft {
        line(format!("- Draft, by {}: {}", word(&draft.provider), said(&draft.summary)));
    }
    line(impact(&of.impact));
    line(format!("\n## Alerts\n\n{} in all.\n", incident.alert_count));
    for alert in &of.alerts {
        line(format!(
            "- {} {} {}: {} × {}, {} to {}{}",
            said(&alert.id),
            word(&alert.severity),
            word(&alert.status),
            said(&alert.title),
            alert.occurrences,
            alert.first_seen_at,
            alert.last_seen_at,
            alert.suppressed_by.as_deref().map_or_else(String::new, |by| format!(", held back by {}", said(by)))
        ));
    }
    line("\n## Timeline\n".to_owned());
    for entry in &of.timeline {
        let text = if entry.text.is_empty() { String::new() } else { format!(": {}", said(&entry.text)) };
        line(format!("- {} {} by {}{text}", entry.at, word(&entry.kind), doer(&entry.actor)));
    }
    line("\n## Evidence\n".to_owned());
    of.evidence.iter().for_each(|piece| line(evidence(piece)));
    let beyond = incident.evidence_count.saturating_sub(u64::try_from(of.evidence.len()).unwrap_or(u64::MAX));
    if beyond > 0 || incident.evidence_beyond > 0 {
        line(format!("\n{beyond} more kept, {} seen and not kept.", incident.evidence_beyond));
    }
    line("\n## Explanation (draft)\n".to_owned());
    line(of.draft.as_ref().map_or_else(|| "It was not explained.".to_owned(), explanation));
    line("\n## Actions and approvals\n".to_owned());
    if of.actions.is_empty() {
        line("None was proposed.".to_owned());
    }
    of.actions.iter().for_each(|one| line(action(one)));
    line("\n## Follow-ups\n\n- [ ] ".to_owned());
    out
}

fn impact(impact: &Impact) -> String {
    let after = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), took);
    let mitigated = impact.mitigated_by.as_deref().map_or_else(String::new, |run| format!(", by {}", said(run)));
    format!(
        "\n## Impact\n\n\
         | | at | took |\n|---|---|---|\n\
         | Started | {} | |\n\
         | Detected | {} | TTD {} |\n\
         | Acknowledged | {} | TTA {} |\n\
         | Mitigated | {}{mitigated} | TTM {} |\n\
         | Resolved | {} | TTR {} |\n\n\
         TTD is counted from the start, the others from the detection. Mitigated is when the first action ended well.",
        impact.started_at,
        impact.detected_at,
        took(impact.time_to_detect_secs),
        when(impact.acknowledged_at),
        after(impact.time_to_acknowledge_secs),
        when(impact.mitigated_at),
        after(impact.time_to_mitigate_secs),
        when(impact.resolved_at),
        after(impact.time_to_resolve_secs),
    )
}

fn doer(doer: &Doer) -> String {
    if doer.id.is_empty() { doer.kind.to_owned() } else { format!("{} {}", doer.kind, said(&doer.id)) }
}

fn evidence(piece: &Evidence) -> String {
    let mut out = format!("- **{}** {} {} {}", plain::stripped(&piece.id), piece.at, piece.kind, said(&piece.source));
    if let Some(text) = &piece.text {
        out.push_str(&format!(": {}", said(text)));
    }
    if let (Some(name), Some(value)) = (&piece.name, piece.value) {
        let measure = piece.measure.map_or_else(String::new, |measure| format!(" ({})", measure.replace('_', " ")));
        out.push_str(&format!(": {}{measure} = {value}", said(name)));
    }
    if let Some(usual) = piece.usual {
        out.push_str(&format!(", usually {usual}"));
    }
    if let (Some(low), Some(high)) = (piece.expected_low, piece.expected_high) {
        out.push_str(&format!(", expected {low} to {high}"));
    }
    out
}

fn explanation(draft: &Draft) -> String {
    let degraded = if draft.degraded { ", not complete" } else { "" };
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut out = format!("By {}, confidence {}{degraded}, {}.\n\n", word(&draft.provider), percent(draft.confidence), draft.generated_at);
    for checked in &draft.claims {
        let holds = if checked.evidence_holds { "the evidence holds" } else { "**the evidence does not hold**" };
        let claim = &checked.claim;
        out.push_str(&format!("- Claim ({}; {holds}): {} – {}\n", word(&claim.kind), said(&claim.text), cites(&claim.evidence)));
    }
    for cause in &draft.causes {
        let component = said(&cause.component);
        out.push_str(&format!("- Cause ({}): {component}: {} – {}\n", percent(cause.share), said(&cause.text), cites(&cause.evidence)));
    }
    out.push_str("- What proved true: ");
    out
}

fn action(action: &Action) -> String {
    let by = match &action.proposed_by {
        Proposer::Rule(id) => format!("the rule {}", said(id)),
        Proposer::User(id) => said(id),
        Proposer::Ai(id) => format!("the model {}", said(id)),
    };
    let mut out = format!(
        "- {} {} ({}, {}): {}\n  - proposed by {by} at {}: {}\n  - plan {}",
        said(&action.id),
        said(&action.action),
        word(&action.risk),
        word(&action.status),
        said(&action.title),
        action.proposed_at,
        said(&action.reasoning),
        said(&action.plan_digest),
    );
    for vote in &action.approved_by {
        out.push_str(&format!("\n  - approved by {} at {}: {}, {}", said(&vote.by), vote.at, said(&vote.plan_digest), said(&vote.reason)));
    }
    if let Some(run) = &action.execution {
        let code = run.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
        let reason = run.reason.as_deref().map_or_else(String::new, |reason| format!(", {}", said(reason)));
        let (from, to) = (run.started_at, when(run.finished_at));
        out.push_str(&format!("\n  - run {} {}{code}{reason}, {from} to {to}", said(&run.id), word(&run.status)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a line when every span of code is taken out of it, as CommonMark finds them.
    fn outside(line: &str) -> String {
        let (mut out, mut rest) = (String::new(), line);
        while let Some(at) = rest.find('`') {
            out.push_str(&rest[..at]);
            let run = rest[at..].find(|c| c != '`').unwrap_or(rest.len() - at);
            let behind = &rest[at + run..];
            let mut from = 0;
            let end = loop {
                let Some(next) = behind[from..].find('`').map(|next| from + next) else { break None };
                let length = behind[next..].find(|c| c != '`').unwrap_or(behind.len() - next);
                if length == run {
                    break Some(next + length);
                }
                from = next + length;
            };
            match end {
                Some(end) => rest = &behind[end..],
                None => {
                    out.push_str(&rest[at..at + run]);
                    rest = behind;
                }
            }
        }
        out + rest
    }

    #[test]
    fn e3_whatever_somebody_wrote_is_one_span_of_code() {
        for hostile in [
            "# heading",
            "a\n# heading\n\n- item",
            "<script>alert(1)</script>",
            "![x](https://evil.example/x.png)",
            "[x](javascript:alert(1)) https://evil.example",
            "`code` ``` fence",
            "``",
            "` ",
            "a`",
            "\\` [x](y)",
            "\u{202e}\u{0}\u{1b}[2J| a | b |",
            "&lt;b&gt;",
        ] {
            let safe = said(hostile);
            assert_eq!(outside(&safe), "", "{hostile:?}: {safe:?}");
            assert!(!safe.contains(['\n', '\r', '\u{202e}', '\u{0}', '\u{1b}']), "{safe:?}");
        }
        assert_eq!(said(" \n"), "–");
    }

    #[test]
    fn a_span_of_time_is_told_in_two_units_and_exactly() {
        let told = [0.25, 59.0, 61.0, 3600.0, 90_061.5].map(took);
        assert_eq!(told, ["0.250 s", "59.000 s", "1 min 1 s (61.000 s)", "1 h 0 min (3600.000 s)", "1 d 1 h (90061.500 s)"]);
    }
}
