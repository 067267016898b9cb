//! The story as a client sees it: play the recording, watch the feed, take the incident, see it end.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::clock::SharedClock;
use serde_json::{Value as Json, json};

use super::{STEP, recording::Recording};
use crate::{
    cli::{Api, Failure, Outcome, feed, tell},
    service::Service,
    telemetry::coloured,
};

/// The rule whose incident the story is about.
const MAIN_RULE: &str = "payment-failed";
/// The one service that has nothing to do with it.
const HERRING: &str = "inventory";
/// How long the ending may take once the recording is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with a log-in and an API key.
pub(super) struct Visitor {
    pub(super) url: String,
    pub(super) key: String,
    api: Api,
}

impl Visitor {
    /// Logs in as the first user and asks for an API key, as a person would.
    pub(super) async fn log_in(service: &Service) -> Result<Visitor, Failure> {
        let url = service.url();
        let anonymous = Api::new(&url, None)?;
        let Some((name, password)) = service.first_passwords().first() else {
            return Err(Failure::from("the service made no users"));
        };
        let session = anonymous.post("/api/auth/login", &json!({ "username": name, "password": password })).await?;
        let token = session.get("token").and_then(Json::as_str).ok_or("the log-in gave no token")?;
        let key =
            anonymous.with_token(token).post("/api/api-keys", &json!({ "name": "demo", "role": "operator", "expires_in_days": 1 })).await?;
        let key = key.get("key").and_then(Json::as_str).ok_or("there was no API key in the answer")?.to_owned();
        Ok(Visitor { api: anonymous.with_token(&key), url, key })
    }
}

/// What the feed has told so far.
pub(super) struct Story {
    api: Api,
    socket: feed::Socket,
    incidents: BTreeMap<String, Json>,
    acknowledged: Option<String>,
}

impl Story {
    /// Connects to the feed before anything happens.
    pub(super) async fn begin(visitor: &Visitor) -> Result<Story, Failure> {
        let mut socket = feed::Socket::open(&visitor.api).await?;
        socket.send(&json!({ "action": "subscribe", "events": ["incident.created", "incident.updated"] })).await?;
        Ok(Story { api: visitor.api.clone(), socket, incidents: BTreeMap::new(), acknowledged: None })
    }

    /// Sends the recording, `speed` times as fast as it happened, and shows what the feed says meanwhile.
    pub(super) async fn play(&mut self, speed: f64, clock: &SharedClock) -> Outcome {
        let recording = Recording::outage()?;
        let begun = clock.elapsed();
        let end = clock.now().after(recording.length.div_f64(speed));
        let mut next = 0;
        while next < recording.len() {
            let played = clock.elapsed().saturating_sub(begun).mul_f64(speed);
            let (lines, then) = recording.due(next, played, end);
            if !lines.is_empty() {
                let answer = self.api.post_lines("/api/events", lines).await?;
                if let Some(first) = answer.get("rejected").and_then(|rejected| rejected.get(0)) {
                    return Err(Failure::from(format!("an event of the recording was rejected: {first}")));
                }
                next = then;
            }
            self.watch(STEP).await?;
        }
        Ok(())
    }

    /// Shows what the feed says for so long.
    async fn watch(&mut self, span: Duration) -> Outcome {
        let over = tokio::time::Instant::now() + span;
        while let Ok(message) = tokio::time::timeout_at(over, self.socket.next()).await {
            self.heard(message?).await?;
        }
        Ok(())
    }

    async fn heard(&mut self, message: Json) -> Outcome {
        if message.get("type").and_then(Json::as_str) != Some("event") {
            return Ok(());
        }
        let created = message.get("eventType").and_then(Json::as_str) == Some("incident.created");
        let counts_only = message.pointer("/data/changes").and_then(Json::as_array).is_some_and(Vec::is_empty);
        if !counts_only {
            tell(&feed::line(&message, coloured(&std::io::stdout())))?;
        }
        let data = message.get("data").cloned().unwrap_or_default();
        let field = |key: &str| data.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let id = field("id");
        if created && field("rule") == MAIN_RULE && self.acknowledged.is_none() {
            self.api.post(&format!("/api/incidents/{id}/acknowledge"), &json!({ "note": "looking at the payments" })).await?;
            self.acknowledged = Some(id.clone());
        }
        self.incidents.insert(id, data);
        Ok(())
    }

    /// Goes on showing the feed until somebody ends it.
    pub(super) async fn listen_on(&mut self) -> Outcome {
        loop {
            let message = self.socket.next().await?;
            self.heard(message).await?;
        }
    }

    /// The incident that the story is about, or the first one.
    pub(super) fn main_incident(&self) -> &str {
        let any = || self.incidents.keys().next().map(String::as_str);
        self.acknowledged.as_deref().or_else(any).unwrap_or("inc_")
    }

    /// Waits until everything is resolved, then reads it back over the API and compares it with the story.
    pub(super) async fn ending(&mut self) -> Outcome {
        let over = tokio::time::Instant::now() + PATIENCE;
        let status = |incident: &Json| incident.get("status").and_then(Json::as_str).unwrap_or_default().to_owned();
        while self.incidents.values().any(|incident| status(incident) != "resolved") {
            if tokio::time::Instant::now() > over {
                let left: Vec<String> = self.incidents.values().filter(|i| status(i) != "resolved").map(title).collect();
                return Err(Failure::from(format!("not resolved a minute after the outage was over: {}", left.join("; "))));
            }
            self.watch(STEP).await?;
        }
        let Some(id) = self.acknowledged.clone() else {
            return Err(Failure::from("the failing payments never became an incident on the feed"));
        };
        let incident = self.api.get(&format!("/api/incidents/{id}")).await?;
        let count = |key: &str| incident.get(key).and_then(Json::as_array).map_or(0, Vec::len);
        let timeline = self.api.get(&format!("/api/incidents/{id}/timeline")).await?;
        let happened = |kind: &str| {
            let entries = timeline.get("items").and_then(Json::as_array).into_iter().flatten();
            entries.filter(|entry| entry.get("kind").and_then(Json::as_str) == Some(kind)).count() > 0
        };
        let listed = self.api.get("/api/incidents?limit=100").await?;
        let items = listed.get("items").and_then(Json::as_array).cloned().unwrap_or_default();
        let checks = [
            (status(&incident) == "resolved", "the incident of the payments is not resolved over the API"),
            (count("alerts") > 0, "the incident has no alert"),
            (count("evidence") > 0, "the incident has no evidence"),
            (incident.get("acknowledged_by").is_some_and(Json::is_string), "the acknowledgement is not on record"),
            (happened("opened") && happened("acknowledged") && happened("resolved"), "the timeline is not whole"),
            (items.len() == self.incidents.len(), "the list of incidents is not what the feed told"),
            (items.len() >= 4, "the outage should be seen in the database, payments, checkout and at the gateway"),
            (items.iter().all(|item| item.get("source").and_then(Json::as_str) != Some(HERRING)), "the red herring became an incident"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(Failure::from(*what)),
        }
    }
}

fn title(incident: &Json) -> String {
    incident.get("title").and_then(Json::as_str).unwrap_or_default().to_owned()
}
