//! Incidents over the API, made by the real pipeline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opspilot_enrichers::{DEDUP, INCIDENT_STORE, MODULES, Stages, pipeline};
use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy, Transition},
    clock::{Clock as _, SharedClock},
    fingerprint::Fingerprint,
    ids::AlertId,
    principal::Role,
    signal::Severity,
};
use opspilot_ledger::Priority;
use opspilot_runtime::{ModuleContext, Supervisor};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Api, As, Got, send};

/// Starts the pipeline over the ledger of `api`.
pub(super) fn start_pipeline(api: &Api) -> Supervisor {
    let clock: SharedClock = api.clock.clone();
    let ctx = ModuleContext::alone(api.state.ledger.clone(), clock, Arc::new(|_| {})).unwrap();
    let stages = Stages::in_order(&[DEDUP, INCIDENT_STORE]);
    for entry in MODULES.iter().filter(|entry| [DEDUP, INCIDENT_STORE].contains(&entry.id)) {
        assert!(stages.plug(&*(entry.start)(&ctx, json!({})).unwrap()));
    }
    pipeline::start(&ctx, stages).unwrap();
    ctx.supervisor
}

pub(super) async fn claim(api: &Api, name: &str, transition: Transition) {
    tell(api, record(api, name, transition)).await;
}

/// What a detector says of the alert `name` now.
pub(super) fn record(api: &Api, name: &str, transition: Transition) -> AlertRecord {
    let at = api.clock.now();
    let over = transition == Transition::Resolved;
    AlertRecord {
        alert: AlertId::derived(&[name]),
        detected_by: "detector.regex".to_owned(),
        rule: name.to_owned(),
        fingerprint: Fingerprint::of_pairs([("rule", name)]),
        transition,
        resolved_by: over.then_some(ResolvedBy::Quiet),
        at,
        logged_at: at,
        signal_seq: api.state.ledger.alerts().head() + 1,
        count: u64::from(!over),
        source: "checkout".to_owned(),
        title: format!("{name} is down"),
        description: String::new(),
        severity: Severity::Critical,
        labels: BTreeMap::from([("host".to_owned(), "db-7".to_owned())]),
        supports: false,
        evidence: vec![Observation::Log { at, source: "checkout".to_owned(), text: "connection refused".to_owned() }],
    }
}

