//! Programs that run other programs, or code that stands in an argument: with them a parameter could become a command.

/// Refused whatever their arguments are: shells, and what starts a program that an argument names, where that cannot be
/// told from a path that is only data.
const ALWAYS: &[&str] = &[
    // shells
    "sh",
    "ash",
    "bash",
    "rbash",
    "dash",
    "zsh",
    "ksh",
    "rksh",
    "mksh",
    "lksh",
    "pdksh",
    "csh",
    "tcsh",
    "fish",
    "yash",
    "posh",
    "osh",
    "ysh",
    "elvish",
    "nu",
    "xonsh",
    "pwsh",
    "powershell",
    "rc",
    "es",
    "sash",
    "busybox",
    "toybox",
    "eval",
    "exec",
    // other places, other roots, other users
    "env",
    "ssh",
    "sshpass",
    "autossh",
    "mosh",
    "rsh",
    "rlogin",
    "scp",
    "sftp",
    "su",
    "pkexec",
    "chroot",
    "unshare",
    "nsenter",
    "capsh",
    "fakeroot",
    "fakechroot",
    "proot",
    "bwrap",
    "firejail",
    "nsjail",
    "minijail0",
    "systemd-nspawn",
    "machinectl",
    "setarch",
    "linux32",
    "linux64",
    "gosu",
    "su-exec",
    "runcon",
    "newgrp",
    "sg",
    "aa-exec",
    "distrobox",
    "toolbox",
    "schroot",
    // watchers, holders and starters
    "flock",
    "setlock",
    "lockf",
    "strace",
    "ltrace",
    "gdb",
    "lldb",
    "perf",
    "valgrind",
    "rr",
    "catchsegv",
    "unbuffer",
    "expect",
    "numactl",
    "script",
    "scriptreplay",
    "watch",
    "entr",
    "xargs",
    "parallel",
    "at",
    "batch",
    "crontab",
    "run-parts",
    "start-stop-daemon",
    "daemon",
    "daemonize",
    "setuidgid",
    "envuidgid",
    "envdir",
    "chpst",
    "softlimit",
    "tini",
    "dumb-init",
    "catatonit",
    "cpulimit",
    "cgexec",
    "systemd-inhibit",
    "systemd-cat",
    "systemd-socket-activate",
    "dbus-run-session",
    "dbus-launch",
    "xvfb-run",
    "ssh-agent",
    "rlwrap",
    "chronic",
    "ifne",
    "tmux",
    "screen",
    "dtach",
    "abduco",
    "hyperfine",
    "faketime",
    "ld.so",
    // code of their own
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "goawk",
    "sed",
    "ed",
    "ex",
    "vi",
    "vim",
    "view",
    "nvim",
    "emacs",
    "nano",
    "less",
    "more",
    "man",
    "m4",
    "dc",
    "make",
    "gmake",
    "bmake",
    "ninja",
    "just",
    "rake",
    "gcc",
    "cc",
    "socat",
    "nc",
    "ncat",
    "netcat",
    "telnet",
    "zip",
    "logrotate",
    // what runs the programs of packages
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "pip",
    "pipx",
    "uv",
    "uvx",
    "poetry",
    "go",
    "cargo",
    "dotnet",
    "bundle",
    "gem",
    "composer",
    "mvn",
    "gradle",
    "ansible",
    "ansible-playbook",
    "salt",
    "salt-call",
];
/// Shells that read a script which an argument names.
const SHELLS: &[&str] = &["sh", "ash", "bash", "rbash", "dash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish"];
/// Languages: a fixed script by its absolute path is no different from a program, code in an argument is.
const LANGUAGES: &[&str] = &[
    "python",
    "python2",
    "python3",
    "pypy",
    "pypy3",
    "ipython",
    "jython",
    "micropython",
    "perl",
    "raku",
    "ruby",
    "jruby",
    "irb",
    "node",
    "nodejs",
    "deno",
    "bun",
    "qjs",
    "tsx",
    "ts-node",
    "php",
    "lua",
    "luajit",
    "guile",
    "racket",
    "sbcl",
    "clisp",
    "tclsh",
    "wish",
    "julia",
    "octave",
    "R",
    "Rscript",
    "java",
    "jshell",
    "groovy",
    "scala",
    "kotlin",
    "erl",
    "escript",
    "elixir",
    "iex",
    "ghci",
    "runghc",
    "runhaskell",
    "ocaml",
    "swipl",
    "mono",
    "janet",
    "gst",
    "dart",
];
/// They run what stands behind them, and only options without a value may stand right before it: behind one that takes a
/// value, a path could be that value, and the program something else.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("sudo", &["-n", "-H", "-E", "-b", "--non-interactive", "--set-home"]),
    ("doas", &["-n"]),
    ("runuser", &[]),
    ("setpriv", &["--no-new-privs", "--clear-groups", "--reset-env", "--nnp"]),
    ("nice", &[]),
    ("ionice", &["-t", "--ignore"]),
    ("chrt", &["-b", "-f", "-i", "-o", "-r"]),
    ("taskset", &[]),
    ("timeout", &["-f", "-p", "-v", "--foreground", "--preserve-status", "--verbose"]),
    ("nohup", &[]),
    ("setsid", &["-c", "-f", "-w", "--ctty", "--fork", "--wait"]),
    ("stdbuf", &["-i0", "-o0", "-e0", "-oL", "-eL"]),
    ("systemd-run", &["--scope", "--wait", "--collect", "-G", "--quiet", "-q", "--no-block", "--pipe", "-P", "--user", "--system"]),
    ("time", &["-p", "-v", "--portability", "--verbose"]),
    ("prlimit", &[]),
];
/// They run something elsewhere if one of these words is among their arguments.
const ELSEWHERE: &[&str] = &["docker", "podman", "nerdctl", "ctr", "crictl", "lxc", "lxc-attach", "incus", "kubectl", "oc", "nomad"];
const RUNNING: &[&str] = &["exec", "run", "debug", "attach", "create", "shell"];
/// Options by which tools that are harmless otherwise run a program.
const RUNS_BY_OPTION: &[(&str, &[&str])] = &[
    ("find", &["-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprintf", "-fprint", "-fls"]),
    ("fd", &["-x", "-X", "--exec", "--exec-batch"]),
    ("tar", &["--to-command", "--checkpoint-action", "--use-compress-program", "-I", "--rsh-command", "--info-script", "-F"]),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("git", &["-c", "--exec-path", "--upload-pack", "--receive-pack", "--exec", "-u", "bisect", "rebase", "filter-branch"]),
    ("sort", &["--compress-program"]),
    ("split", &["--filter"]),
    ("tcpdump", &["-z"]),
    ("nmap", &["--script"]),
    ("psql", &["-c", "--command", "-f", "--file"]),
    ("mysql", &["-e", "--execute"]),
    ("mariadb", &["-e", "--execute"]),
    ("redis-cli", &["--eval", "EVAL", "eval"]),
    ("curl", &["-K", "--config"]),
];

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a program is among these: `python3.11`, `lua5.4`, `vim.tiny` and `bash-5.2` are what they are without a version.
fn is_among(list: &[&str], name: &str) -> bool {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let stem = name.split('.').next().unwrap_or(name);
    [name, plain, stem].iter().any(|name| !name.is_empty() && list.contains(name))
}

