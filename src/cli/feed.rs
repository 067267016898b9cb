//! `opspilot feed`: what happens, live, in a terminal.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use opspilot_kernel::clock::SystemClock;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error as SocketError, Message, client::IntoClientRequest, http::HeaderValue},
};

use super::{
    Api, Failure, Outcome, Server,
    client::unauthorized,
    output::{complain, moment, say, text},
};
use crate::{plain, telemetry::coloured};

/// What is shown unless one asks for other events.
pub(crate) const INTERESTING: [&str; 3] = ["incident.created", "incident.updated", "module.health_changed"];

/// How long nothing may be heard before the service is asked for a sign of life: its heartbeat, unless it was told otherwise.
const QUIET: Duration = Duration::from_secs(5);
/// How long it may take to give one; together as long as three heartbeats.
const GRACE: Duration = Duration::from_secs(10);

/// How much of a summary is shown, in characters.
const SUMMARY: usize = 120;

#[derive(Debug, Args)]
pub(crate) struct Feed {
    /// Which events, by name
    #[arg(long, value_delimiter = ',', default_values_t = INTERESTING.map(str::to_owned))]
    events: Vec<String>,
    /// Only these severities
    #[arg(long, value_delimiter = ',')]
    severity: Vec<String>,
    /// Begin behind this event: everything since, then what happens
    #[arg(long)]
    after: Option<u64>,
    #[command(flatten)]
    server: Server,
}

/// One connection to the live feed.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    /// When the service was heard last.
    heard: Instant,
    /// When it was asked for a sign of life that did not come yet.
    asked: Option<Instant>,
}

/// Why a socket ended or could not be opened.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The service says no; trying again will not help.
    Refused(String),
    /// The connection is gone; trying again may help.
    Lost(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Refused(why) => f.write_str(why),
            Ended::Lost(why) => write!(f, "the feed is gone: {why}"),
        }
    }
}

impl Socket {
    /// Connects with the API's credential.
    pub(crate) async fn open(api: &Api) -> Result<Socket, Ended> {
        let url = match api.base().split_once("://") {
            Some(("https", rest)) => format!("wss://{rest}/api/live"),
            Some((_, rest)) => format!("ws://{rest}/api/live"),
            None => return Err(Ended::Refused(format!("{} is no address of a service", api.base()))),
        };
        let mut request = url.into_client_request().map_err(|error| Ended::Refused(error.to_string()))?;
        if let Some((name, value)) = api.credential() {
            let value = HeaderValue::from_str(&value).map_err(|_| Ended::Refused("OPSPILOT_TOKEN is no token".to_owned()))?;
            request.headers_mut().insert(name, value);
        }
        let Ok(connected) = timeout_at(Instant::now() + GRACE, connect_async(request)).await else {
            return Err(Ended::Lost(format!("{} does not answer", api.base())));
        };
        match connected {
            Ok((stream, _)) => Ok(Socket { stream, heard: Instant::now(), asked: None }),
            Err(SocketError::Http(answer)) => Err(not_connected(answer.status().as_u16(), api.credential().is_some())),
            Err(error) => Err(Ended::Lost(error.to_string())),
        }
    }

    /// Sends one command.
    pub(crate) async fn send(&mut self, command: &Json) -> Result<(), Ended> {
        self.stream.send(Message::text(command.to_string())).await.map_err(|error| Ended::Lost(error.to_string()))
    }

    /// The next message of the service. One that hangs, or that can no longer be reached, is noticed.
    pub(crate) async fn next(&mut self) -> Result<Json, Ended> {
        loop {
            let patience = self.asked.map_or(self.heard + QUIET, |asked| asked + GRACE);
            let Ok(heard) = timeout_at(patience, self.stream.next()).await else {
                if self.asked.is_some() {
                    return Err(Ended::Lost(format!("no sign of life for {} s", (QUIET + GRACE).as_secs())));
                }
                let now = Instant::now();
                self.asked = Some(now);
                // what cannot be sent is not answered either
                drop(timeout_at(now + GRACE, self.stream.send(Message::Ping(Vec::new().into()))).await);
                continue;
            };
            (self.heard, self.asked) = (Instant::now(), None);
            match heard {
                Some(Ok(Message::Text(message))) => {
                    return serde_json::from_str(message.as_str())
                        .map_err(|error| Ended::Refused(format!("the feed sends no JSON: {error}")));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Ended::Lost(format!("closed by the service ({} {})", u16::from(frame.code), frame.reason)));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::Lost(error.to_string())),
                None => return Err(Ended::Lost("closed".to_owned())),
            }
        }
    }
}

