//! Finding incidents, looking back at them, and how long they took, over the API.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{Band, Observation, Transition},
    principal::Role,
    signal::Severity,
};
use serde_json::json;

use super::{
    incidents::{claim, record, start_pipeline, tell},
    support::{Api, As},
};

fn ids(body: &serde_json::Value) -> Vec<String> {
    body["items"].as_array().unwrap().iter().map(|item| item["source"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn incidents_are_found_by_their_evidence_labels_and_assignees() {
    let api = Api::start().await;
    let supervisor = start_pipeline(&api);
    let operator = api.someone("ada", Role::Operator).await;
    let act = As::Token(&operator);
    for (source, env) in [("checkout", "prod"), ("cart", "test")] {
        let mut alert = record(&api, source, Transition::Firing);
        alert.source = source.to_owned();
        alert.labels = BTreeMap::from([("env".to_owned(), env.to_owned()), ("team".to_owned(), "a=b c".to_owned())]);
        tell(&api, alert).await;
    }
    // evidence that comes later
    let mut again = record(&api, "cart", Transition::Repeat);
    let (at, source) = (again.at, again.source.clone());
    again.evidence = vec![Observation::Log { at, source, text: "Deadlock on shard-9/eu".to_owned() }];
    tell(&api, again).await;

    let found = async |query: &str| ids(&api.get(act, &format!("/api/incidents?{query}")).await.expect(200).body);
    assert_eq!(found("q=deadl").await, ["cart"]);
    assert_eq!(found("q=shard-9%2Feu+down").await, ["cart"]);
    assert_eq!(found("q=refused").await, ["cart", "checkout"]);
    assert_eq!(found("q=refused&status=open&source=checkout").await, ["checkout"]);
    assert_eq!(found("label=env%3Dprod").await, ["checkout"]);
    assert_eq!(found("label=team%3Da%3Db+c&label=env%3Dtest&q=deadlock").await, ["cart"]);
    assert_eq!(found("label=env%3Dprod&label=env%3Dtest").await, [""; 0]);
    for bad in ["label=env", "label=%3Dprod", &"label=a%3Db&".repeat(9), "q=a&q=b", "assignee=a&assignee=b"] {
        api.get(act, &format!("/api/incidents?{bad}")).await.expect(422);
    }
    for hostile in ["%22", "NEAR(a%20b", "a%00b", "*", "a%22%20OR%20%22b", "%F0%9F%92%A5", &"x%20".repeat(900)] {
        api.get(act, &format!("/api/incidents?q={hostile}")).await.expect(200);
    }
    api.get(act, &format!("/api/incidents?q={}", "x%20".repeat(2500))).await.expect(414);

    let list = api.get(act, "/api/incidents?q=deadlock").await.expect(200).body;
    let id = list["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/incidents/{id}/assign");
    let refused = api.post(act, &path, json!({ "assignee": "nobody" })).await.expect(422).body;
    assert_eq!(refused["errors"][0]["code"], "unknown_user");
    api.post(act, &path, json!({ "assignee": "ADA" })).await.expect(200);
    assert_eq!(found("assignee=ada").await, ["cart"], "the name as the account has it");
    assert_eq!(found("assignee=ada&q=refused&status=open").await, ["cart"]);
    assert_eq!(found("assignee=grace").await, [""; 0]);
    supervisor.stop_all().await;
    api.stop().await;
}

#[actix_web::test]
async fn what_came_back_says_so_and_what_it_took_is_counted() {
    let api = Api::start().await;
    let supervisor = start_pipeline(&api);
    let operator = api.someone("ada", Role::Operator).await;
    let act = As::Token(&operator);
    claim(&api, "disk", Transition::Firing).await;
    let first = api.get(act, "/api/incidents").await.expect(200).body["items"][0].clone();
    assert_eq!((&first["recurrence_of"], &first["recurrence"]), (&json!(null), &json!(0)));
    let path = |what: &str| format!("/api/incidents/{}/{what}", first["id"].as_str().unwrap());
    api.clock.advance(Duration::from_secs(60));
    api.post(act, &path("acknowledge"), json!({})).await.expect(200);
    api.clock.advance(Duration::from_secs(60));
    claim(&api, "disk", Transition::Resolved).await;
    api.post(act, &path("reopen"), json!({})).await.expect(200);
    api.post(act, &path("resolve"), json!({})).await.expect(200);
    // beyond every window to open it again
    api.clock.advance(Duration::from_secs(40 * 86_400));
    let mut again = record(&api, "disk", Transition::Firing);
    again.alert = opspilot_kernel::ids::AlertId::derived(&["disk", "again"]);
    again.severity = Severity::Warning;
    tell(&api, again).await;
    let operator = api.login("ada").await;
    let act = As::Token(&operator);
    let list = api.get(act, "/api/incidents?status=open").await.expect(200).body;
    assert_eq!((&list["items"][0]["recurrence_of"], &list["items"][0]["recurrence"]), (&first["id"], &json!(1)));

    let stats = api.get(act, "/api/incidents/stats").await.expect(200).body;
    assert_eq!(
        (&stats["incidents"], &stats["open"], &stats["resolved"], &stats["recurring"]),
        (&json!(2), &json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&stats["reopened"], &stats["reopened_share"], &stats["complete"]), (&json!(1), &json!(0.5), &json!(true)));
    let taken = stats["time_to_acknowledge"]["median_secs"].as_f64().unwrap();
    assert!((60.0..120.0).contains(&taken), "{taken}");
    let over = stats["by_severity"]["critical"]["time_to_resolve"]["mean_secs"].as_f64().unwrap();
    assert!((120.0..600.0).contains(&over), "{over}");
    assert_eq!(stats["by_severity"]["warning"]["time_to_resolve"], json!({ "count": 0, "mean_secs": null, "median_secs": null }));
    assert_eq!(api.get(act, "/api/incidents/stats?severity=warning&source=checkout").await.expect(200).body["incidents"], 1);
    assert_eq!(api.get(act, "/api/incidents/stats?until=2001-01-01T00:00:00Z").await.expect(200).body["incidents"], 0);
    api.get(act, "/api/incidents/stats?status=open").await.expect(422);
    supervisor.stop_all().await;
    api.stop().await;
}

#[actix_web::test]
async fn e3_a_post_mortem_computes_its_numbers_and_quotes_hostile_texts_as_nothing_but_text() {
    let api = Api::start().await;
    let supervisor = start_pipeline(&api);
    let operator = api.someone("ada", Role::Operator).await;
    let act = As::Token(&operator);
    let hostile =
        "x`\n# Owned\n![i](https://evil.example/i.png) <script>alert(1)</script> [l](javascript:alert(1)) | a | \u{202e}\u{1b}[2J";
    let mut alert = record(&api, "disk", Transition::Firing);
    alert.title = hostile.to_owned();
    alert.description = hostile.to_owned();
    alert.at = alert.logged_at.before(Duration::from_secs(5));
    let (at, source) = (alert.at, hostile.to_owned());
    let expected = Some(Band { low: 1.0, high: 2.0 });
    alert.labels = BTreeMap::from([(hostile.to_owned(), hostile.to_owned())]);
    alert.evidence = vec![
        Observation::Log { at, source: source.clone(), text: hostile.to_owned() },
        Observation::Metric { at, source, name: hostile.to_owned(), value: 9.5, expected },
    ];
    tell(&api, alert).await;
    let incident = api.get(act, "/api/incidents").await.expect(200).body["items"][0].clone();
    let path = |what: &str| format!("/api/incidents/{}{what}", incident["id"].as_str().unwrap());
    api.post(act, &path("/acknowledge"), json!({ "note": hostile })).await.expect(200);
    api.post(act, &path("/resolve"), json!({ "resolution": hostile })).await.expect(200);

    let data = api.get(act, &path("/postmortem?format=json")).await.expect(200).body;
    assert_eq!(data["impact"]["time_to_detect_secs"], 5.0);
    assert!(data["impact"]["time_to_resolve_secs"].as_f64().unwrap() >= data["impact"]["time_to_acknowledge_secs"].as_f64().unwrap());
    assert_eq!((&data["impact"]["mitigated_at"], &data["actions"], &data["follow_ups"]), (&json!(null), &json!([]), &json!([])));
    assert_eq!((&data["draft"], data["timeline"].as_array().unwrap().len()), (&json!(null), 3));
    assert_eq!((&data["evidence"][1]["id"], &data["evidence"][1]["expected_high"]), (&json!("e2"), &json!(2.0)));

    let got = api.get(act, &path("/postmortem")).await.expect(200);
    assert_eq!(got.header("content-type"), "text/markdown; charset=utf-8");
    let document = got.body.as_str().unwrap();
    for line in document.lines() {
        assert!(!line.starts_with("# Owned"), "{line}");
        assert!(!line.contains(['\u{202e}', '\u{1b}']), "{line}");
        // every hostile text is within a fence of two
        let outside: String = line.split("``").step_by(2).collect();
        assert!(!outside.contains("evil.example") && !outside.contains("<script"), "{line}");
    }
    for part in ["# Post-mortem: ``", "## Impact", "| TTD 5.000 s |", "## Timeline", "**e2**", "It was not explained.", "## Follow-ups"] {
        assert!(document.contains(part), "{part} is missing in\n{document}");
    }
    api.get(act, &path("/postmortem?format=pdf")).await.expect(422);
    api.get(act, "/api/incidents/inc_none/postmortem").await.expect(404);

    let picture = api.get(act, &path("/evidence.svg")).await.expect(200);
    assert_eq!(picture.header("content-type"), "image/svg+xml");
    assert!(picture.header("content-security-policy").starts_with("default-src 'none'"));
    let picture = picture.body.as_str().unwrap();
    assert!(picture.contains("<polygon") && picture.contains("&lt;script&gt;") && !picture.contains("<script"), "{picture}");
    claim(&api, "logs only", Transition::Firing).await;
    let logs = api.get(act, "/api/incidents?q=logs").await.expect(200).body["items"][0]["id"].as_str().unwrap().to_owned();
    api.get(act, &format!("/api/incidents/{logs}/evidence.svg")).await.expect(404);
    api.get(act, "/api/incidents/inc_none/evidence.svg").await.expect(404);
    supervisor.stop_all().await;
    api.stop().await;
}

#[actix_web::test]
async fn people_put_incidents_together_and_take_them_apart() {
    let api = Api::start().await;
    let supervisor = start_pipeline(&api);
    let (operator, viewer) = (api.someone("ada", Role::Operator).await, api.someone("vera", Role::Viewer).await);
    let (act, see) = (As::Token(&operator), As::Token(&viewer));
    for name in ["disk", "mail", "cart"] {
        claim(&api, name, Transition::Firing).await;
    }
    let of = async |q: &str| api.get(see, &format!("/api/incidents?q={q}")).await.expect(200).body["items"][0].clone();
    let (disk, mail) = (of("disk").await, of("mail").await);
    let (disk_id, mail_id) = (disk["id"].as_str().unwrap(), mail["id"].as_str().unwrap());
    let path = |id: &str, what: &str| format!("/api/incidents/{id}/{what}");
    api.post(see, &path(mail_id, "merge"), json!({ "into": disk_id })).await.expect(403);
    api.post(act, &path(mail_id, "merge"), json!({})).await.expect(422);
    api.post(act, &path(mail_id, "merge"), json!({ "into": mail_id })).await.expect(422);
    api.post(act, &path(mail_id, "merge"), json!({ "into": "inc_none" })).await.expect(404);
    let whole = api.post(act, &path(mail_id, "merge"), json!({ "into": disk_id })).await.expect(200).body;
    assert_eq!((&whole["id"], &whole["alert_count"]), (&json!(disk_id), &json!(2)));
    api.post(act, &path(mail_id, "merge"), json!({ "into": disk_id })).await.expect(409);
    let ended = api.get(see, &format!("/api/incidents/{mail_id}")).await.expect(200).body;
    assert_eq!((&ended["merged_into"], &ended["status"]), (&json!(disk_id), &json!("resolved")));
    assert_eq!(api.get(see, "/api/incidents").await.expect(200).body["items"].as_array().unwrap().len(), 2);
    assert_eq!(of("mail").await["id"], disk_id, "it is found by what the other was about");

    // what the merged alert says from here on counts there
    claim(&api, "mail", Transition::Repeat).await;
    assert_eq!(of("disk").await["occurrences"], 3);
    let alert = &mail["alerts"][0]["id"];
    api.post(see, &path(disk_id, "split"), json!({ "alerts": [alert] })).await.expect(403);
    for wrong in [json!([]), json!(["alr_none"]), json!([alert, disk["alerts"][0]["id"]]), json!(vec!["alr_x"; 501])] {
        api.post(act, &path(disk_id, "split"), json!({ "alerts": wrong })).await.expect(422);
    }
    let again = api.post(act, &path(disk_id, "split"), json!({ "alerts": [alert] })).await.expect(200).body;
    assert_eq!((&again["id"], &again["status"], &again["merged_into"]), (&json!(mail_id), &json!("open"), &json!(null)));
    assert_eq!((&again["occurrences"], &again["alert_count"]), (&json!(2), &json!(1)));
    assert_eq!(of("disk").await["occurrences"], 1);
    // and goes on by itself
    claim(&api, "mail", Transition::Resolved).await;
    assert_eq!(api.get(see, &format!("/api/incidents/{mail_id}")).await.expect(200).body["status"], "resolved");
    let timeline = api.get(see, &path(disk_id, "timeline")).await.expect(200).body;
    let kinds: Vec<&str> = timeline["items"].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["opened", "merged", "split"]);
    supervisor.stop_all().await;
    api.stop().await;
}