fn is_always(name: &str) -> bool {
    // the loader runs whatever it is given
    is_among(ALWAYS, name) || name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("qemu-")
}

fn wrapper(name: &str) -> Option<&'static [&'static str]> {
    WRAPPERS.iter().find(|(wrapper, _)| *wrapper == name).map(|(_, flags)| *flags)
}

/// Why a command line could run what a parameter says; none if it cannot. `is_fixed` tells whether an argument is
/// without a slot.
pub(crate) fn danger(argv: &[String], is_fixed: impl Fn(&str) -> bool + Copy) -> Option<String> {
    let (program, rest) = argv.split_first()?;
    let name = base(program);
    if is_always(name) {
        return Some(format!("{name} runs what its arguments say"));
    }
    if is_among(LANGUAGES, name) {
        let script = rest.first().is_some_and(|first| is_fixed(first) && first.starts_with('/'));
        return (!script).then(|| format!("{name} without a fixed script right behind it runs code that stands in an argument"));
    }
    if ELSEWHERE.contains(&name)
        && let Some(verb) = rest.iter().find(|arg| RUNNING.contains(&arg.as_str()))
    {
        return Some(format!("{name} {verb} runs what its arguments say"));
    }
    if let Some((_, options)) = RUNS_BY_OPTION.iter().find(|(tool, _)| *tool == name) {
        // `--option`, `--option=…`, and for a short one with what it is told in the same word
        let is_it = |arg: &str, option: &str| {
            arg == option
                || arg.strip_prefix(option).is_some_and(|more| more.starts_with('=') || (option.len() == 2 && option.starts_with('-')))
        };
        if let Some(option) = rest.iter().find_map(|arg| options.iter().find(|option| is_it(arg, option))) {
            return Some(format!("{name} with {option} runs, removes or writes what its arguments say"));
        }
    }
    let flags = wrapper(name)?;
    // the program behind it must be fixed, and harmless itself
    let Some(at) = rest.iter().position(|arg| is_fixed(arg) && arg.starts_with('/')) else {
        return Some(format!("{name} needs a program by its fixed absolute path behind it"));
    };
    let (options, behind) = rest.split_at(at);
    if let Some(loose) = options.iter().find(|arg| !is_fixed(arg)) {
        return Some(format!("{name} would take {loose} before the program it runs"));
    }
    if let Some(last) = options.last()
        && last.starts_with('-')
        && last != "--"
        && !last.contains('=')
        && !flags.contains(&last.as_str())
    {
        return Some(format!("{name} may take what stands behind {last} as its value, and run something else"));
    }
    let runs = |arg: &&str| is_always(arg) || is_among(LANGUAGES, arg) || wrapper(arg).is_some();
    if let Some(named) = options.iter().map(|arg| base(arg)).find(runs) {
        return Some(format!("{name} may run {named}, which runs what its arguments say"));
    }
    if let Some(named) = behind.iter().map(|arg| base(arg)).find(|arg| is_always(arg)) {
        return Some(format!("{named} runs what its arguments say"));
    }
    danger(behind, is_fixed)
}

