//! What a program is given, and what holds it in.

use std::os::unix::fs::symlink;

use super::*;

fn facts(end: &ExecutionEnd) -> &serde_json::Value {
    end.sandbox.as_ref().unwrap()
}

#[tokio::test]
async fn p10_e5_every_argument_arrives_as_it_stands() {
    let long = "x".repeat(100_000);
    let hostile = [
        "",
        " ",
        "--config=/x",
        "-o",
        ";id",
        "$(id)",
        "`id`",
        "a\nb",
        "a\tb",
        "|cat",
        "&",
        "*",
        "~",
        "$HOME",
        "\\",
        "'",
        "\"",
        "\u{2010}x",
        "%s%n",
        "{param}",
        "\u{1b}[31m",
        &long,
    ];
    let bench = Bench::new();
    let argv: Vec<&str> = ["/usr/bin/printf", "%s\\0"].into_iter().chain(hostile).collect();
    let end = bench.run(Plan { output_bytes: 1 << 20, ..plan(&argv) }).await;
    assert_eq!(end.status, ExecutionStatus::Succeeded, "{end:?}");
    assert_eq!(end.stdout.split_terminator('\0').collect::<Vec<_>>(), hostile);
}

#[tokio::test]
async fn e5_an_argument_with_a_nul_is_refused_and_nothing_runs() {
    let bench = Bench::new();
    let end = bench.run(plan(&["/usr/bin/touch", &format!("{}\0", bench.file("made").display())])).await;
    assert_eq!(end.status, ExecutionStatus::Failed);
    assert!(end.reason.unwrap().starts_with("not_started: "), "and says so");
    assert!(!bench.file("made").exists());
}

#[tokio::test]
async fn e6_the_environment_is_the_allow_list_exactly() {
    let bench = Bench::new();
    // the test has a full environment of its own, of which one variable is named
    assert!(std::env::vars().count() > 5);
    let job = job(Plan { env: vec!["CARGO_PKG_VERSION_PATCH".to_owned(), "NOT_SET_ANYWHERE".to_owned()], ..plan(&["/usr/bin/env"]) });
    let id = job.id.clone();
    let end = bench.executor.carry_out(job).await;
    let mut found: Vec<&str> = end.stdout.lines().collect();
    found.sort_unstable();
    let expected = [
        &format!("CARGO_PKG_VERSION_PATCH={}", env!("CARGO_PKG_VERSION_PATCH")),
        "LANG=C.UTF-8",
        &format!("OPSPILOT_RUN_ID={id}"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn p14_the_value_of_a_named_variable_is_not_kept_in_the_output() {
    let bench = Bench::new();
    let end = bench.run(Plan { env: vec!["CARGO_PKG_NAME".to_owned()], ..shell("echo $CARGO_PKG_NAME; echo $CARGO_PKG_NAME >&2") }).await;
    assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("[secret]\n", "[secret]\n"));
}

#[tokio::test]
async fn e7_a_program_has_three_descriptors_even_if_the_service_was_started_with_more() {
    let bench = Bench::new();
    let leaked = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let end = bench.shell("ls /proc/$$/fd; readlink /proc/$$/fd/0").await;
    drop(leaked);
    assert_eq!(end.stdout, "0\n1\n2\n/dev/null\n", "{end:?}");
    assert_eq!(facts(&end)["descriptors"], "0, 1, 2");
}

#[tokio::test]
async fn e7_limits_and_the_loss_of_privileges_are_in_force_and_on_record() {
    let bench = Bench::with(RunLimits { memory: 1 << 30, file_size: 1 << 20 });
    let end = bench.shell("ulimit -v; ulimit -n; ulimit -c; ulimit -t; umask; grep NoNewPrivs /proc/self/status; pwd").await;
    assert_eq!(end.stdout, "1048576\n256\n0\n1280\n0077\nNoNewPrivs:\t1\n/\n", "{end:?}");
    assert_eq!(end.containment.as_deref(), Some("pgroup"));
    let facts = facts(&end);
    assert_eq!(facts["no_new_privs"], true);
    assert_eq!(facts["limits"]["memory_bytes"], 1 << 30);
    assert_eq!(facts["limits"]["descriptors"], 256);
    assert_eq!(facts["user"]["isolation"], "shared-uid");
    assert_eq!(facts["not_in_force"][1], "landlock");
}

#[tokio::test]
async fn e7_a_program_cannot_fill_the_disk_with_one_file() {
    let bench = Bench::new();
    let file = bench.file("big");
    let end = bench.shell(&format!("exec head -c 4000000 /dev/zero > {}", file.display())).await;
    assert_eq!((end.status, end.reason.as_deref()), (ExecutionStatus::Failed, Some("signal 25")), "{end:?}");
    assert_eq!(std::fs::metadata(file).unwrap().len(), LIMITS.file_size);
}

#[tokio::test]
async fn e7_a_memory_hog_is_refused_its_memory() {
    let bench = Bench::with(RunLimits { memory: 256 << 20, file_size: 1 << 20 });
    // tail keeps what it may have to print: one line without an end
    let end = bench.shell("head -c 1000000000 /dev/zero | tail -n 1 | wc -c").await;
    assert!(end.stderr.contains("memory"), "{end:?}");
}

#[tokio::test]
async fn p7_a_plan_that_is_not_the_approved_one_does_not_run() {
    let bench = Bench::new();
    let made = bench.file("made");
    let approved = job(plan(&["/bin/true"]));
    let other = plan(&["/usr/bin/touch", made.to_str().unwrap()]);
    let end = bench.executor.carry_out(Job { bytes: other.bytes().unwrap(), ..approved }).await;
    assert_eq!(end.status, ExecutionStatus::Failed);
    assert!(end.reason.unwrap().contains("not the one that was approved"));
    assert!(!made.exists());
}

#[tokio::test]
async fn e8_a_program_that_others_could_change_does_not_run() {
    let bench = Bench::new();
    let (tool, link) = (bench.file("tool"), bench.file("link"));
    std::fs::copy("/usr/bin/touch", &tool).unwrap();
    symlink(&tool, &link).unwrap();
    let made = bench.file("made");
    let run = async |program: &PathBuf| bench.run(plan(&[program.to_str().unwrap(), made.to_str().unwrap()])).await;
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o775)).unwrap();
    for program in [&tool, &link] {
        let end = run(program).await;
        assert!(end.reason.as_deref().is_some_and(|reason| reason.contains("can be written by others")), "{end:?}");
        assert!(!made.exists());
    }
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&link).await.status, ExecutionStatus::Succeeded);
    assert!(made.exists());
}

