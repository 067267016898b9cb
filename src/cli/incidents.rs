//! `opspilot incidents`: list, show, acknowledge, resolve, put together, take apart, look back.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::{
    Api, Outcome, Server, Table,
    client::encoded,
    ids::{ALERT, INCIDENT, all},
    output::{moment, say, say_json, text},
};
use crate::plain;

#[derive(Debug, Subcommand)]
pub(crate) enum Incidents {
    /// List incidents, newest first
    List {
        /// Only open, acknowledged or resolved ones
        #[arg(long)]
        status: Option<String>,
        /// Only of this severity
        #[arg(long)]
        severity: Option<String>,
        /// Only of this source
        #[arg(long)]
        source: Option<String>,
        /// Only those whose texts, alerts or evidence hold these words
        #[arg(long, short)]
        query: Option<String>,
        /// Only those of this account
        #[arg(long)]
        assignee: Option<String>,
        /// Only those with this label; may be given more than once
        #[arg(long, value_name = "NAME=VALUE")]
        label: Vec<String>,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u16,
        #[command(flatten)]
        server: Server,
    },
    /// Show one incident: alerts, evidence, timeline
    Show {
        /// Its id, or the start of it
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Say that you are on it
    Ack {
        /// Its id, or the start of it
        id: String,
        /// What others should know
        #[arg(long, short)]
        note: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Say that it is over
    Resolve {
        /// Its id, or the start of it
        id: String,
        /// Why it is over
        #[arg(long, short)]
        resolution: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Say that it is one with another: its alerts go there, and it ends
    Merge {
        /// Its id, or the start of it
        id: String,
        /// The one that goes on: its id, or the start of it
        into: String,
        #[command(flatten)]
        server: Server,
    },
    /// Say that some of its alerts are something else: they make an incident of their own
    Split {
        /// Its id, or the start of it
        id: String,
        /// Their ids, or the start of each
        #[arg(required = true)]
        alerts: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Write down what is on record about it, as Markdown, to work on after it
    Postmortem {
        /// Its id, or the start of it
        id: String,
        #[command(flatten)]
        server: Server,
    },
}

impl Incidents {
    pub(crate) async fn run(self) -> Outcome {
        match self {
            Incidents::List { status, severity, source, query, assignee, label, limit, server } => {
                let filters = [("status", status), ("severity", severity), ("source", source), ("q", query), ("assignee", assignee)];
                let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
                let mut path = format!("/api/incidents?limit={limit}");
                for (name, value) in filters.chain(label.into_iter().map(|label| ("label", label))) {
                    path.push_str(&format!("&{name}={}", encoded(&value)));
                }
                let answer = Api::of(&server)?.get(&path).await?;
                if server.json {
                    say_json(&answer);
                } else {
                    list(&answer);
                }
                Ok(())
            }
            Incidents::Show { id, server } => {
                let api = Api::of(&server)?;
                let id = INCIDENT.of_service(&api, &id).await?;
                let incident = api.get(&format!("/api/incidents/{id}")).await?;
                let timeline = api.get(&format!("/api/incidents/{id}/timeline")).await?;
                if server.json {
                    say_json(&json!({ "incident": incident, "timeline": timeline.get("items") }));
                } else {
                    show(&incident, &timeline);
                }
                Ok(())
            }
            Incidents::Ack { id, note, server } => act(&server, &id, "acknowledge", json!({ "note": note })).await,
            Incidents::Merge { id, into, server } => {
                let api = Api::of(&server)?;
                let into = INCIDENT.of_service(&api, &into).await?;
                act(&server, &id, "merge", json!({ "into": into })).await
            }
            Incidents::Split { id, alerts, server } => {
                let api = Api::of(&server)?;
                let id = INCIDENT.of_service(&api, &id).await?;
                let own = all(&api, &format!("/api/incidents/{id}/alerts")).await?;
                let own: Vec<String> = own.iter().map(|alert| text(alert, "id").to_owned()).collect();
                let alerts = alerts.iter().map(|written| ALERT.one_of(written, own.clone())).collect::<Result<Vec<_>, _>>()?;
                act(&server, &id, "split", json!({ "alerts": alerts })).await
            }
            Incidents::Postmortem { id, server } => {
                let api = Api::of(&server)?;
                let id = INCIDENT.of_service(&api, &id).await?;
                let path = format!("/api/incidents/{id}/postmortem");
                if server.json {
                    say_json(&api.get(&format!("{path}?format=json")).await?);
                } else {
                    api.get_text(&path).await?.lines().for_each(|line| say(&plain::stripped(line)));
                }
                Ok(())
            }
            Incidents::Resolve { id, resolution, server } => act(&server, &id, "resolve", json!({ "resolution": resolution })).await,
        }
    }
}

async fn act(server: &Server, id: &str, verb: &str, mut body: Json) -> Outcome {
    let api = Api::of(server)?;
    let id = INCIDENT.of_service(&api, id).await?;
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let incident = api.post(&format!("/api/incidents/{id}/{verb}"), &body).await?;
    if server.json {
        say_json(&incident);
    } else {
        let stands = text(&incident, "id");
        say(&format!("{stands} is {}: {}", text(&incident, "status"), plain::stripped(text(&incident, "title"))));
    }
    Ok(())
}

fn list(answer: &Json) {
    let items = answer.get("items").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        say("no incidents");
        return;
    }
    let mut table = Table::new(&["id", "status", "severity", "last seen", "seen", "source", "title"]);
    for item in items {
        let occurrences = item.get("occurrences").and_then(Json::as_u64).unwrap_or(0);
        let short = text(item, "id").get(..12).unwrap_or_else(|| text(item, "id"));
        table.row([
            short.to_owned(),
            text(item, "status").to_owned(),
            text(item, "severity").to_owned(),
            moment(text(item, "last_seen_at")),
            format!("{occurrences}×"),
            text(item, "source").to_owned(),
            text(item, "title").to_owned(),
        ]);
    }
    table.print();
    if answer.get("next_cursor").is_some_and(Json::is_string) {
        say("… there are more: raise --limit, or narrow the list with --status, --severity, --source, --query");
    }
}

fn show(incident: &Json, timeline: &Json) {
    let line = |label: &str, value: &str| {
        if !value.is_empty() {
            say(&format!("{label:<13}{}", plain::stripped(value)));
        }
    };
    say(&plain::stripped(text(incident, "title")));
    line("id", text(incident, "id"));
    line("status", text(incident, "status"));
    line("merged into", text(incident, "merged_into"));
    line("severity", text(incident, "severity"));
    line("source", text(incident, "source"));
    line("rule", &format!("{} ({})", text(incident, "rule"), text(incident, "detected_by")));
    line("opened", &moment(text(incident, "opened_at")));
    line("last seen", &moment(text(incident, "last_seen_at")));
    line("acknowledged", text(incident, "acknowledged_by"));
    line("assignee", text(incident, "assignee"));
    line("resolved", &moment(text(incident, "resolved_at")));
    line("resolution", text(incident, "resolution"));
    let times = incident.get("recurrence").and_then(Json::as_u64).unwrap_or(0);
    let before = text(incident, "recurrence_of");
    line("came back", &if before.is_empty() { String::new() } else { format!("{times}×, the last time after {before}") });
    line("", text(incident, "description"));
    let list = |key: &str| incident.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    say("\nalerts");
    let mut table = Table::new(&["  id", "status", "seen", "severity", "title"]);
    for alert in list("alerts") {
        let seen = alert.get("occurrences").and_then(Json::as_u64).unwrap_or(0);
        table.row([
            format!("  {}", text(&alert, "id").get(..12).unwrap_or_else(|| text(&alert, "id"))),
            text(&alert, "status").to_owned(),
            format!("{seen}×"),
            text(&alert, "severity").to_owned(),
            text(&alert, "title").to_owned(),
        ]);
    }
    table.print();
    explanation(incident).iter().for_each(|line| say(line));
    say("\nevidence");
    let mut table = Table::new(&["  id", "at", "source", "what"]);
    for piece in list("evidence") {
        let what = match piece.get("value").and_then(Json::as_f64) {
            Some(value) if text(&piece, "kind") == "change" => change(&piece, value),
            Some(value) => format!("{} = {value}", text(&piece, "name")),
            None => text(&piece, "text").to_owned(),
        };
        table.row([format!("  {}", text(&piece, "id")), moment(text(&piece, "at")), text(&piece, "source").to_owned(), what]);
    }
    table.print();
    say("\ntimeline");
    timeline_table(timeline).print();
    if timeline.get("next_cursor").is_some_and(Json::is_string) {
        say("  … it is longer: see GET /api/incidents/{id}/timeline");
    }
}

/// What an incident is explained by, line by line.
fn explanation(incident: &Json) -> Vec<String> {
    let Some(explained) = incident.get("explanation").filter(|explained| explained.is_object()) else {
        return Vec::new();
    };
    let list = |of: &Json, key: &str| of.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    let cites = |of: &Json| {
        let ids: Vec<String> =
            list(of, "evidence").iter().filter_map(|id| id.as_str().map(|id| plain::stripped(id).into_owned())).collect();
        if ids.is_empty() { String::new() } else { format!(" [{}]", ids.join(" ")) }
    };
    let percent = |of: &Json, key: &str| (of.get(key).and_then(Json::as_f64).unwrap_or(0.0) * 100.0).round();
    let degraded = if explained.get("degraded").and_then(Json::as_bool) == Some(true) { ", not complete" } else { "" };
    let mut lines =
        vec![format!("\nexplanation ({}, confidence {} %{degraded})", text(explained, "provider"), percent(explained, "confidence"))];
    lines.push(format!("  {}", plain::stripped(text(explained, "summary"))));
    let mut part = |heading: &str, items: Vec<String>| {
        if !items.is_empty() {
            lines.push(format!("  {heading}"));
            lines.extend(items.iter().map(|item| format!("    {}", plain::stripped(item))));
        }
    };
    let cause =
        |cause: &Json| format!("{:>3} %  {}: {}{}", percent(cause, "share"), text(cause, "component"), text(cause, "text"), cites(cause));
    part("likely causes", list(explained, "causes").iter().map(cause).collect());
    part("what was seen", list(explained, "claims").iter().map(|claim| format!("{}{}", text(claim, "text"), cites(claim))).collect());
    let runbook = |runbook: &Json| format!("{} ({}): {}", text(runbook, "title"), text(runbook, "id"), text(runbook, "why"));
    part("runbooks", list(explained, "runbooks").iter().map(runbook).collect());
    let similar = |one: &Json| {
        let over = moment(text(one, "resolved_at"));
        let ended = if over.is_empty() { "not over".to_owned() } else { format!("over at {over}") };
        let how = text(one, "resolution");
        let how = if how.is_empty() { String::new() } else { format!(": {how}") };
        format!("{}  {} ({}), {ended}{how}", text(one, "id"), text(one, "title"), text(one, "why"))
    };
    part("similar incidents", list(incident, "similar").iter().map(similar).collect());
    let steps = list(explained, "next_steps");
    part("next steps", steps.iter().enumerate().map(|(n, step)| format!("{}. {}", n + 1, step.as_str().unwrap_or_default())).collect());
    lines
}

/// What many observations come to, in one line.
fn change(piece: &Json, value: f64) -> String {
    let name = text(piece, "name");
    let usual = piece.get("usual").and_then(Json::as_f64).map(|usual| format!(", usually {usual}")).unwrap_or_default();
    let count = piece.get("count").and_then(Json::as_u64).unwrap_or(0);
    match text(piece, "measure") {
        "value" => format!("{name} came to {value}{usual}"),
        "lines" => format!("{value} lines a minute like “{name}”{usual}"),
        "all_lines" => format!("{value} lines a minute{usual}"),
        "errors" => format!("{value} % of {count} lines tell of trouble{usual}"),
        "alert" => format!("the alert {name}, seen {count}×"),
        "incident" => format!("the incident {name}"),
        _ => format!("{count} signals looked at, {value} changes"),
    }
}

fn timeline_table(timeline: &Json) -> Table {
    let mut table = Table::new(&["  at", "who", "what", "text"]);
    for entry in timeline.get("items").and_then(Json::as_array).into_iter().flatten() {
        let cells = [&format!("  {}", moment(text(entry, "at"))), &who(entry), text(entry, "kind"), text(entry, "text")];
        table.row(cells.map(str::to_owned));
    }
    table
}

/// Who did it: a person or a module by name, or what else it was.
fn who(entry: &Json) -> String {
    let actor = entry.get("actor").unwrap_or(&Json::Null);
    match (text(actor, "type"), text(actor, "id")) {
        (kind, "") => kind.to_owned(),
        (_, id) => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_told_with_what_it_cites_and_without_escape_sequences() {
        let incident = json!({
            "similar": [{ "id": "inc_1", "title": "Disk full", "why": "the same alert", "resolved_at": null, "resolution": null }],
            "explanation": {
                "summary": "The alert fires. Likely cause: db (71 %).", "provider": "deterministic", "confidence": 0.72, "degraded": true,
                "claims": [{ "text": "db says \u{1b}[2Jit", "kind": "observed", "evidence": ["e1", "f2"], "quote": null }],
                "causes": [{ "component": "db", "share": 0.71, "text": "it came first", "evidence": ["f1"] }],
                "runbooks": [{ "id": "rb", "title": "Free the disk", "why": "“disk” stands in the title" }],
                "next_steps": ["Look at db first"], "suggested_actions": [],
            },
        });
        let told = explanation(&incident).join("\n");
        for line in [
            "explanation (deterministic, confidence 72 %, not complete)",
            "     71 %  db: it came first [f1]",
            "[e1 f2]",
            "Free the disk (rb): “disk” stands in the title",
            "inc_1  Disk full (the same alert), not over",
            "1. Look at db first",
        ] {
            assert!(told.contains(line), "{line} is missing in\n{told}");
        }
        assert!(!told.contains('\u{1b}'), "{told}");
        assert!(explanation(&json!({ "explanation": null })).is_empty());
    }

    #[test]
    fn a_timeline_says_who_did_it() {
        let timeline = json!({ "items": [
            { "at": "2026-03-14T09:25:07.000Z", "actor": { "type": "module", "id": "enricher.incidentStore" }, "kind": "opened", "text": "" },
            { "at": "2026-03-14T09:26:07.000Z", "actor": { "type": "user", "id": "ada" }, "kind": "acknowledged", "text": "on it" },
            { "at": "2026-03-14T09:27:07.000Z", "actor": { "type": "system", "id": "" }, "kind": "note", "text": "" },
        ] });
        let lines = timeline_table(&timeline).lines(None);
        assert!(lines[1].contains("enricher.incidentStore  opened"), "{lines:#?}");
        assert!(lines[2].contains("ada ") && lines[2].ends_with("acknowledged  on it"), "{lines:#?}");
        assert!(lines[3].contains("system "), "{lines:#?}");
    }
}
