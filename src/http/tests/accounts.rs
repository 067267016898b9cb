//! Users and API keys over the API.

use std::time::Duration;

use opspilot_kernel::principal::Role;
use serde_json::{Value, json};

use super::support::{Api, As, PASSWORD, send};

#[actix_web::test]
async fn an_admin_makes_lists_and_changes_users() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let body = json!({ "username": "Ada", "role": "operator", "password": PASSWORD, "groups": ["sre", "sre", "db"] });
    let made = api.post(As::Token(&root), "/api/users", body.clone()).await.expect(201).body;
    assert_eq!((made["username"].as_str(), &made["groups"]), (Some("Ada"), &json!(["db", "sre"])));
    assert!(made.get("password").is_none() && made.get("password_hash").is_none());
    assert_eq!(api.post(As::Token(&root), "/api/users", body).await.expect(409).code(), "conflict");
    let twin = json!({ "username": "aDA", "role": "viewer", "password": PASSWORD });
    api.post(As::Token(&root), "/api/users", twin).await.expect(409);
    // the name is found whatever its case, and stays as it was made
    let login = api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": PASSWORD })).await.expect(200).body;
    let me = api.get(As::Token(login["token"].as_str().unwrap()), "/api/auth/me").await.expect(200).body;
    assert_eq!(me["username"], "Ada");
    let list = api.get(As::Token(&root), "/api/users").await.expect(200).body;
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap()).collect();
    assert_eq!(names, ["Ada", "root"]);
    let patch = send(api.request(As::Token(&root), "patch", "/api/users/Ada").json(&json!({ "groups": [] }))).await.expect(200);
    assert_eq!(patch.body["groups"], json!([]));
    send(api.request(As::Token(&root), "patch", "/api/users/Ada").json(&json!({}))).await.expect(422);
    let nothing = send(api.request(As::Token(&root), "post", "/api/users")).await.expect(422).body;
    assert_eq!(nothing["errors"][0], json!({ "pointer": "", "code": "required", "detail": "username is required" }));
    send(api.request(As::Token(&root), "post", "/api/users").header("content-type", "text/plain").body("x")).await.expect(415);
    send(api.request(As::Token(&root), "patch", "/api/users/nobody").json(&json!({ "role": "viewer" }))).await.expect(404);
    api.stop().await;
}

#[actix_web::test]
async fn lists_come_in_pages_that_neither_repeat_nor_skip() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    for n in 0..7 {
        api.user(&format!("user-{n}"), Role::Viewer).await;
        api.key(&root, "viewer").await;
    }
    for (path, of, count) in [("/api/users", "username", 8), ("/api/api-keys", "id", 7), ("/api/audit", "seq", 0)] {
        let mut seen: Vec<String> = Vec::new();
        let mut query = String::from("?limit=3");
        loop {
            let page = api.get(As::Token(&root), &format!("{path}{query}")).await.expect(200).body;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            seen.extend(items.iter().map(|item| item[of].to_string()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("?limit=3&cursor={cursor}");
        }
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{path} repeats");
        assert!(count == 0 || seen.len() == count, "{path}: {seen:?}");
    }
    for wrong in ["?limit=0", "?limit=501", "?limit=x", "?limt=5", "?limit=1&limit=2", "?cursor=%00", "?unknown=1"] {
        let got = api.get(As::Token(&root), &format!("/api/api-keys{wrong}")).await;
        assert!(matches!(got.status, 400 | 422), "{wrong}: {}", got.status);
    }
    for path in ["/api/users", "/api/api-keys", "/api/audit", "/api/dead-letters", "/api/signals", "/api/incidents", "/api/alerts"] {
        for cursor in ["garbage", "root", "dXNlcg"] {
            let got = api.get(As::Token(&root), &format!("{path}?cursor={cursor}")).await.expect(422).body;
            assert_eq!(got["errors"][0]["code"], "bad_cursor", "{path}?cursor={cursor}: {got}");
        }
        let whole = api.get(As::Token(&root), path).await.expect(200).body;
        let empty = api.get(As::Token(&root), &format!("{path}?limit=&cursor=")).await.expect(200).body;
        assert_eq!(empty["items"], whole["items"], "{path}: left empty is left out");
    }
    api.get(As::Token(&root), "/api/signals?kind=&since=&until=&source=&q=").await.expect(200);
    api.get(As::Token(&root), "/api/incidents?status=&severity=&since=&source=&q=").await.expect(200);
    api.get(As::Token(&root), "/api/alerts?status=&fingerprint=&incident=").await.expect(200);
    let all = api.get(As::Token(&root), "/api/audit?action=&actor=&target=&since=&until=").await.expect(200).body;
    assert!(!all["items"].as_array().unwrap().is_empty());
    let hint = api.get(As::Token(&root), "/api/users?limt=5").await.expect(422).body;
    assert!(hint["errors"][0]["detail"].as_str().unwrap().contains("did you mean \"limit\""), "{hint}");
    api.stop().await;
}

#[actix_web::test]
async fn what_is_wrong_with_a_user_is_named_without_repeating_it() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({ "username": "x", "role": "viewer", "password": "short" }), "/password", "bad_password"),
        (json!({ "username": "x", "role": "viewr", "password": PASSWORD }), "/role", "unknown_value"),
        (json!({ "username": "x", "role": "viewer", "pasword": PASSWORD }), "/pasword", "unknown_field"),
        (json!({ "username": "x", "role": "viewer" }), "", "required"),
        (json!({ "username": 7, "role": "viewer", "password": PASSWORD }), "/username", "wrong_type"),
    ];
    for (body, pointer, code) in cases {
        let got = api.post(As::Token(&root), "/api/users", body.clone()).await.expect(422).body;
        assert_eq!((got["errors"][0]["pointer"].as_str(), got["errors"][0]["code"].as_str()), (Some(pointer), Some(code)), "{body} {got}");
    }
    for name in ["", " ", "a b", "-a", "ünï", &"x".repeat(65), "a/b", "a\nb"] {
        let got = api.post(As::Token(&root), "/api/users", json!({ "username": name, "role": "viewer", "password": PASSWORD })).await;
        assert_eq!(got.status, 422, "{name:?}");
    }
    api.stop().await;
}

