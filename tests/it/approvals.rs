//! `opspilot approvals` against a running service: what waits is looked at, agreed to, refused and started from a terminal.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::{
    actions::{approved, home, over, proposed, starts, status},
    common::{Home, PASSWORD, Service, client, command, fed, has_tool, outcome, until},
};

/// `opspilot approvals …` as `admin`, with nobody to be asked.
fn approvals(service: &Service, args: &[&str]) -> (i32, String) {
    outcome(&client(service, &[&["approvals"], args].concat()))
}

/// The same where there is no terminal, with `input` on a pipe.
fn alone(service: &Service, args: &[&str], input: &str) -> (i32, String) {
    let mut session = Command::new("setsid");
    session.args(["--wait", env!("CARGO_BIN_EXE_opspilot")]);
    written(session, service, service.token.as_deref().unwrap(), args, input)
}

/// The same by somebody else, who writes `input`.
fn by(service: &Service, credential: &str, args: &[&str], input: &str) -> (i32, String) {
    written(command(), service, credential, args, input)
}

fn written(mut command: Command, service: &Service, credential: &str, args: &[&str], input: &str) -> (i32, String) {
    command.arg("approvals").args(args).env("OPSPILOT_URL", &service.url).env("OPSPILOT_TOKEN", credential);
    outcome(&fed(&mut command, input))
}

/// Makes an account and logs it in.
async fn person(service: &Service, name: &str, role: &str) -> String {
    let (made, answer) = service.post("/api/users", json!({ "username": name, "role": role, "password": PASSWORD })).await;
    assert_eq!(made, 201, "{answer}");
    service.log_in(name, PASSWORD).await
}

fn id(approval: &Json) -> &str {
    approval["id"].as_str().unwrap()
}

/// What agrees to the plan of an approval without being asked: as much of its digest as has to be given.
fn yes(approval: &Json) -> [&str; 3] {
    ["--yes", "--digest", &approval["plan_digest"].as_str().unwrap()["sha256:".len()..][..12]]
}

