//! Runs that were cut off: never started again, never called a success or a failure without evidence.

use opspilot_kernel::{
    approval::ApprovalStatus,
    execution::{Execution, ExecutionStatus},
    ids::ExecutionId,
};
use opspilot_ledger::Consumption;
use opspilot_safety::{GateError, Refusal};

use crate::support::{World, ada, bob, by_key, refused, who};

async fn run(world: &World, id: &ExecutionId) -> Execution {
    let id = id.clone();
    world.ledger.read(move |reader| reader.execution(&id)).await.unwrap()
}

#[actix::test]
async fn a2_a_crash_while_it_runs_is_unknown_and_a_person_closes_it() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    world.journal.hold();
    let started = world.execute(&approval, &token).await.unwrap();
    while world.journal.starts().is_empty() {
        tokio::task::yield_now().await;
    }
    let world = world.crash().await;
    world.until(&approval.id, ApprovalStatus::Unknown).await;
    let found = run(&world, &started.id).await;
    assert_eq!((found.status, found.reason.as_deref()), (ExecutionStatus::Unknown, Some("interrupted")));
    assert_eq!(world.journal.starts_of(&approval.id), 1, "it is not started again");
    assert_eq!(world.count("EXE02E"), 1);

    let close = |who, outcome, reason: &str| world.gate.close(&started.id, who, outcome, reason.to_owned());
    assert!(matches!(close(bob(), ExecutionStatus::Succeeded, " ").await, Err(GateError::Invalid { field: "/reason", .. })));
    assert!(matches!(close(bob(), ExecutionStatus::Unknown, "x").await, Err(GateError::Invalid { field: "/outcome", .. })));
    assert_eq!(refused(close(by_key(bob()), ExecutionStatus::Failed, "x").await), Refusal::KeyNotAllowed);
    assert_eq!(
        refused(close(who("vera", opspilot_kernel::principal::Role::Operator, &[]), ExecutionStatus::Failed, "x").await),
        Refusal::NotPermitted
    );
    let closed = close(bob(), ExecutionStatus::Succeeded, "the service is up").await.unwrap();
    assert_eq!(closed.status, ExecutionStatus::Succeeded);
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Succeeded);
    assert!(matches!(refused(close(bob(), ExecutionStatus::Failed, "no").await), Refusal::Conflict(_)));
    assert_eq!(world.count("EXE03I"), 1);
    world.stop().await;
}

#[actix::test]
async fn a2_a_crash_after_the_commit_and_before_the_start_is_not_started() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    // what the gate commits, without what it does after that: as if it were killed in between
    let claims = claims(&token.token);
    let with = Consumption {
        approval: approval.id.clone(),
        jti: claims["jti"].as_str().unwrap().to_owned(),
        hash: sha2::Sha256::digest(token.token.as_bytes()).into(),
        digest: approval.plan_digest,
        epoch: claims["epo"].as_str().unwrap().to_owned(),
        caller: bob().person,
        actor: bob().actor,
        execution: ExecutionId::random(),
        elapsed: std::time::Duration::ZERO,
    };
    let started = world.write(move |tx| tx.consume(&with, true, |_| true, || Ok(()))).await.unwrap();
    let (dir, clock) = world.stop().await;
    let world = World::over(dir, clock, opspilot_safety::Policy::default()).await;
    world.until(&approval.id, ApprovalStatus::Failed).await;
    assert_eq!(run(&world, &started.execution.id).await.reason.as_deref(), Some("not_started"));
    assert_eq!(world.journal.starts().len(), 0);
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::TokenUsed, "a rerun needs a new approval");
    let again = world
        .propose_as(opspilot_kernel::approval::Proposer::User("ada".to_owned()), "restart", serde_json::json!({ "service": "checkout" }))
        .await
        .unwrap();
    let token = world.approved(&again).await;
    world.execute(&again, &token).await.unwrap();
    world.stop().await;
}

use sha2::Digest as _;

fn claims(token: &str) -> serde_json::Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[actix::test]
async fn an_executor_that_panics_leaves_an_unknown_end_and_a_gate_that_goes_on() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    world.journal.panic_next();
    world.execute(&approval, &token).await.unwrap();
    world.until(&approval.id, ApprovalStatus::Unknown).await;
    assert_eq!(world.journal.starts_of(&approval.id), 1);
    // on another target: this one is kept until a person has looked
    let next = world.propose_n(1).await;
    let token = world.approved(&next).await;
    world.execute(&next, &token).await.unwrap();
    world.until(&next.id, ApprovalStatus::Succeeded).await;
    drop(ada());
    world.stop().await;
}
