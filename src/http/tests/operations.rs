//! Health, metrics, modules, reload, dead letters.

use opspilot_kernel::{
    config::Problem,
    principal::{Actor, Role},
};
use opspilot_ledger::Priority;
use serde_json::json;

use super::support::{Api, As};
use crate::http::state::Switch;

#[actix_web::test]
async fn health_says_the_status_to_everybody_and_the_rest_to_those_who_may_see_it() {
    let api = Api::start().await;
    let viewer = api.someone("ada", Role::Viewer).await;
    let integrator = api.someone("ingo", Role::Integrator).await;
    for who in [As::Nobody, As::Token(&integrator), As::Token("nonsense")] {
        assert_eq!(api.get(who, "/api/health").await.expect(200).body, json!({ "status": "healthy" }), "{who:?}");
    }
    let full = api.get(As::Token(&viewer), "/api/health").await.expect(200).body;
    assert_eq!(full["version"], env!("CARGO_PKG_VERSION"));
    assert!(full["uptime_secs"].is_u64());
    assert_eq!(full["modules"][0]["id"], "detector.regex");
    for field in ["category", "status", "since", "restarts", "detail", "queue"] {
        assert!(full["modules"][0].get(field).is_some(), "{field}");
    }
    api.get(As::Nobody, "/api/livez").await.expect(200);
    api.get(As::Nobody, "/api/readyz").await.expect(200);
    api.control.reasons.lock().push("connector.syslog does not listen yet".to_owned());
    let waiting = api.get(As::Nobody, "/api/readyz").await.expect(503);
    assert!(waiting.body["detail"].as_str().unwrap().contains("connector.syslog"));
    assert!(!waiting.header("retry-after").is_empty());
    api.control.reasons.lock().clear();
    api.stopping.send_replace(true);
    api.get(As::Nobody, "/api/readyz").await.expect(503);
    api.get(As::Nobody, "/api/livez").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn a11_a_clock_that_is_behind_a_time_that_was_is_a_reason_not_to_be_ready() {
    const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
    let api = Api::start().await;
    api.clock.advance(HOUR);
    api.user("ada", Role::Viewer).await;
    api.get(As::Nobody, "/api/readyz").await.expect(200);
    api.clock.set_back(HOUR);
    let waiting = api.get(As::Nobody, "/api/readyz").await.expect(503);
    assert!(waiting.body["detail"].as_str().unwrap().starts_with("clock_regression: the clock is 3"), "{:?}", waiting.body);
    api.clock.advance(HOUR);
    api.get(As::Nobody, "/api/readyz").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn whoever_may_get_may_ask_for_the_head_alone() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    for operation in crate::http::OPERATIONS.iter().filter(|operation| operation.method == "get") {
        let path = operation.path.replace("{id}", "none");
        let ask = async |method: &str, who: As<'_>| api.request(who, method, &path).send().await.unwrap();
        for who in [As::Token(&root), As::Nobody] {
            let (get, head) = (ask("get", who).await, ask("head", who).await);
            assert_eq!(get.status(), head.status(), "{path} as {who:?}");
            assert_eq!(get.headers().get("content-type"), head.headers().get("content-type"), "{path}");
        }
    }
    let raw = api.raw(b"HEAD /api/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", std::time::Duration::from_secs(5)).await;
    assert_eq!((raw.status(), raw.closed), (Some(200), true), "{raw:?}");
    assert!(raw.text.ends_with("\r\n\r\n"), "the body is not sent: {raw:?}");
    super::support::send(api.request(As::Nobody, "post", "/api/livez")).await.expect(405);
    api.stop().await;
}

#[actix_web::test]
async fn an_incident_is_given_to_somebody_who_is_there() {
    let api = Api::start().await;
    let otto = api.someone("otto", Role::Operator).await;
    let path = "/api/incidents/inc_none/assign";
    let got = api.post(As::Token(&otto), path, json!({ "assignee": "nobody-here" })).await.expect(422).body;
    assert_eq!((&got["errors"][0]["pointer"], &got["errors"][0]["code"]), (&json!("/assignee"), &json!("unknown_user")));
    api.post(As::Token(&otto), path, json!({ "assignee": "otto" })).await.expect(404);
    api.post(As::Token(&otto), path, json!({ "assignee": null })).await.expect(404);
    let missing = super::support::send(api.request(As::Token(&otto), "post", "/api/incidents/inc_none/snooze")).await.expect(422).body;
    assert_eq!(missing["errors"][0]["detail"], "until is required");
    api.stop().await;
}

#[actix_web::test]
async fn promtool_accepts_the_metrics() {
    let api = Api::start().await;
    let viewer = api.someone("ada", Role::Viewer).await;
    api.get(As::Nobody, "/api/nothing").await.expect(404);
    let got = api.get(As::Token(&viewer), "/api/metrics").await.expect(200);
    assert!(got.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = got.body.as_str().unwrap().to_owned();
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
        "opspilot_module_up{module=\"detector.regex\"} 1",
        "opspilot_signals_accepted_total ",
        "opspilot_approvals_pending 0",
        "opspilot_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    api.stop().await;
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(), "promtool is not installed, and must be here");
        println!("promtool is not installed; only the names were checked");
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[actix_web::test]
async fn an_admin_switches_modules_and_reloads_the_configuration() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let list = api.get(As::Token(&root), "/api/modules").await.expect(200).body;
    assert_eq!((list["items"][0]["id"].as_str(), &list["next_cursor"]), (Some("detector.regex"), &json!(null)));
    for (path, switch) in [("restart", Switch::Restart), ("enable", Switch::Enable), ("disable", Switch::Disable)] {
        let path = format!("/api/modules/detector.regex/{path}");
        assert_eq!(api.post(As::Token(&root), &path, json!({})).await.expect(200).body["id"], "detector.regex");
        let by = Actor::User { id: "root".to_owned(), via: "session".to_owned() };
        assert_eq!(api.control.switched.lock().last(), Some(&("detector.regex".to_owned(), switch, by)));
        super::support::send(api.request(As::Token(&root), "post", &path)).await.expect(200);
    }
    api.post(As::Token(&root), "/api/modules/detector.none/restart", json!({})).await.expect(404);
    assert_eq!(api.post(As::Token(&root), "/api/config/reload", json!({})).await.expect(200).body["changed"], json!(["detector.regex"]));
    api.control.broken.lock().push(Problem::at("/modules/detector.regex/rules/0/patern", "unknown key").suggest("did you mean pattern?"));
    let refused = api.post(As::Token(&root), "/api/config/reload", json!({})).await.expect(422).body;
    assert_eq!(refused["errors"][0]["pointer"], "/modules/detector.regex/rules/0/patern");
    assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("did you mean pattern?"));
    api.stop().await;
}

