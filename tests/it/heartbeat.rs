//! Pings over real sockets: taken, refused, missed, and never shown.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, Service, until};

const KEY: &str = "canary-5d8b8f8e-3a1f-4a55-9a53-d0d6cc0f9d11";
const OTHER: &str = "canary-other-key-77aa";
const FILED: &str = "canary-from-a-file-19";

fn config(period: &str) -> String {
    format!(
        "modules:
  connector.metrics: {{enabled: false}}
  detector.heartbeat:
    heartbeats:
      - {{id: backup, key: '{KEY}', period: {period}, grace: 1s, max_run: 1h, severity: critical, source: db-1, description: 'see the runbook'}}
      - {{id: report, key: '${{HEARTBEAT_KEY}}', period: 1h}}
      - {{id: filed, key: 'file:FILE', period: 1h}}
      - {{id: prometheus, period: 1h, on_alert: ['alertname=\"Watchdog\"']}}
      - {{id: weekly, schedule: '30 2 * * SUN', timezone: Europe/Berlin, on_alert: ['alertname=\"Weekly\"']}}
"
    )
}

fn home(period: &str) -> Home {
    let home = Home::new("");
    std::fs::write(home.path("filed.key"), format!("{FILED}\n")).unwrap();
    home.configure(&config(period).replace("FILE", home.path("filed.key").to_str().unwrap()));
    home
}

async fn start(home: &Home) -> Service {
    home.start_with(&[("HEARTBEAT_KEY", OTHER)]).await
}

/// A request as a cron job makes it: status, header, body.
async fn ping(service: &Service, method: Method, path: &str, body: Vec<u8>) -> (u16, Option<String>, String) {
    let answer = reqwest::Client::new().request(method, format!("{}{path}", service.url)).body(body).send().await.unwrap();
    let limit = answer.headers().get("ping-body-limit").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), limit, answer.text().await.unwrap())
}

