//! Syslog lines as they are found in the wild: RFC 5424, RFC 3164, and what daemons write into files.
//!
//! Pure: no socket and no clock. A line is never lost: what is no syslog is kept whole, and marked ([`Form::Raw`]).
//!
//! * RFC 5424 ("The Syslog Protocol"), section 6: `<PRI>1 TIME HOST APP PROCID MSGID DATA MSG`.
//! * RFC 3164 ("The BSD syslog Protocol"), section 4: `<PRI>Mmm dd hh:mm:ss HOST TAG: MSG`, and its relatives: without
//!   `<PRI>`, as files hold it; with a time of RFC 3339, as rsyslog writes it; with a year, as routers write it.
//!
//! Frames (RFC 6587) are whoever reads a socket's business; in files one line is one message.

mod bsd;
mod ietf;
mod signal;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;

use opspilot_kernel::{signal::Severity, time::Timestamp};

pub use self::{
    signal::signal,
    time::{Offset, Years},
};

/// Which of the forms a line had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RFC 5424.
    Ietf,
    /// RFC 3164 or one of its relatives.
    Bsd,
    /// None of them: the text is the whole line.
    Raw,
}

/// One message, borrowed from its line. An empty text is "not given".
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Which form the line had.
    pub form: Form,
    /// Facility, 0 to 23, if the line began with a priority.
    pub facility: Option<u8>,
    /// Severity, if the line began with a priority.
    pub severity: Option<Severity>,
    /// When it was written, if it says so.
    pub at: Option<Timestamp>,
    /// The machine.
    pub host: &'a str,
    /// The program.
    pub app: &'a str,
    /// Its process.
    pub pid: &'a str,
    /// RFC 5424: the kind of message.
    pub kind: &'a str,
    /// RFC 5424: structured data, named `id.name`, in the order given.
    pub data: Vec<(String, Cow<'a, str>)>,
    /// What it says.
    pub text: &'a str,
}

impl<'a> Message<'a> {
    const fn raw(line: &'a str) -> Message<'a> {
        Message {
            form: Form::Raw,
            facility: None,
            severity: None,
            at: None,
            host: "",
            app: "",
            pid: "",
            kind: "",
            data: Vec::new(),
            text: line,
        }
    }
}

/// Reads lines. It remembers the time of the last one, because those of RFC 3164 have no year.
#[derive(Debug, Clone)]
pub struct Parser {
    years: Years,
    offset: Offset,
}

impl Parser {
    /// A parser for lines in the order in which they were written. `years` says which year the first one is of; times that
    /// name no zone are taken as `offset` from UTC.
    pub const fn new(years: Years, offset: Offset) -> Parser {
        Parser { years, offset }
    }

    /// Reads one line, without its line end.
    pub fn parse<'a>(&mut self, line: &'a str) -> Message<'a> {
        let line = line.trim_end_matches(['\r', '\n', '\0']);
        let bare = line.strip_prefix('\u{feff}').unwrap_or(line);
        let (priority, behind) = match priority(bare) {
            Some((priority, behind)) => (Some(priority), behind),
            None => (None, bare),
        };
        let read = match ietf::read(behind) {
            Some(message) => Some(message),
            None => bsd::read(behind, &mut self.years, self.offset),
        };
        let message = read.unwrap_or_else(|| Message::raw(line));
        let (facility, severity) = (priority.map(|priority| priority >> 3), priority.map(|priority| severity_of(priority & 7)));
        Message { facility, severity, ..message }
    }
}

/// `<PRI>`, facility × 8 + severity, at most 191.
fn priority(line: &str) -> Option<(u8, &str)> {
    let (digits, behind) = line.strip_prefix('<')?.split_once('>')?;
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let priority: u8 = digits.parse().ok().filter(|priority| plain && *priority <= 191)?;
    Some((priority, behind))
}

/// The eight severities of syslog (RFC 5424, table 2) as the five there are here.
const fn severity_of(code: u8) -> Severity {
    match code {
        0..=2 => Severity::Critical,
        3 => Severity::Error,
        4 => Severity::Warning,
        5 | 6 => Severity::Info,
        _ => Severity::Debug,
    }
}

/// What the facilities are called (RFC 5424, table 1), as `syslog.conf` writes them.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Splits at the first space; what is behind it may be missing.
fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}
