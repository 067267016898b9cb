//! Runs that are cut off: nothing begins twice, and what is said of them is true.

use super::{
    evidence::{Ended, Evidence, Exit},
    *,
};

impl Bench {
    fn runs(&self) -> &Runs {
        &self.executor.inner.runs
    }

    async fn recover(&self, id: &ExecutionId) -> Recovered {
        let mut found = self.executor.recover(std::slice::from_ref(id)).await;
        assert_eq!(found.len(), 1);
        let (named, recovered) = found.remove(0);
        assert_eq!(&named, id);
        recovered
    }

    /// A helper as the service starts it, but the socket is the test's: its end is the end of the service.
    fn begin(&self, job: &Job) -> (Child, UnixStream) {
        let (mut socket, theirs) = UnixStream::pair().unwrap();
        let helper = self.executor.inner.spawn(job, theirs).unwrap();
        let order = Order {
            run: job.id.clone(),
            digest: job.digest,
            plan: String::from_utf8(job.bytes.clone()).unwrap(),
            runs: self.runs().dir().to_owned(),
            limits: Bounds { memory: LIMITS.memory, file_size: LIMITS.file_size },
            parent: 0,
        };
        wire::send(&mut socket, &order).unwrap();
        (helper, socket)
    }
}

fn reason(recovered: &Recovered) -> (Option<ExecutionStatus>, String) {
    match recovered {
        Recovered::Finished(end) | Recovered::Unknown(end) => (Some(end.status), end.reason.clone().unwrap_or_default()),
        Recovered::NotStarted => (None, String::new()),
    }
}

#[tokio::test]
async fn p6_what_is_said_of_a_run_that_was_cut_off_follows_from_its_evidence() {
    let bench = Bench::new();
    let gone = proc::ProcessName { pid: i32::MAX, starttime: 1, boot: "another".to_owned() };
    let exit = |code, signal, ended| Evidence::Exited(Exit { code, signal, ended });
    use ExecutionStatus::{Failed, Succeeded, TimedOut, Unknown};
    let table = [
        (Evidence::NotStarted, None, ""),
        (Evidence::Refused { reason: "no".to_owned() }, Some(Failed), "not_started: no"),
        (exit(Some(0), None, None), Some(Succeeded), "recovered"),
        (exit(Some(2), None, None), Some(Failed), "recovered"),
        (exit(None, Some(9), None), Some(Failed), "signal 9, recovered"),
        (exit(None, Some(15), Some(Ended::Timeout)), Some(TimedOut), "recovered"),
        (exit(None, Some(15), Some(Ended::Interrupted)), Some(Unknown), "interrupted"),
        (exit(Some(0), None, Some(Ended::Interrupted)), Some(Unknown), "interrupted"),
        (Evidence::Spawned { program: gone.clone(), helper: gone }, Some(Unknown), "interrupted"),
    ];
    for (evidence, status, why) in table {
        let id = ExecutionId::random();
        bench.runs().claim(&id, &evidence).unwrap();
        let recovered = bench.recover(&id).await;
        assert_eq!(reason(&recovered), (status, why.to_owned()), "{evidence:?}");
        assert_eq!(matches!(recovered, Recovered::Unknown(_)), status == Some(Unknown));
    }
    let torn = ExecutionId::random();
    std::fs::write(bench.runs().dir().join(format!("{torn}.json")), "{").unwrap();
    assert_eq!(reason(&bench.recover(&torn).await).0, Some(Unknown), "a torn file is no proof that nothing was started");
}

#[tokio::test]
async fn p5_a_run_that_was_declared_not_started_can_never_begin() {
    let bench = Bench::new();
    let made = bench.file("made");
    let job = job(plan(&["/usr/bin/touch", made.to_str().unwrap()]));
    assert_eq!(bench.recover(&job.id).await, Recovered::NotStarted);
    let end = bench.executor.carry_out(job).await;
    assert!(end.reason.unwrap().contains("begun before"));
    assert!(!made.exists());
}

