//! Notifications over the real binary, to a receiver in another language that believes only what is signed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::{
    common::{Home, client, until},
    story::RULES,
};

const SECRET: &str = "canary-of-the-signing-secret-0123";
const IN_URL: &str = "canary-of-the-address";
const IN_HEADER: &str = "canary-of-the-header";

struct Receiver {
    child: Child,
    port: u16,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Receiver {
    /// On this port, or on any.
    fn start(out: &Path, port: u16) -> Receiver {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/webhook_receiver/receive.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(SECRET).arg(out).arg(port.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Receiver { child, port: line.trim().parse().expect("the receiver listens") }
    }
}

fn received(out: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn config(port: u16, out: &Path) -> String {
    format!(
        "{RULES}  notifier.channels:
    retry: {{first: 100ms, factor: 2, longest: 1s, attempts: 50}}
    channels:
      - id: hook
        type: webhook
        url: 'http://127.0.0.1:{port}/{IN_URL}'
        secret: '{SECRET}'
        headers: {{Authorization: 'Bearer {IN_HEADER}'}}
      - {{id: log, type: file, path: '{}'}}
      - {{id: inward, type: webhook, url: 'http://127.0.0.2:{port}/', secret: '{SECRET}'}}
outbound: {{allow_private: [127.0.0.1/32]}}
",
        out.display()
    )
}

fn events_of(received: &[Json]) -> Vec<String> {
    received.iter().map(|line| line["body"]["event"].as_str().unwrap().to_owned()).collect()
}

async fn until_received(out: &Path, count: usize) -> Vec<Json> {
    until(&format!("{count} messages"), async || Some(received(out)).filter(|received| received.len() >= count)).await
}

/// Every file below `dir`, but for `except`.
fn files(dir: &Path, except: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, except, found);
        } else if path != except {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
}

#[tokio::test]
async fn an_incident_is_told_by_a_signed_webhook_and_in_a_file_and_e12_no_secret_of_it_shows_anywhere() {
    let home = Home::new("");
    let (out, log) = (tempfile::tempdir().unwrap(), home.path("told.ndjson"));
    let out = out.path().join("received");
    let receiver = Receiver::start(&out, 0);
    home.configure(&config(receiver.port, &log));
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 4711"]).await;
    let id = service.incident("order 4711").await["id"].as_str().unwrap().to_owned();
    until_received(&out, 1).await;
    assert_eq!(service.post(&format!("/api/incidents/{id}/acknowledge"), json!({})).await.0, 200);
    let told = until_received(&out, 2).await;
    assert_eq!(events_of(&told), ["incident.created", "incident.acknowledged"]);
    for line in &told {
        assert_eq!(line["ok"], true, "signed, and only as it is: {line}");
        assert!(line["id"] == line["key"] && line["id"] == line["body"]["id"]);
        assert_eq!(line["authorization"], format!("Bearer {IN_HEADER}"));
        assert_eq!(line["body"]["incident"]["id"], id);
    }
    let lines = until("the same in the file", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|lines| lines.len() == 2)
    })
    .await;
    assert!(lines[0].contains("incident.created") && lines[1].contains("incident.acknowledged"));

    let good = client(&service, &["notify", "test", "hook"]);
    assert!(good.status.success() && String::from_utf8_lossy(&good.stdout).contains("arrived"), "{good:?}");
    assert_eq!(until_received(&out, 3).await[2]["body"]["event"], "test");
    // E1: an address of this machine that nobody admitted
    let refused = client(&service, &["notify", "test", "inward"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("outbound.allow_private"), "{refused:?}");
    assert_eq!(client(&service, &["notify", "test", "none"]).status.code(), Some(1));
    let health = until("the refused channel in health", async || {
        let module = service.module("notifier.channels").await;
        (module["status"] == "degraded").then_some(module)
    })
    .await;
    assert!(health["detail"].as_str().unwrap().starts_with("inward: "), "{health}");

    // E12: none of the three secrets in anything that is said or kept
    let mut said = vec![("the log".to_owned(), service.log.lines().join("\n").into_bytes())];
    for path in ["/api/metrics", "/api/audit?limit=500", "/api/modules", "/api/health", "/api/dead-letters", "/api/openapi.json"] {
        said.push((path.to_owned(), service.get(path).await.to_string().into_bytes()));
    }
    said.push(("the client".to_owned(), [good.stdout, good.stderr, refused.stdout, refused.stderr].concat()));
    service.stop().await;
    files(home.dir.path(), &home.config(), &mut said);
    for (what, bytes) in said {
        for canary in [SECRET, IN_URL, IN_HEADER] {
            assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()), "{canary} in {what}");
        }
    }
}

