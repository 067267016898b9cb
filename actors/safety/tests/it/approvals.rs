//! The way through, and every refusal on it.

use opspilot_kernel::{
    approval::{ApprovalStatus, Proposer},
    event::EventKind,
    incident::TimelineKind,
    principal::Role,
};
use opspilot_ledger::{EventEntry, UserChange};
use opspilot_safety::{Decision, GateError, Refusal};
use serde_json::json;

use crate::support::{World, ada, bob, by_key, cleo, refused, root, who};

#[actix::test]
async fn what_two_people_agree_to_runs_once_and_everything_is_on_record() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    assert_eq!(approval.status, ApprovalStatus::Pending);
    assert_eq!(approval.preview.text, "/usr/bin/systemctl restart checkout");
    assert_eq!((approval.title.as_str(), approval.plan.targets.as_slice()), ("Restart checkout", &["checkout".to_owned()][..]));
    let token = world.approved(&approval).await;
    assert_eq!(token.expires_at.since(approval.created_at).as_secs(), 900);
    let execution = world.execute(&approval, &token).await.unwrap();
    let ended = world.until(&approval.id, ApprovalStatus::Succeeded).await;
    assert_eq!(ended.execution_id.as_ref(), Some(&execution.id));
    assert_eq!(ended.quorum.approved_by, ["bob"]);
    let run = {
        let id = execution.id.clone();
        world.ledger.read(move |reader| reader.execution(&id)).await.unwrap()
    };
    assert_eq!((run.stdout.as_str(), run.exit_code), ("done\n", Some(0)));
    assert_eq!(world.journal.starts().len(), 1);

    let codes = world.audited();
    let wanted = ["PRO01I", "APR01I", "TOK01I", "EXE01I", "EXE02I"];
    assert_eq!(codes.iter().filter(|code| wanted.contains(&code.as_str())).collect::<Vec<_>>(), wanted);
    use TimelineKind::{ActionApproved, ActionFinished, ActionProposed, ActionStarted, Opened};
    assert_eq!(world.timeline(), [Opened, ActionProposed, ActionApproved, ActionStarted, ActionFinished]);
    let mut kinds = Vec::new();
    for entry in world.ledger.events().next(0, 1 << 20).unwrap() {
        if let EventEntry::Event(envelope) = entry {
            kinds.push(envelope.event.kind());
        }
    }
    kinds.retain(|kind| kind.as_str().starts_with("action."));
    assert_eq!(kinds, [EventKind::ActionProposed, EventKind::ActionApproved, EventKind::ActionExecuted]);
    let detail = {
        let id = world.incident.clone();
        world.ledger.read(move |reader| reader.incident(&id)).await.unwrap()
    };
    assert_eq!(detail.approvals.first().map(|approval| approval.status), Some(ApprovalStatus::Succeeded));
    world.stop().await;
}

#[actix::test]
async fn only_the_digest_of_a_token_is_stored_and_the_token_is_nowhere() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    world.execute(&approval, &token).await.unwrap();
    world.until(&approval.id, ApprovalStatus::Succeeded).await;
    let secret = token.token.rsplit('.').next().unwrap().to_owned();
    let (dir, _) = world.stop().await;
    let mut looked = 0;
    for entry in std::fs::read_dir(dir.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
            looked += 1;
        }
    }
    assert!(looked > 1, "{looked} files");
}

#[actix::test]
async fn t8_nobody_approves_their_own_proposal_by_whatever_way() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    // the same session, a second session (people are names here), their own key, another spelling of the name
    let mut shouting = ada();
    shouting.person.user = "ADA".to_owned();
    for own in [ada(), by_key(ada()), shouting] {
        assert_eq!(refused(world.approve_as(own, &approval).await), Refusal::SelfApproval);
    }
    // proposed by her key, approved in her session
    let by_her_key = world.propose_as(Proposer::User("ada".to_owned()), "look", json!({ "service": "x" })).await.unwrap();
    assert_eq!(refused(world.approve_as(ada(), &by_her_key).await), Refusal::SelfApproval);
    assert_eq!(world.get(&approval.id).await.quorum.approved_by, [""; 0]);
    assert_eq!(world.journal.starts().len(), 0);
    world.stop().await;
}