/// Commits what a detector says, and waits until the pipeline has decided on it.
pub(super) async fn tell(api: &Api, record: AlertRecord) {
    let ledger = &api.state.ledger;
    ledger.write(Priority::Bulk, move |tx| tx.commit_alerts("detector.regex", 0, vec![record], Vec::new())).await.unwrap();
    let head = ledger.alerts().head();
    let done = async {
        while ledger.read(|reader| reader.cursor("core.pipeline")).await.unwrap() < head {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("the pipeline gets through");
}

#[actix_web::test]
async fn an_incident_is_listed_worked_on_and_explained() {
    let api = Api::start().await;
    let supervisor = start_pipeline(&api);
    let viewer = api.someone("vera", Role::Viewer).await;
    let operator = api.someone("ada", Role::Operator).await;
    let (see, act) = (As::Token(&viewer), As::Token(&operator));
    claim(&api, "postgres", Transition::Firing).await;
    claim(&api, "redis", Transition::Firing).await;

    let list = api.get(see, "/api/incidents?status=open&severity=critical&source=checkout&q=postgr&since=&until=").await.expect(200).body;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["next_cursor"]), (1, &Value::Null));
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    let path = |what: &str| format!("/api/incidents/{id}{what}");
    let one = api.get(see, &path("")).await.expect(200).body;
    assert_eq!(one, list["items"][0], "a list item has the same fields as the detail");
    assert_eq!(one["labels"], json!({ "host": "db-7" }));
    assert_eq!((&one["status"], &one["occurrences"], &one["alert_count"]), (&json!("open"), &json!(1), &json!(1)));
    assert_eq!((&one["explanation"], &one["approvals"]), (&Value::Null, &json!([])));
    assert_eq!((&one["evidence"][0]["id"], &one["evidence"][0]["text"]), (&json!("e1"), &json!("connection refused")));
    let alert = one["alerts"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(one["alerts"][0]["incident_id"], json!(id));

    // pages
    let first = api.get(see, "/api/incidents?limit=1").await.expect(200).body;
    let next = first["next_cursor"].as_str().unwrap();
    let second = api.get(see, &format!("/api/incidents?limit=1&cursor={next}")).await.expect(200).body;
    assert_eq!((&second["items"][0]["id"], &second["next_cursor"]), (&json!(id), &Value::Null));

    // people's work
    api.post(see, &path("/acknowledge"), json!({})).await.expect(403);
    let empty: Got = send(api.request(act, Method::POST.as_str(), &path("/acknowledge"))).await.expect(200);
    assert_eq!((&empty.body["status"], &empty.body["acknowledged_by"]), (&json!("acknowledged"), &json!("ada")));
    let again = api.post(act, &path("/acknowledge"), json!({ "note": "mine" })).await.expect(409);
    assert!(again.body["detail"].as_str().unwrap().contains("ada"));
    let misspelt = api.post(act, &path("/resolve"), json!({ "resolutoin": "x" })).await.expect(422);
    assert!(misspelt.body.to_string().contains("resolution"), "{}", misspelt.body);
    api.post(act, &path("/snooze"), json!({})).await.expect(422);
    api.post(act, &path("/snooze"), json!({ "until": "2001-01-01T00:00:00Z" })).await.expect(422);
    let until = api.clock.now().after(Duration::from_secs(3600)).to_string();
    assert_eq!(api.post(act, &path("/snooze"), json!({ "until": until })).await.expect(200).body["snoozed_until"], json!(until));
    api.post(act, &path("/assign"), json!({})).await.expect(422);
    api.user("grace", Role::Viewer).await;
    assert_eq!(api.post(act, &path("/assign"), json!({ "assignee": "grace" })).await.expect(200).body["assignee"], "grace");
    api.post(act, &path("/notes"), json!({ "text": " " })).await.expect(422);
    let note = || api.request(act, "post", &path("/notes")).header("idempotency-key", "n1").json(&json!({ "text": "the disk?" }));
    send(note()).await.expect(200);
    assert_eq!(send(note()).await.expect(200).header("idempotency-replayed"), "true");
    let resolved = api.post(act, &path("/resolve"), json!({ "resolution": "restarted" })).await.expect(200).body;
    assert_eq!((&resolved["status"], &resolved["alerts"][0]["status"]), (&json!("resolved"), &json!("resolved")));
    api.post(act, &path("/resolve"), json!({})).await.expect(409);
    api.post(act, &path("/reopen"), json!({})).await.expect(200);

    // what happened, and why
    let timeline = api.get(see, &path("/timeline?limit=500")).await.expect(200).body;
    let kinds: Vec<&str> = timeline["items"].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["opened", "acknowledged", "snoozed", "assigned", "note", "resolved", "reopened"]);
    assert_eq!(timeline["items"][1]["actor"], json!({ "type": "user", "id": "ada" }));
    let why = api.get(see, &path("/explain-why")).await.expect(200).body;
    assert_eq!(why["decisions"][0]["outcome"], "opened");
    let why = api.get(see, &format!("/api/alerts/{alert}/explain-why")).await.expect(200).body;
    assert_eq!(
        (&why["decisions"][0]["stage"], &why["decisions"][1]["stage"]),
        (&json!("enricher.dedup"), &json!("enricher.incidentStore"))
    );
    assert_eq!(api.get(see, &path("/alerts")).await.expect(200).body["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(see, "/api/alerts?status=firing").await.expect(200).body["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(see, &format!("/api/alerts/{alert}")).await.expect(200).body["name"], "postgres");
    let audit = api.get(see, &format!("/api/audit?action=INC&target=incident:{id}")).await.expect(200).body;
    assert_eq!(audit["items"].as_array().unwrap().len(), 7);

    // what is not there, and what is not understood
    for missing in
        ["/api/incidents/inc_none", "/api/incidents/inc_none/timeline", "/api/alerts/alr_none", "/api/alerts/alr_none/explain-why"]
    {
        api.get(see, missing).await.expect(404);
    }
    for wrong in ["?status=closed", "?statsu=open", "?limit=0", "?cursor=x", "?since=yesterday"] {
        api.get(see, &format!("/api/incidents{wrong}")).await.expect(422);
    }
    api.post(act, "/api/incidents/inc_none/reopen", json!({})).await.expect(404);
    supervisor.stop_all().await;
    drop(supervisor);
    api.stop().await;
}
