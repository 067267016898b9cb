//! A ping as it stands in the signal log.

use opspilot_kernel::{
    codec::Labels,
    signal::{Severity, SignalKind, SignalRef},
    time::Timestamp,
};

use crate::evidence::cut;

/// The name of every signal that is a ping.
const NAME: &str = "ping";
/// So much of what came with a ping is kept.
const BODY_BYTES: usize = 10_000;

/// What a ping says, in the dialect of Healthchecks (its "Pinging API").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// All is well; a run is over.
    Success,
    /// A run began.
    Start,
    /// It failed; with an exit code if there is one.
    Fail(Option<u8>),
    /// Only to be kept.
    Log,
}

impl What {
    /// What an exit code says: 0 is success.
    pub const fn exit(code: u8) -> What {
        match code {
            0 => What::Success,
            code => What::Fail(Some(code)),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            What::Success => "success",
            What::Start => "start",
            What::Fail(_) => "fail",
            What::Log => "log",
        }
    }
}

/// A ping. As a signal it is a log line: its `name` is `ping`; the labels `heartbeat` (the heartbeat's
/// name), `ping` (`success`, `start`, `fail` or `log`) and, if there is one, `exit_code` and `run` say what it is;
/// its message is that in words and, from the second line on, what came with it. Nowhere in it is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping<'a> {
    /// The heartbeat's name.
    pub heartbeat: &'a str,
    /// What it says.
    pub what: What,
    /// Of which run, where runs overlap.
    pub run: Option<&'a str>,
}

impl<'a> Ping<'a> {
    /// How much of a body is kept.
    pub const BODY_BYTES: usize = BODY_BYTES;

    /// Whether a run can be called so: a UUID, or whatever else has 1 to 64 letters, digits, `-` and `_`.
    pub fn is_run(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    }

    /// Makes the signal and hands it to `take`; `body` is what came with it, `source` whose heartbeat it is.
    pub fn signal(&self, at: Timestamp, source: &str, body: &str, take: impl FnOnce(&SignalRef<'_>)) {
        let code = match self.what {
            What::Fail(Some(code)) => code.to_string(),
            _ => String::new(),
        };
        let mut labels = vec![("heartbeat", self.heartbeat), ("ping", self.what.as_str())];
        if !code.is_empty() {
            labels.push(("exit_code", &code));
        }
        labels.extend(self.run.map(|run| ("run", run)));
        let mut message = match self.what {
            What::Success => format!("ping from {}", self.heartbeat),
            What::Start => format!("{} started", self.heartbeat),
            What::Fail(None) => format!("{} failed", self.heartbeat),
            What::Fail(Some(code)) => format!("{} failed with exit code {code}", self.heartbeat),
            What::Log => format!("note from {}", self.heartbeat),
        };
        let body = cut(body.trim_end(), BODY_BYTES);
        if !body.is_empty() {
            message.push('\n');
            message.push_str(body);
        }
        let severity = if matches!(self.what, What::Fail(_)) { Severity::Error } else { Severity::Info };
        take(&SignalRef { severity, name: NAME, labels: Labels::Pairs(&labels), ..SignalRef::log(at, source, &message) });
    }

    /// The ping that a signal is, if it is one.
    pub(crate) fn of(signal: &SignalRef<'a>) -> Option<Ping<'a>> {
        if signal.name != NAME || signal.kind != SignalKind::Log {
            return None;
        }
        let what = match signal.labels.get("ping")? {
            "success" => What::Success,
            "start" => What::Start,
            "fail" => What::Fail(signal.labels.get("exit_code").and_then(|code| code.parse().ok())),
            "log" => What::Log,
            _ => return None,
        };
        let run = signal.labels.get("run").filter(|run| Ping::is_run(run));
        Some(Ping { heartbeat: signal.labels.get("heartbeat")?, what, run })
    }
}

/// What came with a ping.
pub(crate) fn body_of<'a>(signal: &SignalRef<'a>) -> &'a str {
    signal.message.split_once('\n').map_or("", |(_, body)| body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_a_log_line_that_can_be_told_for_one() {
        let at = Timestamp::from_millis(1_795_348_800_000);
        for what in [What::Success, What::Start, What::Fail(None), What::Fail(Some(3)), What::Log] {
            let ping = Ping { heartbeat: "backup", what, run: matches!(what, What::Start | What::Fail(None)).then_some("r-1") };
            let mut seen = 0;
            ping.signal(at, "db-1", "dumped 3 tables\n", |signal| {
                assert_eq!(Ping::of(signal), Some(ping));
                assert_eq!((signal.kind, signal.source, body_of(signal)), (SignalKind::Log, "db-1", "dumped 3 tables"));
                assert_eq!(signal.severity == Severity::Error, matches!(what, What::Fail(_)));
                seen += 1;
            });
            ping.signal(at, "db-1", "", |signal| {
                assert!(!signal.message.contains('\n'));
                seen += 1;
            });
            ping.signal(at, "db-1", &"ü".repeat(BODY_BYTES), |signal| assert!(signal.message.len() < BODY_BYTES + 64));
            assert_eq!(seen, 2);
        }
        assert_eq!(Ping::of(&SignalRef::log(at, "s", "ping")), None);
        assert_eq!(Ping::of(&SignalRef { name: NAME, ..SignalRef::log(at, "s", "x") }), None);
    }
}
