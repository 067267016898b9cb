//! The story as a client sees it: play the recording, watch the feed, take the incident, see it end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use opspilot_kernel::{clock::SharedClock, time::Timestamp};
use serde_json::{Value as Json, json};

use super::{
    STEP,
    recording::{BROKEN, MOUNTED, Recording},
};
use crate::{
    cli::{Api, Failure, Outcome, feed, tell, text},
    service::Service,
    telemetry::coloured,
};

/// The rule whose incident somebody takes.
const MAIN_RULE: &str = "payment-failed";
/// The rule whose incident is the cause, and gets the repair.
const CAUSE_RULE: &str = "database-cannot-write";
/// The one service that has nothing to do with it.
const HERRING: &str = "inventory";
/// How long the ending may take once the recording is over.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is told of, live.
const EVENTS: [&str; 6] =
    ["incident.created", "incident.updated", "enrichment.completed", "action.proposed", "action.approved", "action.executed"];

/// Two people with their log-ins: one looks and proposes, the other approves.
pub(super) struct Visitors {
    pub(super) url: String,
    /// An API key of the first.
    pub(super) key: String,
    pub(super) api: Api,
    /// The session of the second, since keys do not decide.
    pub(super) session: String,
    pub(super) approver: Api,
}

impl Visitors {
    /// Logs both in, and asks for an API key for the first, as a person would.
    pub(super) async fn log_in(service: &Service) -> Result<Visitors, Failure> {
        let url = service.url();
        let anonymous = Api::new(&url, None)?;
        let [first, second, ..] = service.first_passwords() else { return Err(Failure::from("the service made no users")) };
        let token = session(&anonymous, first).await?;
        let wanted = json!({ "name": "demo", "role": "operator", "expires_in_days": 1 });
        let key = anonymous.with_token(&token).post("/api/api-keys", &wanted).await?;
        let key = key.get("key").and_then(Json::as_str).ok_or("there was no API key in the answer")?.to_owned();
        let session = session(&anonymous, second).await?;
        Ok(Visitors { api: anonymous.with_token(&key), approver: anonymous.with_token(&session), url, key, session })
    }
}

async fn session(api: &Api, (name, password): &(String, String)) -> Result<String, Failure> {
    let session = api.post("/api/auth/login", &json!({ "username": name, "password": password })).await?;
    Ok(session.get("token").and_then(Json::as_str).ok_or("the log-in gave no token")?.to_owned())
}

/// What the feed has told so far.
pub(super) struct Story {
    api: Api,
    socket: feed::Socket,
    recording: Recording,
    speed: f64,
    incidents: BTreeMap<String, Json>,
    explained: BTreeSet<String>,
    acknowledged: Option<String>,
}

impl Story {
    /// Connects to the feed before anything happens.
    pub(super) async fn begin(visitors: &Visitors, speed: f64) -> Result<Story, Failure> {
        let mut socket = feed::Socket::open(&visitors.api).await?;
        socket.send(&json!({ "action": "subscribe", "events": EVENTS })).await?;
        Ok(Story {
            api: visitors.api.clone(),
            socket,
            recording: Recording::outage()?,
            speed,
            incidents: BTreeMap::new(),
            explained: BTreeSet::new(),
            acknowledged: None,
        })
    }

    /// How long the recording goes on once the volume is mounted; until then its times are so far behind.
    fn rest(&self) -> Duration {
        self.recording.length.saturating_sub(MOUNTED)
    }

    /// Plays how it comes to the outage, and shows what the feed says meanwhile.
    pub(super) async fn break_down(&mut self, clock: &SharedClock) -> Outcome {
        let end = clock.now().after(MOUNTED.div_f64(self.speed)).before(self.rest());
        self.play(Duration::ZERO, MOUNTED, self.speed, clock, |offset| end.before(MOUNTED.saturating_sub(offset))).await
    }

    /// Goes on with the outage, as slowly as it happened, until `is_over` says so; `work` is done at every step.
    pub(super) async fn go_on(
        &mut self,
        clock: &SharedClock,
        is_over: impl Fn() -> bool,
        mut work: impl AsyncFnMut(&Story) -> Outcome,
    ) -> Outcome {
        let length = MOUNTED.saturating_sub(BROKEN);
        let begun = clock.elapsed();
        let (mut round, mut next) = (0, self.recording.line_at(BROKEN));
        while !is_over() {
            work(self).await?;
            let held = clock.elapsed().saturating_sub(begun).saturating_sub(length * round);
            let start = clock.now().before(self.rest()).before(held);
            next = self.send(next, BROKEN + held.min(length), |offset| start.after(offset.saturating_sub(BROKEN))).await?;
            if held >= length {
                (round, next) = (round + 1, self.recording.line_at(BROKEN));
            }
            self.watch(STEP).await?;
        }
        Ok(())
    }

    /// Plays how the shop recovers once the volume is mounted.
    pub(super) async fn recover(&mut self, clock: &SharedClock) -> Outcome {
        let start = clock.now().before(self.rest());
        let beyond = self.recording.length + Duration::from_millis(1);
        self.play(MOUNTED, beyond, self.speed, clock, |offset| start.after(offset.saturating_sub(MOUNTED))).await
    }