#[actix_web::test]
async fn a_dead_letter_is_seen_and_tried_again() {
    let api = Api::start().await;
    let otto = api.someone("otto", Role::Operator).await;
    let id = api
        .state
        .ledger
        .write(Priority::Control, |tx| tx.dead_letter("detector.regex", "signals", (7, 7), b"poison", "it panicked", 3))
        .await
        .unwrap();
    let list = api.get(As::Token(&otto), "/api/dead-letters").await.expect(200).body;
    let letter = &list["items"][0];
    assert_eq!(
        (letter["id"].as_str(), letter["module"].as_str(), letter["attempts"].as_u64()),
        (Some(id.as_str()), Some("detector.regex"), Some(3))
    );
    let again = api.post(As::Token(&otto), &format!("/api/dead-letters/{id}/requeue"), json!({})).await.expect(202).body;
    assert!(again["requeued_at"].is_string());
    assert_eq!((&again["outcome"], &again["detail"]), (&json!("failed"), &json!("it is still broken")));
    api.post(As::Token(&otto), "/api/dead-letters/dlq_none/requeue", json!({})).await.expect(404);
    let audit = api.get(As::Token(&otto), "/api/audit?action=DLQ02I&actor=user:otto").await.expect(200).body;
    assert_eq!(audit["items"].as_array().unwrap().len(), 1);
    api.stop().await;
}