#[tokio::test]
async fn p5_a_run_begins_once_even_if_it_is_ordered_twice() {
    let bench = Bench::new();
    let line = format!("echo started >> {}", bench.file("count").display());
    let first = job(shell(&line));
    let again = Job { id: first.id.clone(), digest: first.digest, bytes: first.bytes.clone(), plan: first.plan.clone() };
    let ends = futures_util::future::join(bench.executor.carry_out(first), bench.executor.carry_out(again)).await;
    let succeeded = [&ends.0, &ends.1].iter().filter(|end| end.status == ExecutionStatus::Succeeded).count();
    assert_eq!(succeeded, 1, "{ends:?}");
    assert_eq!(std::fs::read_to_string(bench.file("count")).unwrap(), "started\n");
}

#[tokio::test]
async fn p6_when_the_service_goes_away_the_program_is_ended_and_nobody_claims_to_know() {
    let bench = Bench::new();
    let mut begun = bench.pipe("begun");
    let job = job(shell(&format!("echo > {}; sleep 60 & sleep 60", begun.path.display())));
    let (mut helper, socket) = bench.begin(&job);
    begun.line().await;
    drop(socket);
    tokio::task::spawn_blocking(move || helper.wait()).await.unwrap().unwrap();
    assert!(left(&job.id).is_empty());
    assert!(matches!(bench.runs().read(&job.id).unwrap(), Some(Evidence::Exited(Exit { ended: Some(Ended::Interrupted), .. }))));
    assert_eq!(reason(&bench.recover(&job.id).await), (Some(ExecutionStatus::Unknown), "interrupted".to_owned()));
}

#[tokio::test]
async fn p6_what_still_runs_when_the_next_service_looks_is_ended_first() {
    let bench = Bench::new();
    let mut begun = bench.pipe("begun");
    let job = job(shell(&format!("trap '' TERM; echo > {}; while :; do sleep 60; done", begun.path.display())));
    let (mut helper, socket) = bench.begin(&job);
    begun.line().await;
    drop(socket);
    // it ignores the helper's request; the next service does not wait for it
    let recovered = bench.recover(&job.id).await;
    assert_eq!(reason(&recovered), (Some(ExecutionStatus::Unknown), "interrupted".to_owned()));
    assert!(left(&job.id).is_empty());
    helper.wait().unwrap();
}

#[tokio::test]
async fn p6_a_program_that_ended_before_the_service_did_is_found_with_its_result() {
    let bench = Bench::new();
    let job = job(shell("exit 4"));
    let (mut helper, mut socket) = bench.begin(&job);
    // the service hears of the end, and is gone before it can write it down
    while !matches!(wire::receive(&mut socket).unwrap(), Some(Report::Ended(_))) {}
    drop(socket);
    helper.wait().unwrap();
    let recovered = bench.recover(&job.id).await;
    assert_eq!(reason(&recovered), (Some(ExecutionStatus::Failed), "recovered".to_owned()));
    let Recovered::Finished(end) = recovered else { panic!("{recovered:?}") };
    assert_eq!(end.exit_code, Some(4));
}

#[tokio::test]
async fn p6_when_the_helper_is_killed_the_program_ends_with_it() {
    let bench = Bench::new();
    let mut helper = bench.pipe("helper");
    let job = job(shell(&format!("echo $PPID > {}; sleep 60", helper.path.display())));
    let id = job.id.clone();
    let run = bench.executor.carry_out(job);
    let kill = async {
        let pid: i32 = helper.line().await.parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    };
    let (end, ()) = futures_util::future::join(tokio::spawn(run), kill).await;
    let end = end.unwrap();
    assert_eq!((end.status, end.reason.as_deref()), (ExecutionStatus::Unknown, Some("interrupted")), "{end:?}");
    assert!(left(&id).is_empty());
}

#[tokio::test]
async fn the_helper_is_not_the_program_before_it_is_on_record() {
    let bench = Bench::new();
    let made = bench.file("made");
    // evidence cannot be kept: there is a folder where the file should be
    let job = job(plan(&["/usr/bin/touch", made.to_str().unwrap()]));
    std::fs::create_dir(bench.runs().dir().join(format!("{}.json", job.id))).unwrap();
    let end = bench.executor.carry_out(job).await;
    assert_eq!(end.status, ExecutionStatus::Failed, "{end:?}");
    assert!(!made.exists());
}