    async fn play(&mut self, from: Duration, to: Duration, speed: f64, clock: &SharedClock, at: impl Fn(Duration) -> Timestamp) -> Outcome {
        let begun = clock.elapsed();
        let (mut next, last) = (self.recording.line_at(from), self.recording.line_at(to));
        while next < last {
            let played = from + clock.elapsed().saturating_sub(begun).mul_f64(speed);
            next = self.send(next, played.min(to), &at).await?;
            self.watch(STEP).await?;
        }
        Ok(())
    }

    /// Sends what is due of the recording; gives the number of what is not.
    async fn send(&mut self, from: usize, played: Duration, at: impl Fn(Duration) -> Timestamp) -> Result<usize, Failure> {
        let (lines, next) = self.recording.due(from, played, at);
        if !lines.is_empty() {
            let answer = self.api.post_lines("/api/events", lines).await?;
            if let Some(first) = answer.get("rejected").and_then(|rejected| rejected.get(0)) {
                return Err(Failure::from(format!("an event of the recording was rejected: {first}")));
            }
        }
        Ok(next)
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
        if text(&message, "type") != "event" {
            return Ok(());
        }
        let kind = text(&message, "eventType");
        let counts_only = message.pointer("/data/changes").and_then(Json::as_array).is_some_and(Vec::is_empty);
        if !counts_only {
            tell(&feed::line(&message, coloured(&std::io::stdout())))?;
        }
        let data = message.get("data").cloned().unwrap_or_default();
        if kind == "enrichment.completed" {
            self.explained.insert(text(&data, "incident_id").to_owned());
        }
        if !kind.starts_with("incident.") {
            return Ok(());
        }
        let id = text(&data, "id").to_owned();
        if kind == "incident.created" && text(&data, "rule") == MAIN_RULE && self.acknowledged.is_none() {
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

    /// The incident that is the cause, once there is one.
    pub(super) fn cause(&self) -> Option<&str> {
        self.incidents.iter().find(|(_, incident)| text(incident, "rule") == CAUSE_RULE).map(|(id, _)| id.as_str())
    }

    /// Whether the cause was explained.
    pub(super) fn is_cause_explained(&self) -> bool {
        self.cause().is_some_and(|cause| self.explained.contains(cause))
    }

    /// Waits until everything is resolved, then reads it back over the API and compares it with the story.
    pub(super) async fn ending(&mut self, approval: &str) -> Outcome {
        let over = tokio::time::Instant::now() + PATIENCE;
        let is_open = |incident: &&Json| text(incident, "status") != "resolved";
        while self.incidents.values().any(|incident| is_open(&incident)) {
            if tokio::time::Instant::now() > over {
                let left: Vec<&str> = self.incidents.values().filter(is_open).map(|incident| text(incident, "title")).collect();
                return Err(Failure::from(format!("not resolved a minute after the outage was over: {}", left.join("; "))));
            }
            self.watch(STEP).await?;
        }
        let Some(id) = self.acknowledged.clone() else {
            return Err(Failure::from("the failing payments never became an incident on the feed"));
        };
        let Some(cause) = self.cause().map(str::to_owned) else {
            return Err(Failure::from("the full disk never became an incident on the feed"));
        };
        let incident = self.api.get(&format!("/api/incidents/{id}")).await?;
        let count = |key: &str| incident.get(key).and_then(Json::as_array).map_or(0, Vec::len);
        let (payments, database) = (self.kinds(&id).await?, self.kinds(&cause).await?);
        let all = |kinds: &BTreeSet<String>, wanted: &[&str]| wanted.iter().all(|kind| kinds.contains(*kind));
        let acted = ["action_proposed", "action_approved", "action_started", "action_finished", "resolved"];
        let listed = self.api.get("/api/incidents?limit=100").await?;
        let items = listed.get("items").and_then(Json::as_array).cloned().unwrap_or_default();
        let approval = self.api.get(&format!("/api/approvals/{approval}")).await?;
        let checks = [
            (text(&incident, "status") == "resolved", "the incident of the payments is not resolved over the API"),
            (count("alerts") > 0, "the incident has no alert"),
            (count("evidence") > 0, "the incident has no evidence"),
            (incident.get("acknowledged_by").is_some_and(Json::is_string), "the acknowledgement is not on record"),
            (all(&payments, &["opened", "acknowledged", "resolved"]), "the timeline is not whole"),
            (all(&database, &acted), "the repair is not on the timeline of the incident"),
            (text(&approval, "status") == "succeeded", "the approval does not say that its run succeeded"),
            (items.len() == self.incidents.len(), "the list of incidents is not what the feed told"),
            (items.len() >= 4, "the outage should be seen in the database, payments, checkout and at the gateway"),
            (items.iter().all(|item| text(item, "source") != HERRING), "the red herring became an incident"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(Failure::from(*what)),
        }
    }

    /// What happened to an incident.
    async fn kinds(&self, id: &str) -> Result<BTreeSet<String>, Failure> {
        let timeline = self.api.get(&format!("/api/incidents/{id}/timeline")).await?;
        let entries = timeline.get("items").and_then(Json::as_array).into_iter().flatten();
        Ok(entries.map(|entry| text(entry, "kind").to_owned()).collect())
    }
}
