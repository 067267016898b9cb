//! How runs end, and that nothing is left of them.

use opspilot_kernel::plan::PlanFile;

use super::*;

/// Runs it, and tells how long that took and what is left.
async fn timed(bench: &Bench, plan: Plan) -> (ExecutionEnd, Duration, Vec<i32>) {
    let job = job(plan);
    let id = job.id.clone();
    let begun = tokio::time::Instant::now();
    let end = bench.executor.carry_out(job).await;
    (end, begun.elapsed(), left(&id))
}

#[tokio::test]
async fn a_run_ends_as_its_program_does() {
    let bench = Bench::new();
    let end = bench.shell("echo out; echo err >&2").await;
    assert_eq!((end.status, end.exit_code, end.reason.as_deref()), (ExecutionStatus::Succeeded, Some(0), None), "{end:?}");
    assert_eq!((end.stdout.as_str(), end.stderr.as_str(), end.truncated), ("out\n", "err\n", false));
    let end = bench.shell("exit 3").await;
    assert_eq!((end.status, end.exit_code), (ExecutionStatus::Failed, Some(3)));
    let end = bench.shell("kill -SEGV $$").await;
    assert_eq!((end.status, end.exit_code, end.reason.as_deref()), (ExecutionStatus::Failed, None, Some("signal 11")));
}

#[tokio::test]
async fn control_characters_are_kept_as_data() {
    let end = Bench::new().shell("printf 'a\\033[31m\\000\\r\\377'").await;
    assert_eq!(end.stdout, "a\u{1b}[31m\0\r\u{fffd}");
}

