//! Alerts that are held back, over real sockets: silences and what ends them, inhibition, windows, and who may do what.

use std::time::Duration;

use opspilot_kernel::{clock::SystemClock, time::Timestamp};
use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, PASSWORD, Service, until};

const CONFIG: &str = "modules:
  connector.metrics: {enabled: false}
  enricher.correlator: {enabled: false}
  enricher.silence:
    max_duration: {operator: 2h, admin: 1d}
    windows:
      - {id: always, matchers: ['alertname=rehearsed'], timezone: Europe/Berlin, comment: a rehearsal}
      - {id: nightly, matchers: ['service=~\"db-.*\"'], weekdays: ['monday:friday'], times: [{from: '22:00', to: '06:00'}], timezone: Europe/Berlin, mode: suppress}
    inhibit:
      - {id: node, source: ['alertname=node-down'], target: ['alertname!=node-down'], equal: [host]}
";

fn later(seconds: u64) -> String {
    SystemClock::shared().now().after(Duration::from_secs(seconds)).to_string()
}

fn body(name: &str, ends_in: u64) -> Json {
    json!({ "matchers": [{ "name": "alertname", "value": name, "isRegex": false, "isEqual": true }], "startsAt": "2020-01-01T00:00:00.000Z",
        "endsAt": later(ends_in), "createdBy": "ada", "comment": "the disk is being replaced" })
}

async fn send(service: &Service, name: &str, host: &str, status: &str) {
    let event =
        json!({ "source": "shop", "kind": "alert", "name": name, "severity": "critical", "status": status, "labels": { "host": host } });
    let (code, answer) = service.post("/api/events", event).await;
    assert_eq!(code, 202, "{answer}");
}

async fn alert(service: &Service, name: &str) -> Option<Json> {
    let alerts = service.get("/api/alerts?limit=500").await;
    alerts["items"].as_array().unwrap().iter().find(|alert| alert["name"] == name).cloned()
}

/// Waits until the alert is there and is held back by this, or by nothing.
async fn held_by(service: &Service, name: &str, by: Option<&str>) -> Json {
    until(&format!("{name} to be held back by {by:?}"), async || {
        alert(service, name).await.filter(|alert| alert["suppressed_by"].as_str() == by)
    })
    .await
}

async fn set(service: &Service, body: Json) -> Json {
    let (status, answer) = service.post("/api/silences", body).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

#[tokio::test]
async fn a_silence_keeps_an_alert_from_people_until_it_is_ended_also_over_a_crash() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let id = set(&service, body("disk", 3600)).await["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sil_"), "{id}");
    send(&service, "disk", "h1", "firing").await;
    send(&service, "cpu", "h2", "firing").await;
    service.incident("cpu").await;
    let by = format!("silence:{id}");
    let held = held_by(&service, "disk", Some(&by)).await;
    assert_eq!((service.incidents().await.len(), &held["incident_id"]), (1, &Json::Null));
    let why = service.get(&format!("/api/alerts/{}/explain-why", held["id"].as_str().unwrap())).await;
    let said = why["decisions"].as_array().unwrap().iter().find(|decision| decision["outcome"] == "held back").expect("a decision");
    assert!(said["text"].as_str().unwrap().starts_with("no incident is opened: silenced by ada until "), "{said}");
    let listed = service.get("/api/silences?state=active").await["items"][0].clone();
    assert_eq!(
        (&listed["id"], &listed["hides"], &listed["status"]["state"], &listed["ending"]),
        (&json!(id), &json!(1), &json!("active"), &json!(false))
    );
    assert_eq!((&listed["account"], &listed["createdBy"]), (&json!("admin"), &json!("ada")));
    until("the metric", async || {
        let metrics = service.get("/api/metrics").await;
        metrics.as_str().unwrap().contains("opspilot_alerts_suppressed{reason=\"silence\"} 1").then_some(())
    })
    .await;

    service.kill();
    let service = home.start().await;
    held_by(&service, "disk", Some(&by)).await;
    assert_eq!(service.incidents().await.len(), 1);
    let (status, _) = service.call(Method::DELETE, &format!("/api/silences/{id}"), service.token.as_deref(), None).await;
    assert_eq!(status, 204);
    let incident = service.incident("disk").await;
    assert_eq!((&incident["status"], &incident["occurrences"], &incident["evidence_count"]), (&json!("open"), &json!(1), &json!(1)));
    assert_eq!(held_by(&service, "disk", None).await["incident_id"], incident["id"]);
    assert_eq!(service.get(&format!("/api/silences/{id}")).await["status"]["state"], "expired");
    let codes: Vec<Json> = service.get("/api/audit?target=silence&limit=50").await["items"].as_array().cloned().unwrap_or_default();
    drop(codes);
    service.stop().await;
}

