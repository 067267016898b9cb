//! Secrets leave no trace: not in the log, the audit log, an error, or the database.

use opspilot_kernel::principal::Role;
use serde_json::json;

use super::support::{Api, As, PASSWORD, send};

#[actix_web::test]
async fn p14_secrets_leave_no_trace_anywhere() {
    const NEW: &str = "canary-new-password-7f3a";
    const WRONG: &str = "canary-wrong-password-19bc";
    const SHORT: &str = "canary-9e2";
    const NAME: &str = "canary-typed-as-name-44d0";
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let mut answers = String::new();
    let mut keep = |got: super::support::Got| answers.push_str(&got.body.to_string());

    let body = json!({ "username": "ada", "role": "operator", "password": NEW });
    keep(send(api.request(As::Token(&root), "post", "/api/users").header("idempotency-key", "k").json(&body)).await.expect(201));
    keep(send(api.request(As::Token(&root), "post", "/api/users").header("idempotency-key", "k").json(&body)).await.expect(201));
    keep(api.post(As::Token(&root), "/api/users", json!({ "username": "eve", "role": "viewer", "password": SHORT })).await.expect(422));
    keep(api.post(As::Token(&root), "/api/users", json!({ "username": "eve", "role": NEW, "password": PASSWORD })).await.expect(422));
    keep(api.post(As::Token(&root), "/api/users", json!({ "username": "eve", "role": "viewer", "password": [NEW] })).await.expect(422));
    keep(send(api.request(As::Token(&root), "patch", "/api/users/ada").json(&json!({ "password": NEW }))).await.expect(200));
    keep(api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": WRONG })).await.expect(401));
    keep(api.post(As::Nobody, "/api/auth/login", json!({ "username": NAME, "password": WRONG })).await.expect(401));
    keep(api.get(As::Token("canary-token-5512"), "/api/users").await.expect(401));
    keep(api.get(As::Key("opk_canary5512"), "/api/users").await.expect(401));
    keep(api.get(As::Nobody, "/api/live?ticket=canary-ticket-8841").await);
    let key = send(
        api.request(As::Token(&root), "post", "/api/api-keys")
            .header("idempotency-key", "k")
            .json(&json!({ "name": "x", "role": "viewer" })),
    );
    let key = key.await.expect(201).body["key"].as_str().unwrap().to_owned();
    api.get(As::Key(&key), "/api/auth/me").await.expect(200);
    let ticket = api.post(As::Token(&root), "/api/auth/ws-ticket", json!({})).await.expect(200).body["ticket"].as_str().unwrap().to_owned();
    let audit = api.get(As::Token(&root), "/api/audit?limit=500").await.expect(200).body.to_string();
    assert!(audit.contains("USR02I") && audit.contains("DEN01W"), "the fault fired: refusals were written down");
    let metrics = api.get(As::Token(&root), "/api/metrics").await.expect(200).body.to_string();
    let logged = api.log.text();
    let seed = std::fs::read_to_string(api.dir.path().join("keys/session.key")).unwrap().trim().to_owned();

    let dir = api.stop().await;
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            stored.extend(std::fs::read(path).unwrap());
        }
    }
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains("$argon2id$"), "the scan sees the database");
    let secrets =
        [NEW, WRONG, SHORT, NAME, PASSWORD, &root, &key, &ticket, &seed, "canary-token-5512", "opk_canary5512", "canary-ticket-8841"];
    for secret in secrets {
        for (place, text) in
            [("answers", answers.as_str()), ("audit", &audit), ("metrics", &metrics), ("log", &logged), ("database", &stored)]
        {
            assert!(!text.contains(secret), "{secret:?} is in the {place}");
        }
    }
}
