//! `opspilot keys`: the keys that sign approvals and sessions, replaced while the service is stopped.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::{
    actions::{approved, executed, home, proposed, starts},
    common::{Home, command, outcome, until},
    story::RULES,
};

fn keys(home: &Home, args: &[&str]) -> (i32, String) {
    outcome(&command().arg("keys").args(args).arg("--data").arg(home.data()).output().unwrap())
}

/// What the audit log says of signing keys: the code, the purpose and the reason.
fn on_record(entries: &Json, reason: &str) -> Vec<(String, String)> {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let of_reason = entries["items"].as_array().unwrap().iter().filter(|entry| entry["details"]["reason"] == reason);
    of_reason.map(|entry| (text(&entry["action"]), text(&entry["details"]["purpose"]))).collect()
}

#[tokio::test]
async fn t2_another_approval_key_ends_what_was_approved_whether_the_old_one_is_rotated_or_revoked() {
    for (how, retired) in [("rotate", "SGN02I"), ("revoke", "SGN03W")] {
        let home = home("0", 0);
        let service = home.start().await;
        let (agreed, waits) = (proposed(&service, "shop-1").await, proposed(&service, "shop-2").await);
        let token = approved(&service, &agreed).await;
        let (code, text) = keys(&home, &[how, "--purpose", "approval"]);
        assert_eq!(code, 1, "the service must be stopped: {text}");
        service.stop().await;
        let before = std::fs::read(home.data().join("keys/approval.key")).unwrap();
        let (code, text) = keys(&home, &[how, "--purpose", "approval", "--reason", "a drill"]);
        assert!(code == 0 && text.contains("approval key"), "{text}");
        assert_ne!(std::fs::read(home.data().join("keys/approval.key")).unwrap(), before);

        let mut service = home.start().await;
        let path = format!("/api/approvals/{}", agreed["id"].as_str().unwrap());
        until("what was approved to be revoked", async || (service.get(&path).await["status"] == "revoked").then_some(())).await;
        let request = service.http.post(format!("{}{path}/execute", service.url)).bearer_auth(service.token.as_deref().unwrap());
        let answer = request.header("X-Approval-Token", &token).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{how}");
        assert_eq!(starts(&home), [""; 0]);
        let entries = on_record(&service.get("/api/audit?action=SGN&limit=50").await, "a drill");
        let mut wanted = [("SGN01I".to_owned(), "approval".to_owned()), (retired.to_owned(), "approval".to_owned())];
        wanted.reverse();
        assert_eq!(entries, wanted, "newest first");
        if how == "revoke" {
            // whoever puts the revoked key back does not get a service that believes what it signed
            service.stop().await;
            let new = std::fs::read(home.data().join("keys/approval.key")).unwrap();
            std::fs::write(home.data().join("keys/approval.key"), &before).unwrap();
            let mut refused = home.spawn(&[]);
            assert!(!refused.ended().await.success());
            until("the reason", async || refused.log.has("opspilot keys revoke --purpose approval").then_some(())).await;
            std::fs::write(home.data().join("keys/approval.key"), new).unwrap();
            service = home.start().await;
        }
        // what waited goes on waiting, and is signed with the new key
        let token = approved(&service, &waits).await;
        executed(&service, &waits, &token).await;
        service.stop().await;
        let verified = command().args(["audit", "verify", "--data"]).arg(home.data()).output().unwrap();
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}

#[tokio::test]
async fn another_session_key_ends_every_session_and_people_log_in_again() {
    for how in ["rotate", "revoke"] {
        let home = Home::new(RULES);
        let service = home.start().await;
        let token = service.token.clone().unwrap();
        service.stop().await;
        let service = home.start().await;
        let me = async |token: &str| service.call(Method::GET, "/api/auth/me", Some(token), None).await.0;
        assert_eq!(me(&token).await, 200, "a restart alone ends none");
        service.stop().await;
        let path = home.data().join("keys/session.key");
        let before = std::fs::read(&path).unwrap();
        let (code, text) = keys(&home, &[how, "--purpose", "session", "--reason", "a drill"]);
        assert!(code == 0 && text.contains("session key"), "{text}");
        if how == "revoke" {
            // whoever puts the revoked key back does not get a service that believes the sessions it signed
            let new = std::fs::read(&path).unwrap();
            std::fs::write(&path, &before).unwrap();
            let mut refused = home.spawn(&[]);
            assert!(!refused.ended().await.success());
            until("the reason", async || refused.log.has("opspilot keys revoke --purpose session").then_some(())).await;
            std::fs::write(&path, new).unwrap();
        }
        let service = home.start().await;
        assert_eq!(service.call(Method::GET, "/api/auth/me", Some(&token), None).await.0, 401, "{how}");
        assert_eq!(service.get("/api/auth/me").await["username"], "admin");
        let entries = on_record(&service.get("/api/audit?action=SGN&limit=50").await, "a drill");
        assert!(entries.contains(&("SGN01I".to_owned(), "session".to_owned())), "{entries:?}");
        service.stop().await;
    }
}

#[test]
fn a_key_of_no_purpose_or_of_no_directory_is_not_replaced() {
    let home = Home::new(RULES);
    let (code, text) = keys(&home, &["rotate", "--purpose", "audit"]);
    assert!(code == 1 && text.contains("--data"), "{text}");
    assert_eq!(keys(&home, &["rotate"]).0, 1);
    assert_eq!(keys(&home, &["rotate", "--purpose", "tls"]).0, 1);
    assert_eq!(json!(home.data().exists()), json!(false), "nothing was made on the way");
}