#[tokio::test]
async fn a_silence_is_changed_in_place_or_replaced_as_alertmanager_does() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let first = set(&service, body("disk", 600)).await["id"].clone();
    let stored = service.get(&format!("/api/silences/{}", first.as_str().unwrap())).await;
    let with = |changes: Json| {
        let mut changed = body("disk", 1200);
        changed["id"] = first.clone();
        changed["startsAt"] = stored["startsAt"].clone();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        changed
    };
    assert_eq!(set(&service, with(json!({ "comment": "it takes longer" }))).await["id"], first, "the same silence");
    let one = service.get(&format!("/api/silences/{}", first.as_str().unwrap())).await;
    assert_eq!((&one["comment"], &one["startsAt"]), (&json!("it takes longer"), &stored["startsAt"]));
    let other = set(&service, with(json!({ "matchers": [{ "name": "alertname", "value": "cpu" }] }))).await["id"].clone();
    assert_ne!(other, first);
    assert_eq!(
        service.get(&format!("/api/silences/{}", first.as_str().unwrap())).await["status"]["state"],
        "expired",
        "the old one is over"
    );
    let (status, _) = service.post("/api/silences", with(json!({ "id": "sil_unknown" }))).await;
    assert_eq!(status, 404);
    service.stop().await;
}

#[tokio::test]
async fn what_is_refused_says_why_and_roles_hold() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    for (user, role) in [("vera", "viewer"), ("otto", "operator")] {
        let (status, answer) = service.post("/api/users", json!({ "username": user, "password": PASSWORD, "role": role })).await;
        assert_eq!(status, 201, "{answer}");
    }
    let (vera, otto) = (service.log_in("vera", PASSWORD).await, service.log_in("otto", PASSWORD).await);
    let post = async |token: &str, body: Json| service.call(Method::POST, "/api/silences", Some(token), Some(body)).await;
    assert_eq!(post(&vera, body("disk", 600)).await.0, 403);
    assert_eq!(service.call(Method::GET, "/api/silences", Some(&vera), None).await.0, 200);
    let changed = |key: &str, value: Json| {
        let mut body = body("disk", 600);
        body[key] = value;
        body
    };
    for (body, pointer, code) in [
        (body("disk", 3 * 3600), "/endsAt", "too_long"),
        (changed("endsAt", json!("2020-01-02T00:00:00Z")), "/endsAt", "bad_end"),
        (changed("comment", json!(" ")), "/comment", "bad_comment"),
        (changed("matchers", json!([])), "/matchers", "no_matcher"),
        (changed("matchers", json!([{ "name": "a", "value": ".*", "isRegex": true }])), "/matchers", "matches_everything"),
        (changed("matchers", json!([{ "name": "a", "value": "(", "isRegex": true }])), "/matchers/0", "bad_matcher"),
    ] {
        let (status, answer) = post(&otto, body).await;
        assert_eq!(
            (status, &answer["errors"][0]["pointer"], &answer["errors"][0]["code"]),
            (422, &json!(pointer), &json!(code)),
            "{answer}"
        );
    }
    assert_eq!(service.post("/api/silences", body("disk", 3 * 3600)).await.0, 201, "an admin may for longer");
    let id = post(&otto, body("disk", 600)).await.1["id"].as_str().unwrap().to_owned();
    assert_eq!(service.call(Method::DELETE, &format!("/api/silences/{id}"), Some(&vera), None).await.0, 403);
    assert_eq!(service.call(Method::DELETE, &format!("/api/silences/{id}"), Some(&otto), None).await.0, 204);
    assert_eq!(service.call(Method::DELETE, "/api/silences/sil_unknown", Some(&otto), None).await.0, 404);
    service.stop().await;
}

