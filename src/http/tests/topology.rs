//! The dependency graph over HTTP.

use opspilot_kernel::principal::Role;
use serde_json::{Value, json};

use super::support::{Api, As, Got, send};

async fn put(api: &Api, token: &str, body: Value) -> Got {
    send(api.request(As::Token(token), "put", "/api/topology").json(&body)).await
}

fn shop() -> Value {
    json!({
        "edges": [{ "from": "web", "to": "api" }, { "from": "mobile", "to": "api" }, { "from": "api", "to": "db" }],
        "components": [{ "name": "db", "title": "Orders", "owner": "storage team" }],
    })
}

#[actix_web::test]
async fn the_graph_is_put_as_a_whole_and_asked_for_as_a_whole_or_around_one_component() {
    let api = Api::start().await;
    let (otto, ada) = (api.someone("otto", Role::Operator).await, api.someone("ada", Role::Viewer).await);
    let empty = api.get(As::Token(&ada), "/api/topology").await.expect(200);
    assert_eq!((&empty.body, empty.header("etag")), (&json!({ "revision": 0, "components": [], "edges": [] }), "\"0\""));
    put(&api, &ada, shop()).await.expect(403);
    let taken = put(&api, &otto, shop()).await.expect(200);
    assert_eq!((&taken.body, taken.header("etag")), (&json!({ "revision": 1, "components": 1, "edges": 3 }), "\"1\""));
    let graph = api.get(As::Token(&ada), "/api/topology").await.expect(200).body;
    let names: Vec<&Value> = graph["components"].as_array().unwrap().iter().map(|component| &component["name"]).collect();
    assert_eq!(names, ["api", "db", "mobile", "web"]);
    assert_eq!(graph["components"][1], json!({ "name": "db", "title": "Orders", "owner": "storage team" }));
    let edge = json!({ "from": "api", "to": "db", "origins": ["api"], "ages_out": false, "first_seen": null, "last_seen": null });
    assert_eq!(graph["edges"][0], edge);

    let around = api.get(As::Token(&ada), "/api/topology?component=db").await.expect(200).body;
    assert_eq!(around["component"]["owner"], "storage team");
    assert_eq!(around["edges"], json!([edge]));
    assert_eq!(around["depends_on"], json!({ "items": [], "more": false }));
    let dependents = json!([
        { "component": "api", "hops": 1 },
        { "component": "mobile", "hops": 2 },
        { "component": "web", "hops": 2 },
    ]);
    assert_eq!(around["dependents"], json!({ "items": dependents, "more": false }));
    assert_eq!(around["blast_radius"], json!({ "direct": 1, "total": 3, "by_hop": [1, 2], "more": false }));
    let missing = api.get(As::Token(&ada), "/api/topology?component=nobody").await.expect(404);
    assert!(missing.body["detail"].as_str().unwrap().contains("nobody"));
    api.get(As::Token(&ada), "/api/topology?komponent=db").await.expect(422);

    // what is left out is gone, and who did it is on record
    put(&api, &otto, json!({ "edges": [{ "from": "web", "to": "db" }] })).await.expect(200);
    let graph = api.get(As::Token(&ada), "/api/topology").await.expect(200).body;
    assert_eq!((graph["edges"].as_array().unwrap().len(), &graph["revision"]), (1, &json!(2)));
    let audit = api.get(As::Token(&ada), "/api/audit?action=TOP01I").await.expect(200).body;
    assert_eq!(audit["items"].as_array().unwrap().len(), 2, "{audit}");
    assert!(audit["items"][0].to_string().contains("otto"), "{audit}");
    api.stop().await;
}

#[actix_web::test]
async fn of_two_who_change_it_at_once_the_second_is_told() {
    let api = Api::start().await;
    let otto = api.someone("otto", Role::Operator).await;
    let change = async |tag: &str, body: Value| {
        send(api.request(As::Token(&otto), "put", "/api/topology").header("if-match", tag).json(&body)).await
    };
    let first = change("\"0\"", shop()).await.expect(200);
    let second = change("\"0\"", json!({ "edges": [] })).await.expect(409);
    assert!(second.body["detail"].as_str().unwrap().contains("at revision 1 and not at 0"), "{}", second.body);
    change(first.header("etag"), json!({ "edges": [] })).await.expect(200);
    change("*", shop()).await.expect(200);
    change("yesterday", shop()).await.expect(400);
    api.stop().await;
}

#[actix_web::test]
async fn what_is_wrong_is_named_place_by_place_and_nothing_changes() {
    let api = Api::start().await;
    let otto = api.someone("otto", Role::Operator).await;
    put(&api, &otto, shop()).await.expect(200);
    let wrong = json!({
        "edges": [
            { "from": "web", "to": "api" },
            { "from": "web", "to": "web" },
            { "from": "", "to": "x\u{0}" },
            { "from": "web", "to": "api" },
        ],
        "components": [{ "name": "db", "owner": " " }, { "name": "db" }, { "name": "x".repeat(257) }],
    });
    let problem = put(&api, &otto, wrong).await.expect(422).body;
    let told: Vec<(&str, &str)> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    let expected = [
        ("/edges/1/to", "self_edge"),
        ("/edges/2/from", "bad_name"),
        ("/edges/2/to", "bad_name"),
        ("/edges/3", "duplicate"),
        ("/components/0/owner", "bad_length"),
        ("/components/1/name", "duplicate"),
        ("/components/2/name", "bad_name"),
    ];
    assert_eq!(told, expected);
    for (body, pointer) in
        [(json!({}), ""), (json!({ "edges": [{ "from": "a" }] }), "/edges/0"), (json!({ "edges": [], "nodes": [] }), "/nodes")]
    {
        let problem = put(&api, &otto, body.clone()).await.expect(422).body;
        assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with(pointer), "{body}: {problem}");
    }
    let many: Vec<Value> = (0..10_000).map(|n| json!({ "from": "hub", "to": format!("c{n}") })).collect();
    let problem = put(&api, &otto, json!({ "edges": many })).await.expect(422).body;
    assert!(problem["detail"].as_str().unwrap().contains("max_components is 10000"), "{problem}");
    let graph = api.get(As::Token(&otto), "/api/topology").await.expect(200).body;
    assert_eq!(graph["revision"], 1);
    *api.control.topology.lock() = None;
    let off = api.get(As::Token(&otto), "/api/topology").await.expect(503).body;
    assert!(off["detail"].as_str().unwrap().contains("enricher.topology"), "{off}");
    put(&api, &otto, shop()).await.expect(503);
    api.stop().await;
}
