//! The helper of one run, a process of its own with one thread: it starts the program, watches it, ends it when its time
//! is over, leaves nothing of it alive, and writes down what happened while it happens.
//!
//! It lives as long as the run. If the service goes away, the socket between them says so, and the program is ended.

use std::{
    io::{self, PipeReader, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitCode},
    time::Duration,
};

use opspilot_kernel::{clock::SystemClock, plan::Plan};
use rustix::{
    fs::Mode,
    process::{Pid, PidfdFlags, WaitOptions},
};
use serde_json::Value;

use super::{
    BEGIN, attempt, environment,
    evidence::{Evidence, Exit, Runs},
    proc::{self, ProcessName},
    watch::{Ending, Watch},
    wire::{self, Begun, Order, Outcome, Report},
};

/// How long a process may take to become the program: opening a file can hang.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long what is left may take to end once it was killed.
const SWEEPING: Duration = Duration::from_secs(3);

/// Runs what the service orders over the standard input.
pub(crate) fn help() -> ExitCode {
    for fd in proc::descriptors() {
        // one of them was the listing itself, which is closed already
        attempt(nix::unistd::close(fd));
    }
    let Ok(own) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut service = UnixStream::from(own);
    let Ok(Some(order)) = wire::receive::<Order>(&mut service) else { return ExitCode::FAILURE };
    let report = match run(&order, &mut service) {
        Ok(outcome) => Report::Ended(Box::new(outcome)),
        Err(reason) => Report::Refused { reason },
    };
    // if nobody listens any more, the evidence tells it
    match wire::send(&mut service, &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(order: &Order, service: &mut UnixStream) -> Result<Outcome, String> {
    let plan = order.approved()?;
    // signals meant for the service's terminal are not meant for a run
    rustix::process::setsid().map_err(|error| format!("no session of its own: {error}"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| format!("no subreaper: {error}"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let runs = Runs::open(order.runs.clone()).map_err(|error| format!("evidence cannot be kept in {}: {error}", order.runs.display()))?;
    let mut spawned = Spawned::spawn(order, &plan)?;
    let program = spawned.name()?;
    let helper = ProcessName::of(own_pid()).ok_or("the helper does not know itself")?;
    let evidence = Evidence::Spawned { program: program.clone(), helper };
    let is_first = runs.claim(&order.run, &evidence).map_err(|error| format!("evidence cannot be kept: {error}"))?;
    if !is_first {
        return Err("this run was begun before".to_owned());
    }
    // the process waits for this: without it, it ends and was never the program
    let sandbox = match spawned.begin(order) {
        Ok(sandbox) => sandbox,
        Err(reason) => {
            spawned.end();
            drop(runs.replace(&order.run, &Evidence::Refused { reason: reason.clone() }));
            return Err(reason);
        }
    };
    // the service may be gone; then the socket says so right below
    drop(wire::send(service, &Report::Spawned(program)));
    let ending = Watch::new(&plan, SystemClock::shared()).until_the_end(&mut spawned, service);
    let survivors = sweep(spawned.group());
    let exit = ending.exit();
    // on the disk before anybody hears of it; the service hears of it even if the disk is full
    let kept = runs.replace(&order.run, &Evidence::Exited(exit.clone()));
    Ok(outcome(&plan, ending, exit, survivors, sandbox, kept))
}

fn outcome(plan: &Plan, ending: Ending, exit: Exit, survivors: usize, mut sandbox: Value, kept: io::Result<()>) -> Outcome {
    let secrets: Vec<String> = plan.env.iter().filter_map(|name| std::env::var(name).ok()).collect();
    let (stdout, cut_out) = ending.stdout.text(&secrets);
    let (stderr, cut_err) = ending.stderr.text(&secrets);
    if let (Err(error), Some(sandbox)) = (kept, sandbox.as_object_mut()) {
        sandbox.insert("evidence".to_owned(), format!("could not be kept: {error}").into());
    }
    Outcome { exit, stdout, stderr, truncated: cut_out || cut_err, survivors, sandbox }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// The process that becomes the program, and its outputs.
pub(crate) struct Spawned {
    child: Child,
    /// Tells of its end.
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
    channel: UnixStream,
}

impl Spawned {
    fn spawn(order: &Order, plan: &Plan) -> Result<Spawned, String> {
        let no = |error: io::Error| format!("no process can be started: {error}");
        let (ours, theirs) = UnixStream::pair().map_err(no)?;
        let (stdout, to_stdout) = io::pipe().map_err(no)?;
        let (stderr, to_stderr) = io::pipe().map_err(no)?;
        let child = Command::new("/proc/self/exe")
            .arg0("opspilot-run")
            .arg(BEGIN)
            .env_clear()
            .envs(environment::of(&order.run, &plan.env, |name| std::env::var_os(name)))
            .stdin(OwnedFd::from(theirs))
            .stdout(to_stdout)
            .stderr(to_stderr)
            .spawn()
            .map_err(no)?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| no(error.into()))?;
        Ok(Spawned { child, pidfd, stdout, stderr, channel: ours })
    }

    fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_pid()
    }

    /// It makes itself the leader of a group of its own number.
    pub(crate) fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn name(&self) -> Result<ProcessName, String> {
        ProcessName::of(self.pid()).ok_or_else(|| "the process ended before it began".to_owned())
    }

    /// Gives it its order; when this returns, it is the program.
    fn begin(&mut self, order: &Order) -> Result<Value, String> {
        let no = |error: io::Error| format!("the process does not answer: {error}");
        self.channel.set_read_timeout(Some(BEGINNING)).map_err(no)?;
        wire::send(&mut self.channel, &Order { parent: own_pid(), ..order.clone() }).map_err(no)?;
        let sandbox = match wire::receive::<Begun>(&mut self.channel).map_err(no)? {
            Some(Begun::Ready { sandbox }) => sandbox,
            Some(Begun::Refused { reason }) => return Err(reason),
            None => return Err("the process ended before it began".to_owned()),
        };
        // its end of the socket closes when it becomes the program
        match wire::receive::<Begun>(&mut self.channel).map_err(no)? {
            Some(Begun::Refused { reason }) => Err(reason),
            _ => Ok(sandbox),
        }
    }

    /// Ends it before it became the program.
    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ends whatever is left: the group, and everything that came under us when its parent ended. Tells how many withstood.
fn sweep(group: Pid) -> usize {
    let clock = SystemClock::shared();
    let over = clock.elapsed() + SWEEPING;
    loop {
        // there may be nobody left in it
        attempt(rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
        let left = proc::children_of(own_pid());
        for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            attempt(rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // no child at all is left
                Err(_) => return 0,
            }
        }
        if clock.elapsed() > over {
            return left.len().max(1);
        }
        super::pause(Duration::from_millis(5));
    }
}

/// Reads what there is, at most one buffer of it; zero at the end.
pub(crate) fn read_some(pipe: &mut PipeReader, buffer: &mut [u8]) -> usize {
    loop {
        match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.unwrap_or(0),
        }
    }
}
