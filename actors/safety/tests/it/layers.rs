//! Each check of the ledger by itself, where the gate before it, or the order that the rest of the ledger keeps, would
//! have seen to the same: what one layer misses the next one holds.

use std::{sync::Arc, time::Duration};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus, Proposer},
    clock::Clock as _,
    ids::{ApprovalId, ExecutionId},
    plan::PlanDigest,
    principal::Role,
};
use opspilot_ledger::{Ballot, Consumption, LedgerError, Minted, Priority};
use opspilot_safety::{Approver, Decision, GateError, IssuedToken, Proposal, Refusal};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Now as _, World, ada, bob, by_key, catalogue, cleo, refused, who};

/// What the gate makes of a token that it finds nothing wrong with.
fn consumption(world: &World, approval: &Approval, token: &IssuedToken) -> Consumption {
    Consumption {
        approval: approval.id.clone(),
        jti: token.token_id.clone(),
        hash: Sha256::digest(token.token.as_bytes()).into(),
        digest: approval.plan_digest,
        epoch: world.ledger.read_blocking(|reader| reader.epoch()).unwrap(),
        caller: bob().person,
        actor: bob().actor,
        execution: ExecutionId::random(),
        elapsed: world.clock.elapsed(),
    }
}

/// Straight to the transaction; says why not, or nothing if the run began.
async fn consume(world: &World, with: Consumption, can_run: bool, is_same: bool) -> Option<Refusal> {
    world.write(move |tx| tx.consume(&with, can_run, |_| is_same, || Ok(())).map(Result::err)).await
}

fn ballot(id: &ApprovalId, by: Approver) -> Ballot {
    Ballot { id: id.clone(), person: by.person, by_key: by.by_key, actor: by.actor, reason: "yes".to_owned() }
}

fn minted() -> Minted {
    Minted { jti: hex::encode(rand::random::<[u8; 16]>()), hash: rand::random(), token: "t".to_owned() }
}

/// A vote that went past the gate.
async fn vote(world: &World, approval: &Approval, by: Approver, lacks_password: bool, is_same: bool) -> Option<Refusal> {
    let (ballot, digest, elapsed) = (ballot(&approval.id, by), approval.plan_digest, world.clock.elapsed());
    world
        .write(move |tx| {
            tx.approval_vote(&ballot, lacks_password, digest, elapsed, |_| is_same, |_| Ok(minted())).map(|outcome| outcome.err())
        })
        .await
}

/// Changes the database behind everybody's back.
fn by_hand(world: &World, sql: &str) {
    let path = world.dir.path().join("data").join(opspilot_ledger::DATABASE);
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    assert!(diesel::sql_query(sql).execute(&mut connection).unwrap() > 0, "{sql} changed nothing");
}

#[actix::test]
async fn t5_t7_the_transaction_that_uses_a_token_up_trusts_nobody_before_it() {
    let world = World::new().await;
    let (approval, other) = (world.propose_n(1).await, world.propose_n(2).await);
    let (token, _) = (world.approved(&approval).await, world.approved(&other).await);
    let good = || consumption(&world, &approval, &token);
    let cases = [
        ("another approval's", Consumption { approval: other.id.clone(), ..good() }, true, Refusal::WrongAction),
        ("no token's name", Consumption { jti: "0".repeat(32), ..good() }, true, Refusal::BadToken),
        ("another token of this name", Consumption { hash: [7; 32], ..good() }, true, Refusal::BadToken),
        ("another epoch", Consumption { epoch: "0".repeat(16), ..good() }, true, Refusal::BadToken),
        ("a viewer", Consumption { caller: who("vera", Role::Admin, &[]).person, ..good() }, true, Refusal::NotPermitted),
        ("a stranger", Consumption { caller: who("nobody", Role::Admin, &[]).person, ..good() }, true, Refusal::NotPermitted),
        (
            "too late by monotonic time",
            Consumption { elapsed: world.clock.elapsed() + Duration::from_secs(900), ..good() },
            true,
            Refusal::TokenExpired,
        ),
        ("nothing to carry it out", good(), false, Refusal::NoExecutor),
    ];
    for (what, with, can_run, refusal) in cases {
        assert_eq!(consume(&world, with, can_run, true).await, Some(refusal), "{what}");
        assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Approved, "{what}: a better one still holds");
    }
    let now = world.clock.now_();
    world.clock.set(now.before(Duration::from_secs(600)));
    assert_eq!(consume(&world, good(), true, true).await, Some(Refusal::ClockRegression));
    world.clock.set(now);
    assert_eq!(consume(&world, good(), true, true).await, None, "and this one is good");
    assert_eq!(world.count("EXE01I"), 1);
    world.stop().await;
}

