//! What the service, the helper and the process that becomes the program say to each other: JSON behind its length,
//! over the socket that is their standard input.

use std::io::{self, Read, Write};

use opspilot_kernel::{
    ids::ExecutionId,
    plan::{Plan, PlanDigest},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{evidence::Exit, proc::ProcessName};

/// The longest message: two outputs of 16 MiB each in which every byte had to be escaped.
const LONGEST: u32 = 256 << 20;

/// What is to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) run: ExecutionId,
    /// SHA-256 over the plan as it was approved.
    pub(crate) digest: PlanDigest,
    /// The plan, byte for byte.
    pub(crate) plan: String,
    /// Where evidence is kept.
    pub(crate) runs: std::path::PathBuf,
    pub(crate) limits: Bounds,
    /// The process that gives this order.
    pub(crate) parent: i32,
}

/// The bounds on a run that are not in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Bytes of address space of each process.
    pub(crate) memory: u64,
    /// Bytes of each file that is written.
    pub(crate) file_size: u64,
}

impl Order {
    /// The plan, if it is the one that was approved.
    pub(crate) fn approved(&self) -> Result<Plan, String> {
        let found = PlanDigest::of(self.plan.as_bytes());
        if found != self.digest {
            return Err(format!("the plan is not the one that was approved: its digest is {found}"));
        }
        let plan: Plan = serde_json::from_str(&self.plan).map_err(|error| format!("the plan cannot be read: {error}"))?;
        if plan.v != 1 {
            return Err(format!("a plan of version {} is not understood", plan.v));
        }
        Ok(plan)
    }
}

/// What the helper tells the service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The process that becomes the program is there.
    Spawned(ProcessName),
    /// The program was never begun.
    Refused { reason: String },
    /// It ended.
    Ended(Box<Outcome>),
}

/// How a run ended, in full.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) truncated: bool,
    /// Processes that could not be ended.
    pub(crate) survivors: usize,
    pub(crate) sandbox: Value,
}

/// What the process that becomes the program tells the helper. After [`Begun::Ready`] it says nothing more, unless it
/// could not become the program.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Begun {
    /// Everything that holds it in is in force.
    Ready { sandbox: Value },
    /// Something is not, so it does not become the program.
    Refused { reason: String },
}

pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST).ok_or(io::ErrorKind::InvalidInput)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&body)
}

/// The next message; nothing when there is none any more.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read(&mut length)? {
        0 => return Ok(None),
        read => from.read_exact(length.get_mut(read..).unwrap_or_default())?,
    }
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_one_by_one_and_a_torn_one_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, &Report::Refused { reason: "a".to_owned() }).unwrap();
        let first = wire.len();
        send(&mut wire, &Report::Refused { reason: "b\0\u{1b}".to_owned() }).unwrap();
        let mut from = wire.as_slice();
        for expected in ["a", "b\0\u{1b}"] {
            let Some(Report::Refused { reason }) = receive(&mut from).unwrap() else { panic!("not what was sent") };
            assert_eq!(reason, expected);
        }
        assert!(receive::<Report>(&mut from).unwrap().is_none());
        for cut in 1..first {
            assert!(receive::<Report>(&mut &wire[..cut]).is_err(), "cut at {cut}");
        }
        assert!(receive::<Report>(&mut [255, 255, 255, 255, 0].as_slice()).is_err());
    }
}
