//! The dependency graph, over the real binary: given by people, shown by signals, there again after a kill.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, Service, until};

const CONFIG: &str = "\
modules:
  connector.metrics: {enabled: false}
  enricher.topology:
    edges: [{from: web, to: [api]}]
    components: {db: {title: Orders, owner: storage team}}
";

async fn edges(service: &Service) -> Vec<String> {
    let graph = service.get("/api/topology").await;
    let told = |edge: &Json| format!("{} > {}: {}", edge["from"], edge["to"], edge["origins"]).replace('"', "");
    graph["edges"].as_array().unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn the_graph_is_put_together_and_survives_a_kill() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    assert_eq!(edges(&service).await, ["web > api: [configuration]"]);
    let put = json!({ "edges": [{ "from": "mobile", "to": "api" }], "components": [{ "name": "api", "owner": "ada" }] });
    let (status, answer) = service.call(Method::PUT, "/api/topology", service.token.as_deref(), Some(put)).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(1)), "{answer}");
    let events = json!([
        { "source": "api", "message": "SELECT 1", "labels": { "peer.service": "db" } },
        { "source": "mesh", "name": "edge_requests", "value": 12, "labels": { "caller": "web", "callee": "api" } },
        { "source": "kube", "name": "restarts", "value": 0, "labels": { "pod": "api-7f-x", "deployment": "api" } },
        { "source": "pager", "kind": "alert", "name": "SlowQueue", "labels": { "service": "jobs", "depends_on": "queue" } },
    ]);
    let (status, answer) = service.post("/api/events", events).await;
    assert_eq!(status, 202, "{answer}");
    let all = [
        "api > db: [signals]",
        "api-7f-x > api: [signals]",
        "jobs > queue: [signals]",
        "mobile > api: [api]",
        "web > api: [configuration,signals]",
    ];
    until("all edges", async || (edges(&service).await == all).then_some(())).await;
    let before = service.get("/api/topology").await;
    // what is shown is stored a moment later; a kill before that has it learned again
    service.kill();
    let service = home.start().await;
    until("all edges again", async || (edges(&service).await == all).then_some(())).await;
    let after = service.get("/api/topology").await;
    assert_eq!(after, before, "with the times at which it was seen");
    let around = service.get("/api/topology?component=db").await;
    assert_eq!(around["component"]["owner"], "storage team");
    assert_eq!(around["blast_radius"], json!({ "direct": 1, "total": 4, "by_hop": [1, 3], "more": false }));
    let metrics = service.get("/api/metrics").await;
    assert!(metrics.as_str().unwrap().contains("opspilot_topology_edges{origin=\"signals\"} 4"), "{metrics}");

    // switched off there is no graph; switched on again it is as it was
    assert_eq!(service.post("/api/modules/enricher.topology/disable", json!({})).await.0, 200);
    assert_eq!(service.call(Method::GET, "/api/topology", service.token.as_deref(), None).await.0, 503);
    assert_eq!(service.post("/api/modules/enricher.topology/enable", json!({})).await.0, 200);
    assert_eq!(edges(&service).await, all);
    service.stop().await;
}
