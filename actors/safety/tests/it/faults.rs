//! What cannot be put on record does not happen.

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use opspilot_kernel::{approval::ApprovalStatus, principal::Actor};
use opspilot_ledger::Priority;
use opspilot_safety::GateError;

use crate::support::{World, ada, bob};

/// Changes how the database behaves, behind the service's back.
fn by_hand(world: &World, sql: &str) {
    let path = world.dir.path().join("data").join(opspilot_ledger::DATABASE);
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    connection.batch_execute(sql).unwrap();
}

/// From now on nothing can be put on record.
fn fail(world: &World, table: &str) {
    let verb = if table == "audit_head" { "UPDATE" } else { "INSERT" };
    by_hand(world, &format!("CREATE TRIGGER fault BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'injected'); END"));
}

fn heal(world: &World) {
    by_hand(world, "DROP TRIGGER fault");
}

#[track_caller]
fn failed<T: std::fmt::Debug>(outcome: Result<T, GateError>) {
    let Err(GateError::Ledger(error)) = outcome else { panic!("not the ledger's: {outcome:?}") };
    assert!(error.to_string().contains("injected"), "{error}");
}

#[actix::test]
async fn f7_what_cannot_be_put_on_record_is_not_proposed_decided_or_started() {
    for table in ["audit_leaf", "audit_payload", "audit_head"] {
        let world = World::new().await;
        let (waits, approved) = (world.propose_n(1).await, world.propose_n(2).await);
        let token = world.approved(&approved).await;
        let size = world.audited().len();
        fail(&world, table);
        let by = opspilot_kernel::approval::Proposer::User("ada".to_owned());
        failed(world.propose_as(by, "say", serde_json::json!({ "n": 3 })).await);
        failed(world.approve_as(bob(), &waits).await);
        failed(world.gate.deny(&waits.id, bob(), "no".to_owned()).await);
        failed(world.gate.withdraw(&waits.id, ada(), "no".to_owned()).await);
        failed(world.gate.revoke(&approved.id, bob(), "no".to_owned()).await);
        failed(world.execute(&approved, &token).await);
        assert_eq!(world.get(&waits.id).await.status, ApprovalStatus::Pending, "{table}");
        assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Approved, "{table}");
        assert_eq!((world.journal.starts().len(), world.audited().len()), (0, size), "{table}");
        heal(&world);
        // and all of it is still possible
        world.execute(&approved, &token).await.unwrap();
        world.approved(&waits).await;
        world.until(&approved.id, ApprovalStatus::Succeeded).await;
        assert_eq!(world.journal.starts_of(&approved.id), 1, "{table}");
        world.stop().await;
    }
}

#[actix::test]
async fn f7_the_end_of_a_run_that_cannot_be_put_on_record_is_told_until_it_can() {
    let world = World::new().await;
    let approval = world.propose_n(1).await;
    let token = world.approved(&approval).await;
    world.journal.hold();
    world.execute(&approval, &token).await.unwrap();
    fail(&world, "audit_leaf");
    world.journal.let_go();
    // a write behind it has come through the same queue, and failed like it
    let other = world.ledger.write(Priority::Control, |tx| tx.module_restarted(&Actor::System, "m", "r")).await;
    assert!(other.unwrap_err().to_string().contains("injected"));
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Executing, "neither success nor failure is claimed");
    heal(&world);
    world.until(&approval.id, ApprovalStatus::Succeeded).await;
    assert_eq!((world.journal.starts_of(&approval.id), world.count("EXE01I"), world.count("EXE02I")), (1, 1, 1));
    world.stop().await;
}
