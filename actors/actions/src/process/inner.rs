//! The process that becomes the program: it is alone and has one thread, so everything that holds the program in can be
//! put in force here, one after the other. If any of it fails, it ends without becoming the program.

use std::{
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode, Stdio},
};

use opspilot_kernel::plan::Plan;
use rustix::{
    fs::Mode,
    process::{Gid, Pid, Resource, Rlimit, Signal, Uid},
};
use serde_json::{Value, json};

use super::{
    environment, proc,
    program::Program,
    wire::{self, Begun, Bounds, Order},
};

/// More descriptors than this a program cannot open.
const DESCRIPTORS: u64 = 256;
/// Seconds of computing that a program may take beyond its time: many threads compute at once.
const CPU_FACTOR: u64 = 64;

/// Waits for its order, puts everything in force and becomes the program. Returns only if it did not.
pub(crate) fn become_program() -> ExitCode {
    let Ok(own) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut channel = UnixStream::from(own);
    // without an order whoever started us is gone, and nobody may run anything
    let Ok(Some(order)) = wire::receive::<Order>(&mut channel) else { return ExitCode::FAILURE };
    let reason = match confined(&order, &mut channel) {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    // nobody to tell is no reason to run it
    drop(wire::send(&mut channel, &Begun::Refused { reason }));
    ExitCode::FAILURE
}

fn confined(order: &Order, channel: &mut UnixStream) -> Result<std::convert::Infallible, String> {
    let plan = order.approved()?;
    let (program, arguments) = plan.argv.split_first().ok_or("the plan names no program")?;
    let own = rustix::process::geteuid().as_raw();
    rustix::process::setsid().map_err(|error| format!("no session of its own: {error}"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let opened = Program::open(program, own)?;
    is_approved(&plan, program, &opened, own)?;
    let user = become_user(&plan, own)?;
    // only now: it does not outlive a change of the user
    die_with(order.parent)?;
    std::env::set_current_dir(&plan.cwd).map_err(|error| format!("{} cannot be entered: {error}", plan.cwd))?;
    let limits = limit(&plan, order.limits)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("new privileges cannot be ruled out: {error}"))?;
    opened.hand_on()?;
    let left: Vec<i32> = proc::descriptors().into_iter().filter(|fd| proc::is_inherited(*fd) && !opened.keeps_open(*fd)).collect();
    if !left.is_empty() {
        return Err(format!("the descriptors {left:?} would be handed on"));
    }
    let variables = environment::of(&order.run, &plan.env, |name| std::env::var_os(name));
    let sandbox = json!({
        "no_new_privs": true,
        "limits": limits,
        "user": user,
        "descriptors": if opened.script.is_some() { "0, 1, 2 and the script" } else { "0, 1, 2" },
        "script": opened.script,
        "program_writable_by_service": opened.is_ours_to_write,
        "variables": variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        // what a reader may think of and is not there
        "not_in_force": ["cgroup", "landlock", "seccomp", "network"],
    });
    wire::send(channel, &Begun::Ready { sandbox }).map_err(|error| error.to_string())?;
    let error = Command::new(opened.path()).arg0(program).args(arguments).env_clear().envs(variables).stdin(Stdio::null()).exec();
    Err(format!("{program} cannot be executed: {error}"))
}

/// What is about to run is what was approved: the program through the descriptor that is executed, what it runs in turn by
/// its path. Nothing is between this and the start but this process putting its own limits in force.
fn is_approved(plan: &Plan, program: &str, opened: &Program, own: u32) -> Result<(), String> {
    for file in &plan.files {
        let found = if file.path == program { opened.sha256() } else { Program::look_at(&file.path, own)?.sha256() };
        if found.map_err(|why| format!("{}: {why}", file.path))? != file.sha256 {
            return Err(format!("plan_changed: {} is not the file that was approved", file.path));
        }
    }
    Ok(())
}

/// The process ends with the one that started it, however that ends.
fn die_with(parent: i32) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("no signal when the helper ends: {error}"))?;
    // it may have ended before
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err("the helper is gone".to_owned());
    }
    Ok(())
}

/// Becomes the user that the plan names, for good.
fn become_user(plan: &Plan, own: u32) -> Result<Value, String> {
    let Some(uid) = plan.uid.filter(|uid| *uid != own) else {
        return Ok(json!({ "uid": own, "isolation": "shared-uid" }));
    };
    let gid = proc::group_of(uid).unwrap_or(uid);
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let no = |error: rustix::io::Errno| format!("it cannot run as user {uid}: {error}");
    // this process has one thread, so the thread's user is the process's
    rustix::thread::set_thread_groups(&[]).map_err(no)?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(no)?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(no)?;
    if rustix::process::geteuid() != user || rustix::process::getuid() != user || rustix::process::getegid() != group {
        return Err(format!("it cannot run as user {uid}"));
    }
    Ok(json!({ "uid": uid, "gid": gid, "isolation": "own-uid" }))
}

fn limit(plan: &Plan, bounds: Bounds) -> Result<Value, String> {
    let cpu = plan.timeout_secs.saturating_mul(CPU_FACTOR);
    let wanted = [
        (Resource::Cpu, "cpu_secs", cpu),
        (Resource::As, "memory_bytes", bounds.memory),
        (Resource::Fsize, "file_bytes", bounds.file_size),
        (Resource::Nofile, "descriptors", DESCRIPTORS),
        (Resource::Core, "core_bytes", 0),
    ];
    let mut in_force = serde_json::Map::new();
    for (resource, name, most) in wanted {
        // never above what holds us
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |own| own.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| format!("the limit {name} cannot be set: {error}"))?;
        in_force.insert(name.to_owned(), most.into());
    }
    Ok(in_force.into())
}
