//! `opspilot backup` and `restore`.

use std::path::PathBuf;

use clap::Args;
use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::Options;

use super::{
    Data, Failure, Outcome,
    output::{meanwhile, say},
};

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to be written; it must not be there yet
    file: PathBuf,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A file that `opspilot backup` wrote
    file: PathBuf,
    #[command(flatten)]
    data: Data,
}

fn folder(data: &Data) -> PathBuf {
    data.data.clone().unwrap_or_else(|| PathBuf::from("./data"))
}

impl Backup {
    pub(crate) fn run(self) -> Outcome {
        let dir = folder(&self.data);
        if !dir.join(opspilot_ledger::DATABASE).is_file() {
            return Err(Failure::from(format!("there is no database in {}; name the data directory with --data", dir.display())));
        }
        let report = meanwhile("copying and verifying", || opspilot_ledger::backup(&dir, &self.file, &SystemClock::shared()))?;
        say(&format!(
            "{}: {} bytes, verified; signals up to {}, {} audit entries",
            self.file.display(),
            report.bytes,
            report.last_signal,
            report.audit_entries
        ));
        Ok(())
    }
}

impl Restore {
    pub(crate) fn run(self) -> Outcome {
        let dir = folder(&self.data);
        let actor = Actor::User { id: format!("uid:{}", rustix::process::getuid().as_raw()), via: "cli".to_owned() };
        let options = Options::new(&dir, SystemClock::shared());
        let report = meanwhile("verifying and restoring", || opspilot_ledger::restore(&self.file, options, &actor))?;
        say(&format!("{} is back in {}", self.file.display(), dir.display()));
        if let Some(kept) = report.replaced {
            say(&format!("what was there before is kept in {}", kept.display()));
        }
        Ok(())
    }
}