#[actix::test]
async fn t8_a_key_never_decides_and_a_model_or_rule_cannot_be_a_person() {
    let world = World::new().await;
    let approval = world.propose_as(Proposer::Ai("model".to_owned()), "restart", json!({ "service": "checkout" })).await.unwrap();
    assert_eq!(refused(world.approve_as(by_key(bob()), &approval).await), Refusal::KeyNotAllowed);
    // a model's name is no account
    assert_eq!(refused(world.approve_as(who("model", Role::Operator, &[]), &approval).await), Refusal::NotPermitted);
    assert_eq!(refused(world.gate.deny(&approval.id, by_key(bob()), "no".to_owned()).await), Refusal::KeyNotAllowed);
    let token = world.approved(&approval).await;
    let with_key = world.gate.execute(&approval.id, &token.token, by_key(bob())).await;
    assert_eq!(refused(with_key), Refusal::KeyNotAllowed);
    assert_eq!(refused(world.gate.reissue(&approval.id, by_key(bob())).await), Refusal::KeyNotAllowed);
    assert_eq!(world.journal.starts().len(), 0);
    world.execute(&approval, &token).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn t9_a_viewer_decides_nothing_whatever_role_they_claim() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        // what they came with may be older than what their account says now
        assert_eq!(refused(world.approve_as(who("vera", role, &["sre"]), &approval).await), Refusal::NotPermitted);
        assert_eq!(refused(world.gate.deny(&approval.id, who("vera", role, &[]), "no".to_owned()).await), Refusal::NotPermitted);
    }
    let token = world.approved(&approval).await;
    let run = world.gate.execute(&approval.id, &token.token, who("vera", Role::Operator, &[])).await;
    assert_eq!(refused(run), Refusal::NotPermitted);
    assert_eq!(world.journal.starts().len(), 0);
    world.stop().await;
}

#[actix::test]
async fn a_wrong_digest_is_not_agreed_to() {
    let world = World::new().await;
    let (approval, other) = (world.propose("restart").await, world.propose("look").await);
    let outcome = world.gate.approve(&approval.id, bob(), other.plan_digest, String::new(), true).await;
    assert_eq!(refused(outcome), Refusal::PlanChanged);
    assert_eq!(world.get(&approval.id).await.quorum.approved_by, [""; 0]);
    world.stop().await;
}

#[actix::test]
async fn destruction_needs_two_people_and_their_passwords() {
    let world = World::new().await;
    let approval = world.propose("wipe").await;
    assert_eq!(approval.quorum.required, 2);
    let without = world.gate.approve(&approval.id, bob(), approval.plan_digest, String::new(), false).await;
    assert_eq!(refused(without), Refusal::StepUpRequired);
    for _ in 0..2 {
        // twice the same person is one person
        let Decision::Pending(pending) = world.approve_as(bob(), &approval).await.unwrap() else { panic!() };
        assert_eq!(pending.quorum.approved_by, ["bob"]);
    }
    let Decision::Approved(approved, token) = world.approve_as(cleo(), &approval).await.unwrap() else { panic!() };
    assert_eq!(approved.quorum.approved_by, ["bob", "cleo"]);
    assert_eq!((world.count("APR02I"), world.count("APR01I")), (2, 1));
    world.execute(&approval, &token).await.unwrap();
    world.until(&approval.id, ApprovalStatus::Succeeded).await;
    world.stop().await;
}

#[actix::test]
async fn what_is_decided_is_decided() {
    let world = World::new().await;
    let denied = world.propose("restart").await;
    assert!(matches!(world.gate.deny(&denied.id, bob(), "  ".to_owned()).await, Err(GateError::Invalid { field: "/reason", .. })));
    let after = world.gate.deny(&denied.id, bob(), "not now".to_owned()).await.unwrap();
    assert_eq!(after.status, ApprovalStatus::Denied);
    assert_eq!(refused(world.approve_as(cleo(), &denied).await), Refusal::AlreadyDecided(ApprovalStatus::Denied));
    assert_eq!(refused(world.gate.deny(&denied.id, cleo(), "x".to_owned()).await), Refusal::AlreadyDecided(ApprovalStatus::Denied));

    let approved = world.propose("restart").await;
    world.approved(&approved).await;
    assert_eq!(refused(world.approve_as(cleo(), &approved).await), Refusal::AlreadyDecided(ApprovalStatus::Approved));
    assert_eq!(refused(world.gate.withdraw(&approved.id, ada(), String::new()).await), Refusal::AlreadyDecided(ApprovalStatus::Approved));

    let own = world.propose("restart").await;
    assert_eq!(refused(world.gate.withdraw(&own.id, bob(), String::new()).await), Refusal::NotPermitted);
    assert_eq!(world.gate.withdraw(&own.id, ada(), String::new()).await.unwrap().status, ApprovalStatus::Withdrawn);
    let other = world.propose("restart").await;
    assert_eq!(world.gate.withdraw(&other.id, root(), String::new()).await.unwrap().status, ApprovalStatus::Withdrawn);
    world.stop().await;
}

#[actix::test]
async fn t5_a_token_is_used_once_and_worthless_after_that() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    world.execute(&approval, &token).await.unwrap();
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::TokenUsed, "while it runs");
    world.until(&approval.id, ApprovalStatus::Succeeded).await;
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::TokenUsed, "after its success");
    assert_eq!(world.count("TOK31W"), 1, "the first replay within the minute has an entry of its own");
    let world = world.crash().await;
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::TokenUsed, "after a restart");
    assert_eq!(world.journal.starts_of(&approval.id), 1);
    world.stop().await;
}

