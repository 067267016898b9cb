//! Plans: what exactly would run, and the digest that approval binds to.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::canonical::{NotCanonical, canonical};

/// How much harm an action can do; it decides how many people must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Looks, and changes nothing.
    Read,
    /// Changes what can be changed back.
    Reversible,
    /// Interrupts a service for a while.
    Disruptive,
    /// Destroys what cannot be brought back.
    Destructive,
}

impl Risk {
    /// Every tier, from the mildest on.
    pub const ALL: [Risk; 4] = [Risk::Read, Risk::Reversible, Risk::Disruptive, Risk::Destructive];

    /// The tier as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Risk::Read => "read",
            Risk::Reversible => "reversible",
            Risk::Disruptive => "disruptive",
            Risk::Destructive => "destructive",
        }
    }
}

/// What carries a plan out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// A program on this machine, without a shell.
    Process,
}

/// A file that a plan runs, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Its absolute path, as the arguments name it.
    pub path: String,
    /// SHA-256 over what is in it, in hex.
    pub sha256: String,
}

/// Bounds on each process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanLimits {
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of each file that is written.
    pub file_size: u64,
}

/// One fully rendered action: all that decides what happens when it runs.
///
/// Its canonical JSON ([`Plan::bytes`]) is stored when it is proposed; those bytes are what is shown, hashed and run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this shape; 1.
    pub v: u32,
    /// What carries it out.
    pub executor: Executor,
    /// The action of the catalogue that it was rendered from.
    pub action: String,
    /// SHA-256 over the action's definition, `sha256:…`: an edited definition is another plan.
    pub template: String,
    /// SHA-256 over the policy in force when it was rendered, `sha256:…`.
    pub policy: String,
    /// The program and its arguments, each passed as it stands.
    pub argv: Vec<String>,
    /// The files that are run, by their content: the program, the program that it wraps, the script that it interprets.
    #[serde(default)]
    pub files: Vec<PlanFile>,
    /// Names of the variables that the program gets, besides the fixed ones; their values never leave the service.
    pub env: Vec<String>,
    /// What stands in for each of these values: a keyed hash that tells whether it is still the same, or `unset`.
    #[serde(default)]
    pub env_values: BTreeMap<String, String>,
    /// The directory it runs in.
    pub cwd: String,
    /// The user id it runs as; the service's own when absent.
    pub uid: Option<u32>,
    /// Seconds after which it is ended.
    pub timeout_secs: u64,
    /// Seconds without output after which it is ended; never when absent.
    pub idle_timeout_secs: Option<u64>,
    /// Bytes kept of each of its two outputs.
    pub output_bytes: u64,
    /// Bounds on each of its processes.
    #[serde(default)]
    pub limits: Option<PlanLimits>,
    /// What it acts on; two runs never act on the same target at once.
    pub targets: Vec<String>,
}

impl Plan {
    /// The bytes that are stored, shown and hashed: canonical JSON (RFC 8785).
    pub fn bytes(&self) -> Result<Vec<u8>, NotCanonical> {
        canonical(&serde_json::to_value(self).map_err(|_| NotCanonical)?)
    }
}

/// SHA-256 over a plan's bytes, written `sha256:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanDigest([u8; 32]);

impl PlanDigest {
    /// The digest of stored bytes.
    pub fn of(bytes: &[u8]) -> PlanDigest {
        PlanDigest(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

/// The text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest; write `sha256:` and 64 lower-case hex digits")]
pub struct NotADigest;

impl std::str::FromStr for PlanDigest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<PlanDigest, NotADigest> {
        let digits =
            text.strip_prefix("sha256:").filter(|digits| !digits.bytes().any(|byte| byte.is_ascii_uppercase())).ok_or(NotADigest)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).map_err(|_| NotADigest)?;
        Ok(PlanDigest(digest))
    }
}

impl Serialize for PlanDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlanDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PlanDigest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            v: 1,
            executor: Executor::Process,
            action: "restart-service".to_owned(),
            template: "sha256:00".to_owned(),
            policy: "sha256:01".to_owned(),
            argv: vec!["/usr/bin/systemctl".to_owned(), "restart".to_owned(), "checkout".to_owned()],
            files: vec![PlanFile { path: "/usr/bin/systemctl".to_owned(), sha256: "00".to_owned() }],
            env: Vec::new(),
            env_values: BTreeMap::new(),
            cwd: "/".to_owned(),
            uid: None,
            timeout_secs: 30,
            idle_timeout_secs: None,
            output_bytes: 1 << 20,
            limits: Some(PlanLimits { memory: 1 << 30, file_size: 1 << 20 }),
            targets: vec!["host-7".to_owned()],
        }
    }

    #[test]
    fn every_part_of_a_plan_is_in_its_digest() {
        let original = PlanDigest::of(&plan().bytes().unwrap());
        let changed: [fn(&mut Plan); 13] = [
            |plan| plan.action.push('x'),
            |plan| plan.template.push('x'),
            |plan| plan.policy.push('x'),
            |plan| plan.argv.push(String::new()),
            |plan| plan.env.push("A".to_owned()),
            |plan| plan.files.iter_mut().for_each(|file| file.sha256.push('1')),
            |plan| plan.files.iter_mut().for_each(|file| file.path.push('x')),
            |plan| drop(plan.env_values.insert("A".to_owned(), "unset".to_owned())),
            |plan| plan.limits.iter_mut().for_each(|limits| limits.memory += 1),
            |plan| plan.cwd.push('x'),
            |plan| plan.uid = Some(0),
            |plan| plan.timeout_secs += 1,
            |plan| plan.targets.clear(),
        ];
        for (place, change) in changed.iter().enumerate() {
            let mut other = plan();
            change(&mut other);
            assert_ne!(PlanDigest::of(&other.bytes().unwrap()), original, "change {place}");
        }
    }

    #[test]
    fn a_digest_is_written_in_one_way() {
        let digest = PlanDigest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "sha256:", &digest.to_string().to_uppercase(), &digest.to_string()[7..], &format!("{digest}0")] {
            assert_eq!(wrong.parse::<PlanDigest>(), Err(NotADigest), "{wrong}");
        }
    }

    #[test]
    fn a_stored_plan_is_read_back_and_nothing_else_is() {
        let bytes = plan().bytes().unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&bytes).unwrap(), plan());
        let more = String::from_utf8(bytes).unwrap().replacen('{', "{\"extra\":1,", 1);
        assert!(serde_json::from_str::<Plan>(&more).is_err());
    }
}
