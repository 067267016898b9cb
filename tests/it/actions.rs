//! From an incident to a program that ran: proposed by a rule, approved by a person, executed once, whatever happens to
//! the service meanwhile.

use std::os::unix::fs::PermissionsExt;

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, Service, until};

/// Notes that it was started, takes its time, and returns what it was told to.
const PROGRAM: &str = "#!/bin/sh\necho \"$OPSPILOT_RUN_ID\" >> \"$1\"\necho \"acting on $2\"\nsleep \"$3\"\nexit \"$4\"\n";

fn config(home: &Home, seconds: &str, code: u8) -> String {
    let (program, starts) = (home.path("act"), home.path("starts"));
    format!(
        r#"
policy: {{proposals: {{per_hour: 10000}}}}
limits: {{requests: {{read: 10000000, write: 10000000}}}}
modules:
  connector.fileTail: {{enabled: false}}
  connector.metrics: {{enabled: false}}
  detector.regex: {{rules: [{{id: broken, pattern: 'broken', severity: critical, title: 'Broken'}}]}}
  action.safe:
    actions:
      - {{id: act, title: 'Act on {{on}}', risk: disruptive, argv: ['{}', '{}', '{{on}}', '{seconds}', '{code}'], params: {{on: {{type: hostname}}}}}}
    rules: [{{id: broken-things, action: act, match: {{severity: critical, rule: broken}}, params: {{on: '$source'}}}}]
"#,
        program.display(),
        starts.display()
    )
}

/// A folder with the program and its configuration.
pub fn home(seconds: &str, code: u8) -> Home {
    let home = Home::new("");
    std::fs::write(home.path("act"), PROGRAM).unwrap();
    std::fs::set_permissions(home.path("act"), std::fs::Permissions::from_mode(0o700)).unwrap();
    home.configure(&config(&home, seconds, code));
    home
}

