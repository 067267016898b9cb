//! The audit log as a stranger verifies it: over HTTP, from an export, on a copy, with a service and without one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::{
    actions,
    common::{Home, PASSWORD, Service, command, outcome, until},
    story::RULES,
};

fn audit(args: &[&str], data: Option<&Path>) -> (i32, String) {
    let mut run = command();
    run.arg("audit").args(args);
    if let Some(data) = data {
        run.arg("--data").arg(data);
    }
    outcome(&run.output().unwrap())
}

async fn text(service: &Service, path: &str, logged_in: bool) -> (u16, String) {
    let mut request = service.http.get(format!("{}{path}", service.url));
    if logged_in {
        request = request.bearer_auth(service.token.as_deref().unwrap());
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits for a signed checkpoint over at least so many entries.
async fn checkpoint(service: &Service, size: u64) -> String {
    until("a checkpoint", async || {
        let (status, note) = text(service, "/api/audit/checkpoint", false).await;
        let covers = note.lines().nth(1).and_then(|line| line.parse::<u64>().ok()).unwrap_or(0);
        (status == 200 && covers >= size).then_some(note)
    })
    .await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}

fn write(path: PathBuf, text: &str) -> String {
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_stranger_verifies_the_log_beside_the_service_from_an_export_and_from_a_proof() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let early = checkpoint(&service, 1).await;
    for n in 0..5 {
        let made = service.post("/api/users", json!({ "username": format!("user{n}"), "role": "viewer", "password": PASSWORD })).await;
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let early_file = write(home.path("early.note"), &early);
    let (code, live) = audit(&["verify", "--since", &early_file], Some(&home.data()));
    assert_eq!(code, 0, "{live}");
    assert!(live.starts_with("ok: ") && live.contains("from the directory itself"), "{live}");

    // proofs over HTTP, checked by hand: the root of the early checkpoint, and the path to the next one
    let size: u64 = early.lines().nth(1).unwrap().parse().unwrap();
    let inclusion = service.get(&format!("/api/audit/proof/inclusion?seq=1&size={size}")).await;
    assert_eq!(inclusion["size"], size);
    let consistency = service.get(&format!("/api/audit/proof/consistency?from={size}&to={}", size + 3)).await;
    assert_eq!(consistency["from_root"], inclusion["root"], "the same tree");
    for path in [
        "/api/audit/proof/inclusion?seq=0&size=3",
        "/api/audit/proof/inclusion?seq=4&size=3",
        "/api/audit/proof/inclusion?seq=1&size=9223372036854775808",
        "/api/audit/proof/inclusion?seq=18446744073709551615",
        "/api/audit/proof/inclusion?seq=x",
        "/api/audit/proof/inclusion",
        "/api/audit/proof/consistency?from=9&to=3",
        "/api/audit/proof/consistency?from=1&to=99999",
    ] {
        assert_eq!(service.call(reqwest::Method::GET, path, service.token.as_deref(), None).await.0, 422, "{path}");
        assert_eq!(service.call(reqwest::Method::GET, path, None, None).await.0, 401, "{path}");
    }

    let (status, exported) = text(&service, "/api/audit/export", true).await;
    assert_eq!(status, 200);
    assert_eq!(text(&service, "/api/audit/export", false).await.0, 401);
    let export = write(home.path("export.ndjson"), &exported);
    let key = home.data().join("keys/audit.pub").display().to_string();
    let (code, checked) = audit(&["verify", "--export", &export, "--pubkey", &key, "--since", &early_file, "--json"], None);
    assert_eq!(code, 0, "{checked}");
    let report: Json = serde_json::from_str(&checked).unwrap();
    assert_eq!((&report["verdict"], &report["key_from"]), (&json!("ok"), &json!("given")), "{report}");
    if Command::new("python3").args(["-c", "import cryptography"]).output().is_ok_and(|output| output.status.success()) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit_verifier/verify.py");
        let second = Command::new("python3").args([script, &export, "--key", &key, "--since", &early_file]).output().unwrap();
        assert_eq!(outcome(&second), (0, "as it was written\n".to_owned()));
    }
    service.stop().await;

    let (code, stopped) = audit(&["verify", "--since", &early_file], Some(&home.data()));
    assert!(code == 0 && !stopped.contains("not covered"), "{stopped}");
    let (code, proof) = audit(&["prove", "--seq", "3"], Some(&home.data()));
    assert_eq!(code, 0);
    let file = write(home.path("proof.json"), &proof);
    assert_eq!(audit(&["verify", "--proof", &file, "--pubkey", &key], None).0, 0);
    let forged = write(home.path("forged.json"), &proof.replace("\\\"seq\\\":3", "\\\"seq\\\":4"));
    assert_eq!(audit(&["verify", "--proof", &forged, "--pubkey", &key], None).0, 1);
    let (code, note) = audit(&["checkpoint"], Some(&home.data()));
    assert!(code == 0 && note.starts_with("opspilot.local/") && note.contains("\n\u{2014} opspilot.local/"), "{note}");
}

#[tokio::test]
async fn exit_codes_say_tampered_unverifiable_and_redacted() {
    let home = Home::new(RULES);
    let service = home.start().await;
    checkpoint(&service, 1).await;
    service.stop().await;
    let data = home.data();
    let note = write(home.path("now.note"), &audit(&["checkpoint"], Some(&data)).1);

    let (code, text) = audit(&["verify"], Some(&home.path("nowhere")));
    assert!(code == 2 && text.contains("--data"), "{text}");
    let (code, text) = audit(&["verify", "--pubkey", &note], Some(&data));
    assert!(code == 2 && text.contains("now.note"), "{text}");
    let keyless = home.path("keyless");
    copy(&data, &keyless);
    std::fs::remove_file(keyless.join("keys/audit.pub")).unwrap();
    let (code, text) = audit(&["verify"], Some(&keyless));
    assert!(code == 2 && text.contains("no public key"), "{text}");

    // what names the key must stay; any other entry may lose its payload
    let exported = audit(&["export"], Some(&data)).1;
    let key = exported.lines().find(|line| line.contains("SGN01I")).unwrap();
    let key: Json = serde_json::from_str(key).unwrap();
    let (code, text) = audit(&["redact", "--seq", &key["seq"].to_string(), "--reason", "r", "--approved-by", "admin"], Some(&data));
    assert!(code == 1 && text.contains("SGN01I"), "{text}");
    let (code, text) = audit(&["redact", "--seq", "2", "--reason", "asked for", "--approved-by", "bob"], Some(&data));
    assert!(code == 1 && text.contains("bob"), "there is nobody of that name: {text}");
    let (code, text) = audit(&["redact", "--seq", "2", "--reason", "asked for", "--approved-by", "admin"], Some(&data));
    assert_eq!(code, 0, "{text}");
    let (code, text) = audit(&["verify", "--since", &note], Some(&data));
    assert!(code == 3 && text.contains("1 payloads deleted on record"), "{text}");

    // one flipped bit in the database of a copy
    let copied = home.path("copied");
    copy(&data, &copied);
    let mut bytes = std::fs::read(copied.join("opspilot.db")).unwrap();
    let at = bytes.windows(16).position(|window| window == b"\"code\":\"SYS01I\",").unwrap();
    bytes[at + 10] ^= 1;
    std::fs::write(copied.join("opspilot.db"), bytes).unwrap();
    let (code, text) = audit(&["verify"], Some(&copied));
    assert!(code == 1 && text.starts_with("TAMPERED"), "{text}");
    assert!(text.contains("entry 2: the leaf is not what was written"), "{text}");
    assert_eq!(audit(&["verify"], Some(&data)).0, 3, "the original is as it was");
}

#[tokio::test]
async fn f6_a_database_that_was_put_back_does_not_start_and_a_restored_one_does() {
    let home = Home::new(RULES);
    let service = home.start().await;
    checkpoint(&service, 1).await;
    let saved = home.path("saved.db");
    assert!(command().arg("backup").arg(&saved).arg("--data").arg(home.data()).output().unwrap().status.success());
    service.stop().await;
    std::fs::copy(&saved, home.data().join("opspilot.db")).unwrap();
    let mut refused = home.spawn(&[]);
    assert!(!refused.ended().await.success());
    until("the reason", async || refused.log.has("put back to an earlier state").then_some(())).await;
    let restored = command().arg("restore").arg(&saved).arg("--data").arg(home.data()).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let service = home.start().await;
    let size = service.get("/api/audit?limit=1").await["items"][0]["seq"].as_u64().unwrap();
    checkpoint(&service, size - 3).await;
    service.healthy().await;
    service.stop().await;
    assert_eq!(audit(&["verify"], Some(&home.data())).0, 0);
}

#[tokio::test]
async fn f8_the_record_says_what_ran_and_what_it_printed() {
    let home = actions::home("0", 0);
    let service = home.start().await;
    let approval = actions::proposed(&service, "shop").await;
    let token = actions::approved(&service, &approval).await;
    actions::executed(&service, &approval, &token).await;
    let run = actions::over(&service, &approval).await;
    let newest = async |code: &str| service.get(&format!("/api/audit?action={code}&limit=1")).await["items"][0]["details"].clone();
    let sha256 = |text: &Json| hex::encode(Sha256::digest(text.as_str().unwrap()));
    let (proposed, agreed, started, ended) =
        (newest("PRO01I").await, newest("APR01I").await, newest("EXE01I").await, newest("EXE02I").await);
    assert_eq!(proposed["plan"], format!("sha256:{}", sha256(&proposed["plan_text"])), "{proposed}");
    assert!(proposed["plan_text"].as_str().unwrap().contains("shop"), "{proposed}");
    assert_eq!((&agreed["plan"], &started["plan"]), (&proposed["plan"], &proposed["plan"]));
    assert_eq!(
        (&ended["stdout_sha256"], &ended["stderr_sha256"]),
        (&json!(sha256(&run["stdout"])), &json!(sha256(&run["stderr"]))),
        "{run}"
    );
    service.stop().await;
    assert_eq!(audit(&["verify"], Some(&home.data())).0, 0);
}

#[tokio::test]
async fn a_rotated_key_is_followed_from_the_old_one_and_a_revoked_one_is_not() {
    let home = Home::new(RULES);
    let service = home.start().await;
    checkpoint(&service, 1).await;
    service.stop().await;
    let data = home.data();
    let public = || std::fs::read_to_string(data.join("keys/audit.pub")).unwrap();
    let keys = |args: &[&str]| outcome(&command().arg("keys").args(args).arg("--data").arg(&data).output().unwrap());
    let first = write(home.path("first.pub"), &public());
    let (code, text) = keys(&["rotate", "--purpose", "audit", "--reason", "a year is over"]);
    assert!(code == 0 && text.contains(public().trim()), "{text}");
    home.start().await.stop().await;
    let (code, text) = audit(&["verify", "--pubkey", &first], Some(&data));
    assert_eq!(code, 0, "the old key vouches for the new one: {text}");
    let second = write(home.path("second.pub"), &public());
    assert_ne!(std::fs::read_to_string(&first).unwrap(), public());
    assert_eq!(audit(&["verify", "--pubkey", &second], Some(&data)).0, 0);
    assert_eq!(keys(&["revoke", "--purpose", "audit", "--reason", "stolen"]).0, 0);
    assert_eq!(keys(&["rotate", "--purpose", "session"]).0, 0);
    home.start().await.stop().await;
    let (code, text) = audit(&["verify"], Some(&data));
    assert_eq!(code, 0, "{text}");
    let (code, text) = audit(&["verify", "--pubkey", &second], Some(&data));
    assert!(code == 1 && text.contains("not signed by a key that is trusted"), "{text}");
}

/// Crashes between the steps of a checkpoint, each brought about: `cargo test --features failpoints --test it a2_a_kill`.
#[cfg(feature = "failpoints")]
mod steps {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// What makes a running service come by a point.
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        /// Entries of the audit log: each writes its head, and 256 of them are due to be signed at once.
        Entries,
        /// An orderly stop, which signs what is behind the last checkpoint.
        Stop,
    }

    /// Where the process dies, at which of its visits there, and what brings the visit about if the start alone does not.
    const STEPS: [(&str, &[u32], By); 5] = [
        ("ledger::audit_before_head", &[0, 1, 5], By::Entries),
        // the first checkpoint of a run is the start's, the second that of so many entries
        ("ledger::checkpoint_after_sign_before_store", &[0, 1], By::Entries),
        ("ledger::checkpoint_after_store_before_publish", &[0, 1], By::Entries),
        ("ledger::stop_after_sign_before_store", &[0], By::Stop),
        ("ledger::stop_after_store_before_publish", &[0], By::Stop),
    ];

    /// Adds to the audit log for as long as there is somebody to do it.
    async fn add_entries(http: reqwest::Client, url: String) -> Option<std::convert::Infallible> {
        let credentials = json!({ "username": "admin", "password": PASSWORD });
        let answer: Json = http.post(format!("{url}/api/auth/login")).json(&credentials).send().await.ok()?.json().await.ok()?;
        let (token, switch) = (answer["token"].as_str()?, format!("{url}/api/kill-switch"));
        loop {
            http.post(&switch).bearer_auth(token).json(&json!({ "reason": "a drill" })).send().await.ok()?;
            http.delete(&switch).bearer_auth(token).send().await.ok()?;
        }
    }

    /// Starts the service and brings about that it comes by the point; says how it ended.
    async fn killed(home: &Home, point: &str, passed: u32, by: By) -> std::process::ExitStatus {
        let action = if passed == 0 { "panic(abort)".to_owned() } else { format!("{passed}*off->panic(abort)") };
        let mut service = home.spawn(&[("FAILPOINTS", &format!("{point}={action}"))]);
        if service.listening().await {
            match by {
                By::Stop => service.signal(rustix::process::Signal::TERM),
                By::Entries => drop(tokio::spawn(add_entries(service.http.clone(), service.url.clone()))),
            }
        }
        service.ended().await
    }

    #[tokio::test]
    async fn a2_a_kill_between_any_two_steps_of_a_checkpoint_is_made_good() {
        let rounds = if crate::common::long() { 200 } else { 4 };
        for (point, visits, by) in STEPS {
            let home = Home::new(RULES);
            home.start().await.stop().await;
            let mut hits = 0;
            for round in 0..rounds {
                let ended = killed(&home, point, visits[round % visits.len()], by).await;
                hits += usize::from(ended.signal() == Some(rustix::process::Signal::ABORT.as_raw()));
                let (code, text) = audit(&["verify"], Some(&home.data()));
                assert_eq!(code, 0, "{point} {round}: {text}");
                // the next start and its orderly stop sign what was left
                home.start().await.stop().await;
                let (code, text) = audit(&["verify"], Some(&home.data()));
                assert!(code == 0 && !text.contains("not signed yet"), "{point} {round}: {text}");
            }
            println!("{point}: {hits} hits, 0 violations");
            assert_eq!(hits, rounds, "{point} was met each time");
        }
    }
}
