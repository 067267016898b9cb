//! Watches one program: its output, its end, its time, and whether anybody still waits for it.

use std::{io::Read, os::unix::net::UnixStream, time::Duration};

use opspilot_kernel::{clock::SharedClock, plan::Plan};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, WaitOptions, WaitStatus},
};

use super::{
    attempt,
    capture::Capture,
    evidence::{Ended, Exit},
    helper::{Spawned, read_some},
};

/// Between asking a program to end and ending it.
const GRACE: Duration = Duration::from_secs(5);
/// How long outputs stay open once the program ended: something it left behind may hold them.
const LINGER: Duration = Duration::from_secs(2);
/// How long a program that was killed may take to be gone; a process that hangs in the kernel never is.
const GONE: Duration = Duration::from_secs(2);
/// Read at a time.
const BUFFER: usize = 1 << 18;
/// Those who came under us and ended are looked for so often.
const LOOK: Duration = Duration::from_secs(1);

/// Watches one program.
pub(crate) struct Watch {
    clock: SharedClock,
    begun: Duration,
    timeout: Duration,
    idle: Option<Duration>,
    heard: Duration,
    /// Why it is being ended, and since when.
    ending: Option<(Ended, Duration)>,
    killed: Option<Duration>,
    status: Option<WaitStatus>,
    exited: Option<Duration>,
    stdout: Capture,
    stderr: Capture,
}

/// What was seen.
pub(crate) struct Ending {
    status: Option<WaitStatus>,
    ended: Option<Ended>,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
}

impl Ending {
    pub(crate) fn exit(&self) -> Exit {
        let status = self.status;
        Exit { code: status.and_then(WaitStatus::exit_status), signal: status.and_then(WaitStatus::terminating_signal), ended: self.ended }
    }
}

impl Watch {
    /// The program begins now.
    pub(crate) fn new(plan: &Plan, clock: SharedClock) -> Watch {
        let begun = clock.elapsed();
        Watch {
            begun,
            clock,
            timeout: Duration::from_secs(plan.timeout_secs),
            idle: plan.idle_timeout_secs.map(Duration::from_secs),
            heard: begun,
            ending: None,
            killed: None,
            status: None,
            exited: None,
            stdout: Capture::new(plan.output_bytes),
            stderr: Capture::new(plan.output_bytes),
        }
    }

    /// Until the program ended and its outputs are closed, or nothing more can be expected.
    pub(crate) fn until_the_end(mut self, program: &mut Spawned, service: &mut UnixStream) -> Ending {
        let mut buffer = vec![0; BUFFER];
        let (mut out_open, mut err_open, mut service_there) = (true, true, true);
        while !self.is_over(out_open || err_open) {
            let ready = self.wait(program, service, out_open, err_open, service_there);
            if ready.stdout {
                out_open = take(&mut self.stdout, read_some(&mut program.stdout, &mut buffer), &buffer);
            }
            if ready.stderr {
                err_open = take(&mut self.stderr, read_some(&mut program.stderr, &mut buffer), &buffer);
            }
            let now = self.clock.elapsed();
            if (ready.stdout && out_open) || (ready.stderr && err_open) {
                self.heard = now;
            }
            // first: whoever ended by itself was not ended by us
            self.reap(program);
            if ready.service {
                // it has nothing more to say: this is its end
                service_there = service.read(&mut buffer).is_ok_and(|read| read > 0);
                if !service_there {
                    self.end(program, Ended::Interrupted);
                }
            }
            self.keep_time(program);
        }
        Ending { status: self.status, ended: self.ending.map(|(why, _)| why), stdout: self.stdout, stderr: self.stderr }
    }

    fn is_over(&self, open: bool) -> bool {
        let now = self.clock.elapsed();
        match self.exited {
            Some(at) => !open || now >= at + LINGER,
            None => self.killed.is_some_and(|at| now >= at + GONE),
        }
    }

    /// Asks the program to end, once.
    fn end(&mut self, program: &Spawned, why: Ended) {
        if self.exited.is_none() && self.ending.is_none() {
            self.ending = Some((why, self.clock.elapsed()));
            signal(program, Signal::TERM);
        }
    }

    fn keep_time(&mut self, program: &Spawned) {
        let now = self.clock.elapsed();
        if now >= self.begun + self.timeout {
            self.end(program, Ended::Timeout);
        } else if self.idle.is_some_and(|idle| now >= self.heard + idle) {
            self.end(program, Ended::Idle);
        }
        if self.exited.is_none() && self.killed.is_none() && self.ending.is_some_and(|(_, since)| now >= since + GRACE) {
            self.killed = Some(now);
            signal(program, Signal::KILL);
        }
    }

    /// When something is due next, at the latest.
    fn due(&self) -> Duration {
        let now = self.clock.elapsed();
        let timer = match (self.exited, self.killed, self.ending) {
            (Some(at), ..) => at + LINGER,
            (None, Some(at), _) => at + GONE,
            (None, None, Some((_, since))) => since + GRACE,
            (None, None, None) => (self.begun + self.timeout).min(self.idle.map_or(Duration::MAX, |idle| self.heard + idle)),
        };
        timer.saturating_sub(now).min(LOOK)
    }

    fn wait(&self, program: &Spawned, service: &UnixStream, out_open: bool, err_open: bool, service_there: bool) -> Ready {
        let watched = [
            (out_open, PollFd::new(&program.stdout, PollFlags::IN)),
            (err_open, PollFd::new(&program.stderr, PollFlags::IN)),
            (service_there, PollFd::new(service, PollFlags::IN)),
            (self.exited.is_none(), PollFd::new(&program.pidfd, PollFlags::IN)),
        ];
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let places = watched.map(|(is_watched, fd)| {
            is_watched.then(|| {
                fds.push(fd);
                fds.len() - 1
            })
        });
        let wait = Timespec::try_from(self.due()).ok();
        // a signal only makes the look come earlier
        attempt(poll(&mut fds, wait.as_ref()));
        let [stdout, stderr, service, _] =
            places.map(|place| place.and_then(|place| fds.get(place)).is_some_and(|fd| !fd.revents().is_empty()));
        Ready { stdout, stderr, service }
    }

    /// Takes up everybody who ended; the program among them.
    fn reap(&mut self, program: &Spawned) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == program.group() {
                self.status = Some(status);
                self.exited = Some(self.clock.elapsed());
            }
        }
    }
}

struct Ready {
    stdout: bool,
    stderr: bool,
    service: bool,
}

/// Takes in what was read; whether there may be more.
fn take(capture: &mut Capture, read: usize, buffer: &[u8]) -> bool {
    capture.push(buffer.get(..read).unwrap_or_default());
    read > 0
}

fn signal(program: &Spawned, signal: Signal) {
    if rustix::process::kill_process_group(program.group(), signal).is_err() {
        // it left its group, or ended meanwhile
        attempt(rustix::process::pidfd_send_signal(&program.pidfd, signal));
    }
}
