//! The command line against a running service, and without one.

use std::process::Stdio;

use crate::{
    common::{Home, client, command, fed, said},
    story::RULES,
};

#[test]
fn check_says_ok_or_names_every_problem() {
    let home = Home::new(RULES);
    let output = command().arg("check").arg(home.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("ok"));
    home.configure("server: {lisen: x}\nmodules: {detector.regex: {rules: [{id: a, pattern: '('}]}}\n");
    let output = command().arg("check").arg(home.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(":1:10: unknown key `lisen`") && said(&output).contains(":2:"), "{}", said(&output));
    let output = command().args(["check", "--json"]).arg(home.config()).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn the_schema_and_the_api_document_are_json() {
    for what in ["config-schema", "openapi"] {
        let output = command().arg(what).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json.is_object());
    }
    let output = command().arg("--version").output().unwrap();
    assert!(said(&output).starts_with("opspilot "));
}

#[test]
fn what_the_readme_shows_of_the_configuration_is_accepted_as_it_stands() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    for block in blocks {
        let home = Home::new("{}");
        let secret = home.path("secret");
        std::fs::write(&secret, "a secret of its own, long enough").unwrap();
        home.configure(&block.replace("/run/secrets/hook", &secret.display().to_string()));
        let mut check = command();
        for (at, _) in block.match_indices("${") {
            let name: String = block[at + 2..].chars().take_while(|letter| letter.is_ascii_uppercase() || *letter == '_').collect();
            let value = if name.ends_with("_URL") { "https://example.com/hook" } else { "0123456789abcdef" };
            check.env(name, value);
        }
        let output = check.arg("check").arg(home.config()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{block}\n{}", said(&output));
    }
}

#[tokio::test]
async fn incidents_are_listed_shown_taken_and_resolved_by_a_shortened_id() {
    let home = Home::new(RULES);
    let service = home.start().await;
    service.logs("check\u{1b}[31mout", &["payment failed for order 3"]).await;
    let id = service.incident("order 3").await["id"].as_str().unwrap().to_owned();
    let start = &id[..10];
    let list = client(&service, &["incidents", "list"]);
    assert!(said(&list).contains("Payments failing (order 3)") && !said(&list).contains('\u{1b}'), "{}", said(&list));
    let taken = client(&service, &["incidents", "ack", start, "--note", "mine"]);
    assert!(taken.status.success() && said(&taken).contains("acknowledged"), "{}", said(&taken));
    let over = client(&service, &["incidents", "resolve", start, "--resolution", "done"]);
    assert!(over.status.success(), "{}", said(&over));
    let shown = client(&service, &["incidents", "show", &id, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(json["incident"]["resolution"], "done");
    let none = client(&service, &["incidents", "show", "inc_ffffff"]);
    assert_eq!(none.status.code(), Some(1));
    service.stop().await;
}

#[tokio::test]
async fn accounts_are_managed_on_a_directory_and_through_a_service_that_holds_it() {
    let home = Home::new(RULES);
    let data = home.data();
    let offline = |args: &[&str], input: &str| fed(command().args(args).arg("--data").arg(&data), input);
    let early = offline(&["user", "add", "eve", "--role", "viewer"], "");
    assert!(!early.status.success() && said(&early).contains("there is no database in"), "{}", said(&early));
    home.start().await.stop().await;
    let made = offline(&["user", "add", "ann", "--role", "admin", "--password-stdin"], "correct horse battery staple\n");
    assert!(made.status.success() && said(&made).contains(&format!("(in {})", data.display())), "{}", said(&made));
    let url =
        command().args(["user", "passwd", "ann"]).env("OPSPILOT_URL", "http://127.0.0.1:9").env("OPSPILOT_TOKEN", "").output().unwrap();
    assert!(!url.status.success() && said(&url).contains("OPSPILOT_TOKEN is missing"), "{}", said(&url));
    let weak = offline(&["user", "add", "eve", "--role", "viewer", "--password-stdin"], "short\n");
    assert_eq!(weak.status.code(), Some(1), "{}", said(&weak));
    let key = offline(&["key", "create", "ci", "--role", "integrator"], "");
    let key = String::from_utf8(key.stdout).unwrap().trim().to_owned();
    assert!(key.starts_with("opk_") && key.len() == 32, "{key:?}");

    let service = home.start().await;
    let (status, answer) = service
        .call(reqwest::Method::POST, "/api/events", Some(&key), Some(serde_json::json!({ "source": "ci", "message": "built" })))
        .await;
    assert_eq!(status, 202, "{answer}");
    let held = offline(&["user", "list"], "");
    assert_eq!(held.status.code(), Some(1));
    assert!(said(&held).contains("OPSPILOT_TOKEN"), "{}", said(&held));
    let bob = client(&service, &["user", "add", "bob", "--role", "viewer"]);
    assert!(bob.status.success() && said(&bob).contains("shown only now"), "{}", said(&bob));
    let list = client(&service, &["user", "list", "--json"]);
    let users: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 3, "{users}");
    let out = client(&service, &["user", "disable", "bob"]);
    assert!(out.status.success() && said(&out).contains(&format!("(at {})", service.url)), "{}", said(&out));
    service.stop().await;
    let list = offline(&["user", "list"], "");
    assert!(said(&list).contains("disabled"), "{}", said(&list));
    assert!(offline(&["user", "enable", "bob"], "").status.success());
    assert!(!said(&offline(&["user", "list"], "")).contains("disabled"));
}

#[tokio::test]
async fn a_client_without_a_service_or_a_token_is_told_what_to_do() {
    let output = command().args(["incidents", "list", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("opspilot serve"), "{}", said(&output));
    let home = Home::new(RULES);
    let service = home.start().await;
    let output = command().args(["incidents", "list", "--url", &service.url]).output().unwrap();
    assert!(said(&output).contains("OPSPILOT_TOKEN"), "{}", said(&output));
    service.stop().await;
}

#[tokio::test]
async fn the_feed_in_a_terminal_shows_what_happened_since() {
    let home = Home::new(RULES);
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 8"]).await;
    service.incident("order 8").await;
    let mut child = command()
        .args(["feed", "--after", "0", "--events", "incident.created"])
        .env("OPSPILOT_URL", &service.url)
        .env("OPSPILOT_TOKEN", service.token.as_deref().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    drop(child.kill());
    drop(child.wait());
    assert!(line.contains("critical") && line.contains("opened") && line.contains("Payments failing (order 8) [checkout, 1×]"), "{line}");
    service.stop().await;
}

#[tokio::test]
async fn a_backup_is_made_while_the_service_runs_and_put_back_only_when_it_does_not() {
    let home = Home::new(RULES);
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 6"]).await;
    service.incident("order 6").await;
    let run = |what: &str| command().arg(what).arg(home.path("copy.db")).arg("--data").arg(home.data()).output().unwrap();
    let made = run("backup");
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(run("backup").status.code(), Some(1), "a file that is there is not overwritten");
    service.logs("checkout", &["after the backup"]).await;
    let refused = run("restore");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    service.stop().await;
    let restored = run("restore");
    assert!(restored.status.success(), "{}", said(&restored));
    let service = home.start().await;
    assert_eq!(service.messages().await, ["payment failed for order 6"]);
    service.incident("order 6").await;
    service.stop().await;
}
