//! The operator's page in a real browser. Each story is a script under `tests/browser`, with a service of its own.
//!
//! Needs Node, Debian's Chromium, and `npm ci` in `tests/browser`; `OPSPILOT_PICTURES=DIR` keeps pictures of what was seen.

use std::{path::PathBuf, process::Command};

use serde_json::json;

use crate::common::{Home, PASSWORD, has_tool};

/// No limit is met on the way; every log line that says so opens an incident; there are actions that only say something,
/// one of them as if it destroyed something.
const CONFIG: &str = r"
limits: {requests: {read: 10000000, write: 10000000, login: 10000000}}
modules:
  connector.metrics: {enabled: false}
  detector.regex:
    rules: [{id: hostile, pattern: '(?s)^hostile (?P<rest>.*)$', severity: error, title: 'Log: $rest', max_alerts_per_minute: 100000}]
  detector.threshold:
    rules: [{id: hot, metric: heat, op: gt, value: 90, severity: error}]
  action.safe:
    actions:
      - {id: say, title: 'Say {words}', risk: disruptive, argv: ['/bin/echo', '{words}'], params: {words: {type: text, pattern: '.+'}}}
      - {id: destroy, title: Destroy it, risk: destructive, argv: ['/bin/echo', destroyed]}
";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// Whether there is a browser to ask.
fn has_browser() -> bool {
    let installed = folder().join("node_modules/playwright-core").is_dir();
    assert!(installed || std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(), "run `npm ci` in tests/browser");
    if !installed {
        eprintln!("SKIPPED: playwright-core is not installed; run `npm ci` in tests/browser");
    }
    installed && has_tool("node") && has_tool("chromium")
}

/// Has a browser play a story on a service of its own.
async fn plays(story: &str) {
    if !has_browser() {
        return;
    }
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let (status, made) = service.post("/api/users", json!({ "username": "approver", "role": "operator", "password": PASSWORD })).await;
    assert_eq!(status, 201, "{made}");
    let mut command = Command::new("node");
    command.arg(folder().join(story)).env("OPSPILOT_URL", &service.url).env("OPSPILOT_PASSWORD", PASSWORD);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(output.status.success(), "{story}: {told}{}", String::from_utf8_lossy(&output.stderr));
    service.stop().await;
}

#[tokio::test]
async fn an_incident_appears_changes_and_goes_without_a_reload_and_a_lost_connection_is_admitted() {
    plays("live.mjs").await;
}

#[tokio::test]
async fn incidents_are_found_by_what_they_rest_on_and_looked_back_at() {
    plays("looking_back.mjs").await;
}

#[tokio::test]
async fn the_page_works_without_a_mouse() {
    plays("keyboard.mjs").await;
}

#[tokio::test]
async fn the_page_can_be_read_on_a_phone_and_in_the_dark() {
    plays("looks.mjs").await;
}

#[tokio::test]
async fn what_is_shown_is_what_is_approved_and_what_is_approved_is_what_runs() {
    plays("approvals.mjs").await;
}

#[tokio::test]
async fn e3_hostile_texts_are_shown_and_run_no_script_and_fetch_nothing() {
    plays("hostile.mjs").await;
}

#[test]
fn the_page_computes_the_digest_of_what_it_shows_and_quotes_commands_so_that_a_shell_would_read_them_back() {
    if !has_tool("node") {
        return;
    }
    let output = Command::new("node").arg(folder().join("pure.mjs")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
