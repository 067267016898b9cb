//! Programs that run other programs, or code that stands in an argument: with them a parameter could become a command.

/// Refused whatever their arguments are: shells, and what starts a program that an argument names.
const ALWAYS: &[&str] = &[
    "sh", "ash", "bash", "rbash", "dash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "busybox", "toybox", "env", "xargs", "parallel",
    "ssh", "sshpass", "rsh", "eval", "exec", "awk", "gawk", "mawk", "nawk", "expect", "tclsh", "script", "socat", "nc", "ncat", "netcat",
    "gdb", "make", "vi", "vim", "ed", "sed", "watch", "at", "batch", "crontab", "ld.so",
];
/// Languages: a fixed script by its absolute path is no different from a program, code in an argument is.
const LANGUAGES: &[&str] = &[
    "python", "python2", "python3", "pypy", "pypy3", "perl", "ruby", "node", "nodejs", "deno", "bun", "php", "lua", "luajit", "guile",
    "Rscript", "java",
];
/// They run what stands behind them.
const WRAPPERS: &[&str] = &[
    "sudo",
    "doas",
    "su",
    "runuser",
    "setpriv",
    "nice",
    "ionice",
    "chrt",
    "taskset",
    "timeout",
    "nohup",
    "setsid",
    "stdbuf",
    "unbuffer",
    "systemd-run",
    "chroot",
    "unshare",
    "nsenter",
    "flock",
    "strace",
    "ltrace",
    "time",
    "capsh",
    "prlimit",
    "numactl",
    "catchsegv",
];

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `python3.11` and `lua5.4` are `python3` and `lua` with a version.
fn is_language(name: &str) -> bool {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    LANGUAGES.contains(&name) || (!plain.is_empty() && LANGUAGES.contains(&plain))
}

/// Why a command line could run what a parameter says; none if it cannot. `is_fixed` tells whether an argument is
/// without a slot.
pub(crate) fn danger(argv: &[String], is_fixed: impl Fn(&str) -> bool) -> Option<String> {
    let (program, rest) = argv.split_first()?;
    let name = base(program);
    if ALWAYS.contains(&name) {
        return Some(format!("{name} runs what its arguments say"));
    }
    if is_language(name) {
        let script = rest.first().is_some_and(|first| is_fixed(first) && first.starts_with('/'));
        return (!script).then(|| format!("{name} without a fixed script right behind it runs code that stands in an argument"));
    }
    if name == "find" && rest.iter().any(|arg| matches!(arg.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir" | "-delete" | "-fprintf")) {
        return Some("find with -exec, -ok or -delete runs what it finds".to_owned());
    }
    if WRAPPERS.contains(&name) {
        // the program behind it must be fixed, and harmless itself
        let Some(at) = rest.iter().position(|arg| is_fixed(arg) && arg.starts_with('/')) else {
            return Some(format!("{name} needs a program by its fixed absolute path behind it"));
        };
        let (options, behind) = rest.split_at(at);
        if let Some(loose) = options.iter().find(|arg| !is_fixed(arg)) {
            return Some(format!("{name} would take {loose} before the program it runs"));
        }
        if let Some(named) = rest.iter().map(|arg| base(arg)).find(|arg| ALWAYS.contains(arg)) {
            return Some(format!("{named} runs what its arguments say"));
        }
        return danger(behind, is_fixed);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str) -> Option<String> {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        danger(&argv, |arg| !arg.contains('{'))
    }

    #[test]
    fn e5_whatever_runs_code_from_an_argument_is_found() {
        for line in [
            "/bin/sh -c {x}",
            "/usr/bin/env {x}",
            "/usr/bin/python3 -c {x}",
            "/usr/bin/python3.11 -c print(1)",
            "/usr/bin/python3 {script}",
            "/usr/bin/perl -e 1",
            "/usr/bin/find / -name {x} -exec ls",
            "/usr/bin/ssh {host} reboot",
            "/usr/bin/xargs ls",
            "/usr/bin/sudo {program}",
            "/usr/bin/sudo -u {user} /usr/bin/systemctl restart x",
            "/usr/bin/sudo /bin/bash -c {x}",
            "/usr/bin/nice -n 5 /usr/bin/timeout 5 /bin/sh -c true",
            "/usr/bin/timeout 5 sh -c true",
        ] {
            assert!(judged(line).is_some(), "{line}");
        }
    }

    #[test]
    fn programs_with_fixed_meaning_pass() {
        for line in [
            "/usr/bin/systemctl restart {unit}",
            "/usr/bin/python3 /opt/repair.py {unit}",
            "/usr/bin/sudo -n /usr/bin/systemctl restart {unit}",
            "/usr/bin/find /var/log -name {x}",
            "/usr/bin/kubectl rollout restart deployment/{name}",
        ] {
            assert_eq!(judged(line), None, "{line}");
        }
    }
}
