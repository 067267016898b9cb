//! What rules and models propose: merged, rarer, capped. What people propose never is.

use std::time::Duration;

use opspilot_kernel::{
    approval::{ApprovalStatus, Proposer},
    config::Span,
    ids::ApprovalId,
    principal::Actor,
};
use opspilot_safety::{Policy, Proposal, Proposals, Refusal};
use serde_json::json;

use crate::support::{World, bob, refused};

fn rule() -> Proposer {
    Proposer::Rule("restart-on-failure".to_owned())
}

#[actix::test]
async fn a_rule_that_says_the_same_again_makes_no_second_proposal() {
    let world = World::new().await;
    let first = world.propose_as(rule(), "restart", json!({ "service": "checkout" })).await.unwrap();
    let again = world.propose_as(rule(), "restart", json!({ "service": "checkout" })).await.unwrap();
    assert_eq!(first.id, again.id);
    let person = world.propose("restart").await;
    assert_ne!(person.id, first.id, "a person's proposal always is one");
    assert_eq!(world.count("PRO01I"), 2);
    world.stop().await;
}

#[actix::test]
async fn a_proposal_of_a_name_that_is_known_is_the_one_that_was_made_whatever_became_of_it() {
    let world = World::new().await;
    let named = || Proposal {
        id: Some(ApprovalId::derived(&["restart-on-failure", "first"])),
        incident: world.incident.clone(),
        action: "restart".to_owned(),
        params: [("service".to_owned(), json!("checkout"))].into(),
        reasoning: String::new(),
        by: rule(),
        actor: Actor::Module { id: "action.safe".to_owned() },
        owner: None,
    };
    let first = world.gate.propose(named()).await.unwrap();
    world.gate.deny(&first.id, bob(), "no".to_owned()).await.unwrap();
    // told again after a crash, when the cooldown is over too: what was decided stays so
    world.clock.advance(Duration::from_secs(3600));
    let again = world.gate.propose(named()).await.unwrap();
    assert_eq!((again.id, again.status), (first.id, ApprovalStatus::Denied));
    assert_eq!((world.count("PRO01I"), world.count("APR03I")), (1, 1));
    world.stop().await;
}

#[actix::test]
async fn a_rule_waits_for_its_cooldown_and_people_do_not() {
    let world = World::new().await;
    let first = world.propose_as(rule(), "restart", json!({ "service": "checkout" })).await.unwrap();
    world.gate.deny(&first.id, bob(), "no".to_owned()).await.unwrap();
    let again = world.propose_as(rule(), "restart", json!({ "service": "checkout" })).await;
    assert!(matches!(refused(again), Refusal::CoolingDown(at) if at == first.created_at.after(Duration::from_secs(600))));
    world.propose("restart").await;
    world.propose_as(rule(), "restart", json!({ "service": "other" })).await.unwrap();
    world.clock.advance(Duration::from_secs(600));
    let later = world.propose_as(Proposer::Ai("model".to_owned()), "restart", json!({ "service": "third" })).await.unwrap();
    // an approved execution is never held back by a cooldown
    let token = world.approved(&later).await;
    world.execute(&later, &token).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn e11_rules_have_a_cap_for_the_hour_and_people_have_none() {
    let world = World::new().await;
    let proposals = Proposals { cooldown: Span::seconds(0), per_hour: 5 };
    world.gate.set_policy(Policy { proposals, ..Policy::default() }).await.unwrap();
    let mut made = 0;
    for n in 0..1000 {
        match world.propose_as(rule(), "say", json!({ "n": n })).await {
            Ok(_) => made += 1,
            other => assert_eq!(refused(other), Refusal::TooMany(5)),
        }
    }
    assert_eq!(made, 5);
    for n in 2000..2010 {
        world.propose_n(n).await;
    }
    world.clock.advance(Duration::from_secs(3600));
    world.propose_as(rule(), "say", json!({ "n": 3000 })).await.unwrap();
    world.stop().await;
}
