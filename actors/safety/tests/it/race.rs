//! Many approvals, many executes of each at once, and a process that is killed again and again: an approval starts at
//! most one run. The executes come from a process of their own, which is killed for real; the executor's journal is
//! forced to the device before anything else happens, so that no start is forgotten.
#![allow(clippy::disallowed_methods, reason = "a process is watched from outside and killed at a moment of real time")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use opspilot_kernel::{approval::ApprovalStatus, clock::ManualClock, ids::ApprovalId};
use opspilot_safety::{GateError, Policy, Refusal};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::support::{World, bob, cleo, noon};

const AT_ONCE: usize = 32;
const DIR: &str = "OPSPILOT_TEST_RACE_DIR";

fn tokens(dir: &Path) -> Vec<(ApprovalId, String)> {
    let text = std::fs::read_to_string(dir.join("tokens")).unwrap();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(id, token)| (ApprovalId::given(id), token.to_owned())).collect()
}

/// The process that is killed: 32 executes of each approval at once, until none is left. Run by the test below.
#[actix::test]
async fn race_child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    // the parent made the directory, and keeps it
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let linked = folder.path().join("data");
    std::os::unix::fs::symlink(dir.join("data"), &linked).unwrap();
    std::os::unix::fs::symlink(dir.join("starts"), folder.path().join("starts")).unwrap();
    let world = World::over(folder, ManualClock::at(noon()), Policy::default()).await;
    // long enough to be killed in
    world.journal.last(Duration::from_millis(20));
    std::fs::write(dir.join("ready"), "").unwrap();
    for (id, token) in tokens(&dir) {
        if world.get(&id).await.status != ApprovalStatus::Approved {
            continue;
        }
        let tries = (0..AT_ONCE).map(|n| world.gate.execute(&id, &token, if n % 2 == 0 { bob() } else { cleo() }));
        let outcomes = join_all(tries).await;
        let started = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(started, 1, "of {AT_ONCE} at once one starts the run");
        for other in outcomes.into_iter().filter_map(Result::err) {
            assert!(matches!(other, GateError::Refused(Refusal::TokenUsed)), "{other:?}");
        }
    }
    for (id, _) in tokens(&dir) {
        for _ in 0..2000 {
            if world.get(&id).await.status != ApprovalStatus::Executing {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    world.stop().await;
    std::fs::write(dir.join("finished"), "").unwrap();
}

fn child(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["race::race_child", "--exact", "--nocapture"]).env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn().unwrap()
}

#[actix::test]
async fn t6_an_approval_starts_one_run_at_most_however_often_it_is_executed_and_the_process_killed() {
    let long = std::env::var_os("OPSPILOT_LONG").is_some();
    let (approvals, kills) = if long { (1000, 200) } else { (50, 12) };
    let seed: u64 = rand::random();
    println!("T6: seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let mut lines = String::new();
    for n in 0..approvals {
        let approval = world.propose_n(n).await;
        let token = world.approved(&approval).await;
        lines.push_str(&format!("{} {}\n", approval.id, token.token));
    }
    let (folder, clock) = world.stop().await;
    let dir = folder.path();
    std::fs::write(dir.join("tokens"), &lines).unwrap();
    std::fs::write(dir.join("starts"), "").unwrap();

    let mut killed = 0;
    while !dir.join("finished").exists() {
        drop(std::fs::remove_file(dir.join("ready")));
        let mut running = child(dir);
        let patience = Instant::now() + Duration::from_secs(120);
        while !dir.join("ready").exists() && running.try_wait().unwrap().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        if killed < kills {
            let left = Duration::from_micros(dice.random_range(0..60_000));
            std::thread::sleep(left);
            // every other time at a moment when a run is certainly under way: right behind its start
            let started = || std::fs::metadata(dir.join("starts")).unwrap().len();
            let before = started();
            while killed % 2 == 1 && started() == before && running.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            if running.try_wait().unwrap().is_none() {
                running.kill().unwrap();
                running.wait().unwrap();
                killed += 1;
                continue;
            }
        }
        let status = running.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    let world = World::over(folder, clock, Policy::default()).await;
    let mut histogram: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, token) in lines.lines().filter_map(|line| line.split_once(' ')) {
        let id = ApprovalId::given(id);
        let approval = world.get(&id).await;
        let starts = world.journal.starts_of(&id);
        *histogram.entry(starts).or_default() += 1;
        *ends.entry(approval.status.as_str()).or_default() += 1;
        match approval.status {
            ApprovalStatus::Succeeded | ApprovalStatus::Unknown => assert_eq!(starts, 1, "{id} {:?}", approval.status),
            ApprovalStatus::Failed => assert_eq!(starts, 0, "{id}: not started"),
            other => panic!("{id} is {other:?}"),
        }
        // and still: the token is worth nothing
        let again = world.gate.execute(&id, token, bob()).await;
        assert!(matches!(again, Err(GateError::Refused(Refusal::TokenUsed))), "{again:?}");
    }
    println!("T6: {approvals} approvals x {AT_ONCE} executes, {killed} kills; starts per approval: {histogram:?}; ends: {ends:?}");
    assert!(histogram.keys().all(|starts| *starts <= 1), "{histogram:?}");
    assert!(killed > 0, "nothing was killed");
    let cut_off: usize = ["unknown", "failed"].iter().filter_map(|end| ends.get(end)).sum();
    println!("T6: {cut_off} runs were cut off by a kill");
    assert!(cut_off > 0, "no kill hit a run under way, so nothing was proved about one: {ends:?}");
    world.ledger.read_blocking(|reader| reader.audit_verify()).unwrap();
    world.stop().await;
}

#[actix::test]
async fn t16_an_approval_needs_no_key_of_its_own_to_be_executed_once() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    let outcomes = join_all((0..100).map(|_| world.gate.execute(&approval.id, &token.token, bob()))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    world.until(&approval.id, ApprovalStatus::Succeeded).await;
    assert_eq!(world.journal.starts_of(&approval.id), 1);
    world.stop().await;
}