#[tokio::test]
async fn what_a_silence_would_hide_is_shown_and_a_critical_alert_is_warned_of() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    for name in ["disk-1", "disk-2", "cpu"] {
        send(&service, name, name, "firing").await;
        service.incident(name).await;
    }
    let matchers = json!([{ "name": "alertname", "value": "disk-.*", "isRegex": true }]);
    let (status, preview) = service.post("/api/silences/preview", json!({ "matchers": matchers })).await;
    assert_eq!((status, &preview["count"], &preview["by_severity"]), (200, &json!(2), &json!({ "critical": 2 })), "{preview}");
    assert_eq!(
        (preview["alerts"].as_array().unwrap().len(), &preview["warnings"]),
        (2, &json!(["this hides 2 critical alerts that fire now"]))
    );
    assert!(service.get("/api/silences").await["items"].as_array().unwrap().is_empty(), "nothing is set");
    let mut wanted = body("", 600);
    wanted["matchers"] = matchers;
    let answer = set(&service, wanted).await;
    assert_eq!((&answer["hides"], &answer["warnings"]), (&json!(2), &preview["warnings"]));
    let by = format!("silence:{}", answer["id"].as_str().unwrap());
    let marked = held_by(&service, "disk-1", Some(&by)).await;
    let incident = marked["incident_id"].as_str().unwrap();
    assert_eq!(service.get(&format!("/api/incidents/{incident}")).await["status"], "open", "its incident stays open");
    let timeline = service.get(&format!("/api/incidents/{incident}/timeline")).await;
    let notes = timeline["items"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "note").count();
    assert_eq!(notes, 1, "{timeline}");
    service.stop().await;
}

#[tokio::test]
async fn an_alert_that_explains_others_holds_them_back_and_windows_are_shown() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    send(&service, "node-down", "h1", "firing").await;
    let node = held_by(&service, "node-down", None).await["id"].as_str().unwrap().to_owned();
    service.incident("node-down").await;
    send(&service, "disk", "h1", "firing").await;
    send(&service, "disk-of-another", "h2", "firing").await;
    service.incident("disk-of-another").await;
    held_by(&service, "disk", Some(&format!("inhibition:node:{node}"))).await;
    assert_eq!(service.incidents().await.len(), 2);
    send(&service, "node-down", "h1", "resolved").await;
    held_by(&service, "disk", None).await;
    until("the incident of the disk", async || (service.incidents().await.len() == 3).then_some(())).await;

    send(&service, "rehearsed", "h3", "firing").await;
    held_by(&service, "rehearsed", Some("maintenance:always")).await;
    let windows = service.get("/api/maintenance-windows").await["items"].clone();
    assert_eq!((&windows[0]["id"], &windows[0]["active"]), (&json!("always"), &json!(true)));
    let next = windows[1]["next"].as_array().unwrap();
    assert_eq!((&windows[1]["id"], &windows[1]["mode"], next.len()), (&json!("nightly"), &json!("suppress"), 5));
    for night in next {
        let time = |key: &str| night[key].as_str().unwrap().parse::<Timestamp>().unwrap();
        let hours = time("ends_at").since(time("starts_at")).as_secs() / 3600;
        assert!((7..=9).contains(&hours), "{night}");
    }
    // switched off, the module hides nothing any more
    let (status, answer) = service.post("/api/modules/enricher.silence/disable", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    held_by(&service, "rehearsed", None).await;
    until("its incident", async || (service.incidents().await.len() == 4).then_some(())).await;
    assert_eq!(service.post("/api/silences", body("disk", 600)).await.0, 409);
    service.stop().await;
}
