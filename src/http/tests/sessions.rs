//! Logging in and out, cookies, forged requests, guessing.

use std::time::Duration;

use opspilot_kernel::principal::Role;
use serde_json::json;

use super::support::{Api, As, Got, PASSWORD, is_success, roomy, send};
use crate::http::{OPERATIONS, settings::Settings};

/// Logs in as a browser does: the cookie, and the token against forgery.
async fn browser(api: &Api, name: &str) -> (Got, String, String) {
    let got = api.post(As::Nobody, "/api/auth/login", json!({ "username": name, "password": PASSWORD })).await.expect(200);
    let cookie = got.header("set-cookie").to_owned();
    let pair = cookie.split(';').next().unwrap().to_owned();
    let csrf = got.body["csrf_token"].as_str().unwrap().to_owned();
    (got, pair, csrf)
}

#[actix_web::test]
async fn a_log_in_opens_a_session_and_a_log_out_ends_it_at_once() {
    let api = Api::start().await;
    api.user("ada", Role::Operator).await;
    let got = api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": PASSWORD })).await.expect(200);
    assert_eq!(got.body["role"], "operator");
    let token = got.body["token"].as_str().unwrap().to_owned();
    let expires: opspilot_kernel::time::Timestamp = got.body["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires > api.state.clock.now());
    let me = api.get(As::Token(&token), "/api/auth/me").await.expect(200).body;
    assert_eq!((me["username"].as_str(), me["role"].as_str()), (Some("ada"), Some("operator")));
    let other = api.login("ada").await;
    api.post(As::Token(&token), "/api/auth/logout", json!({})).await.expect(204);
    assert_eq!(api.get(As::Token(&token), "/api/auth/me").await.expect(401).code(), "unauthenticated");
    api.get(As::Token(&other), "/api/auth/me").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn sessions_survive_a_restart() {
    let api = Api::start().await;
    let token = api.someone("ada", Role::Viewer).await;
    let file = api.dir.path().join("keys/session.key");
    let key = std::fs::read_to_string(&file).unwrap();
    let session = api.state.auth.session_of(&token).unwrap();
    let dir = api.stop().await;
    assert_eq!(std::fs::read_to_string(dir.path().join("keys/session.key")).unwrap(), key);
    let ledger =
        opspilot_ledger::Ledger::open(opspilot_ledger::Options::new(dir.path(), opspilot_kernel::clock::SystemClock::shared())).unwrap();
    let found = ledger.read(move |reader| reader.session(&session)).await.unwrap().expect("the row is there");
    assert_eq!(found.user, "ada");
    ledger.shut_down().await.unwrap();
}

#[actix_web::test]
async fn t13_the_cookie_is_for_the_server_alone_and_for_this_site_alone() {
    let api = Api::start().await;
    api.user("ada", Role::Viewer).await;
    let (got, pair, _) = browser(&api, "ada").await;
    let cookie = got.header("set-cookie").to_owned();
    for part in ["opspilot_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Domain") && !cookie.contains("Secure"), "{cookie}");
    send(api.request(As::Nobody, "get", "/api/auth/me").header("cookie", &pair)).await.expect(200);
    // a session is never taken over from before the log-in
    let again = send(
        api.request(As::Nobody, "post", "/api/auth/login")
            .header("cookie", &pair)
            .json(&json!({ "username": "ada", "password": PASSWORD })),
    );
    assert_ne!(again.await.expect(200).header("set-cookie").split(';').next().unwrap(), pair);
    api.stop().await;
}

#[actix_web::test]
async fn t13_with_tls_the_cookie_is_secure_and_bound_to_the_host() {
    let api = Api::with(Settings { tls: true, ..roomy() }, |_| {}).await;
    api.user("ada", Role::Viewer).await;
    let (got, pair, csrf) = browser(&api, "ada").await;
    let cookie = got.header("set-cookie");
    assert!(cookie.starts_with("__Host-opspilot_session=") && cookie.contains("Secure") && cookie.contains("Path=/"), "{cookie}");
    assert!(got.header("strict-transport-security").starts_with("max-age="));
    let out = api.request(As::Nobody, "post", "/api/auth/logout").header("cookie", &pair).header("x-csrf-token", &csrf);
    let plain = api.origin().replace("https:", "http:");
    assert_eq!(send(out.try_clone().unwrap().header("origin", plain)).await.expect(403).code(), "foreign_origin");
    send(out.header("origin", api.origin())).await.expect(204);
    api.stop().await;
}

#[actix_web::test]
async fn t13_no_unsafe_operation_can_be_forged_with_a_cookie() {
    let api = Api::start().await;
    api.user("root", Role::Admin).await;
    let (_, pair, csrf) = browser(&api, "root").await;
    let own = api.origin();
    let mut tried = 0;
    for operation in OPERATIONS.iter().filter(|operation| operation.method != "get" && operation.role != "public") {
        let path = operation.path.replace("{id}", "none").replace("{name}", "none");
        let request = || {
            api.request(As::Nobody, operation.method, &path).header("cookie", &pair).header("content-type", "application/json").body("{}")
        };
        let forged = [
            (request(), "foreign_origin"),
            (request().header("origin", "https://evil.example").header("x-csrf-token", &csrf), "foreign_origin"),
            (request().header("origin", "null").header("x-csrf-token", &csrf), "foreign_origin"),
            (request().header("origin", format!("{own}.evil.example")).header("x-csrf-token", &csrf), "foreign_origin"),
            (request().header("x-csrf-token", &csrf), "foreign_origin"),
            (request().header("origin", &own), "csrf"),
            (request().header("origin", &own).header("x-csrf-token", "guess"), "csrf"),
        ];
        for (request, code) in forged {
            assert_eq!(send(request).await.expect(403).code(), code, "{} {path}", operation.method);
            tried += 1;
        }
    }
    assert!(tried >= 7 * 9, "{tried}");
    // our own page can
    let out =
        api.request(As::Nobody, "post", "/api/auth/logout").header("cookie", &pair).header("origin", &own).header("x-csrf-token", &csrf);
    send(out).await.expect(204);
    api.stop().await;
}

#[actix_web::test]
async fn t13_a_foreign_page_cannot_log_a_browser_in() {
    let api = Api::start().await;
    api.user("ada", Role::Viewer).await;
    let body = json!({ "username": "ada", "password": PASSWORD });
    let login = || api.request(As::Nobody, "post", "/api/auth/login").json(&body);
    assert_eq!(send(login().header("origin", "https://evil.example")).await.expect(403).code(), "foreign_origin");
    send(login().header("origin", api.origin())).await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn t13_a_session_ends_when_idle_and_in_any_case_after_twelve_hours() {
    let api = Api::start().await;
    api.user("ada", Role::Viewer).await;
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let token = api.login("ada").await;
    api.clock.advance(minutes(29));
    api.get(As::Token(&token), "/api/auth/me").await.expect(200);
    api.clock.advance(minutes(29));
    api.get(As::Token(&token), "/api/auth/me").await.expect(200);
    api.clock.advance(minutes(31));
    api.get(As::Token(&token), "/api/auth/me").await.expect(401);

    let token = api.login("ada").await;
    for _ in 0..24 {
        api.clock.advance(minutes(29));
        api.get(As::Token(&token), "/api/auth/me").await.expect(200);
    }
    api.clock.advance(minutes(25));
    api.get(As::Token(&token), "/api/auth/me").await.expect(401);
    api.stop().await;
}

#[actix_web::test]
async fn t12_guessing_slows_down_and_tells_nothing() {
    let api = Api::start().await;
    api.user("ada", Role::Viewer).await;
    let login = |name: &str, password: &str| api.post(As::Nobody, "/api/auth/login", json!({ "username": name, "password": password }));
    let wrong = login("ada", "wrong wrong wrong").await.expect(401);
    let unknown = login("nobody-of-this-name", "wrong wrong wrong").await.expect(401);
    for field in ["detail", "code", "title"] {
        assert_eq!(wrong.body[field], unknown.body[field], "an unknown user looks like a wrong password");
    }
    for _ in 0..4 {
        login("ada", "wrong wrong wrong").await.expect(401);
    }
    let slowed = login("ada", PASSWORD).await.expect(429);
    assert_eq!((slowed.code(), slowed.header("retry-after")), ("slow_down", "1"));
    api.clock.advance(Duration::from_secs(2));
    login("ada", PASSWORD).await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn t12_an_unknown_user_takes_as_long_as_a_known_one() {
    let api = Api::start().await;
    api.user("ada", Role::Viewer).await;
    let mut medians = Vec::new();
    for prefix in ["ada", "nobody"] {
        let mut times = Vec::new();
        for n in 0..40 {
            api.clock.advance(Duration::from_secs(3600));
            let name = if prefix == "ada" { "ada".to_owned() } else { format!("nobody-{n}") };
            let started = tokio::time::Instant::now();
            let got = api.post(As::Nobody, "/api/auth/login", json!({ "username": name, "password": "wrong wrong wrong" })).await;
            times.push(started.elapsed());
            assert!(matches!(got.status, 401 | 429), "{}", got.status);
        }
        times.sort_unstable();
        medians.push(times[20]);
    }
    println!("T12: median of a log-in with a wrong password {:?}, with an unknown user {:?}", medians[0], medians[1]);
    api.stop().await;
}

#[actix_web::test]
async fn t12_a_huge_password_is_refused_unhashed() {
    let api = Api::start().await;
    let huge = "x".repeat(1 << 20);
    let got = api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": huge })).await;
    assert!(matches!(got.status, 413 | 422), "{}", got.status);
    let long = "x".repeat(1025);
    api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": long })).await.expect(422);
    api.stop().await;
}

#[actix_web::test]
async fn a_disabled_or_repassworded_account_is_out_at_once_everywhere() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let ada = api.someone("ada", Role::Operator).await;
    let key = api.key(&ada, "operator").await;
    for who in [As::Token(&ada), As::Key(&key)] {
        api.get(who, "/api/auth/me").await.expect(200);
    }
    let patch = |body: serde_json::Value| send(api.request(As::Token(&root), "patch", "/api/users/ada").json(&body));
    assert_eq!(patch(json!({ "disabled": true })).await.expect(200).body["disabled"], true);
    for who in [As::Token(&ada), As::Key(&key)] {
        api.get(who, "/api/auth/me").await.expect(401);
    }
    api.post(As::Nobody, "/api/auth/login", json!({ "username": "ada", "password": PASSWORD })).await.expect(401);
    patch(json!({ "disabled": false })).await.expect(200);
    api.get(As::Token(&ada), "/api/auth/me").await.expect(401);
    api.get(As::Key(&key), "/api/auth/me").await.expect(200);
    let ada = api.login("ada").await;
    patch(json!({ "password": "another long password" })).await.expect(200);
    api.get(As::Token(&ada), "/api/auth/me").await.expect(401);
    // a lower role counts at once too, for the key as well
    patch(json!({ "role": "viewer" })).await.expect(200);
    assert_eq!(api.get(As::Key(&key), "/api/auth/me").await.expect(200).body["role"], "viewer");
    api.stop().await;
}

#[actix_web::test]
async fn tickets_are_for_who_is_logged_in() {
    let api = Api::start().await;
    let ada = api.someone("ada", Role::Viewer).await;
    let ticket = api.post(As::Token(&ada), "/api/auth/ws-ticket", json!({})).await.expect(200).body["ticket"].as_str().unwrap().to_owned();
    let holder = api.state.tickets.redeem(&ticket, None).unwrap();
    assert_eq!(holder.user, "ada");
    assert!(api.state.auth.still(&holder).await.unwrap().is_some());
    api.post(As::Token(&ada), "/api/auth/logout", json!({})).await.expect(204);
    assert!(api.state.auth.still(&holder).await.unwrap().is_none(), "the session is over");
    assert!(!is_success(api.post(As::Nobody, "/api/auth/ws-ticket", json!({})).await.status));
    api.stop().await;
}

#[actix_web::test]
async fn an_account_that_changes_in_the_same_moment_makes_nobody_a_stranger() {
    let api = Api::start().await;
    let token = api.someone("ada", Role::Viewer).await;
    let mut headers = actix_web::http::header::HeaderMap::new();
    headers.insert(actix_web::http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let auth = &api.state.auth;
    for _ in 0..50 {
        // it falls between the question to the ledger and the answer
        let change = auth.settle(async { Ok::<(), opspilot_ledger::LedgerError>(()) });
        let (found, changed) = tokio::join!(auth.identify(&headers, || true), change);
        changed.unwrap();
        assert!(matches!(found.unwrap(), crate::http::auth::Identity::Known(_)));
    }
    api.stop().await;
}