#[actix::test]
async fn t7_a_plan_that_is_not_the_one_that_was_approved_ends_the_approval_for_good() {
    for is_same in [true, false] {
        let world = World::new().await;
        let approval = world.propose("restart").await;
        let token = world.approved(&approval).await;
        let digest = if is_same { PlanDigest::of(b"another") } else { approval.plan_digest };
        let with = Consumption { digest, ..consumption(&world, &approval, &token) };
        assert_eq!(consume(&world, with, true, is_same).await, Some(Refusal::PlanChanged));
        assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Revoked);
        assert_eq!(consume(&world, consumption(&world, &approval, &token), true, true).await, Some(Refusal::PlanChanged), "for good");
        assert_eq!((world.count("EXE01E"), world.count("EXE01I")), (2, 0));
        world.stop().await;
    }
}

#[actix::test]
async fn what_does_not_belong_together_in_the_database_starts_nothing() {
    let cases = [
        ("UPDATE approval SET status = 'denied'", Refusal::NotApproved(ApprovalStatus::Denied)),
        ("UPDATE approval SET status = 'pending'", Refusal::NotApproved(ApprovalStatus::Pending)),
        ("UPDATE approval_token SET state = 'consumed'", Refusal::TokenUsed),
        ("UPDATE approval_token SET state = 'revoked'", Refusal::BadToken),
        ("UPDATE approval_token SET state = 'expired'", Refusal::TokenExpired),
        ("UPDATE approval_token SET expires_at = issued_at", Refusal::TokenExpired),
        ("UPDATE meta SET value = 'another' WHERE name = 'epoch'", Refusal::BadToken),
        ("DELETE FROM approval_vote", Refusal::NotEligible),
        ("UPDATE approval_vote SET user_name = 'vera'", Refusal::NotEligible),
        ("UPDATE approval_vote SET user_name = 'nobody'", Refusal::NotEligible),
        ("UPDATE user_account SET disabled = 1 WHERE name = 'bob'", Refusal::NotEligible),
        ("UPDATE approval SET owner = 'BOB'", Refusal::NotEligible),
    ];
    for (sql, refusal) in cases {
        let world = World::new().await;
        let approval = world.propose("restart").await;
        let token = world.approved(&approval).await;
        let with = Consumption { caller: cleo().person, ..consumption(&world, &approval, &token) };
        by_hand(&world, sql);
        assert_eq!(consume(&world, with, true, true).await, Some(refusal), "{sql}");
        assert_eq!(world.count("EXE01I"), 0);
        world.stop().await;
    }
}

#[actix::test]
async fn t7_plan_bytes_that_were_edited_where_they_lie_are_damage() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    let with = consumption(&world, &approval, &token);
    by_hand(&world, "UPDATE approval SET plan = CAST(replace(CAST(plan AS TEXT), 'checkout', 'database') AS BLOB)");
    let outcome = world.ledger.write(Priority::Control, move |tx| tx.consume(&with, true, |_| true, || Ok(()))).await;
    assert!(matches!(outcome, Err(LedgerError::Damaged(_))), "{outcome:?}");
    assert!(world.execute(&approval, &token).await.is_err());
    assert_eq!((world.journal.starts().len(), world.count("EXE01I")), (0, 0));
    world.stop().await;
}

#[actix::test]
async fn a_vote_is_looked_at_again_in_its_transaction() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    assert_eq!(vote(&world, &approval, bob(), true, true).await, Some(Refusal::StepUpRequired));
    assert_eq!(vote(&world, &approval, bob(), false, false).await, Some(Refusal::PlanChanged));
    assert_eq!(vote(&world, &approval, by_key(bob()), false, true).await, Some(Refusal::KeyNotAllowed));
    assert_eq!(vote(&world, &approval, who("bob ", Role::Admin, &[]), false, true).await, Some(Refusal::NotPermitted));
    let now = world.clock.now_();
    world.clock.set(now.before(Duration::from_secs(600)));
    assert_eq!(vote(&world, &approval, bob(), false, true).await, Some(Refusal::ClockRegression));
    world.clock.set(now);
    assert_eq!(world.get(&approval.id).await.quorum.approved_by, [""; 0]);
    assert_eq!(vote(&world, &approval, bob(), false, true).await, None);
    world.stop().await;
}

