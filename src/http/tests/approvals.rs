//! Actions over the API: the way through, and every refusal with its status and code.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use hmac::{Hmac, Mac as _};
use opspilot_kernel::{
    alert::Transition,
    execution::{ExecutionEnd, ExecutionStatus},
    ids::ExecutionId,
    plan::Executor,
    principal::Role,
};
use opspilot_ledger::{KeyFile, KeyPurpose};
use opspilot_safety::{Catalogue, Execute, ExecutionPermit, Facts, Needs, Recovered};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    incidents::{claim, start_pipeline},
    support::{Api, As, Got, PASSWORD, send},
};

struct Succeeds;

impl Execute for Succeeds {
    fn facts(&self, needs: &Needs, _: &dyn Fn(&str, &[u8]) -> String) -> Facts {
        Facts { files: needs.files.iter().map(|path| (path.clone(), Ok("0".repeat(64)))).collect(), ..Facts::default() }
    }

    fn run(&self, permit: ExecutionPermit) -> BoxFuture<'static, ExecutionEnd> {
        let stdout = permit.plan().argv.join(" ");
        Box::pin(async move { ExecutionEnd { exit_code: Some(0), stdout, ..ExecutionEnd::bare(ExecutionStatus::Succeeded, "") } })
    }

    fn recover(&self, unfinished: &[ExecutionId]) -> BoxFuture<'static, Vec<(ExecutionId, Recovered)>> {
        let found = unfinished.iter().map(|id| (id.clone(), Recovered::NotStarted)).collect();
        Box::pin(async move { found })
    }
}

fn catalogue(timeout: &str) -> Arc<Catalogue> {
    let action = |id: &str, risk: &str| {
        json!({
            "id": id, "title": "Restart {service}", "risk": risk, "argv": ["/usr/bin/systemctl", "restart", "{service}"],
            "params": { "service": { "type": "unit_name" } }, "timeout": timeout,
        })
    };
    let templates = json!([action("restart-service", "disruptive"), action("wipe", "destructive")]);
    Arc::new(Catalogue::new(serde_json::from_value(templates).unwrap()).unwrap())
}

struct Shop {
    api: Api,
    incident: String,
    /// Proposes.
    ada: String,
    /// Approves.
    bob: String,
    supervisor: opspilot_runtime::Supervisor,
}

