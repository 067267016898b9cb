//! What ends by itself: time, and incidents that are over.

use std::time::Duration;

use opspilot_kernel::{approval::ApprovalStatus, clock::Clock as _, principal::Actor};
use opspilot_ledger::{KeyFile, KeyPurpose};
use opspilot_safety::{Policy, Refusal};

use crate::support::{World, ada, bob, refused};

#[actix::test]
async fn a11_a_token_holds_for_fourteen_minutes_fifty_nine_and_not_for_fifteen() {
    for (seconds, holds) in [(0, true), (899, true), (900, false), (901, false)] {
        let world = World::new().await;
        // between two seconds, where rounding would show
        world.clock.advance(Duration::from_millis(700));
        let approval = world.propose("restart").await;
        let token = world.approved(&approval).await;
        world.clock.advance(Duration::from_secs(seconds));
        let outcome = world.execute(&approval, &token).await;
        if holds {
            outcome.unwrap();
        } else {
            assert_eq!(refused(outcome), Refusal::TokenExpired, "{seconds}");
            assert_eq!(world.journal.starts().len(), 0);
            world.until(&approval.id, ApprovalStatus::Lapsed).await;
        }
        world.stop().await;
    }
}

#[actix::test]
async fn nobody_decided_in_time_is_expired_and_not_denied() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    world.clock.advance(Duration::from_secs(3599));
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Pending);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(refused(world.approve_as(bob(), &approval).await), Refusal::Expired);
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Expired, "a refusal keeps what time did");
    assert_eq!(refused(world.gate.deny(&approval.id, bob(), "x".to_owned()).await), Refusal::Expired);
    assert_eq!((world.count("PRO04I"), world.count("APR03I")), (1, 0));
    world.stop().await;
}

#[actix::test]
async fn the_sweep_ends_what_nobody_touches() {
    let world = World::new().await;
    let (waits, approved) = (world.propose_n(1).await, world.propose_n(2).await);
    world.approved(&approved).await;
    world.clock.advance(Duration::from_secs(3600));
    // something else wakes it; without, it looks every few seconds
    world.propose_n(3).await;
    world.until(&waits.id, ApprovalStatus::Expired).await;
    world.until(&approved.id, ApprovalStatus::Lapsed).await;
    world.stop().await;
}

#[actix::test]
async fn a_resolved_incident_takes_its_proposals_along() {
    let world = World::new().await;
    let (waits, approved, runs) = (world.propose_n(1).await, world.propose_n(2).await, world.propose_n(3).await);
    let (token, of_run) = (world.approved(&approved).await, world.approved(&runs).await);
    world.journal.hold();
    world.execute(&runs, &of_run).await.unwrap();
    let id = world.incident.clone();
    let actor = Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
    world.write(move |tx| tx.incident_resolve(&id, &actor, "over")).await;
    assert_eq!(world.get(&waits.id).await.status, ApprovalStatus::Withdrawn);
    assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Revoked);
    assert_eq!(world.get(&runs.id).await.status, ApprovalStatus::Executing, "what runs goes on");
    assert_eq!(refused(world.execute(&approved, &token).await), Refusal::BadToken);
    let by = opspilot_kernel::approval::Proposer::User("ada".to_owned());
    let outcome = world.propose_as(by, "restart", serde_json::json!({ "service": "x" })).await;
    assert_eq!(refused(outcome), Refusal::IncidentResolved);
    world.journal.let_go();
    world.until(&runs.id, ApprovalStatus::Succeeded).await;
    assert!(world.clock.now() > opspilot_kernel::time::Timestamp::ZERO);
    drop(ada());
    world.stop().await;
}

#[actix::test]
async fn t2_with_another_key_nothing_that_was_approved_before_holds() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    // the first key is on record before it is replaced
    let (dir, clock) = world.stop().await;
    KeyFile::random(KeyPurpose::Approval).store(&dir.path().join("data")).unwrap();
    let world = World::over(dir, clock, Policy::default()).await;
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::BadToken);
    world.until(&approval.id, ApprovalStatus::Revoked).await;
    assert_eq!((world.count("TOK15W"), world.count("TOK03I")), (1, 1));
    world.stop().await;
}