#[actix::test]
async fn a_token_is_made_anew_by_whoever_agreed_in_person_with_a_clock_that_is_right() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    world.approved(&approval).await;
    let again = async |by: Approver| {
        let ballot = ballot(&approval.id, by);
        world.write(move |tx| tx.token_reissue(&ballot, |_| Ok(minted())).map(|outcome| outcome.err())).await
    };
    assert_eq!(again(by_key(bob())).await, Some(Refusal::KeyNotAllowed));
    assert_eq!(again(cleo()).await, Some(Refusal::NotPermitted));
    assert_eq!(again(ada()).await, Some(Refusal::NotPermitted));
    let now = world.clock.now_();
    world.clock.set(now.before(Duration::from_secs(600)));
    assert_eq!(again(bob()).await, Some(Refusal::ClockRegression));
    world.clock.set(now);
    assert_eq!(again(bob()).await, None);
    world.stop().await;
}

#[actix::test]
async fn t8_whoever_proposed_it_is_found_under_another_spelling_of_their_name() {
    let world = World::new().await;
    let approval = world.propose_as(Proposer::User("ADA".to_owned()), "look", json!({ "service": "x" }));
    let approval = approval.await.unwrap();
    assert_eq!(vote(&world, &approval, ada(), false, true).await, Some(Refusal::SelfApproval));
    assert!(matches!(world.approve_as(bob(), &approval).await, Ok(Decision::Approved(..))));
    world.stop().await;
}

#[actix::test]
async fn while_nobody_offers_a_catalogue_nothing_is_decided_and_nothing_is_lost() {
    let world = World::new().await;
    let (waits, agreed) = (world.propose_n(1).await, world.propose_n(2).await);
    let token = world.approved(&agreed).await;
    world.gate.set_catalogue(None).await.unwrap();
    assert_eq!(refused(world.approve_as(bob(), &waits).await), Refusal::NoExecutor);
    assert_eq!(refused(world.execute(&agreed, &token).await), Refusal::NoExecutor);
    let more = world.propose_as(Proposer::User("ada".to_owned()), "say", json!({ "n": 3 })).await;
    assert_eq!(refused(more), Refusal::NoExecutor);
    assert_eq!(world.get(&waits.id).await.status, ApprovalStatus::Pending);
    assert_eq!(world.get(&agreed.id).await.status, ApprovalStatus::Approved);
    world.gate.set_catalogue(Some(Arc::new(catalogue()))).await.unwrap();
    world.approved(&waits).await;
    world.execute(&agreed, &token).await.unwrap();
    world.until(&agreed.id, ApprovalStatus::Succeeded).await;
    world.stop().await;
}

#[actix::test]
async fn what_people_write_has_bounds_and_a_person_who_proposes_has_a_name() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    for (length, fits) in [(4097, false), (4096, true)] {
        let outcome = world.gate.approve(&approval.id, bob(), approval.plan_digest, "é".repeat(length), true).await;
        if fits {
            outcome.unwrap();
        } else {
            assert!(matches!(outcome, Err(GateError::Invalid { field: "/reason", .. })), "{outcome:?}");
        }
    }
    let nobodys = Proposal {
        id: None,
        incident: world.incident.clone(),
        action: "restart".to_owned(),
        params: [("service".to_owned(), json!("checkout"))].into(),
        reasoning: String::new(),
        by: Proposer::User("ada".to_owned()),
        actor: ada().actor,
        owner: None,
    };
    assert!(matches!(world.gate.propose(nobodys).await, Err(GateError::Internal(_))), "ada could approve it herself");
    assert_eq!(world.count("PRO01I"), 1);
    world.stop().await;
}

#[actix::test]
async fn t9_a_group_lends_no_vote_to_an_account_that_may_not_even_look() {
    let world = World::new().await;
    world.user("robot", Role::Integrator, &["sre"]).await;
    let quorum = json!({ "quorum": [{ "tier": "disruptive", "require": [{ "group": "sre", "n": 1 }] }] });
    world.gate.set_policy(serde_json::from_value(quorum).unwrap()).await.unwrap();
    let approval = world.propose("restart").await;
    assert_eq!(refused(world.approve_as(who("robot", Role::Integrator, &["sre"]), &approval).await), Refusal::NotPermitted);
    let bobs = world.approve_as(bob(), &approval).await.unwrap();
    assert!(matches!(bobs, Decision::Pending(_)), "an operator outside of the group does not fill its place");
    let doras = world.approve_as(who("dora", Role::Viewer, &["sre"]), &approval).await.unwrap();
    assert!(matches!(doras, Decision::Approved(..)), "a viewer in it does");
    world.stop().await;
}
