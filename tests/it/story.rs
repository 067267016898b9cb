//! A signal becomes an incident becomes a line on the feed.

use serde_json::json;

use crate::common::{Home, until};

pub const RULES: &str = "\
modules:
  connector.metrics: {enabled: false}
  detector.regex:
    rules:
      - {id: payment-failed, pattern: 'payment failed for order (?P<order>\\d+)', severity: critical, title: 'Payments failing (order $order)', cooldown: 1s}
  detector.threshold:
    rules:
      - {id: cpu-high, metric: cpu_percent, op: gt, value: 90, severity: warning, title: 'CPU is high'}
";

#[tokio::test]
async fn a_signal_becomes_an_incident_that_the_feed_tells_and_the_api_knows() {
    let service = Home::new(RULES);
    let service = service.start().await;
    let mut feed = service.socket().await;
    feed.subscribe(&["incident.created", "incident.updated"], None).await;
    service.logs("checkout", &["all is well", "payment failed for order 4711"]).await;
    let created = feed.event(|event| event["eventType"] == "incident.created").await;
    assert_eq!(created["data"]["title"], "Payments failing (order 4711)");
    assert_eq!(created["data"]["severity"], "critical");
    assert_eq!(created["data"]["source"], "checkout");
    let id = created["data"]["id"].as_str().unwrap();
    let incident = service.get(&format!("/api/incidents/{id}")).await;
    assert_eq!(
        (&incident["status"], &incident["detected_by"], &incident["rule"]),
        (&json!("open"), &json!("detector.regex"), &json!("payment-failed"))
    );
    assert_eq!(incident["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(incident["evidence"][0]["text"], "payment failed for order 4711");

    let (status, acknowledged) = service.post(&format!("/api/incidents/{id}/acknowledge"), json!({ "note": "on it" })).await;
    assert_eq!((status, &acknowledged["acknowledged_by"]), (200, &json!("admin")), "{acknowledged}");
    feed.event(|event| event["data"]["status"] == "acknowledged").await;
    let (status, _) = service.post(&format!("/api/incidents/{id}/resolve"), json!({ "resolution": "card reader replaced" })).await;
    assert_eq!(status, 200);
    let resolved = feed.event(|event| event["data"]["status"] == "resolved").await;
    assert_eq!(resolved["data"]["resolution"], "card reader replaced");
    let timeline = service.get(&format!("/api/incidents/{id}/timeline")).await;
    let kinds: Vec<&str> = timeline["items"].as_array().unwrap().iter().filter_map(|entry| entry["kind"].as_str()).collect();
    for kind in ["opened", "acknowledged", "resolved"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_metric_above_its_threshold_becomes_an_incident() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let points: Vec<_> = (0..20).map(|_| json!({ "source": "host-7", "name": "cpu_percent", "value": 97.5 })).collect();
    let (status, answer) = service.post("/api/events", json!(points)).await;
    assert_eq!(status, 202, "{answer}");
    let incident = service.incident("CPU is high").await;
    assert_eq!(incident["source"], "host-7");
    service.stop().await;
}

#[tokio::test]
async fn a_feed_that_was_away_gets_everything_since_in_order_without_gap_or_repeat() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let mut feed = service.socket().await;
    feed.subscribe(&["incident.created"], None).await;
    service.logs("s-0", &["payment failed for order 0"]).await;
    let first = feed.event(|_| true).await["seq"].as_u64().unwrap();
    drop(feed);
    for number in 1..=20 {
        service.logs(&format!("s-{number}"), &["payment failed for order 1"]).await;
    }
    until("all incidents", async || (service.incidents().await.len() == 21).then_some(())).await;
    let mut feed = service.socket().await;
    feed.subscribe(&["incident.created"], Some(first)).await;
    service.logs("s-21", &["payment failed for order 2"]).await;
    let (mut sources, mut seqs) = (Vec::new(), vec![first]);
    while sources.len() < 21 {
        let event = feed.event(|_| true).await;
        seqs.push(event["seq"].as_u64().unwrap());
        sources.push(event["data"]["source"].as_str().unwrap().to_owned());
    }
    assert_eq!(sources, (1..=21).map(|number| format!("s-{number}")).collect::<Vec<_>>());
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    service.stop().await;
}

#[tokio::test]
async fn an_incident_is_explained_with_what_shows_it_and_again_when_somebody_asks() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let mut feed = service.socket().await;
    feed.subscribe(&["enrichment.completed"], None).await;
    service.logs("payments", &["could not get a connection to db:5432 within 5s"]).await;
    service.logs("checkout", &["payment failed for order 4711: payments answered 503"]).await;
    let told = feed.event(|event| event["eventType"] == "enrichment.completed").await;
    assert_eq!((&told["data"]["provider"], &told["data"]["degraded"]), (&json!("deterministic"), &json!(false)), "{told}");
    let id = told["data"]["incident_id"].as_str().unwrap();
    let incident = service.get(&format!("/api/incidents/{id}")).await;
    let explanation = &incident["explanation"];
    assert_eq!(explanation["summary"], told["data"]["summary"]);
    let claims = explanation["claims"].as_array().unwrap();
    assert!(claims.iter().any(|claim| claim["quote"] == "payment failed for order 4711: payments answered 503"), "{explanation}");
    let causes = explanation["causes"].as_array().unwrap();
    let evidence: Vec<&str> = incident["evidence"].as_array().unwrap().iter().filter_map(|piece| piece["id"].as_str()).collect();
    for cited in claims.iter().chain(causes).flat_map(|one| one["evidence"].as_array().unwrap()) {
        assert!(evidence.contains(&cited.as_str().unwrap()), "{cited} is cited and not among {evidence:?}");
    }
    let (status, again) = service.post(&format!("/api/incidents/{id}/explain"), json!({})).await;
    assert_eq!((status, &again["id"]), (200, &incident["id"]), "{again}");
    assert!(again["explanation"]["generated_at"].as_str() > explanation["generated_at"].as_str(), "{again}");
    let (status, problem) = service.post("/api/incidents/inc_nothing/explain", json!({})).await;
    assert_eq!(status, 404, "{problem}");
    let timeline = service.get(&format!("/api/incidents/{id}/timeline")).await;
    let by: Vec<&str> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["kind"] == "explained")
        .filter_map(|line| line["actor"]["id"].as_str())
        .collect();
    assert_eq!(by, ["enricher.aiSummary", "admin"]);
    service.stop().await;
}
