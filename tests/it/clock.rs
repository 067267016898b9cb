//! `opspilot clock accept`: the machine's clock was set back, and somebody looked at it.

use std::time::Duration;

use opspilot_kernel::{
    clock::{ManualClock, SystemClock},
    principal::Actor,
};
use opspilot_ledger::{Ledger, Options, Priority};
use reqwest::Method;
use serde_json::json;

use crate::{
    actions::{approved, home, proposed, starts, status},
    common::{Home, PASSWORD, client, command, fed, outcome},
};

/// Leaves a time on record that is ten minutes ahead of the machine's clock, as a clock that was wrong does.
fn be_ahead(home: &Home) {
    let clock = ManualClock::at(SystemClock::shared().now().after(Duration::from_secs(600)));
    // apart from the runtime of the test, which a blocking call must not hold up
    let work = || {
        let ledger = Ledger::open(Options { tool: true, ..Options::new(home.data(), clock) }).unwrap();
        ledger.write_blocking(Priority::Control, |tx| tx.config_changed(&Actor::System, "", &[], &[])).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

#[tokio::test]
async fn a11_with_a_clock_that_was_set_back_nothing_is_approved_or_run_until_an_admin_accepts_it() {
    let home = home("0", 0);
    let service = home.start().await;
    let (waits, agreed) = (proposed(&service, "shop-1").await, proposed(&service, "shop-2").await);
    let (_, made) = service.post("/api/users", json!({ "username": "bob", "role": "operator", "password": PASSWORD })).await;
    assert_eq!(made["username"], "bob", "{made}");
    let right = client(&service, &["clock", "accept"]);
    assert!(outcome(&right).0 == 1 && outcome(&right).1.contains("nothing to accept"), "{:?}", outcome(&right));
    let token = approved(&service, &agreed).await;
    service.stop().await;
    be_ahead(&home);

    let mut service = home.spawn(&[]);
    assert!(service.listening().await);
    service.token = Some(service.log_in("admin", PASSWORD).await);
    let (unready, why) = service.call(Method::GET, "/api/readyz", None, None).await;
    assert!(unready == 503 && why.to_string().contains("clock"), "{why}");
    let digest = waits["plan_digest"].as_str().unwrap();
    let approve = ["approvals", "approve", waits["id"].as_str().unwrap(), "--yes", "--digest", digest];
    let (code, text) = outcome(&client(&service, &approve));
    assert!(code == 1 && text.contains("opspilot clock accept"), "it says what to do: {text}");
    let (code, text) = outcome(&client(&service, &["approvals", "execute", agreed["id"].as_str().unwrap()]));
    assert!(code == 1 && text.contains("opspilot clock accept"), "{text}");
    let mut kept = command();
    kept.args(["approvals", "execute", agreed["id"].as_str().unwrap(), "--token-stdin"]);
    let (code, text) =
        outcome(&fed(kept.env("OPSPILOT_URL", &service.url).env("OPSPILOT_TOKEN", service.token.as_deref().unwrap()), &token));
    assert!(code == 1 && text.contains("opspilot clock accept"), "nor with a token that was kept: {text}");
    assert_eq!(starts(&home), [""; 0]);

    let bob = service.log_in("bob", PASSWORD).await;
    let (_, key) = service.post("/api/api-keys", json!({ "name": "robot", "role": "admin" })).await;
    for credential in [bob.as_str(), key["key"].as_str().unwrap()] {
        let (refused, answer) = service.call(Method::POST, "/api/clock/accept", Some(credential), Some(json!({}))).await;
        assert_eq!(refused, 403, "only an admin, in person: {answer}");
    }
    let (code, text) = outcome(&client(&service, &["clock", "accept", "--json"]));
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!((500..=600).contains(&answer["was_behind_secs"].as_u64().unwrap()), "{text}");
    assert_eq!(status(&service, &agreed).await, "revoked", "no approval from before holds");
    let entries = service.get("/api/audit?action=CLK01I").await;
    assert_eq!((entries["items"].as_array().unwrap().len(), &entries["items"][0]["actor"]), (1, &json!("user:admin")), "{entries}");
    let (code, text) = outcome(&client(&service, &[&approve[..], &["--execute"]].concat()));
    assert_eq!((code, starts(&home).len()), (0, 1), "{text}");
    service.ready().await;
    assert_eq!(outcome(&client(&service, &["clock", "accept"])).0, 1, "there is nothing to accept any more");
    service.stop().await;
    let verified = command().args(["audit", "verify", "--data"]).arg(home.data()).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{:?}", outcome(&verified));
}

#[tokio::test]
async fn a11_the_clock_is_accepted_on_a_directory_while_no_service_runs() {
    let home = home("0", 0);
    let accept = |home: &Home| outcome(&command().args(["clock", "accept", "--data"]).arg(home.data()).output().unwrap());
    assert_eq!(accept(&home).0, 1, "there is no ledger yet");
    let service = home.start().await;
    let waits = proposed(&service, "shop-1").await;
    let (code, text) = accept(&home);
    assert_eq!(code, 1, "a service holds the directory: {text}");
    service.stop().await;
    assert_eq!(accept(&home).0, 1, "the clock is right");
    be_ahead(&home);
    let (code, text) = accept(&home);
    assert!(code == 0 && text.contains("s behind what is on record"), "{text}");
    let service = home.start().await;
    approved(&service, &waits).await;
    service.stop().await;
}
