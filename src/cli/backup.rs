//! `opspilot backup` and `restore`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

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

/// What can be said of a backup before it is read as a whole.
fn looks_like_one(file: &Path) -> Outcome {
    const SQLITE: &[u8; 16] = b"SQLite format 3\0";
    let mut start = [0; 16];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) if &start == SQLITE => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::from(format!("there is no file {}", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::from(format!("cannot read {}: {error}", file.display())))
        }
        _ => Err(Failure::from(format!("{} is not an OpsPilot backup", file.display()))),
    }
}

impl Backup {
    pub(crate) fn run(self) -> Outcome {
        let dir = folder(&self.data);
        if !dir.join(opspilot_ledger::DATABASE).is_file() {
            return Err(Failure::from(format!("there is no database in {}; name the data directory with --data", dir.display())));
        }
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Failure::from(format!("there is no folder {}", folder.display())));
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
        looks_like_one(&self.file)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_backup_is_named_before_anything_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("copy.db");
        let said = |file: &Path| looks_like_one(file).unwrap_err().text;
        assert!(said(&file).starts_with("there is no file"));
        assert!(said(dir.path()).ends_with("is not an OpsPilot backup"));
        std::fs::write(&file, "hello").unwrap();
        assert!(said(&file).ends_with("is not an OpsPilot backup"));
        std::fs::write(&file, b"SQLite format 3\0and more").unwrap();
        assert!(looks_like_one(&file).is_ok());
    }
}