#[tokio::test]
async fn p7_what_waits_is_listed_shown_agreed_to_and_started_from_a_terminal() {
    let home = home("0", 0);
    let service = home.start().await;
    let (code, empty) = approvals(&service, &["list"]);
    assert_eq!((code, empty.trim()), (0, "nothing was proposed"));
    let approval = proposed(&service, "shop-1").await;
    let start = &id(&approval)[..12];

    let (code, listed) = approvals(&service, &["list", "--status", "pending"]);
    assert_eq!(code, 0, "{listed}");
    for part in [start, "pending", "disruptive", "0/1", "rule broken-things", "Act on shop-1"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let of_incident = &approval["incident_id"].as_str().unwrap()[..12];
    assert!(approvals(&service, &["list", "--incident", of_incident]).1.contains(start));
    assert_eq!(approvals(&service, &["list", "--status", "denied"]).1.trim(), "nothing was proposed");
    assert_eq!(approvals(&service, &["list", "--status", "maybe"]).0, 1, "a word that is no status is refused");

    let (code, shown) = approvals(&service, &["show", start]);
    let (program, digest) = (approval["plan"]["argv"][0].as_str().unwrap(), approval["plan_digest"].as_str().unwrap());
    for part in [id(&approval), "  0  ", program, "  2  shop-1", digest, "0 of 1", "Act on shop-1"] {
        assert!(code == 0 && shown.contains(part), "{part}: {shown}");
    }
    let (code, json) = approvals(&service, &["show", start, "--json"]);
    assert_eq!((code, &serde_json::from_str::<Json>(&json).unwrap()["plan_digest"]), (0, &approval["plan_digest"]));

    // all that the digest covers is shown, whatever it is
    for (key, value) in approval["plan"].as_object().unwrap().iter().filter(|(key, _)| *key != "argv") {
        let value = match value {
            Json::Null => "none".to_owned(),
            Json::Array(items) if items.is_empty() => "none".to_owned(),
            Json::Array(items) => items[0].as_str().map_or_else(|| items[0].to_string(), str::to_owned),
            other => other.as_str().map_or_else(|| other.to_string(), str::to_owned),
        };
        let line = shown.lines().find(|line| line.trim_start().starts_with(&format!("{key} ")));
        assert!(line.is_some_and(|line| line.contains(&value)), "{key}: {value}: {shown}");
    }

    // nobody is asked where nobody sits, and whoever is not asked names the plan
    let (code, text) = approvals(&service, &["approve", start, "--yes"]);
    assert!(code == 1 && text.contains("--digest"), "{text}");
    for (digest, why) in [(&digest[7..18], "at least 12"), ("000000000000", "another plan"), ("not-hex-at-all", "hex digits")] {
        let (code, text) = approvals(&service, &["approve", start, "--yes", "--digest", digest]);
        assert!(code == 1 && text.contains(why), "{digest}: {text}");
    }
    let (code, text) = alone(&service, &["approve", start], "");
    assert!(code == 1 && text.contains("--yes"), "{text}");
    assert_eq!(alone(&service, &["approve", start], "yes\n").0, 1, "a pipe is nobody either");
    let (code, text) = approvals(&service, &["execute", start]);
    assert_eq!(code, 1, "{text}");
    assert_eq!((status(&service, &approval).await.as_str(), starts(&home).len()), ("pending", 0));

    let (code, text) = approvals(&service, &[&["approve", start, "--reason", "looks right"][..], &yes(&approval)].concat());
    assert!(code == 0 && text.contains("approved until") && text.contains(id(&approval)), "{text}");
    assert!(!text.contains("eyJ"), "the token is not shown: {text}");
    assert_eq!((status(&service, &approval).await.as_str(), starts(&home).len()), ("approved", 0), "agreeing starts nothing");
    let (code, text) = approvals(&service, &["execute", start]);
    assert!(code == 0 && text.contains("acting on shop-1") && text.contains("succeeded, exit code 0"), "{text}");
    assert_eq!(starts(&home).len(), 1);
    assert_eq!(approvals(&service, &["execute", start]).0, 1, "it ran, and runs no second time");
    assert_eq!(approvals(&service, &[&["approve", start][..], &yes(&approval)].concat()).0, 1);
    assert_eq!(starts(&home).len(), 1);
    let timeline = service.get(&format!("/api/incidents/{}/timeline", approval["incident_id"].as_str().unwrap())).await;
    assert!(timeline.to_string().contains("looks right"), "{timeline}");
    service.stop().await;
}

#[tokio::test]
async fn what_is_denied_stays_denied_and_what_failed_ends_the_command_with_1() {
    let home = home("0", 3);
    let service = home.start().await;
    let (denied, other) = (proposed(&service, "shop-1").await, proposed(&service, "shop-2").await);
    let (code, text) = approvals(&service, &["deny", id(&denied)]);
    assert!(code == 1 && text.contains("--reason"), "{text}");
    assert_eq!(approvals(&service, &["deny", id(&denied), "--reason", "  "]).0, 1, "a reason has words");
    let (code, text) = approvals(&service, &["deny", id(&denied), "--reason", "not now"]);
    assert!(code == 0 && text.contains("is denied: Act on shop-1"), "{text}");
    let (code, text) = approvals(&service, &[&["approve", id(&denied)][..], &yes(&denied)].concat());
    assert!(code == 1 && text.contains("this is denied already"), "{text}");
    assert_eq!(approvals(&service, &["execute", id(&denied)]).0, 1);
    let (_, listed) = approvals(&service, &["list", "--status", "denied", "--json"]);
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["id"]), (1, &denied["id"]));

    let (code, text) = approvals(&service, &[&["approve", id(&other), "--execute"][..], &yes(&other)].concat());
    assert!(code == 1 && text.contains("failed, exit code 3") && text.contains("acting on shop-2"), "{text}");
    assert_eq!(starts(&home).len(), 1);

    // a token that was kept is taken from standard input, once
    let third = proposed(&service, "shop-3").await;
    let token = approved(&service, &third).await;
    let admin = service.token.clone().unwrap();
    let (code, text) = by(&service, &admin, &["execute", id(&third), "--token-stdin", "--json"], &format!("{token}\n"));
    let run: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((code, run["exit_code"].as_i64()), (1, Some(3)), "{text}");
    let (code, text) = by(&service, &admin, &["execute", id(&third), "--token-stdin"], &format!("{token}\n"));
    assert!(code == 1 && text.contains("used already"), "{text}");
    assert_eq!(starts(&home).len(), 2);

    for (written, means) in [("apr_", "ids start with apr_"), ("inc_12", "is no approval's id"), ("apr_zzzzzz", "")] {
        let (code, text) = approvals(&service, &[&["approve", written][..], &yes(&other)].concat());
        assert!(code == 1 && text.contains(means), "{written}: {text}");
    }
    service.stop().await;
}

