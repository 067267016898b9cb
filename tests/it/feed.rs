//! The live feed with clients that do not read.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::common::{Home, Service, Socket, long, within};

/// How much of the newest events is kept for all clients.
const BUFFER: u32 = 256 << 10;
/// Clients that do not read.
const SLOW: u32 = 40;
/// Events that are told meanwhile: far more than the system holds back for a client besides.
const EVENTS: usize = 700;
/// Were they kept for each client, it would be two hundred mebibytes; this is what else there is.
const GROWTH_BYTES: u64 = 48 << 20;

/// What is told of each request: eight kibibytes.
fn sources() -> Vec<String> {
    (0..32).map(|index| format!("{index:02}{}", "x".repeat(250))).collect()
}

async fn ingest(service: &Service, sources: &[String]) {
    let events: Vec<Json> = sources.iter().map(|source| json!({ "source": source, "message": "m" })).collect();
    let (status, answer) = service.post("/api/events", Json::Array(events)).await;
    assert_eq!(status, 202, "{answer}");
}

async fn subscribed(mut socket: Socket) -> Socket {
    socket.subscribe(&["log.ingested"], None).await;
    socket
}

/// Bytes of memory that the process holds.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn metric(service: &Service, name: &str) -> f64 {
    let text = service.get("/api/metrics").await;
    let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn s6_s8_clients_that_do_not_read_cost_little_are_told_and_closed_and_nobody_else_waits() {
    let home = Home::new(&format!(
        "ledger: {{memory: 1MiB}}\nlimits: {{requests: {{write: 10000000}}}}\n\
         modules: {{connector.metrics: {{enabled: false}}, ui.websocket: {{buffer: {}KiB, timeout: 10m}}}}\n",
        BUFFER >> 10
    ));
    let service = home.start().await;
    let sources = sources();
    let mut quick = subscribed(service.socket().await).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(subscribed(service.slow_socket().await).await);
    }
    // what the process needs whoever listens is there before it is measured
    for _ in 0..100 {
        ingest(&service, &sources).await;
        quick.event(|event| event["eventType"] == "log.ingested").await;
    }
    let before = resident(&service);
    let mut last = 0;
    for _ in 100..EVENTS {
        ingest(&service, &sources).await;
        let event = quick.event(|event| event["eventType"] == "log.ingested").await;
        let seq = event["seq"].as_u64().unwrap();
        assert!(last == 0 || seq == last + 1, "who reads hears everything, as it happens");
        last = seq;
    }
    let grown = resident(&service).saturating_sub(before);
    println!("S6: {SLOW} clients that do not read, {EVENTS} events of 8 KiB: {} KiB more memory", grown >> 10);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more");
    let kept = metric(&service, "opspilot_live_buffer_bytes").await;
    assert!(kept > 0.0 && kept <= f64::from(BUFFER), "{kept}");
    for client in slow.split_off(1) {
        told_and_closed(client, last).await;
    }
    assert!(metric(&service, "opspilot_live_closed_total{code=\"1013\"}").await >= f64::from(SLOW - 1));
    ingest(&service, &sources).await;
    quick.event(|event| event["seq"].as_u64() == Some(last + 1)).await;
    if long() {
        // the one that never reads at all: the system gives it up after half a minute, and its place is free again
        within(Duration::from_secs(90), "the place of a client that never reads", async || {
            (metric(&service, "opspilot_live_clients").await <= 1.0).then_some(())
        })
        .await;
    }
    service.stop().await;
}

/// Reads what was held back for a slow client: without a gap, then what it missed, then the end; and it can come back.
async fn told_and_closed(mut client: Socket, newest: u64) {
    let mut last = None;
    let missed = loop {
        let message = client.next().await.expect("it is told before it is closed");
        if message["type"] != "event" {
            break message;
        }
        let seq = message["seq"].as_u64().unwrap();
        assert!(last.is_none_or(|last| seq == last + 1), "a gap before {seq}");
        last = Some(seq);
    };
    let last = last.unwrap();
    assert_eq!(missed, json!({ "type": "resync_required", "from": last }));
    assert!(last < newest, "the fault must happen");
    assert_eq!(client.next().await, Err(1013));
}