/// How often the program was started, by run.
pub fn starts(home: &Home) -> Vec<String> {
    std::fs::read_to_string(home.path("starts")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Something of `source` breaks, and the rule proposes what to do.
pub async fn proposed(service: &Service, source: &str) -> Json {
    service.logs(source, &["something is broken"]).await;
    until(&format!("a proposal for {source}"), async || {
        let listed = service.get("/api/approvals?status=pending&limit=500").await;
        listed["items"].as_array().unwrap().iter().find(|approval| approval["params"]["on"] == source).cloned()
    })
    .await
}

pub async fn approved(service: &Service, approval: &Json) -> String {
    let path = format!("/api/approvals/{}/approve", approval["id"].as_str().unwrap());
    let (status, answer) = service.post(&path, json!({ "plan_digest": approval["plan_digest"], "reason": "looks right" })).await;
    assert_eq!((status, answer["status"].as_str()), (200, Some("approved")), "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

async fn try_execute(service: &Service, approval: &Json, token: &str) -> Option<(u16, Json)> {
    let url = format!("{}/api/approvals/{}/execute", service.url, approval["id"].as_str().unwrap());
    let request = service.http.request(Method::POST, url).bearer_auth(service.token.as_deref().unwrap()).header("X-Approval-Token", token);
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

pub async fn executed(service: &Service, approval: &Json, token: &str) -> String {
    let (status, answer) = try_execute(service, approval, token).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    answer["execution_id"].as_str().unwrap().to_owned()
}

/// The run that belongs to an approval, once it is over.
pub async fn over(service: &Service, approval: &Json) -> Json {
    let path = format!("/api/approvals/{}", approval["id"].as_str().unwrap());
    until("the end of the run", async || {
        let execution = service.get(&path).await["execution_id"].as_str()?.to_owned();
        let execution = service.get(&format!("/api/executions/{execution}")).await;
        (execution["status"] != "executing").then_some(execution)
    })
    .await
}

pub async fn status(service: &Service, approval: &Json) -> String {
    service.get(&format!("/api/approvals/{}", approval["id"].as_str().unwrap())).await["status"].as_str().unwrap().to_owned()
}

/// A service on a folder of its own that proposed to act, and the token of who approved it.
async fn agreed(seconds: &str, code: u8) -> (Home, Service, Json, String) {
    let home = home(seconds, code);
    let service = home.start().await;
    let approval = proposed(&service, "shop").await;
    let token = approved(&service, &approval).await;
    (home, service, approval, token)
}

/// A run whose program is under way.
async fn started(home: &Home, service: &Service, approval: &Json, token: &str) -> String {
    let execution = executed(service, approval, token).await;
    until("the program to run", async || (starts(home).len() == 1).then_some(())).await;
    execution
}

#[tokio::test]
async fn p5_p7_a_rule_proposes_once_a_person_approves_and_exactly_that_runs_once() {
    let home = home("0", 0);
    let service = home.start().await;
    let approval = proposed(&service, "shop-1").await;
    assert_eq!(approval["proposed_by"], json!({ "type": "rule", "id": "broken-things" }));
    assert_eq!(approval["plan"]["argv"][2], "shop-1");
    assert_eq!(starts(&home), [""; 0], "nothing runs before it is approved");
    let token = approved(&service, &approval).await;
    let execution = executed(&service, &approval, &token).await;
    let run = over(&service, &approval).await;
    assert_eq!((run["status"].as_str(), run["exit_code"].as_i64()), (Some("succeeded"), Some(0)), "{run}");
    assert_eq!(run["stdout"], "acting on shop-1\n");
    assert_eq!((run["containment"].as_str(), &run["sandbox"]["no_new_privs"]), (Some("pgroup"), &json!(true)));
    assert_eq!(starts(&home), [execution]);
    let (again, answer) = try_execute(&service, &approval, &token).await.unwrap();
    assert_eq!((again, answer["code"].as_str()), (409, Some("token_used")));
    // the same incident again, and after a restart: the rule has said what it had to say
    service.logs("shop-1", &["something is broken"]).await;
    service.stop().await;
    let service = home.start().await;
    let other = proposed(&service, "shop-2").await;
    let all = service.get("/api/approvals?limit=500").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(other["status"], "pending");
    assert_eq!(starts(&home).len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn without_the_module_an_execution_is_refused_before_its_token_is_used() {
    let (_home, service, approval, token) = agreed("0", 3).await;
    assert_eq!(service.post("/api/modules/action.safe/disable", json!({})).await.0, 200);
    let (refused, answer) = try_execute(&service, &approval, &token).await.unwrap();
    assert_eq!((refused, answer["code"].as_str()), (503, Some("no_executor")), "{answer}");
    assert_eq!(status(&service, &approval).await, "approved");
    assert_eq!(service.post("/api/modules/action.safe/enable", json!({})).await.0, 200);
    until("the catalogue", async || (service.get("/api/actions").await["items"].as_array()?.len() == 1).then_some(())).await;
    executed(&service, &approval, &token).await;
    let run = over(&service, &approval).await;
    assert_eq!((run["status"].as_str(), run["exit_code"].as_i64()), (Some("failed"), Some(3)), "{run}");
    service.stop().await;
}

#[tokio::test]
async fn t7_an_approval_of_another_definition_is_revoked_by_the_reload_that_changes_it() {
    let (home, service, approval, token) = agreed("0", 0).await;
    home.configure(&config(&home, "0", 7));
    let (reloaded, answer) = service.post("/api/config/reload", json!({})).await;
    assert_eq!(reloaded, 200, "{answer}");
    assert_eq!(status(&service, &approval).await, "revoked");
    let (refused, answer) = try_execute(&service, &approval, &token).await.unwrap();
    assert!((400..500).contains(&refused), "{refused} {answer}");
    assert_eq!(starts(&home), [""; 0]);
    service.stop().await;
}

#[tokio::test]
async fn p6_a_kill_in_the_middle_of_a_run_is_reported_unknown_and_never_run_again() {
    let (home, service, approval, token) = agreed("60", 0).await;
    let execution = started(&home, &service, &approval, &token).await;
    service.kill();
    let service = home.start().await;
    let run = over(&service, &approval).await;
    assert_eq!((run["status"].as_str(), run["reason"].as_str()), (Some("unknown"), Some("interrupted")), "{run}");
    assert_eq!(status(&service, &approval).await, "unknown");
    assert_eq!(processes_of(&execution), 0, "and it does not run any more");
    let (refused, _) = try_execute(&service, &approval, &token).await.unwrap();
    assert_eq!(refused, 409);
    assert_eq!(starts(&home), std::slice::from_ref(&execution));
    let closing = json!({ "outcome": "failed", "reason": "it had not done anything yet" });
    let (closed, answer) = service.post(&format!("/api/executions/{execution}/close"), closing).await;
    assert_eq!((closed, answer["status"].as_str()), (200, Some("failed")), "{answer}");
    service.stop().await;
}

#[tokio::test]
async fn p6_an_orderly_stop_leaves_no_program_behind() {
    let (home, service, approval, token) = agreed("60", 0).await;
    let execution = started(&home, &service, &approval, &token).await;
    service.stop().await;
    until("the end of the program", async || (processes_of(&execution) == 0).then_some(())).await;
    let service = home.start().await;
    assert_eq!(over(&service, &approval).await["status"], "unknown");
    service.stop().await;
}

/// How many processes bear the name of a run.
fn processes_of(execution: &str) -> usize {
    let mark = format!("OPSPILOT_RUN_ID={execution}");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read(entry.unwrap().path().join("environ")).ok());
    processes.filter(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())).count()
}

/// A crash between any two steps of a run: `cargo test --features failpoints --test it a2_`.
#[cfg(feature = "failpoints")]
mod steps {
    use super::*;

    /// A status and its reason.
    type Told = (&'static str, &'static str);

    /// What may be said of a run, and how often its program may have been started, for each place where the process dies.
    const STEPS: [(&str, &[Told], &[usize]); 5] = [
        ("safety::exec_after_commit_before_spawn", &[("failed", "not_started")], &[0]),
        ("actions::exec_after_commit_before_spawn", &[("failed", "not_started")], &[0]),
        // the program is just beginning when the process dies
        ("actions::after_spawn", &[("unknown", "interrupted"), ("failed", "recovered")], &[0, 1]),
        ("actions::after_exit_before_result", &[("failed", "recovered")], &[1]),
        ("safety::after_exit_before_result", &[("failed", "recovered")], &[1]),
    ];

    fn rounds() -> usize {
        if crate::common::long() { 200 } else { 3 }
    }

    #[tokio::test]
    async fn a2_a_crash_between_any_two_steps_of_a_run_never_starts_it_twice_and_says_what_is_true() {
        for (point, allowed, counts) in STEPS {
            let home = home("0.05", 3);
            let mut told = std::collections::BTreeMap::<String, usize>::new();
            for round in 0..rounds() {
                let mut service = home.start_with(&[("FAILPOINTS", &format!("{point}=panic(abort)"))]).await;
                let approval = proposed(&service, &format!("shop-{round}")).await;
                let token = approved(&service, &approval).await;
                let before = starts(&home).len();
                drop(try_execute(&service, &approval, &token).await);
                assert!(service.ended().await.code().is_none(), "{point}: it was killed");
                let service = home.start().await;
                let run = over(&service, &approval).await;
                let said = (run["status"].as_str().unwrap(), run["reason"].as_str().unwrap_or_default());
                assert!(allowed.contains(&said), "{point}: {run}");
                if said.1 == "recovered" {
                    assert_eq!(run["exit_code"], 3, "{point}: {run}");
                }
                // a replay after the crash finds the token used
                let (refused, answer) = try_execute(&service, &approval, &token).await.unwrap();
                assert_eq!((refused, answer["code"].as_str()), (409, Some("token_used")), "{point}");
                let started = starts(&home).len() - before;
                assert!(counts.contains(&started), "{point}: started {started} times");
                assert_eq!(processes_of(run["id"].as_str().unwrap()), 0, "{point}");
                *told.entry(format!("{} {}, starts {started}", said.0, said.1)).or_default() += 1;
                service.stop().await;
            }
            eprintln!("{point}: {} rounds, {told:?}", rounds());
        }
    }
}