#[tokio::test]
async fn t8_t9_keys_viewers_and_whoever_proposed_it_do_not_decide_from_a_terminal_either() {
    let home = home("0", 0);
    let service = home.start().await;
    let approval = proposed(&service, "shop-1").await;
    let viewer = person(&service, "vera", "viewer").await;
    let (_, key) = service.post("/api/api-keys", json!({ "name": "robot", "role": "operator" })).await;
    let key = key["key"].as_str().unwrap().to_owned();
    assert_eq!(by(&service, &viewer, &["list"], "").0, 0, "a viewer looks");
    assert!(by(&service, &key, &["show", id(&approval)], "").1.contains("Act on shop-1"));
    for (credential, why) in [(&viewer, "operator"), (&key, "an API key never decides")] {
        for args in [
            [&["approve", id(&approval)][..], &yes(&approval)].concat(),
            [&["approve", id(&approval), "--execute"][..], &yes(&approval)].concat(),
            vec!["deny", id(&approval), "--reason", "no"],
        ] {
            let (code, text) = by(&service, credential, &args, "");
            assert!(code == 1 && text.contains(why), "{args:?}: {text}");
        }
        assert_eq!(by(&service, credential, &["execute", id(&approval)], "").0, 1);
    }
    let path = format!("/api/incidents/{}/proposals", approval["incident_id"].as_str().unwrap());
    let (made, own) = service.post(&path, json!({ "action": "act", "params": { "on": "shop-9" }, "reasoning": "I say so" })).await;
    assert_eq!(made, 201, "{own}");
    let (code, text) = approvals(&service, &[&["approve", id(&own), "--execute"][..], &yes(&own)].concat());
    assert!(code == 1 && text.contains("you proposed this"), "{text}");
    assert_eq!((status(&service, &approval).await.as_str(), status(&service, &own).await.as_str()), ("pending", "pending"));
    assert_eq!(starts(&home), [""; 0]);
    let another = person(&service, "bob", "operator").await;
    let (code, text) = by(&service, &another, &[&["approve", id(&own), "--execute"][..], &yes(&own)].concat(), "");
    assert_eq!((code, starts(&home).len()), (0, 1), "{text}");
    service.stop().await;
}

/// A rule proposes something that cannot be undone.
fn destructive() -> Home {
    let home = Home::new("");
    std::fs::write(home.path("wipe"), "#!/bin/sh\necho \"wiping $2\"\necho \"$2\" >> \"$1\"\n").unwrap();
    std::fs::set_permissions(home.path("wipe"), std::fs::Permissions::from_mode(0o700)).unwrap();
    home.configure(&format!(
        "modules:
  connector.metrics: {{enabled: false}}
  detector.regex: {{rules: [{{id: full, pattern: 'disk full', severity: critical, title: 'Full'}}]}}
  action.safe:
    actions:
      - {{id: wipe, title: 'Wipe {{on}}', risk: destructive, argv: ['{}', '{}', '{{on}}'], params: {{on: {{type: hostname}}}}}}
    rules: [{{id: wipe-full, action: wipe, match: {{rule: full}}, params: {{on: '$source'}}}}]
",
        home.path("wipe").display(),
        home.path("starts").display()
    ));
    home
}