/// The files that a command line runs, by their fixed paths: the program, what it wraps, the script that it interprets.
pub(crate) fn files(argv: &[String], is_fixed: impl Fn(&str) -> bool + Copy) -> Vec<String> {
    let Some((program, rest)) = argv.split_first() else { return Vec::new() };
    let mut files = vec![program.clone()];
    let is_path = |arg: &&String| is_fixed(arg) && arg.starts_with('/');
    let name = base(program);
    if wrapper(name).is_some() {
        if let Some(at) = rest.iter().position(|arg| is_path(&arg)) {
            files.extend(self::files(rest.get(at..).unwrap_or_default(), is_fixed));
        }
    } else if is_among(LANGUAGES, name) || is_among(SHELLS, name) {
        files.extend(rest.first().filter(is_path).cloned());
    }
    files.dedup();
    files
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
            // what looks like the program may be a file that the wrapper is told
            "/usr/bin/flock /run/lock {prog}",
            "/usr/bin/flock /run/lock python3 -c {code}",
            "/usr/sbin/chroot /srv perl -e {x}",
            "/usr/sbin/chroot /srv {prog}",
            "/usr/bin/unshare --root /srv {prog}",
            "/usr/bin/nsenter --net=/run/netns/x {prog}",
            "/usr/bin/strace -o /tmp/trace {prog}",
            "/usr/bin/ltrace -o /tmp/trace {prog}",
            "/usr/bin/time -o /tmp/took {prog}",
            "/usr/bin/sudo -D /srv {prog}",
            "/usr/bin/sudo -nD /srv {prog}",
            "/usr/bin/systemd-run --working-directory /srv {prog}",
            "/usr/bin/nice perl /srv/x {code}",
            "/usr/bin/setsid nice /srv/x {prog}",
            "/usr/bin/sudo -n /usr/bin/python3 -c {code}",
            // versions and variants
            "/usr/bin/bash-5.2 -c {x}",
            "/usr/bin/vim.tiny {file}",
            "/usr/bin/nc.openbsd {host}",
            "/usr/bin/tclsh8.6 {x}",
            "/lib64/ld-linux-x86-64.so.2 {x}",
            // by an option, or elsewhere
            "/usr/bin/tar --to-command={x} -xf /srv/a.tar",
            "/usr/bin/tar -I{x} -xf /srv/a.tar",
            "/usr/bin/rsync -e {x} /a /b",
            "/usr/bin/git -c {x} fetch",
            "/usr/bin/docker exec web {x}",
            "/usr/bin/kubectl exec {pod} -- {x}",
            "/usr/bin/npx {x}",
            "/usr/bin/julia -e {x}",
            "/usr/bin/su {user}",
            "/usr/bin/pkexec {x}",
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
            "/usr/bin/docker restart {name}",
            "/usr/bin/timeout 30 /usr/bin/systemctl restart {unit}",
            "/usr/bin/timeout --foreground -k 5 30 /usr/bin/systemctl restart {unit}",
            "/usr/bin/sudo -u root -- /usr/bin/systemctl restart {unit}",
            "/usr/bin/nice -n 5 /usr/bin/python3.11 /opt/repair.py {unit}",
            "/usr/bin/stdbuf -oL /usr/bin/journalctl -u {unit}",
            "/usr/bin/tar -xf /srv/a.tar {name}",
            "/usr/bin/git fetch {remote}",
        ] {
            assert_eq!(judged(line), None, "{line}");
        }
    }

    #[test]
    fn t7_every_file_that_a_command_line_runs_is_named() {
        for (line, expected) in [
            ("/usr/bin/systemctl restart {unit}", "/usr/bin/systemctl"),
            ("/usr/bin/python3 /opt/repair.py /etc/hosts {unit}", "/usr/bin/python3 /opt/repair.py"),
            ("/usr/bin/sudo -n /usr/bin/timeout 5 /usr/bin/python3 /opt/x.py", "/usr/bin/sudo /usr/bin/timeout /usr/bin/python3 /opt/x.py"),
            ("/bin/sh /opt/fix.sh {x}", "/bin/sh /opt/fix.sh"),
            ("/bin/sh -c /opt/fix.sh", "/bin/sh"),
            ("/bin/cat /etc/hosts", "/bin/cat"),
        ] {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(files(&argv, |arg| !arg.contains('{')).join(" "), expected, "{line}");
        }
    }
}