#[tokio::test]
async fn s13_a_receiver_that_is_away_gets_everything_in_order_when_it_is_back_also_after_a_kill() {
    let home = Home::new("");
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("received");
    let port = Receiver::start(&out, 0).port;
    home.configure(&config(port, &home.path("told.ndjson")));
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 1"]).await;
    let id = service.incident("order 1").await["id"].as_str().unwrap().to_owned();
    until("an attempt that failed", async || {
        service.module("notifier.channels").await["detail"].as_str().is_some_and(|detail| detail.contains("hook: ")).then_some(())
    })
    .await;
    for work in ["acknowledge", "resolve", "reopen"] {
        assert_eq!(service.post(&format!("/api/incidents/{id}/{work}"), json!({})).await.0, 200);
    }
    service.kill();
    let receiver = Receiver::start(&out, port);
    let service = home.start().await;
    let told = until("everything", async || {
        let told = received(&out);
        (transitions(&told).len() >= 4).then_some(told)
    })
    .await;
    assert_eq!(
        transitions(&told),
        ["incident.created", "incident.acknowledged", "incident.resolved", "incident.updated"],
        "in order, and each once"
    );
    let mut ids: Vec<&str> = told.iter().map(|line| line["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), told.len());
    service.stop().await;
    drop(receiver);
}

/// What happened, as the messages of a receiver that drops what it has seen tell it.
fn transitions(told: &[Json]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let fresh = told.iter().filter(|line| seen.insert(line["id"].as_str().unwrap().to_owned()));
    let all = fresh.flat_map(|line| line["body"]["transitions"].as_array().unwrap().clone());
    all.map(|one| one["event"].as_str().unwrap().to_owned()).collect()
}

#[cfg(feature = "failpoints")]
fn sources(told: &[Json]) -> std::collections::BTreeSet<String> {
    told.iter().map(|line| line["body"]["incident"]["source"].as_str().unwrap().to_owned()).collect()
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a2_killed_between_sending_and_marking_it_sends_again_under_the_same_key_and_omits_nothing() {
    let home = Home::new("");
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("received");
    let receiver = Receiver::start(&out, 0);
    let rounds = if crate::common::long() { 40 } else { 5 };
    // the others have nothing to tell: the point stops whoever comes to it first
    let config = config(receiver.port, &home.path("told.ndjson"));
    let config = ["id: inward", "id: log"].iter().fold(config, |text, id| text.replace(id, &format!("events: [action.expired], {id}")));
    home.configure(&config);
    // once without, so that the channels stand at the end of the events
    home.start().await.stop().await;
    for round in 0..rounds {
        let before = received(&out).len();
        let service = home.start_with(&[("FAILPOINTS", "outbox_after_publish_before_mark=pause")]).await;
        service.logs(&format!("shop-{round}"), &["payment failed for order 1"]).await;
        until_received(&out, before + 1).await;
        service.kill();
    }
    let service = home.start().await;
    until("all to be told", async || (sources(&received(&out)).len() >= rounds).then_some(())).await;
    until("nothing to wait", async || {
        let metrics = service.get("/api/metrics").await;
        metrics.as_str().unwrap().contains("opspilot_notifier_waiting{channel=\"hook\"} 0").then_some(())
    })
    .await;
    let told = received(&out);
    let mut ids: Vec<&str> = told.iter().map(|line| line["id"].as_str().unwrap()).collect();
    let sent = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let sources = sources(&told);
    println!(
        "A2 outbox_after_publish_before_mark: {rounds} kills, {sent} sent, {} different, {} incidents, 0 omitted",
        ids.len(),
        sources.len()
    );
    assert_eq!((sources.len(), ids.len()), (rounds, rounds), "each told, under one key");
    assert!(sent > rounds, "what was not marked was sent again");
    service.stop().await;
}