/// Why there is no feed, by the status of the answer.
fn not_connected(status: u16, with_token: bool) -> Ended {
    match status {
        401 => Ended::Refused(unauthorized(with_token).to_owned()),
        // too slow, or too many: that passes
        408 | 429 => Ended::Lost(format!("the feed answers {status}")),
        400..=499 => Ended::Refused(format!("the feed answers {status}")),
        _ => Ended::Lost(format!("the feed answers {status}")),
    }
}

impl Feed {
    pub(crate) async fn run(self) -> Outcome {
        let api = Api::of(&self.server)?;
        let mut after = self.after;
        let mut pause = Duration::from_millis(500);
        let mut lost = false;
        let mut said = String::new();
        loop {
            let ended = match Socket::open(&api).await {
                Ok(mut socket) => {
                    pause = Duration::from_millis(500);
                    said.clear();
                    self.follow(&mut socket, &mut after, lost).await
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Refused(why) => return Err(Failure::from(why)),
                Ended::Lost(why) => {
                    // once for each reason: a service that is away for an hour is no reason to fill the screen
                    if why != said {
                        let what = if lost || after.is_some() { "the feed is gone" } else { "there is no feed yet" };
                        complain(&format!("{what} at {} ({why}); trying again until it is there", api.base()));
                        said = why;
                    }
                    lost = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(15));
                }
            }
        }
    }

    async fn follow(&self, socket: &mut Socket, after: &mut Option<u64>, again: bool) -> Ended {
        let mut subscribe = json!({ "action": "subscribe", "events": self.events });
        if let Some(fields) = subscribe.as_object_mut() {
            if !self.severity.is_empty() {
                fields.insert("filter".to_owned(), json!({ "severity": self.severity }));
            }
            if let Some(after) = after {
                fields.insert("after".to_owned(), json!(after));
            }
        }
        if let Err(ended) = socket.send(&subscribe).await {
            return ended;
        }
        loop {
            let message = match socket.next().await {
                Ok(message) => message,
                Err(ended) => return ended,
            };
            match text(&message, "type") {
                "event" => {
                    *after = message.get("seq").and_then(Json::as_u64).or(*after);
                    if self.server.json {
                        say(&message.to_string());
                    } else {
                        say(&line(&message, coloured(&std::io::stdout())));
                    }
                }
                "welcome" => {
                    // what a lost connection misses from here on is asked for with `after`
                    *after = after.or_else(|| message.get("lastSeq").and_then(Json::as_u64));
                    if again {
                        complain("connected again");
                    } else if !self.server.json && std::io::stdout().is_terminal() {
                        complain("connected; waiting for events");
                    }
                }
                "resync_required" => {
                    let from = message.get("from").and_then(Json::as_u64);
                    complain(&resynced(*after, from));
                    *after = from;
                }
                "error" => return Ended::Refused(text(&message, "message").to_owned()),
                _ => {}
            }
        }
    }
}

/// Why the feed does not simply go on: behind `after`, where it should have, but behind `from`.
fn resynced(after: Option<u64>, from: Option<u64>) -> String {
    const LOOK: &str = "`opspilot incidents list` shows where things stand";
    match (after, from) {
        (Some(after), Some(from)) if from < after => format!(
            "the service has no event {after} yet: its data was put back from a backup, or it is another service; going on behind {from}\n{LOOK}"
        ),
        (Some(after), Some(from)) if from > after => {
            format!("events {} to {from} are no longer kept (ledger.retention.events); going on behind them\n{LOOK}", after + 1)
        }
        // nothing is lost: what was not shown yet is asked for again
        _ => "this terminal takes events more slowly than they come; connecting again where it stands".to_owned(),
    }
}

/// One event on one line.
pub(crate) fn line(message: &Json, colour: bool) -> String {
    line_on(&SystemClock::shared().now().to_string(), message, colour)
}