#[tokio::test]
async fn destruction_takes_two_people_with_their_passwords_from_a_terminal_too() {
    let home = destructive();
    let service = home.start().await;
    let (bob, cleo) = (person(&service, "bob", "operator").await, person(&service, "cleo", "operator").await);
    service.logs("cache-1", &["disk full"]).await;
    let approval = until("a proposal", async || service.get("/api/approvals").await["items"].get(0).cloned()).await;
    let approve = &[&["approve", id(&approval), "--password-stdin"][..], &yes(&approval)].concat()[..];

    let (code, text) = by(&service, &bob, &[&["approve", id(&approval)][..], &yes(&approval)].concat(), "");
    assert!(code == 1 && text.contains("password"), "{text}");
    let (code, text) = by(&service, &bob, approve, "not the password\n");
    assert!(code == 1 && !text.contains("noted"), "{text}");
    for _ in 0..2 {
        // twice the same person is one person
        let (code, text) = by(&service, &bob, approve, &format!("{PASSWORD}\n"));
        assert!(code == 0 && text.contains("noted; more people are needed"), "{text}");
        assert!(approvals(&service, &["show", id(&approval)]).1.contains("1 of 2"));
    }
    assert_eq!(by(&service, &bob, &["execute", id(&approval)], "").0, 1);
    assert_eq!(starts(&home), [""; 0]);
    let (code, text) = by(&service, &cleo, &[approve, &["--execute"]].concat(), &format!("{PASSWORD}\n"));
    assert!(code == 0 && text.contains("wiping cache-1") && text.contains("succeeded"), "{text}");
    assert!(!text.contains(PASSWORD) && !service.log.has(PASSWORD));
    assert_eq!(starts(&home), ["cache-1"]);
    service.stop().await;
}

#[tokio::test]
async fn an_incident_shows_what_waits_for_approval_and_what_became_of_it() {
    let home = home("0", 0);
    let service = home.start().await;
    let approval = proposed(&service, "shop-1").await;
    let path = format!("/api/incidents/{}", approval["incident_id"].as_str().unwrap());
    let waits = service.get(&path).await["approvals"].clone();
    assert_eq!((waits.as_array().unwrap().len(), &waits[0]["id"], &waits[0]["status"]), (1, &approval["id"], &json!("pending")));
    for field in ["action", "title", "risk", "plan", "plan_digest", "preview", "quorum", "approve_by", "proposed_by"] {
        assert_eq!(waits[0][field], approval[field], "the same as the approval itself: {field}");
    }
    let pending = service.get("/api/approvals/pending").await;
    assert_eq!((pending["items"].as_array().unwrap().len(), &pending["items"][0]["id"]), (1, &approval["id"]));
    let metric = async |service: &Service| {
        let text = service.http.get(format!("{}/api/metrics", service.url)).bearer_auth(service.token.as_deref().unwrap()).send().await;
        let text = text.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix("opspilot_approvals_pending ")).unwrap().to_owned()
    };
    until("the gauge to say that one waits", async || (metric(&service).await == "1").then_some(())).await;
    approved(&service, &approval).await;
    let listed = service.incidents().await;
    assert_eq!(listed[0]["approvals"][0]["status"], "approved", "in the list as well: {listed:?}");
    until("the gauge to say that none waits", async || (metric(&service).await == "0").then_some(())).await;
    assert_eq!(approvals(&service, &["execute", id(&approval)]).0, 0);
    over(&service, &approval).await;
    let done = service.get(&path).await["approvals"].clone();
    assert_eq!((&done[0]["status"], done[0]["execution_id"].is_string()), (&json!("succeeded"), true), "{done}");
    let timeline = service.get(&format!("{path}/timeline")).await;
    let kinds: Vec<&str> = timeline["items"].as_array().unwrap().iter().filter_map(|entry| entry["kind"].as_str()).collect();
    let told: Vec<&&str> = kinds.iter().filter(|kind| kind.starts_with("action")).collect();
    assert_eq!(told.len(), 4, "proposed, approved, started, finished: {kinds:?}");
    service.stop().await;
}