#[actix::test]
async fn t5_a_revoked_or_reissued_token_starts_nothing() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let lost = world.approved(&approval).await;
    assert_eq!(refused(world.gate.reissue(&approval.id, cleo()).await), Refusal::NotPermitted, "cleo did not approve it");
    let anew = world.gate.reissue(&approval.id, bob()).await.unwrap();
    assert_eq!(anew.expires_at, lost.expires_at, "the deadline stays");
    assert_eq!(refused(world.execute(&approval, &lost).await), Refusal::BadToken);
    let revoked = world.gate.revoke(&approval.id, cleo(), "wait".to_owned()).await.unwrap();
    assert_eq!(revoked.status, ApprovalStatus::Revoked);
    assert_eq!(refused(world.execute(&approval, &anew).await), Refusal::BadToken);
    assert_eq!(refused(world.gate.reissue(&approval.id, bob()).await), Refusal::NotApproved(ApprovalStatus::Revoked));
    assert_eq!(world.journal.starts().len(), 0);
    world.stop().await;
}

#[actix::test]
async fn a_token_is_good_for_its_own_approval_alone() {
    let world = World::new().await;
    let (one, other) = (world.propose_n(1).await, world.propose_n(2).await);
    let (of_one, _) = (world.approved(&one).await, world.approved(&other).await);
    assert_eq!(refused(world.execute(&other, &of_one).await), Refusal::WrongAction);
    assert_eq!(world.journal.starts().len(), 0);
    world.execute(&one, &of_one).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn t11_whoever_stood_behind_it_must_still_be_allowed_to() {
    let changes = [
        ("bob", UserChange { disabled: Some(true), ..UserChange::default() }),
        ("bob", UserChange { role: Some(Role::Viewer), ..UserChange::default() }),
        ("ada", UserChange { disabled: Some(true), ..UserChange::default() }),
        ("ada", UserChange { role: Some(Role::Viewer), ..UserChange::default() }),
    ];
    for (name, change) in changes {
        let world = World::new().await;
        let approval = world.propose("restart").await;
        let token = world.approved(&approval).await;
        world.change(name, change).await;
        assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Revoked, "at once");
        let run = world.gate.execute(&approval.id, &token.token, cleo()).await;
        assert_eq!(refused(run), Refusal::NotEligible, "{name}");
        assert_eq!(world.journal.starts().len(), 0);
        world.stop().await;
    }
}

#[actix::test]
async fn t11_a_vote_of_somebody_who_left_does_not_count() {
    let world = World::new().await;
    let approval = world.propose("wipe").await;
    world.approve_as(bob(), &approval).await.unwrap();
    world.change("bob", UserChange { disabled: Some(true), ..UserChange::default() }).await;
    assert!(matches!(world.approve_as(cleo(), &approval).await, Ok(Decision::Pending(_))), "one of two is left");
    let outcome = world.approve_as(root(), &approval).await.unwrap();
    assert!(matches!(outcome, Decision::Approved(..)));
    world.stop().await;
}

#[actix::test]
async fn the_kill_switch_stops_every_start_and_an_admin_releases_it() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    assert_eq!(refused(world.gate.kill_switch(true, who("vera", Role::Operator, &[]), String::new()).await), Refusal::NotPermitted);
    assert!(world.gate.kill_switch(true, ada(), "something is wrong".to_owned()).await.unwrap().engaged);
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::Frozen("something is wrong".to_owned()));
    assert_eq!(refused(world.gate.kill_switch(false, ada(), String::new()).await), Refusal::NotPermitted);
    assert_eq!(refused(world.gate.kill_switch(false, by_key(root()), String::new()).await), Refusal::KeyNotAllowed);
    let world = world.crash().await;
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::Frozen("something is wrong".to_owned()), "a restart keeps it");
    assert!(!world.gate.kill_switch(false, root(), "all is well".to_owned()).await.unwrap().engaged);
    world.execute(&approval, &token).await.unwrap();
    assert_eq!((world.count("KIL01I"), world.count("KIL02I"), world.count("EXE01E")), (1, 1, 2));
    world.stop().await;
}

#[actix::test]
async fn one_run_for_each_target() {
    let world = World::new().await;
    let (first, second) = (world.propose("restart").await, world.propose("restart").await);
    let (one, two) = (world.approved(&first).await, world.approved(&second).await);
    world.journal.hold();
    let run = world.execute(&first, &one).await.unwrap().id;
    assert_eq!(refused(world.execute(&second, &two).await), Refusal::TargetBusy { target: "checkout".to_owned(), run });
    world.journal.let_go();
    world.until(&first.id, ApprovalStatus::Succeeded).await;
    world.execute(&second, &two).await.unwrap();
    world.until(&second.id, ApprovalStatus::Succeeded).await;
    world.stop().await;
}