impl Shop {
    async fn open() -> Shop {
        let api = Api::start().await;
        let supervisor = start_pipeline(&api);
        api.state.gate.set_catalogue(Some(catalogue("30s"))).await.unwrap();
        api.state.gate.register(Executor::Process, Arc::new(Succeeds)).await.unwrap();
        let (ada, bob) = (api.someone("ada", Role::Operator).await, api.someone("bob", Role::Operator).await);
        claim(&api, "payments", Transition::Firing).await;
        let incident = loop {
            let got = api.get(As::Token(&ada), "/api/incidents").await.expect(200);
            if let Some(id) = got.body["items"][0]["id"].as_str() {
                break id.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Shop { api, incident, ada, bob, supervisor }
    }

    async fn close(self) {
        self.supervisor.stop_all().await;
        self.api.stop().await;
    }

    async fn propose(&self, action: &str) -> Value {
        let body = json!({ "action": action, "params": { "service": "checkout" }, "reasoning": "it hangs" });
        let path = format!("/api/incidents/{}/proposals", self.incident);
        self.api.post(As::Token(&self.ada), &path, body).await.expect(201).body
    }

    async fn verb(&self, who: As<'_>, approval: &Value, verb: &str, body: Value) -> Got {
        self.api.post(who, &format!("/api/approvals/{}/{verb}", approval["id"].as_str().unwrap()), body).await
    }

    async fn approve(&self, who: As<'_>, approval: &Value) -> Got {
        self.verb(who, approval, "approve", json!({ "plan_digest": approval["plan_digest"], "reason": "go" })).await
    }

    async fn approved(&self, approval: &Value) -> String {
        let got = self.approve(As::Token(&self.bob), approval).await.expect(200);
        assert_eq!((got.header("cache-control"), &got.body["status"]), ("no-store", &json!("approved")));
        got.body["token"].as_str().unwrap().to_owned()
    }

    async fn execute(&self, who: As<'_>, approval: &Value, token: &str) -> Got {
        let path = format!("/api/approvals/{}/execute", approval["id"].as_str().unwrap());
        send(self.api.request(who, "post", &path).header("x-approval-token", token)).await
    }

    async fn get(&self, approval: &Value) -> Value {
        let path = format!("/api/approvals/{}", approval["id"].as_str().unwrap());
        self.api.get(As::Token(&self.ada), &path).await.expect(200).body
    }
}

#[actix_web::test]
async fn an_action_goes_from_the_catalogue_to_its_end_and_shows_in_the_incident() {
    let shop = Shop::open().await;
    let ada = As::Token(&shop.ada);
    let listed = shop.api.get(ada, "/api/actions").await.expect(200).body;
    assert_eq!(listed["items"][0]["id"], "restart-service");
    assert_eq!(listed["items"][1]["quorum"]["required"], 2);
    let approval = shop.propose("restart-service").await;
    for field in
        ["id", "incident_id", "action", "title", "risk", "params", "plan", "plan_digest", "preview", "reasoning", "proposed_by", "status"]
    {
        assert!(!approval[field].is_null(), "{field}");
    }
    assert_eq!(approval["plan"]["argv"], json!(["/usr/bin/systemctl", "restart", "checkout"]));
    assert_eq!(approval["proposed_by"], json!({ "type": "user", "id": "ada" }));
    assert_eq!(approval["quorum"], json!({ "required": 1, "approved_by": [] }));
    for path in ["/api/approvals?status=pending", "/api/approvals/pending"] {
        assert_eq!(shop.api.get(ada, path).await.expect(200).body["items"][0]["id"], approval["id"], "{path}");
    }
    let waiting = async || {
        let text = shop.api.get(ada, "/api/metrics").await.body.as_str().unwrap_or_default().to_owned();
        text.lines().any(|line| line == "opspilot_approvals_pending 1")
    };
    while !waiting().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let token = shop.approved(&approval).await;
    let started = shop.execute(As::Token(&shop.bob), &approval, &token).await.expect(202).body;
    assert_eq!(started["status"], "executing");
    let path = format!("/api/executions/{}", started["execution_id"].as_str().unwrap());
    let run = loop {
        let run = shop.api.get(ada, &path).await.expect(200).body;
        if run["status"] != "executing" {
            break run;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((&run["status"], &run["stdout"]), (&json!("succeeded"), &json!("/usr/bin/systemctl restart checkout")));
    assert_eq!(run["approval_id"], approval["id"]);
    let detail = shop.api.get(ada, &format!("/api/incidents/{}", shop.incident)).await.expect(200).body;
    assert_eq!((&detail["approvals"][0]["id"], &detail["approvals"][0]["status"]), (&approval["id"], &json!("succeeded")));
    let again = shop.execute(As::Token(&shop.bob), &approval, &token).await.expect(409);
    assert_eq!(again.code(), "token_used");
    let log = shop.api.log.text();
    assert!(!log.contains(&token) && !log.contains(token.rsplit('.').next().unwrap()), "no token in the log");
    // what was agreed to by whom stands in the record of the incident
    let path = format!("/api/incidents/{}/postmortem", shop.incident);
    let record = shop.api.get(ada, &format!("{path}?format=json")).await.expect(200).body;
    let action = &record["actions"][0];
    assert_eq!((&action["id"], &action["plan_digest"]), (&approval["id"], &approval["plan_digest"]));
    assert_eq!((&action["approved_by"][0]["by"], &action["approved_by"][0]["reason"]), (&json!("bob"), &json!("go")));
    assert_eq!((&action["approved_by"][0]["plan_digest"], &action["execution"]["status"]), (&approval["plan_digest"], &json!("succeeded")));
    assert_eq!(record["impact"]["mitigated_by"], action["execution"]["id"]);
    assert!(record["impact"]["time_to_mitigate_secs"].as_f64().unwrap() >= 0.0);
    let document = shop.api.get(ada, &path).await.expect(200).body;
    let document = document.as_str().unwrap();
    let digest = approval["plan_digest"].as_str().unwrap();
    assert!(document.contains("approved by `bob` at ") && document.contains(digest), "{document}");
    shop.close().await;
}

#[actix_web::test]
async fn t8_t9_t11_who_may_not_is_told_so() {
    let shop = Shop::open().await;
    let approval = shop.propose("restart-service").await;
    let second = shop.api.login("ada").await;
    let own_key = shop.api.key(&shop.ada, "operator").await;
    for own in [As::Token(&shop.ada), As::Token(&second), As::Key(&own_key)] {
        assert_eq!(shop.approve(own, &approval).await.expect(403).code(), "self_approval", "{own:?}");
    }
    let key = shop.api.key(&shop.bob, "operator").await;
    assert_eq!(shop.approve(As::Key(&key), &approval).await.expect(403).code(), "key_not_allowed");
    let vera = shop.api.someone("vera", Role::Viewer).await;
    shop.approve(As::Token(&vera), &approval).await.expect(403);
    shop.approve(As::Nobody, &approval).await.expect(401);
    let token = shop.approved(&approval).await;
    assert_eq!(shop.execute(As::Key(&key), &approval, &token).await.expect(403).code(), "key_not_allowed");
    shop.execute(As::Token(&vera), &approval, &token).await.expect(403);
    shop.execute(As::Nobody, &approval, &token).await.expect(401);
    // the approver is demoted before it is executed
    let root = shop.api.someone("root", Role::Admin).await;
    let demote = shop.api.request(As::Token(&root), "patch", "/api/users/bob").json(&json!({ "role": "viewer" }));
    send(demote).await.expect(200);
    assert_eq!(shop.execute(As::Token(&shop.ada), &approval, &token).await.expect(403).code(), "not_eligible");
    assert_eq!(shop.get(&approval).await["status"], "revoked");
    shop.close().await;
}

#[actix_web::test]
async fn t1_t3_t5_a_token_that_is_not_good_starts_nothing() {
    let shop = Shop::open().await;
    let (approval, other) = (shop.propose("restart-service").await, shop.propose("restart-service").await);
    let (token, _) = (shop.approved(&approval).await, shop.approved(&other).await);
    let bob = As::Token(&shop.bob);
    let parts: Vec<&str> = token.split('.').collect();
    // the name of the key that really signs: what is wrong is the algorithm alone
    let key = KeyFile::read(shop.api.dir.path(), KeyPurpose::Approval).unwrap().unwrap();
    let head = |alg: &str, kid: &str| URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "typ": "opspilot-approval+jwt", "kid": kid }).to_string());
    assert_eq!(head("EdDSA", &key.kid()).len(), parts[0].len(), "it is the token's own header but for the algorithm");
    // what a verifier would check that took the public key for a shared secret
    let by_public_key = |alg: &str| {
        let signed = format!("{}.{}", head(alg, &key.kid()), parts[1]);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.public()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let mut codes = Vec::new();
    let mut tampered = token.clone();
    tampered.replace_range(60..61, if &token[60..61] == "A" { "B" } else { "A" });
    for (what, bad, code) in [
        ("no algorithm", format!("{}.{}.", head("none", &key.kid()), parts[1]), "TOK13W"),
        ("no algorithm, but a signature", format!("{}.{}.{}", head("none", &key.kid()), parts[1], parts[2]), "TOK13W"),
        ("HS256 over the public key", by_public_key("HS256"), "TOK13W"),
        ("an HMAC where a signature belongs", by_public_key("EdDSA"), "TOK17W"),
        ("another key", format!("{}.{}.{}", head("EdDSA", "0123456789abcdef"), parts[1], parts[2]), "TOK15W"),
        ("a path for a key", format!("{}.{}.{}", head("EdDSA", "../../dev/null"), parts[1], parts[2]), "TOK14W"),
        ("a session's token", shop.bob.clone(), "TOK"),
        ("tampered", tampered, "TOK"),
        ("cut short", token[..token.len() - 3].to_owned(), "TOK"),
        ("none", String::new(), "TOK"),
    ] {
        assert_eq!(shop.execute(bob, &approval, &bad).await.expect(401).code(), "bad_token", "{what}");
        codes.push((what, code));
    }
    let root = shop.api.someone("tom", Role::Admin).await;
    let audited = shop.api.get(As::Token(&root), "/api/audit?action=TOK&limit=500").await.expect(200).body;
    let audited: Vec<&str> = audited["items"].as_array().unwrap().iter().filter_map(|record| record["action"].as_str()).collect();
    for (what, code) in codes {
        assert!(audited.iter().any(|audited| audited.starts_with(code)), "{what}: {code} is not among {audited:?}");
    }
    assert_eq!(shop.get(&approval).await["status"], "approved", "nothing was used up");
    let path = format!("/api/approvals/{}/execute", approval["id"].as_str().unwrap());
    assert_eq!(shop.api.post(bob, &path, json!({})).await.expect(401).code(), "bad_token", "no header at all");
    let twice = shop.api.request(bob, "post", &path).header("x-approval-token", &token).header("x-approval-token", &token);
    send(twice).await.expect(401);
    assert_eq!(shop.execute(bob, &other, &token).await.expect(403).code(), "wrong_action");
    // an approval's token opens no session
    shop.api.get(As::Token(&token), "/api/approvals").await.expect(401);
    // a lost answer: the old token is worth nothing, the new one has the same deadline
    let anew = shop.verb(bob, &approval, "token", json!({})).await.expect(200);
    assert_eq!(anew.header("cache-control"), "no-store");
    shop.execute(bob, &approval, &token).await.expect(401);
    assert_eq!(shop.verb(As::Token(&shop.ada), &approval, "token", json!({})).await.expect(403).code(), "forbidden");
    shop.verb(bob, &approval, "revoke", json!({ "reason": "wait" })).await.expect(200);
    shop.execute(bob, &approval, anew.body["token"].as_str().unwrap()).await.expect(401);
    shop.close().await;
}

#[actix_web::test]
async fn t7_a11_what_changed_or_took_too_long_is_not_run() {
    let shop = Shop::open().await;
    let bob = As::Token(&shop.bob);
    let (approval, shown) = (shop.propose("restart-service").await, shop.propose("restart-service").await);
    let wrong = json!({ "plan_digest": format!("sha256:{}", "0".repeat(64)), "reason": "" });
    assert_eq!(shop.verb(bob, &approval, "approve", wrong).await.expect(409).code(), "plan_changed");
    assert_eq!(
        shop.verb(bob, &approval, "approve", json!({ "plan_digest": "x" })).await.expect(422).body["errors"][0]["pointer"],
        "/plan_digest"
    );
    let token = shop.approved(&approval).await;
    shop.api.state.gate.set_catalogue(Some(catalogue("31s"))).await.unwrap();
    assert_eq!(shop.execute(bob, &approval, &token).await.expect(409).code(), "plan_changed");
    assert_eq!(shop.approve(bob, &shown).await.expect(409).code(), "plan_changed");
    assert_eq!(shop.get(&shown).await["status"], "superseded");

    let late = shop.propose("restart-service").await;
    let token = shop.approved(&late).await;
    assert_eq!(shop.approve(bob, &late).await.expect(409).code(), "already_decided");
    let waits = shop.propose("restart-service").await;
    shop.api.clock.advance(Duration::from_secs(900));
    assert_eq!(shop.execute(bob, &late, &token).await.expect(410).code(), "token_expired");
    shop.api.clock.advance(Duration::from_secs(2700));
    // the sessions are over by now as well
    let bob = shop.api.login("bob").await;
    assert_eq!(shop.approve(As::Token(&bob), &waits).await.expect(410).code(), "expired");
    shop.close().await;
}

#[actix_web::test]
async fn destruction_needs_the_password_again_and_two_people() {
    let shop = Shop::open().await;
    let approval = shop.propose("wipe").await;
    let digest = &approval["plan_digest"];
    let with = |password: &str| json!({ "plan_digest": digest, "password": password });
    assert_eq!(shop.approve(As::Token(&shop.bob), &approval).await.expect(403).code(), "step_up_required");
    let wrong = shop.verb(As::Token(&shop.bob), &approval, "approve", with("not the password")).await.expect(403);
    assert_eq!(wrong.code(), "step_up_required");
    assert!(!shop.api.log.text().contains("not the password"));
    let noted = loop {
        // a wrong password makes the next try wait
        let got = shop.verb(As::Token(&shop.bob), &approval, "approve", with(PASSWORD)).await;
        match got.status {
            429 => shop.api.clock.advance(Duration::from_secs(5)),
            _ => break got.expect(202),
        }
    };
    assert_eq!((&noted.body["status"], noted.body.get("token")), (&json!("pending"), None));
    let cleo = shop.api.someone("cleo", Role::Operator).await;
    let got = shop.verb(As::Token(&cleo), &approval, "approve", with(PASSWORD)).await.expect(200);
    let token = got.body["token"].as_str().unwrap().to_owned();
    shop.execute(As::Token(&shop.bob), &approval, &token).await.expect(202);
    shop.close().await;
}

#[actix_web::test]
async fn t16_a_proposal_that_is_sent_again_is_made_once() {
    let shop = Shop::open().await;
    let path = format!("/api/incidents/{}/proposals", shop.incident);
    let send_with = async |who: &str, body: Value| {
        send(shop.api.request(As::Token(who), "post", &path).header("idempotency-key", "k1").json(&body)).await
    };
    let body = json!({ "action": "restart-service", "params": { "service": "checkout" } });
    let first = send_with(&shop.ada, body.clone()).await.expect(201);
    let again = send_with(&shop.ada, body.clone()).await.expect(201);
    assert_eq!((first.body["id"].clone(), again.header("idempotency-replayed")), (again.body["id"].clone(), "true"));
    let other = json!({ "action": "restart-service", "params": { "service": "other" } });
    send_with(&shop.ada, other).await.expect(422);
    let of_bob = send_with(&shop.bob, body).await.expect(201);
    assert_ne!(of_bob.body["id"], first.body["id"], "another user's key is invisible");
    for (wrong, pointer) in [
        (json!({ "action": "restart-servce", "params": {} }), "/action"),
        (json!({ "action": "restart-service", "params": {} }), "/params/service"),
        (json!({ "action": "restart-service", "params": { "service": "--x" } }), "/params/service"),
        (json!({ "action": "restart-service", "params": { "service": "x", "y": 1 } }), "/params/y"),
        (json!({ "action": "restart-service", "risk": "read" }), "/risk"),
    ] {
        let got = shop.api.post(As::Token(&shop.ada), &path, wrong.clone()).await.expect(422);
        assert_eq!(got.body["errors"][0]["pointer"], pointer, "{wrong}: {}", got.body);
    }
    shop.api
        .post(
            As::Token(&shop.ada),
            "/api/incidents/inc_none/proposals",
            json!({ "action": "restart-service", "params": { "service": "x" } }),
        )
        .await
        .expect(404);
    shop.close().await;
}

#[actix_web::test]
async fn the_kill_switch_is_engaged_by_operators_and_released_by_admins_in_person() {
    let shop = Shop::open().await;
    let approval = shop.propose("restart-service").await;
    let token = shop.approved(&approval).await;
    let (ada, bob) = (As::Token(&shop.ada), As::Token(&shop.bob));
    assert_eq!(shop.api.get(ada, "/api/kill-switch").await.expect(200).body["engaged"], false);
    let engaged = shop.api.post(ada, "/api/kill-switch", json!({ "reason": "strange things" })).await.expect(200).body;
    assert_eq!((&engaged["engaged"], &engaged["by"], &engaged["reason"]), (&json!(true), &json!("ada"), &json!("strange things")));
    let refused = shop.execute(bob, &approval, &token).await.expect(409);
    assert_eq!(refused.code(), "frozen");
    assert!(refused.body["detail"].as_str().unwrap().contains("strange things"));
    send(shop.api.request(bob, "delete", "/api/kill-switch")).await.expect(403);
    let root = shop.api.someone("root", Role::Admin).await;
    let key = shop.api.key(&root, "admin").await;
    assert_eq!(send(shop.api.request(As::Key(&key), "delete", "/api/kill-switch")).await.expect(403).code(), "key_not_allowed");
    send(shop.api.request(As::Token(&root), "delete", "/api/kill-switch")).await.expect(200);
    shop.execute(bob, &approval, &token).await.expect(202);
    let nothing = send(shop.api.request(As::Token(&root), "post", "/api/clock/accept")).await.expect(409);
    assert_eq!(nothing.code(), "clock_is_right");
    shop.close().await;
}

#[actix_web::test]
async fn a_no_needs_a_reason_and_ends_it() {
    let shop = Shop::open().await;
    let approval = shop.propose("restart-service").await;
    let bob = As::Token(&shop.bob);
    assert_eq!(shop.verb(bob, &approval, "deny", json!({})).await.expect(422).body["errors"][0]["pointer"], "/reason");
    let denied = shop.verb(bob, &approval, "deny", json!({ "reason": "not during the sale" })).await.expect(200).body;
    assert_eq!(denied["status"], "denied");
    assert_eq!(shop.approve(bob, &approval).await.expect(409).code(), "already_decided");
    let own = shop.propose("restart-service").await;
    assert_eq!(shop.verb(bob, &own, "withdraw", json!({})).await.expect(403).code(), "forbidden");
    assert_eq!(shop.verb(As::Token(&shop.ada), &own, "withdraw", json!({})).await.expect(200).body["status"], "withdrawn");
    for verb in ["approve", "deny", "revoke", "withdraw", "token", "execute"] {
        let body = if verb == "approve" { json!({ "plan_digest": own["plan_digest"] }) } else { json!({}) };
        shop.api.post(bob, &format!("/api/approvals/apr_none/{verb}"), body).await.expect(404);
    }
    shop.close().await;
}
