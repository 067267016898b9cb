//! What the kernel tells of processes, as far as a run needs it.

use std::{fs, os::fd::RawFd};

use serde::{Deserialize, Serialize};

/// One process of one boot: a number alone is given out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessName {
    pub(crate) pid: i32,
    /// In ticks since the boot.
    pub(crate) starttime: u64,
    /// Which boot.
    pub(crate) boot: String,
}

impl ProcessName {
    /// The full name of a process that is there.
    pub(crate) fn of(pid: i32) -> Option<ProcessName> {
        Some(ProcessName { pid, starttime: stat(pid)?.starttime, boot: boot() })
    }

    /// Whether it is still there; one that ended and waits to be reaped is not.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot == boot() && stat(self.pid).is_some_and(|stat| stat.starttime == self.starttime && !matches!(stat.state, 'Z' | 'X'))
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

struct Stat {
    state: char,
    parent: i32,
    starttime: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // the name before it may hold anything, closing brackets too
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // field 22; state is the third
    let starttime = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, starttime })
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The processes whose parent is `pid` and that have not ended.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    all().filter(|child| stat(*child).is_some_and(|stat| stat.parent == pid && !matches!(stat.state, 'Z' | 'X'))).collect()
}

/// The processes that bear this in their environment: `NAME=value`. Only those that we may look into.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let bears = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    all().filter(|pid| *pid != own).filter(bears).collect()
}

/// The descriptors that are open here, but for the three standard ones.
pub(crate) fn descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect()
}

/// Whether a descriptor goes on to the next program; false if it is not open.
pub(crate) fn is_inherited(fd: RawFd) -> bool {
    /// As the kernel prints it in octal.
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// The group that the system's list of users gives to a user.
pub(crate) fn group_of(uid: u32) -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found: u32 = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (found == uid).then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let mut child = Command::new("/bin/sleep").arg("60").env("OPSPILOT_RUN_ID", "exe_proctest").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let name = ProcessName::of(pid).unwrap();
        assert!(name.is_alive());
        assert!(!ProcessName { starttime: name.starttime + 1, ..name.clone() }.is_alive(), "another process with the same number");
        assert!(!ProcessName { boot: "other".to_owned(), ..name.clone() }.is_alive(), "a process of another boot");
        assert!(children_of(i32::try_from(std::process::id()).unwrap()).contains(&pid));
        // it bears its own environment only once it has become the program
        while marked("OPSPILOT_RUN_ID=exe_proctest") != [pid] {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!name.is_alive());
    }

    #[test]
    fn a_descriptor_that_goes_on_to_the_next_program_is_told_from_one_that_does_not() {
        use std::os::fd::AsRawFd;
        let file = fs::File::open("/dev/null").unwrap();
        assert!(descriptors().contains(&file.as_raw_fd()) && !is_inherited(file.as_raw_fd()));
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        assert!(is_inherited(file.as_raw_fd()));
    }
}