#[actix_web::test]
async fn the_last_admin_cannot_be_lost() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    for body in [json!({ "role": "viewer" }), json!({ "disabled": true })] {
        send(api.request(As::Token(&root), "patch", "/api/users/root").json(&body)).await.expect(409);
    }
    api.user("second", Role::Admin).await;
    send(api.request(As::Token(&root), "patch", "/api/users/root").json(&json!({ "role": "viewer" }))).await.expect(200);
    api.get(As::Token(&root), "/api/users").await.expect(403);
    api.stop().await;
}

#[actix_web::test]
async fn operators_make_see_and_revoke_their_own_keys_and_admins_all() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let otto = api.someone("otto", Role::Operator).await;
    let got = api
        .post(As::Token(&otto), "/api/api-keys", json!({ "name": "ci", "role": "integrator", "expires_in_days": 1 }))
        .await
        .expect(201)
        .body;
    let (id, key) = (got["id"].as_str().unwrap(), got["key"].as_str().unwrap());
    assert!(key.starts_with("opk_") && key.len() == 32, "{key}");
    let all = api.key(&root, "admin").await;
    api.get(As::Key(&all), "/api/users").await.expect(200);
    send(api.client.get(api.url("/api/users")).bearer_auth(&all)).await.expect(200);

    let own = api.get(As::Token(&otto), "/api/api-keys").await.expect(200).body;
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    assert!(own["items"][0].get("key").is_none() && own["items"][0].get("hash").is_none());
    assert_eq!(api.get(As::Token(&root), "/api/api-keys").await.expect(200).body["items"].as_array().unwrap().len(), 2);

    let roots = api.get(As::Token(&root), "/api/api-keys").await.expect(200).body["items"][1]["id"].as_str().unwrap().to_owned();
    send(api.request(As::Token(&otto), "delete", &format!("/api/api-keys/{roots}"))).await.expect(404);
    send(api.request(As::Token(&root), "delete", &format!("/api/api-keys/{id}"))).await.expect(204);
    api.get(As::Key(key), "/api/health").await.expect(200);
    assert_eq!(send(api.request(As::Key(key), "post", "/api/events").json(&json!({}))).await.expect(401).code(), "unauthenticated");

    let short =
        api.post(As::Token(&otto), "/api/api-keys", json!({ "name": "short", "role": "viewer", "expires_in_days": 1 })).await.expect(201);
    let short = short.body["key"].as_str().unwrap().to_owned();
    api.get(As::Key(&short), "/api/auth/me").await.expect(200);
    api.clock.advance(Duration::from_secs(86_400));
    api.get(As::Key(&short), "/api/auth/me").await.expect(401);
    for (role, status) in [("admin", 403), ("operator", 201), ("viewer", 201), ("integrator", 201)] {
        let otto = api.login("otto").await;
        assert_eq!(api.post(As::Token(&otto), "/api/api-keys", json!({ "name": "x", "role": role })).await.status, status, "{role}");
    }
    api.stop().await;
}

#[actix_web::test]
async fn every_change_of_an_account_is_in_the_audit_log_with_who_did_it() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    api.post(As::Token(&root), "/api/users", json!({ "username": "ada", "role": "operator", "password": PASSWORD })).await.expect(201);
    send(api.request(As::Token(&root), "patch", "/api/users/ada").json(&json!({ "role": "viewer", "password": "another long one" })))
        .await
        .expect(200);
    let id = api.post(As::Token(&root), "/api/api-keys", json!({ "name": "k", "role": "viewer" })).await.expect(201).body["id"].clone();
    send(api.request(As::Token(&root), "delete", &format!("/api/api-keys/{}", id.as_str().unwrap()))).await.expect(204);
    let admins = api.get(As::Token(&root), "/api/audit?actor=user:root&limit=500").await.expect(200).body;
    let actions: Vec<&str> = admins["items"].as_array().unwrap().iter().rev().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["SES01I", "USR01I", "USR02I", "KEY01I", "KEY02I"]);
    let bare = api.get(As::Token(&root), "/api/audit?actor=root&limit=500").await.expect(200).body;
    assert_eq!(bare["items"], admins["items"], "the name alone will do");
    let changed = api.get(As::Token(&root), "/api/audit?action=USR02I&target=user:ada").await.expect(200).body;
    let details = &changed["items"][0]["details"];
    assert_eq!((details["role"]["to"].as_str(), details["password"].as_str()), (Some("viewer"), Some("changed")));
    let verified = api.state.ledger.read(|reader| reader.audit_verify()).await.unwrap();
    assert!(verified >= 6);
    api.stop().await;
}