#[tokio::test]
async fn p11_e7_a_program_that_ignores_the_request_to_end_is_ended() {
    let bench = Bench::new();
    let stubborn = Plan { timeout_secs: 1, ..shell("trap '' TERM; echo here; while :; do sleep 1; done") };
    let (end, took, left) = timed(&bench, stubborn).await;
    assert_eq!((end.status, end.reason.as_deref()), (ExecutionStatus::TimedOut, Some("ended after 1 s")), "{end:?}");
    assert_eq!(end.stdout, "here\n");
    assert!((Duration::from_secs(6)..Duration::from_secs(11)).contains(&took), "{took:?}");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn p11_a_program_that_obeys_ends_at_once_and_one_that_is_silent_too_long_too() {
    let bench = Bench::new();
    let (end, took, _) = timed(&bench, Plan { timeout_secs: 1, ..plan(&["/bin/sleep", "60"]) }).await;
    assert_eq!(end.status, ExecutionStatus::TimedOut);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let talks = Plan { idle_timeout_secs: Some(2), ..shell("for i in 1 2 3; do echo $i; sleep 1; done; sleep 60") };
    let (end, took, _) = timed(&bench, talks).await;
    assert_eq!((end.status, end.reason.as_deref()), (ExecutionStatus::TimedOut, Some("ended after 2 s without output")), "{end:?}");
    assert_eq!(end.stdout, "1\n2\n3\n");
    assert!(took > Duration::from_secs(3), "output keeps it going: {took:?}");
}

#[tokio::test]
async fn e7_what_holds_the_output_open_does_not_delay_the_end() {
    let bench = Bench::new();
    let (end, took, left) = timed(&bench, shell("sleep 60 & echo done")).await;
    assert_eq!((end.status, end.stdout.as_str()), (ExecutionStatus::Succeeded, "done\n"), "{end:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(left.is_empty(), "and it is gone: {left:?}");
}

#[tokio::test]
async fn p11_e7_whatever_a_program_leaves_behind_is_ended_even_out_of_its_group() {
    let bench = Bench::new();
    let line = "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 60 >/dev/null 2>&1 &) ; sleep 60 >/dev/null 2>&1 & done; echo left";
    let (end, took, left) = timed(&bench, shell(line)).await;
    assert_eq!((end.status, end.stdout.as_str()), (ExecutionStatus::Succeeded, "left\n"), "{end:?}");
    assert!(left.is_empty(), "{left:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn e7_a_fork_storm_ends_with_its_time_and_nothing_survives() {
    let bench = Bench::new();
    let storm = Plan {
        timeout_secs: 1,
        ..shell("storm() { i=0; while [ $i -lt 400 ]; do sleep 60 & i=$((i+1)); done; while :; do :; done; }; storm & storm")
    };
    let (end, took, left) = timed(&bench, storm).await;
    assert_eq!(end.status, ExecutionStatus::TimedOut, "{end:?}");
    assert!(took < Duration::from_secs(11), "{took:?}");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn e7_output_without_end_and_without_a_line_is_kept_as_head_and_tail() {
    let bytes: u64 = if std::env::var_os("OPSPILOT_LONG").is_some() { 10_000_000_000 } else { 300_000_000 };
    let bench = Bench::new();
    let line = format!("printf begin; head -c {bytes} /dev/zero | tr '\\0' x; printf end; head -c {bytes} /dev/zero >&2");
    let (end, took, _) = timed(&bench, Plan { timeout_secs: 300, ..shell(&line) }).await;
    assert_eq!(end.status, ExecutionStatus::Succeeded, "{:?} after {took:?}", end.reason);
    assert!(end.truncated);
    let kept = 1 << 16;
    assert!(end.stdout.starts_with("beginxxx") && end.stdout.ends_with("xxxend"));
    assert!(end.stdout.contains(&format!("[… {} bytes left out …]", bytes + 8 - kept)));
    assert!(end.stdout.len() < 70_000 && end.stderr.len() < 70_000);
    eprintln!("2 × {bytes} bytes of output in {took:?}");
}

#[tokio::test]
async fn there_is_no_turn_beyond_those_at_once_until_one_is_given_back() {
    let bench = Bench::new();
    let mut turns: Vec<_> = (0..4).map(|_| bench.executor.turn().unwrap()).collect();
    assert_eq!(bench.executor.turn().unwrap_err(), 4, "it does not wait, and says how many there are");
    drop(turns.pop());
    turns.push(bench.executor.turn().unwrap());
    assert!(bench.executor.turn().is_err());
    // a run itself never waits for a turn: whoever starts it has taken one
    assert_eq!(bench.shell("exit 0").await.status, ExecutionStatus::Succeeded);
}

/// What the executor finds out about a plan's program, as the gate puts it into the plan.
fn pinned(bench: &Bench, argv: &[&str], files: &[&str]) -> Plan {
    let needs = Needs { files: files.iter().map(|file| (*file).to_owned()).collect(), ..Needs::default() };
    let facts = bench.executor.facts(&needs, &|_, _| String::new());
    let files = facts.files.into_iter().map(|(path, sha256)| PlanFile { path, sha256: sha256.unwrap() }).collect();
    Plan { files, limits: facts.limits, ..plan(argv) }
}

#[tokio::test]
async fn t7_a_file_swapped_between_the_check_and_the_start_is_not_run() {
    let bench = Bench::new();
    let (tool, script) = (bench.file("tool"), bench.file("script"));
    let write = |path: &std::path::Path, text: &str| {
        // put in its place as an update would, not written over
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, path).unwrap();
    };
    let (tool_path, script_path) = (tool.to_str().unwrap(), script.to_str().unwrap());
    for (argv, file) in [(vec![tool_path, "x"], &tool), (vec!["/bin/sh", script_path], &script)] {
        write(file, "#!/bin/sh\necho approved\n");
        let approved = pinned(&bench, &argv, &[argv[0], file.to_str().unwrap()]);
        let end = bench.run(approved.clone()).await;
        assert_eq!((end.status, end.stdout.as_str()), (ExecutionStatus::Succeeded, "approved\n"), "{end:?}");
        write(file, &format!("#!/bin/sh\ntouch {}\n", bench.file("swapped").display()));
        let end = bench.run(approved).await;
        assert_eq!(end.status, ExecutionStatus::Failed);
        let reason = end.reason.unwrap();
        assert!(reason.starts_with("not_started: plan_changed") && reason.contains(file.to_str().unwrap()), "{reason}");
        assert!(!bench.file("swapped").exists());
    }
}

#[tokio::test]
async fn t7_the_limits_that_were_approved_hold_and_not_those_in_force_since() {
    let bench = Bench::new();
    let approved = pinned(&bench, &["/bin/sh", "-c", "ulimit -f"], &["/bin/sh"]);
    let before = bench.executor.set_limits(RunLimits { memory: 8 << 30, file_size: 1 << 30 });
    assert_eq!(before, LIMITS);
    // in blocks of 512 bytes
    assert_eq!(bench.run(approved).await.stdout, "2048\n");
}

#[test]
fn t7_processes_that_withstood_leave_nobody_sure_how_a_run_ended() {
    let exit = Exit { ended: None, code: Some(0), signal: None };
    let outcome = |survivors| Outcome {
        exit: exit.clone(),
        stdout: String::new(),
        stderr: String::new(),
        truncated: false,
        survivors,
        sandbox: serde_json::json!({}),
    };
    assert_eq!(finished(outcome(0), &plan(&["/bin/true"])).status, ExecutionStatus::Succeeded);
    let end = finished(outcome(2), &plan(&["/bin/true"]));
    assert_eq!((end.status, end.reason.as_deref()), (ExecutionStatus::Unknown, Some("2 of its processes could not be ended")));
}
