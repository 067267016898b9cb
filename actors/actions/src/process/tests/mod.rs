//! Runs, over real processes.

mod confinement;
mod endings;
mod recovery;

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use opspilot_kernel::plan::Executor;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

const LIMITS: RunLimits = RunLimits { memory: 4 << 30, file_size: 1 << 20 };

/// An executor with a folder of its own.
struct Bench {
    dir: tempfile::TempDir,
    executor: ProcessExecutor,
}

/// The example of this crate that is nothing but the helper.
fn helper_program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/run_helper");
    assert!(program.exists(), "{} is missing: cargo builds it for all tests, but not for --lib alone", program.display());
    program
}

impl Bench {
    fn new() -> Bench {
        Bench::with(LIMITS)
    }

    fn with(limits: RunLimits) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        // a run as another user must find its way
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let executor = ProcessExecutor::with_helper(helper_program(), dir.path().join("data/runs"), limits, 4, log).unwrap();
        Bench { dir, executor }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self, plan: Plan) -> ExecutionEnd {
        self.executor.carry_out(job(plan)).await
    }

    /// Runs a line of shell: the catalogue would refuse it, but a run does not know what it runs.
    async fn shell(&self, line: &str) -> ExecutionEnd {
        self.run(shell(line)).await
    }

    /// A pipe on which a program says something.
    fn pipe(&self, name: &str) -> Pipe {
        let path = self.file(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        // held for writing, too: without a writer a pipe is at its end
        let lines = tokio::net::unix::pipe::OpenOptions::new().read_write(true).open_receiver(&path).unwrap();
        Pipe { path, lines: BufReader::new(lines) }
    }
}

struct Pipe {
    path: PathBuf,
    lines: BufReader<tokio::net::unix::pipe::Receiver>,
}

impl Pipe {
    /// Waits until the program has said something, and gives it.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let said = tokio::time::timeout(Duration::from_secs(20), self.lines.read_line(&mut line)).await;
        said.expect("the program says nothing").unwrap();
        line.trim_end().to_owned()
    }
}

fn job(plan: Plan) -> Job {
    let bytes = plan.bytes().unwrap();
    Job { id: ExecutionId::random(), digest: PlanDigest::of(&bytes), bytes, plan }
}

fn plan(argv: &[&str]) -> Plan {
    Plan {
        v: 1,
        executor: Executor::Process,
        action: "test".to_owned(),
        template: "sha256:00".to_owned(),
        policy: "sha256:00".to_owned(),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        files: Vec::new(),
        env: Vec::new(),
        env_values: std::collections::BTreeMap::new(),
        cwd: "/".to_owned(),
        uid: None,
        timeout_secs: 20,
        idle_timeout_secs: None,
        output_bytes: 1 << 16,
        limits: None,
        targets: vec!["test".to_owned()],
    }
}

fn shell(line: &str) -> Plan {
    plan(&["/bin/sh", "-c", line])
}

/// Processes of a run that are still there.
fn left(id: &ExecutionId) -> Vec<i32> {
    proc::marked(&format!("{}={id}", environment::RUN_ID))
}