#[tokio::test]
async fn a_script_runs_through_its_descriptor_and_the_record_says_so() {
    let bench = Bench::new();
    let script = bench.file("script");
    std::fs::write(&script, "#!/bin/sh\necho \"$1\" from a script\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let end = bench.run(plan(&[script.to_str().unwrap(), "hello;id"])).await;
    assert_eq!(end.stdout, "hello;id from a script\n", "{end:?}");
    assert_eq!(facts(&end)["script"], "#!/bin/sh");
    assert_eq!(facts(&end)["descriptors"], "0, 1, 2 and the script");
}

#[tokio::test]
async fn e7_as_another_user_a_program_has_that_users_rights_and_no_others() {
    if rustix::process::geteuid().as_raw() != 0 {
        return eprintln!("SKIPPED: only root may start programs as another user");
    }
    let bench = Bench::new();
    let key = bench.file("key");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("id -u; id -G; cat {} {} || echo unreadable", key.display(), bench.executor.inner.runs.dir().display());
    let end = bench.run(Plan { uid: Some(65_534), ..shell(&line) }).await;
    assert_eq!(end.stdout, "65534\n65534\nunreadable\n", "{end:?}");
    assert_eq!(facts(&end)["user"]["isolation"], "own-uid");
    // and dies with its helper all the same
    assert_eq!(end.status, ExecutionStatus::Succeeded);
}

#[tokio::test]
async fn what_cannot_be_put_in_force_keeps_a_program_from_running() {
    let bench = Bench::new();
    let end = bench.run(Plan { cwd: "/nowhere".to_owned(), ..plan(&["/bin/true"]) }).await;
    assert_eq!(end.status, ExecutionStatus::Failed);
    assert!(end.reason.unwrap().contains("/nowhere cannot be entered"));
    let end = bench.run(plan(&["/etc/passwd"])).await;
    assert!(end.reason.unwrap().contains("not executable"));
    let end = bench.run(plan(&["/usr/bin/no-such-program"])).await;
    assert!(end.reason.unwrap().contains("cannot be opened"));
}