#[tokio::test]
async fn the_end_of_a_run_is_signed_at_once() {
    let home = home("0", 0);
    let service = home.start().await;
    for shop in ["shop-1", "shop-2"] {
        let approval = proposed(&service, shop).await;
        assert_eq!(approvals(&service, &[&["approve", id(&approval), "--execute"][..], &yes(&approval)].concat()).0, 0);
        let run = over(&service, &approval).await["id"].as_str().unwrap().to_owned();
        let entries = service.get(&format!("/api/audit?target=execution:{run}")).await;
        let entries: Vec<(&str, u64)> = entries["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["action"].as_str().unwrap(), entry["seq"].as_u64().unwrap()))
            .collect();
        let [("EXE02I", ended), ("EXE01I", started)] = entries[..] else { panic!("{entries:?}") };
        assert!(started < ended);
        // long before the minute after which anything is signed
        let announced = until("a checkpoint over the end of the run", async || {
            let announced = service.get("/api/audit?action=CHK01I&limit=1").await["items"][0].clone();
            (announced["seq"].as_u64()? > ended).then_some(announced)
        })
        .await;
        assert_eq!(announced["details"]["reason"], "asked", "because a run ended: {announced}");
        until("its note", async || {
            let note = service.http.get(format!("{}/api/audit/checkpoint", service.url)).send().await.unwrap().text().await.unwrap();
            note.lines().nth(1)?.parse::<u64>().ok().filter(|covers| *covers > ended)
        })
        .await;
    }
    service.stop().await;
}

/// `opspilot approvals …` on a terminal of its own: says what `answers` do once each question is there. The exit code and
/// all that the terminal showed.
fn at_a_terminal(service: &Service, credential: &str, args: &str, answers: &[(&str, &str)]) -> (i32, String) {
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!("{} approvals {args}", env!("CARGO_BIN_EXE_opspilot")))
        .arg("/dev/null")
        .env("OPSPILOT_URL", &service.url)
        .env("OPSPILOT_TOKEN", credential)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut answers) = (String::new(), answers.iter().peekable());
    let mut from = 0;
    let mut bytes = [0; 1024];
    loop {
        let read = screen.read(&mut bytes).unwrap();
        if read == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        if let Some((_, answer)) = answers.next_if(|(question, _)| shown[from..].contains(question)) {
            from = shown.len();
            keys.write_all(answer.as_bytes()).unwrap();
            keys.flush().unwrap();
        }
    }
    drop(keys);
    assert!(answers.next().is_none(), "not everything was asked: {shown}");
    (child.wait().unwrap().code().unwrap(), shown)
}

#[tokio::test]
async fn at_a_terminal_somebody_is_asked_and_the_password_is_not_shown() {
    if !has_tool("script") {
        return;
    }
    let home = destructive();
    let service = home.start().await;
    let bob = person(&service, "bob", "operator").await;
    service.logs("cache-1", &["disk full"]).await;
    let approval = until("a proposal", async || service.get("/api/approvals").await["items"].get(0).cloned()).await;
    let approve = format!("approve {}", id(&approval));
    let (code, shown) = at_a_terminal(&service, &bob, &approve, &[("[yes/no]", "no\n")]);
    assert!(code == 1 && shown.contains("not approved"), "{shown}");
    let typed = format!("wrong\u{15}{PASSWORD}!\u{7f}\r");
    let (code, shown) = at_a_terminal(&service, &bob, &approve, &[("[yes/no]", "yes\n"), ("your password:", &typed)]);
    assert!(code == 0 && shown.contains("noted; more people are needed"), "{shown}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("correct"), "{shown}");
    let (code, shown) = at_a_terminal(&service, &bob, &approve, &[("[yes/no]", "yes\n"), ("your password:", "\u{3}")]);
    assert!(code == 1 && shown.contains("called off"), "{shown}");
    // a password from a pipe leaves the question to the terminal
    let piped = format!("-h >/dev/null; printf '{PASSWORD}\\n' | {} approvals {approve} --password-stdin", env!("CARGO_BIN_EXE_opspilot"));
    let (code, shown) = at_a_terminal(&service, &bob, &piped, &[("[yes/no]", "yes\n")]);
    assert!(code == 0 && shown.contains("noted"), "{shown}");
    service.stop().await;
}

/// How a request to start something fares on the way.
#[derive(Clone, Copy)]
enum Fate {
    /// It arrives; its answer does not.
    AnswerLost,
    /// It is answered by something in between.
    Unavailable,
}

/// Passes everything on to the service, but for requests to start something.
fn between(service: &Service, fate: Fate) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = service.url.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap();
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            client.read_exact(&mut body).unwrap();
            let starts = head.lines().next().unwrap_or_default().contains("/execute ");
            if starts && matches!(fate, Fate::Unavailable) {
                let problem = r#"{"title":"Service Unavailable","status":503,"detail":"come back later","code":"unavailable"}"#;
                let head = format!("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", problem.len());
                drop(client.write_all(format!("{head}{problem}").as_bytes()));
                continue;
            }
            let mut service = TcpStream::connect(&to).unwrap();
            service.write_all(head.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes()).unwrap();
            service.write_all(&body).unwrap();
            let mut answer = Vec::new();
            service.read_to_end(&mut answer).unwrap();
            if !starts {
                drop(client.write_all(&answer));
            }
        }
    });
    url
}

