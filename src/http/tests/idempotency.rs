//! `Idempotency-Key`.

use std::sync::Arc;

use opspilot_kernel::principal::Role;
use serde_json::{Value, json};

use super::support::{Api, As, Got, PASSWORD, send};

async fn create(api: &Api, token: &str, key: &str, path: &str, body: Value) -> Got {
    send(api.request(As::Token(token), "post", path).header("idempotency-key", key).json(&body)).await
}

fn user(name: &str) -> Value {
    json!({ "username": name, "role": "viewer", "password": PASSWORD })
}

#[actix_web::test]
async fn t16_a_repeat_gets_the_first_answer_and_does_nothing() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let first = create(&api, &root, "k1", "/api/users", user("ada")).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = create(&api, &root, "k1", "/api/users", user("ada")).await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.body), ("true", &first.body));
    assert_eq!(create(&api, &root, "k2", "/api/users", user("ada")).await.expect(409).code(), "conflict", "another key is another request");
    assert_eq!(create(&api, &root, "k1", "/api/users", user("eve")).await.expect(422).code(), "idempotency_mismatch");
    // what failed was not done, and is tried anew
    let failed = json!({ "username": "ada", "role": "viewer", "password": PASSWORD, "groups": [] });
    create(&api, &root, "k3", "/api/users", failed).await.expect(409);
    create(&api, &root, "k3", "/api/users", user("eve")).await.expect(201);
    let day = std::time::Duration::from_secs(24 * 3600);
    api.clock.advance(day);
    let root = api.login("root").await;
    create(&api, &root, "k1", "/api/users", user("ada")).await.expect(409);
    api.stop().await;
}

#[actix_web::test]
async fn t16_a_repeat_of_a_new_api_key_shows_the_same_key() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let body = json!({ "name": "ci", "role": "viewer" });
    let first = create(&api, &root, "k", "/api/api-keys", body.clone()).await.expect(201);
    let again = create(&api, &root, "k", "/api/api-keys", body).await.expect(201);
    assert_eq!(first.body, again.body);
    assert!(first.body.get("nonce").is_none());
    api.get(As::Key(first.body["key"].as_str().unwrap()), "/api/auth/me").await.expect(200);
    assert_eq!(api.get(As::Token(&root), "/api/api-keys").await.expect(200).body["items"].as_array().unwrap().len(), 1);
    api.stop().await;
}

#[actix_web::test]
async fn t16_a_key_is_its_users_own_and_its_routes_own() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let second = api.someone("second", Role::Admin).await;
    create(&api, &root, "k", "/api/users", user("ada")).await.expect(201);
    create(&api, &second, "k", "/api/users", user("eve")).await.expect(201);
    create(&api, &root, "k", "/api/api-keys", json!({ "name": "x", "role": "viewer" })).await.expect(201);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(create(&api, &root, bad, "/api/users", user("bob")).await.expect(400).code(), "bad_idempotency_key");
    }
    api.stop().await;
}

#[actix_web::test]
async fn t16_a_repeat_meanwhile_is_told_that_the_first_is_under_way() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    // the writer is held, so that the first request is surely under way
    let (gate, wait) = std::sync::mpsc::channel::<()>();
    let blocker = api.state.ledger.write(opspilot_ledger::Priority::Control, move |_| {
        wait.recv().ok();
        Ok(())
    });
    let blocker = actix_web::rt::spawn(blocker);
    let api = Arc::new(api);
    let (one, token) = (Arc::clone(&api), root.clone());
    let first = actix_web::rt::spawn(async move { create(&one, &token, "k", "/api/users", user("ada")).await });
    let under_way = async {
        while !api.state.in_flight.is_held("user:root POST /api/users", "k") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), under_way).await.expect("the first request is under way");
    let second = create(&api, &root, "k", "/api/users", user("ada")).await;
    assert_eq!(second.expect(409).code(), "idempotency_in_flight");
    gate.send(()).unwrap();
    blocker.await.unwrap().unwrap();
    first.await.unwrap().expect(201);
    assert_eq!(create(&api, &root, "k", "/api/users", user("ada")).await.expect(201).header("idempotency-replayed"), "true");
    Arc::into_inner(api).unwrap().stop().await;
}
