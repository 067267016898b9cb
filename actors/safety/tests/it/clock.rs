//! Clocks that are wrong, and ledgers that come from yesterday.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{approval::ApprovalStatus, principal::Actor};
use opspilot_ledger::{Options, backup, restore};
use opspilot_safety::{Policy, Refusal};

use crate::support::{Now as _, World, bob, refused};

const HOUR: Duration = Duration::from_secs(3600);

fn somebody() -> Actor {
    Actor::User { id: "root".to_owned(), via: "session".to_owned() }
}

#[actix::test]
async fn a11_with_the_clock_set_back_nothing_is_approved_or_executed_until_somebody_accepts_it() {
    let world = World::new().await;
    world.clock.advance(2 * HOUR);
    let (approved, waits) = (world.propose_n(1).await, world.propose_n(2).await);
    let token = world.approved(&approved).await;
    world.clock.set(world.clock.now_().before(HOUR));
    assert!(matches!(refused(world.execute(&approved, &token).await), Refusal::ClockRegression | Refusal::BadToken));
    assert_eq!(refused(world.approve_as(bob(), &waits).await), Refusal::ClockRegression);
    assert_eq!(refused(world.gate.reissue(&approved.id, bob()).await), Refusal::ClockRegression);
    assert_eq!(world.journal.starts().len(), 0);

    let epoch = world.ledger.read_blocking(|reader| reader.epoch()).unwrap();
    world.gate.accept_clock(somebody()).await.unwrap();
    assert_ne!(world.ledger.read_blocking(|reader| reader.epoch()).unwrap(), epoch);
    assert_eq!(world.ledger.clock_regression(), None);
    assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Revoked);
    assert_eq!(refused(world.execute(&approved, &token).await), Refusal::BadToken, "no token from before holds");
    assert_eq!((world.count("CLK01I"), world.count("TOK03I")), (1, 1));
    let token = world.approved(&waits).await;
    world.execute(&waits, &token).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn a11_the_gate_asks_the_machine_itself_where_the_time_of_the_service_goes_on() {
    let (dir, clock) = World::new().await.stop().await;
    let world = World::steady(dir, clock).await;
    let (approved, waits) = (world.propose_n(1).await, world.propose_n(2).await);
    let token = world.approved(&approved).await;
    world.clock.set(world.clock.now_().before(HOUR));
    assert_eq!(refused(world.execute(&approved, &token).await), Refusal::ClockRegression);
    assert_eq!(refused(world.gate.reissue(&approved.id, bob()).await), Refusal::ClockRegression);
    assert_eq!(refused(world.approve_as(bob(), &waits).await), Refusal::ClockRegression);
    assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Approved);
    assert_eq!((world.journal.starts().len(), world.count("APR01I")), (0, 1));
    world.gate.accept_clock(somebody()).await.unwrap();
    assert_eq!(refused(world.execute(&approved, &token).await), Refusal::BadToken, "no token from before holds");
    let token = world.approved(&waits).await;
    world.execute(&waits, &token).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn a11_a_clock_that_stands_still_does_not_lengthen_the_fifteen_minutes() {
    for (frozen, holds) in [(899, true), (900, false)] {
        let world = World::new().await;
        let approval = world.propose("restart").await;
        let token = world.approved(&approval).await;
        world.clock.freeze(Duration::from_secs(frozen));
        let outcome = world.execute(&approval, &token).await;
        if holds {
            outcome.unwrap();
        } else {
            assert_eq!(refused(outcome), Refusal::TokenExpired);
        }
        world.stop().await;
    }
}

#[actix::test]
async fn a11_set_ahead_the_token_is_expired() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    world.clock.set(world.clock.now_().after(HOUR));
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::TokenExpired);
    world.stop().await;
}

#[actix::test]
async fn t5_after_a_restore_no_token_from_before_is_good_for_anything() {
    let world = World::new().await;
    let (used, unused) = (world.propose_n(1).await, world.propose_n(2).await);
    let (token, of_unused) = (world.approved(&used).await, world.approved(&unused).await);
    let data = world.dir.path().join("data");
    let copy = world.dir.path().join("copy.db");
    let clock: opspilot_kernel::clock::SharedClock = world.clock.clone();
    backup(&data, &copy, &clock).unwrap();
    // used after the copy was made: in the copy it is unused
    world.execute(&used, &token).await.unwrap();
    world.until(&used.id, ApprovalStatus::Succeeded).await;
    let (dir, clock) = world.stop().await;
    let options = Options { tool: true, ..Options::new(&data, clock.clone()) };
    std::thread::spawn(move || restore(&copy, options, &somebody()).unwrap()).join().unwrap();
    let world = World::over(dir, clock, Policy::default()).await;
    assert_eq!(refused(world.execute(&used, &token).await), Refusal::BadToken);
    assert_eq!(refused(world.execute(&unused, &of_unused).await), Refusal::BadToken);
    world.until(&used.id, ApprovalStatus::Revoked).await;
    world.until(&unused.id, ApprovalStatus::Revoked).await;
    assert_eq!(world.journal.starts_of(&used.id), 1, "once, before the restore");
    assert!(Arc::strong_count(&world.dir) >= 1);
    world.stop().await;
}