#[tokio::test]
async fn an_answer_that_is_lost_does_not_mean_that_nothing_was_started() {
    let home = home("0", 0);
    let service = home.start().await;
    let run = |url: &str, args: &[&str]| {
        let mut client = command();
        client.arg("approvals").args(args).env("OPSPILOT_URL", url).env("OPSPILOT_TOKEN", service.token.as_deref().unwrap());
        outcome(&client.output().unwrap())
    };
    let approval = proposed(&service, "shop-1").await;
    let url = between(&service, Fate::AnswerLost);
    let (code, text) = run(&url, &[&["approve", id(&approval), "--execute"][..], &yes(&approval)].concat());
    assert!(code == 0 && text.contains("was started") && text.contains("succeeded, exit code 0"), "{text}");
    assert_eq!(starts(&home).len(), 1);

    let approval = proposed(&service, "shop-2").await;
    let url = between(&service, Fate::Unavailable);
    let (code, text) = run(&url, &[&["approve", id(&approval), "--execute"][..], &yes(&approval)].concat());
    for part in ["may have started", "is approved just now", "do not propose it again", "come back later"] {
        assert!(code == 1 && text.contains(part), "{part}: {text}");
    }
    assert_eq!(starts(&home).len(), 1);
    let (code, text) = by(&service, service.token.as_deref().unwrap(), &["execute", id(&approval), "--token-stdin"], "not.a.token\n");
    assert!(code == 1 && text.contains("token") && !text.contains("the service does not accept"), "the approval's token: {text}");
    assert_eq!((approvals(&service, &["execute", id(&approval)]).0, starts(&home).len()), (0, 2), "as it said");
    service.stop().await;
}

#[tokio::test]
async fn approvals_and_runs_are_as_the_api_document_says() {
    let home = home("0", 0);
    let service = home.start().await;
    let document = service.get("/api/openapi.json").await;
    let agree = |what: &str, sent: &Json| {
        let schema = &document["components"]["schemas"][what];
        let keys = |object: &Json| object.as_object().unwrap_or_else(|| panic!("{what}: {schema}")).keys().cloned().collect::<Vec<_>>();
        let documented = keys(&schema["properties"]);
        let unknown: Vec<String> = keys(sent).into_iter().filter(|key| !documented.contains(key)).collect();
        assert_eq!(unknown, [""; 0], "{what} holds what is not documented");
        for required in schema["required"].as_array().unwrap() {
            assert!(sent.get(required.as_str().unwrap()).is_some(), "{what} lacks {required}: {sent}");
        }
    };
    let approval = proposed(&service, "shop-1").await;
    agree("Approval", &approval);
    for (what, part) in [("Preview", "preview"), ("Proposer", "proposed_by"), ("Quorum", "quorum"), ("Plan", "plan")] {
        agree(what, &approval[part]);
    }
    agree("PlanFile", &approval["plan"]["files"][0]);
    agree("PlanLimits", &approval["plan"]["limits"]);
    let path = format!("/api/approvals/{}", id(&approval));
    let (_, token) = service.post(&format!("{path}/approve"), json!({ "plan_digest": approval["plan_digest"] })).await;
    agree("Token", &token);
    assert_eq!(approvals(&service, &["execute", id(&approval)]).0, 0);
    agree("Execution", &over(&service, &approval).await);
    service.stop().await;
}
