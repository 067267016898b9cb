//! What changed between the approval and the start, and who has to wait: T7 and the bounds on runs.

use opspilot_kernel::{approval::ApprovalStatus, execution::ExecutionStatus, plan::PlanLimits};
use opspilot_safety::{Facts, GateError, Refusal, RenderError};

use crate::support::{World, bob, refused, root};

/// What happens to the machine between the approval and the start.
type Change = fn(&mut Facts);

#[actix::test]
async fn t7_a_program_a_variable_or_a_limit_that_changed_after_the_approval_is_another_plan() {
    let changes: [(&str, Change); 5] = [
        ("the program was swapped", |facts| drop(facts.files.insert("/usr/bin/systemctl".to_owned(), Ok("1".repeat(64))))),
        ("the program is gone", |facts| drop(facts.files.insert("/usr/bin/systemctl".to_owned(), Err("it is gone".to_owned())))),
        ("a variable has another value", |facts| drop(facts.env.insert("CHECKOUT_KEY".to_owned(), "another".to_owned()))),
        ("a variable is not set any more", |facts| drop(facts.env.remove("CHECKOUT_KEY"))),
        ("the limits", |facts| facts.limits = Some(PlanLimits { memory: 2, file_size: 1 })),
    ];
    for (what, change) in changes {
        let world = World::new().await;
        world.journal.change(|facts| {
            facts.env.insert("CHECKOUT_KEY".to_owned(), "hunter2".to_owned());
            facts.limits = Some(PlanLimits { memory: 1, file_size: 1 });
        });
        let (waits, approved) = (world.propose("restart").await, world.propose("restart").await);
        let plan = approved.plan.clone();
        assert_eq!((plan.files[0].path.as_str(), plan.files[0].sha256.len()), ("/usr/bin/systemctl", 64));
        assert_eq!(plan.limits, Some(PlanLimits { memory: 1, file_size: 1 }));
        let text = serde_json::to_string(&plan).unwrap();
        assert!(text.contains("\"CHECKOUT_KEY\":\"hmac:v1:") && !text.contains("hunter2"), "{text}");
        let token = world.approved(&approved).await;
        world.journal.change(change);
        assert_eq!(refused(world.execute(&approved, &token).await), Refusal::PlanChanged, "{what}");
        assert_eq!(refused(world.approve_as(bob(), &waits).await), Refusal::PlanChanged, "{what}");
        assert_eq!((world.journal.starts().len(), world.count("EXE01I"), world.count("EXE01E")), (0, 0, 1), "{what}");
        assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Revoked, "{what}");
        world.stop().await;
    }
}

#[actix::test]
async fn t7_what_cannot_be_read_cannot_be_proposed_and_says_why() {
    let world = World::new().await;
    world.journal.change(|facts| drop(facts.files.insert("/usr/bin/systemctl".to_owned(), Err("it is not there".to_owned()))));
    let by = opspilot_kernel::approval::Proposer::User("ada".to_owned());
    let outcome = world.propose_as(by, "restart", serde_json::json!({ "service": "checkout" })).await;
    let Err(GateError::Render(RenderError::File { path, why })) = outcome else { panic!("{outcome:?}") };
    assert_eq!((path.as_str(), why.as_str()), ("/usr/bin/systemctl", "it is not there"));
    world.stop().await;
}

#[actix::test]
async fn no_run_waits_for_a_turn_behind_a_token_that_is_used_up() {
    let world = World::new().await;
    world.journal.at_once(1);
    let (first, second) = (world.propose_n(1).await, world.propose_n(2).await);
    let (one, two) = (world.approved(&first).await, world.approved(&second).await);
    world.journal.hold();
    world.execute(&first, &one).await.unwrap();
    for _ in 0..3 {
        let refusal = refused(world.execute(&second, &two).await);
        assert_eq!((&refusal, refusal.code()), (&Refusal::NoTurn(1), "target_busy"));
    }
    assert_eq!((world.get(&second.id).await.status, world.count("EXE01I")), (ApprovalStatus::Approved, 1), "nothing was used up");
    // an engaged kill switch is not outrun by something that waited
    world.gate.kill_switch(true, bob(), "stop".to_owned()).await.unwrap();
    world.journal.let_go();
    world.until(&first.id, ApprovalStatus::Succeeded).await;
    assert_eq!(refused(world.execute(&second, &two).await), Refusal::Frozen("stop".to_owned()));
    assert_eq!(world.journal.starts_of(&second.id), 0);
    world.gate.kill_switch(false, root(), "on".to_owned()).await.unwrap();
    loop {
        // the turn is given back when the first run is over for the gate, too
        match world.execute(&second, &two).await {
            Err(GateError::Refused(Refusal::NoTurn(_))) => tokio::task::yield_now().await,
            other => break drop(other.unwrap()),
        }
    }
    world.until(&second.id, ApprovalStatus::Succeeded).await;
    world.stop().await;
}

#[actix::test]
async fn what_a_run_of_unknown_end_acted_on_is_kept_until_a_person_closes_it() {
    let world = World::new().await;
    let (first, second) = (world.propose("restart").await, world.propose("restart").await);
    let (one, two) = (world.approved(&first).await, world.approved(&second).await);
    world.journal.hold();
    let run = world.execute(&first, &one).await.unwrap().id;
    while world.journal.starts().is_empty() {
        tokio::task::yield_now().await;
    }
    let world = world.crash().await;
    world.until(&first.id, ApprovalStatus::Unknown).await;
    let refusal = refused(world.execute(&second, &two).await);
    assert_eq!(refusal, Refusal::TargetBusy { target: "checkout".to_owned(), run: run.clone() });
    assert!(refusal.to_string().contains(run.as_str()), "{refusal}");
    assert_eq!(world.journal.starts_of(&second.id), 0);
    world.gate.close(&run, bob(), ExecutionStatus::Succeeded, "it is up again".to_owned()).await.unwrap();
    world.execute(&second, &two).await.unwrap();
    world.until(&second.id, ApprovalStatus::Succeeded).await;
    world.stop().await;
}
