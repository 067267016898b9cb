//! Configuration changes while the service runs: all of it, or nothing.

use serde_json::json;

use crate::{
    common::{Home, until},
    story::RULES,
};

#[tokio::test]
async fn a_good_file_is_taken_and_changes_only_what_it_changes() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let threshold = service.module("detector.threshold").await;
    home.configure(&RULES.replace("payment failed for order", "payment broke for order"));
    let (status, answer) = service.post("/api/config/reload", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["changed"], json!(["detector.regex"]));
    service.logs("checkout", &["payment failed for order 1", "payment broke for order 2"]).await;
    service.incident("order 2").await;
    assert_eq!(service.incidents().await.len(), 1, "the old rule is gone");
    assert_eq!(service.module("detector.threshold").await["since"], threshold["since"], "what did not change was not touched");
    service.stop().await;
}

#[tokio::test]
async fn e13_a_bad_file_changes_nothing_and_is_on_record() {
    let home = Home::new(RULES);
    let service = home.start().await;
    home.configure(
        &RULES.replace("(?P<order>", "(?P<order").replace("cpu-high", "cpu-low").replace("severity: warning", "severity: wrning"),
    );
    let (status, answer) = service.post("/api/config/reload", json!({})).await;
    assert_eq!(status, 422, "{answer}");
    let errors = answer["errors"].as_array().unwrap();
    assert!(errors.len() >= 2, "every problem is named: {answer}");
    assert!(errors.iter().any(|error| error["pointer"] == "/modules/detector.regex/rules/0/pattern"), "{answer}");
    service.logs("checkout", &["payment failed for order 1"]).await;
    service.incident("order 1").await;
    let audit = service.get("/api/audit?limit=500").await;
    let refused = audit["items"].as_array().unwrap().iter().any(|entry| entry.to_string().contains("CFG01E"));
    assert!(refused, "{audit}");
    service.stop().await;
}

#[tokio::test]
async fn sighup_reloads_and_a_bad_file_is_named_in_the_log() {
    let home = Home::new(RULES);
    let service = home.start().await;
    home.configure("modules: {detector.regx: {}}\n");
    service.signal(rustix::process::Signal::HUP);
    until("the refusal in the log", async || service.log.has("unknown key `detector.regx`").then_some(())).await;
    home.configure(&RULES.replace("Payments failing", "Payments are failing"));
    service.signal(rustix::process::Signal::HUP);
    until("the reload in the log", async || service.log.has("the configuration was reloaded").then_some(())).await;
    service.logs("checkout", &["payment failed for order 9"]).await;
    service.incident("Payments are failing (order 9)").await;
    service.stop().await;
}

#[tokio::test]
async fn a_module_is_switched_off_and_on_and_what_came_meanwhile_is_not_lost() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let (status, module) = service.post("/api/modules/detector.regex/disable", json!({})).await;
    assert_eq!((status, &module["status"]), (200, &json!("disabled")), "{module}");
    service.logs("checkout", &["payment failed for order 5"]).await;
    let (status, module) = service.post("/api/modules/detector.regex/enable", json!({})).await;
    assert_eq!(status, 200, "{module}");
    service.incident("order 5").await;
    let (status, _) = service.post("/api/modules/detector.nothing/restart", json!({})).await;
    assert_eq!(status, 404);
    service.stop().await;
}
