//! `opspilot keys`: another signing key in the place of the one that is used.

use clap::{Args, Subcommand, ValueEnum};
use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{DATABASE, KeyPurpose, Ledger, Options};

use super::{Data, Failure, Outcome, output::say, waiting};

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Replace a key in order; what it signed stays good. The service must be stopped
    Rotate(Which),
    /// Replace a key that somebody else may have; nothing it signs from now on counts. The service must be stopped
    Revoke(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// What the key is for
    #[arg(long, value_enum)]
    purpose: Purpose,
    /// Why, for the record
    #[arg(long, default_value = "not given")]
    reason: String,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Purpose {
    Audit,
    Approval,
    Session,
}

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> KeyPurpose {
        match purpose {
            Purpose::Audit => KeyPurpose::Audit,
            Purpose::Approval => KeyPurpose::Approval,
            Purpose::Session => KeyPurpose::Session,
        }
    }
}

/// Whoever may write the files may do this; the record says which user of the system that was.
pub(super) fn caller() -> Actor {
    Actor::User { id: format!("uid:{}", rustix::process::getuid().as_raw()), via: "cli".to_owned() }
}

/// The ledger of a directory that no service uses.
pub(super) fn offline(data: &Data) -> Result<Ledger, Failure> {
    let dir = data.folder();
    if !dir.join(DATABASE).is_file() {
        return Err(Failure::from(format!("there is no database in {}; name the data directory with --data", dir.display())));
    }
    Ok(Ledger::open(Options { tool: true, ..Options::new(dir, SystemClock::shared()) })?)
}

impl Keys {
    pub(crate) fn run(self) -> Outcome {
        let (which, revoked) = match self {
            Keys::Rotate(which) => (which, false),
            Keys::Revoke(which) => (which, true),
        };
        let ledger = offline(&which.data)?;
        let replaced = waiting(async { Ok(ledger.replace_key(which.purpose.into(), caller(), revoked, which.reason.clone()).await?) })?;
        let old = replaced.old.as_deref().unwrap_or("none");
        say(&format!(
            "{} key {}: {old} {}, {} in its place",
            replaced.purpose,
            if revoked { "revoked" } else { "rotated" },
            if revoked { "counts no more" } else { "is retired" },
            replaced.new
        ));
        if let Some(public) = replaced.public {
            say(&format!("hand this to whoever verifies the audit log:\n{public}"));
        }
        Ok(())
    }
}