async fn signals(service: &Service) -> Vec<Json> {
    service.get("/api/signals?limit=500&kind=log").await["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn pings_are_taken_in_the_dialect_and_found_in_the_log_and_everything_else_is_refused() {
    let home = home("1h");
    let service = start(&home).await;
    let taken = |path: String, method: Method, body: &[u8]| {
        let (service, body) = (&service, body.to_vec());
        async move { ping(service, method, &path, body).await }
    };
    let ok = (200, Some("10000".to_owned()), "OK".to_owned());
    assert_eq!(taken(format!("/ping/{KEY}"), Method::GET, b"").await, ok);
    assert_eq!(taken(format!("/ping/{KEY}"), Method::HEAD, b"").await, (200, ok.1.clone(), String::new()));
    assert_eq!(taken(format!("/ping/{KEY}?rid=1"), Method::POST, b"3 tables\xff\0").await, ok);
    assert_eq!(taken(format!("/ping/{KEY}/start"), Method::POST, b"").await, ok);
    assert_eq!(taken(format!("/ping/{KEY}/log"), Method::GET, b"").await, ok);
    assert_eq!(taken(format!("/ping/{KEY}/0"), Method::GET, b"").await, ok);
    assert_eq!(taken(format!("/ping/{OTHER}"), Method::GET, b"").await, ok);
    assert_eq!(taken(format!("/ping/{FILED}"), Method::POST, &vec![b'x'; 100_000]).await, ok);
    let stored = signals(&service).await;
    let said: Vec<(&str, &str)> =
        stored.iter().map(|signal| (signal["labels"]["heartbeat"].as_str().unwrap(), signal["labels"]["ping"].as_str().unwrap())).collect();
    let expected = [
        ("backup", "success"),
        ("backup", "success"),
        ("backup", "success"),
        ("backup", "start"),
        ("backup", "log"),
        ("backup", "success"),
        ("report", "success"),
        ("filed", "success"),
    ];
    assert_eq!(said, expected);
    assert_eq!((&stored[0]["source"], &stored[0]["name"]), (&json!("db-1"), &json!("ping")));
    assert_eq!((&stored[2]["labels"]["run"], &stored[3]["labels"]["run"]), (&json!("1"), &Json::Null));
    assert_eq!(stored[2]["message"], "ping from backup\n3 tables\u{fffd}\u{fffd}");
    assert!(stored[7]["message"].as_str().unwrap().len() < 10_100, "only so much is kept");

    for (method, path, status) in [
        (Method::GET, "/ping/canary-of-nobody-0000".to_owned(), 404),
        (Method::POST, "/ping/canary-of-nobody-0000/start".to_owned(), 404),
        (Method::GET, format!("/ping/{KEY}x"), 404),
        (Method::GET, format!("/ping/{KEY}/stop"), 404),
        (Method::GET, format!("/ping/{KEY}/start/now"), 404),
        (Method::GET, format!("/ping/{KEY}/256"), 400),
        (Method::GET, format!("/ping/{KEY}/start?rid=a%20b"), 400),
        (Method::PUT, format!("/ping/{KEY}"), 405),
        (Method::DELETE, format!("/ping/{KEY}/start"), 405),
        (Method::GET, "/ping/".to_owned(), 404),
    ] {
        let (got, _, body) = ping(&service, method.clone(), &path, Vec::new()).await;
        assert_eq!(got, status, "{method} {path}: {body}");
        assert!(!body.contains("canary"), "{body}");
    }
    // the answer may find the client still sending, and the connection is closed behind it
    let large = reqwest::Client::new().post(format!("{}/ping/{KEY}", service.url)).body(vec![b'x'; (8 << 20) + 1]).send().await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 413));
    assert_eq!(signals(&service).await.len(), expected.len(), "nothing of that is stored");

    let shown = until("the detector to have heard them", async || {
        let shown = service.get("/api/heartbeats?limit=3").await;
        let stands = shown["items"].as_array().unwrap().iter().map(|item| (item["id"].clone(), item["status"].clone()));
        let wanted = [("backup", "up"), ("filed", "up"), ("prometheus", "new")].map(|(id, status)| (json!(id), json!(status)));
        stands.eq(wanted).then_some(shown)
    })
    .await;
    assert_eq!(shown["items"][0]["source"], "db-1");
    let rest = service.get(&format!("/api/heartbeats?cursor={}", shown["next_cursor"].as_str().unwrap())).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["items"][0]["id"]), (2, &json!("report")));
    let weekly = &rest["items"][1];
    let expected =
        [("id", json!("weekly")), ("schedule", json!("30 2 * * SUN")), ("timezone", json!("Europe/Berlin")), ("period_secs", Json::Null)];
    assert!(expected.iter().all(|(key, value)| weekly[key] == *value), "{weekly}");
    // half past two in Berlin, or three where the clocks go ahead
    let next = weekly["next_ping_at"].as_str().unwrap();
    assert!(["T00:30:00.000Z", "T01:30:00.000Z", "T01:00:00.000Z"].iter().any(|time| next.ends_with(time)), "{weekly}");

    // whoever guesses is held back; who knows is not
    let mut last = 0;
    for number in 0..40 {
        last = ping(&service, Method::GET, &format!("/ping/canary-guess-{number:04}"), Vec::new()).await.0;
    }
    assert_eq!(last, 429);
    assert_eq!(taken(format!("/ping/{KEY}"), Method::GET, b"").await, ok);
    service.stop().await;
}

