//! What becomes one incident, over the real binary: storms, what shares nothing, and what depends on what fails.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, Service, until};

const CONFIG: &str = "modules: {connector.metrics: {enabled: false}}\n";

/// Sends alerts, some hundreds in one body.
async fn send(service: &Service, alerts: Vec<Json>) {
    for part in alerts.chunks(500) {
        let (code, answer) = service.post("/api/events", json!(part)).await;
        assert_eq!((code, &answer["accepted"]), (202, &json!(part.len())), "{answer}");
    }
}

async fn open(service: &Service) -> Vec<Json> {
    service.get("/api/incidents?status=open&limit=500").await["items"].as_array().unwrap().clone()
}

/// Waits until so many alerts are in so many open incidents, and gives those.
async fn become_one(service: &Service, alerts: u64, incidents: usize) -> Vec<Json> {
    until(&format!("{alerts} alerts in {incidents} incidents"), async || {
        let open = open(service).await;
        let count: u64 = open.iter().map(|incident| incident["alert_count"].as_u64().unwrap()).sum();
        (open.len() == incidents && count == alerts).then_some(open)
    })
    .await
}

#[tokio::test]
async fn a_storm_from_one_failing_dependency_becomes_one_incident_that_says_what_it_is_about_also_over_a_crash() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let storm = |from: u32, until: u32| {
        let alert = |n: u32| {
            json!({ "source": format!("svc-{}", n % 60), "kind": "alert", "name": format!("kind-{}", n / 60), "severity": "error",
                "title": format!("svc-{}: cannot reach orders-db ({n})", n % 60), "labels": { "service": format!("svc-{}", n % 60) } })
        };
        (from..until).map(alert).collect::<Vec<Json>>()
    };
    send(&service, storm(0, 600)).await;
    let one = become_one(&service, 600, 1).await;
    assert_eq!(one[0]["title"], "Alert storm around orders-db");
    assert_eq!(one[0]["alerts"].as_array().unwrap().len(), 50);
    let id = one[0]["id"].as_str().unwrap().to_owned();
    service.kill();

    let service = home.start().await;
    let late = json!({ "source": "svc-late", "kind": "alert", "name": "late", "title": "svc-late: cannot reach orders-db" });
    send(&service, storm(600, 1200).into_iter().chain([late]).collect()).await;
    let one = become_one(&service, 1201, 1).await;
    assert_eq!(one[0]["id"], json!(id), "what comes later joins");

    // whatever became part of it says so, and is in no list
    let why = service.get(&format!("/api/incidents/{id}/explain-why?limit=500")).await;
    let decisions = why["decisions"].as_array().unwrap();
    let said = |outcome: &str| decisions.iter().find(|decision| decision["outcome"] == outcome).map(|decision| decision["text"].clone());
    let storm = said("storm").unwrap_or_else(|| panic!("{decisions:#?}"));
    assert!(storm.as_str().unwrap().contains("share the word orders-db"), "{storm}");
    let timeline = service.get(&format!("/api/incidents/{id}/timeline?limit=500")).await;
    let merged = timeline["items"].as_array().unwrap().iter().find(|line| line["kind"] == "merged").expect("a line").clone();
    let part = merged["text"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    let part = service.get(&format!("/api/incidents/{part}")).await;
    assert_eq!((&part["status"], &part["merged_into"]), (&json!("resolved"), &json!(id)));
    let all = service.get("/api/incidents?limit=500").await["items"].as_array().unwrap().len();
    assert_eq!(all, 1);
    service.stop().await;
}

#[tokio::test]
async fn what_shares_nothing_stays_apart_however_much_comes_at_once() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"];
    let alert = |n: usize| {
        let word = format!("{}{}", words[n % 10], words[n / 10]);
        json!({ "source": "everywhere", "kind": "alert", "name": format!("alert-{word}"), "title": format!("{word} went wrong") })
    };
    send(&service, (0..60).map(alert).collect()).await;
    become_one(&service, 60, 60).await;
    // once these are found to be one, those were looked at, too
    let shared = |n: usize| json!({ "source": "x", "kind": "alert", "name": format!("x{n}"), "labels": { "host": format!("h{n}"), "shard": "seven" } });
    send(&service, (0..40).map(shared).collect()).await;
    become_one(&service, 100, 61).await;
    service.stop().await;
}

#[tokio::test]
async fn with_the_graph_an_incident_is_named_after_what_the_others_depend_on() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let edges: Vec<Json> = [("web", "cart"), ("cart", "db"), ("mail", "queue")].map(|(from, to)| json!({ "from": from, "to": to })).into();
    let (status, answer) = service.call(Method::PUT, "/api/topology", service.token.as_deref(), Some(json!({ "edges": edges }))).await;
    assert_eq!(status, 200, "{answer}");
    let alert = |name: &str| json!({ "source": name, "kind": "alert", "name": format!("{name}-errors"), "severity": "critical" });
    for name in ["web", "mail", "cart", "db"] {
        send(&service, vec![alert(name)]).await;
    }
    let two = become_one(&service, 4, 2).await;
    let big = two.iter().find(|incident| incident["alert_count"] == 3).unwrap();
    assert!(big["title"].as_str().unwrap().contains("db-errors"), "{big}");
    service.stop().await;
}