/// The line as it is shown on the day of `now`: an event of another day has its date.
fn line_on(now: &str, message: &Json, colour: bool) -> String {
    let nothing = Json::Null;
    let data = message.get("data").unwrap_or(&nothing);
    let at = moment(text(message, "at"));
    let at = match at.split_once(' ') {
        Some((day, time)) if now.starts_with(day) => time.to_owned(),
        _ => at,
    };
    let kind = text(message, "eventType");
    let (severity, what) = match kind {
        "incident.created" | "incident.updated" => {
            let id = text(data, "id").get(..12).unwrap_or_else(|| text(data, "id"));
            let seen = data.get("occurrences").and_then(Json::as_u64).unwrap_or(0);
            let verb = if kind == "incident.created" { "opened".to_owned() } else { changes(data) };
            (text(data, "severity"), format!("{id}  {verb:<12} {} [{}, {seen}×]", text(data, "title"), text(data, "source")))
        }
        "module.health_changed" => {
            let detail = text(data, "detail");
            let behind = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            ("", format!("{} is {}{behind}", text(data, "module"), text(data, "to")))
        }
        "action.proposed" | "action.approved" | "action.denied" | "action.expired" | "action.executed" => {
            let approval = data.get("approval").unwrap_or(data);
            let id = text(approval, "id").get(..12).unwrap_or_else(|| text(approval, "id"));
            let verb = if kind == "action.proposed" { "proposed" } else { text(approval, "status") };
            ("", format!("{id}  {verb:<12} {}", text(approval, "title")))
        }
        "enrichment.completed" => {
            let id = text(data, "incident_id").get(..12).unwrap_or_else(|| text(data, "incident_id"));
            // the rest of it is read with the incident
            let summary = text(data, "summary");
            let cut = summary.char_indices().nth(SUMMARY).map(|(at, _)| summary.split_at(at).0);
            ("", format!("{id}  explained    {}{}", cut.unwrap_or(summary), if cut.is_some() { "…" } else { "" }))
        }
        "log.ingested" => ("", format!("{} signals", data.get("count").and_then(Json::as_u64).unwrap_or(0))),
        _ => ("", data.to_string()),
    };
    let what = plain::stripped(&what).into_owned();
    let severity = format!("{severity:<8}");
    match colour_of(severity.trim()).filter(|_| colour) {
        Some(code) => format!("{at}  \u{1b}[{code}m{severity}\u{1b}[0m  {what}"),
        None => format!("{at}  {severity}  {what}"),
    }
}

fn changes(data: &Json) -> String {
    let named: Vec<&str> = data.get("changes").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    if named.is_empty() { "seen again".to_owned() } else { named.join(", ").replace('_', " ") }
}

fn colour_of(severity: &str) -> Option<&'static str> {
    match severity {
        "critical" => Some("1;31"),
        "error" => Some("31"),
        "warning" => Some("33"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let event = json!({"type":"event","eventType":"incident.created","seq":7,"at":"2026-03-14T09:25:07.000Z",
            "data":{"id":"inc_0123456789abcdef0123","title":"Disk\u{1b}[2J full\nx","severity":"critical","source":"db","occurrences":3}});
        let today = "2026-03-14T10:00:00.000Z";
        let data = json!({ "id": "apr_0123456789abcdef0123", "status": "succeeded", "title": "Mount it\u{1b}[31m" });
        for (kind, data, said) in [
            ("action.proposed", data.clone(), "apr_01234567  proposed     Mount it[31m"),
            ("action.executed", json!({ "approval": data, "execution": {} }), "apr_01234567  succeeded    Mount it[31m"),
            ("enrichment.completed", json!({ "incident_id": "inc_0123456789", "summary": "x".repeat(121) }), "explained    xxx"),
        ] {
            let line =
                line_on(today, &json!({ "type": "event", "eventType": kind, "at": "2026-03-14T09:25:07.000Z", "data": data }), false);
            assert!(line.contains(said) && line.chars().count() < 180, "{line}");
        }
        assert_eq!(line_on(today, &event, false), "09:25:07Z  critical  inc_01234567  opened       Disk[2J full x [db, 3×]");
        assert!(line_on("2026-03-15T10:00:00.000Z", &event, false).starts_with("2026-03-14 09:25:07Z  critical"));
        assert!(line_on(today, &event, true).contains("\u{1b}[1;31mcritical"));
    }

    #[test]
    fn a_gap_is_told_with_its_reason() {
        assert!(resynced(Some(90), Some(12)).contains("no event 90 yet"));
        assert!(resynced(Some(12), Some(90)).starts_with("events 13 to 90 are no longer kept"));
        assert!(resynced(Some(12), Some(12)).contains("more slowly"));
    }

    #[test]
    fn only_what_will_not_pass_ends_the_feed() {
        let passes = |status| matches!(not_connected(status, true), Ended::Lost(_));
        assert!([408, 429, 500, 503].into_iter().all(passes));
        assert!(![400, 401, 403, 404].into_iter().any(passes));
        assert!(not_connected(401, true).to_string().contains("revoked"));
    }
}