#[tokio::test]
async fn silence_and_failure_become_incidents_that_pings_end_and_no_key_is_shown_anywhere() {
    let home = home("2s");
    let service = start(&home).await;
    let mut feed = service.socket().await;
    feed.subscribe(&["incident.created", "incident.updated"], None).await;
    ping(&service, Method::POST, &format!("/ping/{KEY}"), b"dumped 3 tables".to_vec()).await;
    let silent = service.incident("no ping from backup for 3 s (expected every 2 s, 1 s grace)").await;
    assert_eq!(
        (&silent["severity"], &silent["source"], &silent["detected_by"]),
        (&json!("critical"), &json!("db-1"), &json!("detector.heartbeat"))
    );
    let id = silent["id"].as_str().unwrap();
    let whole = service.get(&format!("/api/incidents/{id}")).await;
    assert!(whole["description"].as_str().unwrap().contains("see the runbook"), "{whole}");
    assert!(!whole["evidence"].as_array().unwrap().is_empty());
    ping(&service, Method::HEAD, &format!("/ping/{KEY}"), Vec::new()).await;
    let shown = service.get("/api/heartbeats").await;
    assert!(shown["items"][0]["last_ping_at"].is_string() && !shown.to_string().contains("canary"), "{shown}");
    until("the alert to be over", async || {
        let alerts = service.get("/api/alerts").await;
        alerts["items"].as_array().unwrap().iter().any(|alert| alert["status"] == "resolved").then_some(())
    })
    .await;

    // a job that is paused is not watched; the others are as they were
    let reloaded = config("1h").replace("FILE", home.path("filed.key").to_str().unwrap());
    home.configure(&reloaded.replace("period: 1h, on_alert", "period: 1h, paused: true, on_alert"));
    assert_eq!(service.post("/api/config/reload", json!({})).await.0, 200);
    ping(&service, Method::GET, &format!("/ping/{OTHER}/start"), Vec::new()).await;
    ping(&service, Method::POST, &format!("/ping/{OTHER}/3"), b"no space left".to_vec()).await;
    let failed = service.incident("report failed with exit code 3 after").await;
    let whole = service.get(&format!("/api/incidents/{}", failed["id"].as_str().unwrap())).await;
    assert!(whole["evidence"].to_string().contains("no space left"), "{whole}");

    // a key that is changed is good at once, and the old one no more
    home.configure(&reloaded.replace(KEY, "canary-the-new-key-31"));
    assert_eq!(service.post("/api/config/reload", json!({})).await.0, 200);
    assert_eq!(ping(&service, Method::GET, &format!("/ping/{KEY}"), Vec::new()).await.0, 404);
    assert_eq!(ping(&service, Method::GET, "/ping/canary-the-new-key-31", Vec::new()).await.0, 200);
    home.configure(&reloaded.replace(&format!("'{KEY}'"), "'canary short'"));
    let (status, refused) = service.post("/api/config/reload", json!({})).await;
    assert_eq!(status, 422, "{refused}");

    // switched off, nobody is known
    assert_eq!(service.post("/api/modules/detector.heartbeat/disable", json!({})).await.0, 200);
    assert_eq!(ping(&service, Method::GET, &format!("/ping/{OTHER}"), Vec::new()).await.0, 404);
    assert_eq!(service.post("/api/modules/detector.heartbeat/enable", json!({})).await.0, 200);
    assert_eq!(ping(&service, Method::GET, &format!("/ping/{OTHER}"), Vec::new()).await.0, 200);

    let mut shown = vec![refused.to_string(), feed.event(|event| event["eventType"] == "incident.created").await.to_string()];
    for path in [
        "/api/signals?limit=500",
        "/api/audit?limit=500",
        "/api/incidents?limit=500",
        "/api/alerts",
        "/api/health",
        "/api/modules",
        "/api/metrics",
        "/api/dead-letters",
    ] {
        shown.push(service.get(path).await.to_string());
    }
    assert!(shown.iter().any(|text| text.contains("dumped 3 tables")), "the search sees what is stored");
    let (log, data) = (service.log.clone(), home.data());
    drop(feed);
    service.stop().await;
    shown.push(log.lines().join("\n"));
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            shown.push(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
        }
    }
    for text in shown {
        let found = text.find("canary").map(|at| text.get(at.saturating_sub(80)..(at + 60).min(text.len())).unwrap_or("?").to_owned());
        assert_eq!(found, None, "a key is shown");
    }
}

#[tokio::test]
async fn a_ping_that_was_acknowledged_survives_a_kill_and_the_time_away_is_not_held_against_it() {
    let home = home("3s");
    let service = start(&home).await;
    assert_eq!(ping(&service, Method::GET, &format!("/ping/{OTHER}/fail"), Vec::new()).await.0, 200);
    service.kill();
    let service = start(&home).await;
    service.incident("report failed").await;
    assert_eq!(signals(&service).await.len(), 1);
    service.stop().await;
}
