//! `opspilot backup` and `restore`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{FailureReason, LedgerError, OpenError, Options, RestoreError};

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
        _ => {
            let what = format!("{} is not an OpsPilot backup: it is no SQLite database", file.display());
            Err(Failure::from(format!("{what}\nname a file that `opspilot backup` wrote")))
        }
    }
}

/// What went wrong, with what, and what to do about it.
fn explained(doing: &str, error: &dyn std::error::Error, hint: &str) -> Failure {
    let behind = if hint.is_empty() { String::new() } else { format!("\n{hint}") };
    Failure::from(format!("{doing}: {error}{behind}"))
}

/// What to do about storage that does not take or give what it should.
fn hint(error: &LedgerError, copy: &Path) -> String {
    match error {
        LedgerError::Unavailable(failure) => match failure.reason {
            FailureReason::Full => "make room, or use a disk with more of it; nothing was changed".to_owned(),
            FailureReason::ReadOnly => "use a folder that this user may write to".to_owned(),
            FailureReason::Damaged => format!("{} is cut short or damaged; take another copy", copy.display()),
            FailureReason::Locked => "another process holds the database; try again when it is done".to_owned(),
            _ => "look at the disk (`dmesg`), and try again".to_owned(),
        },
        LedgerError::Damaged(_) => format!("{} is cut short or damaged; take another copy", copy.display()),
        _ => String::new(),
    }
}

/// The same for a directory that data is to be put into.
fn hint_for(error: &OpenError) -> &'static str {
    match error {
        OpenError::InUse { .. } => "stop the service that works on it, or name another directory with --data; nothing was changed",
        OpenError::Io { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or name a directory on a disk with more of it",
            io::ErrorKind::PermissionDenied => "run this as the user that the service runs as",
            io::ErrorKind::ReadOnlyFilesystem => "name a directory on a disk that can be written to",
            _ => "",
        },
        OpenError::TooNew { .. } => "use the release that made the backup, or a later one",
        _ => "",
    }
}

impl Backup {
    pub(crate) fn run(self) -> Outcome {
        let dir = folder(&self.data);
        if !dir.join(opspilot_ledger::DATABASE).is_file() {
            return Err(Failure::from(format!("there is no database in {}; name the data directory with --data", dir.display())));
        }
        self.can_be_written()?;
        let made = meanwhile("copying and verifying", || opspilot_ledger::backup(&dir, &self.file, &SystemClock::shared()));
        let report = made.map_err(|error| {
            let doing = format!("cannot back up {} to {}", dir.display(), self.file.display());
            explained(&doing, &error, &hint(&error, &dir.join(opspilot_ledger::DATABASE)))
        })?;
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

impl Backup {
    /// Whether the file can be made, found out before there is any work.
    fn can_be_written(&self) -> Outcome {
        let shown = self.file.display();
        if self.file.is_dir() {
            return Err(Failure::from(format!(
                "{shown} is a folder; name a file in it, such as {}",
                self.file.join("opspilot.backup").display()
            )));
        }
        if self.file.exists() {
            return Err(Failure::from(format!("{shown} is there already, and is not overwritten; name another file, or move it away")));
        }
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
            Ok(()) if folder.is_dir() => Ok(()),
            Ok(()) => Err(Failure::from(format!("{} is no folder", folder.display()))),
            Err(rustix::io::Errno::NOENT) => {
                Err(Failure::from(format!("there is no folder {}; make it, or name another", folder.display())))
            }
            Err(error) => {
                let why = io::Error::from(error);
                Err(Failure::from(format!("cannot write to the folder {}: {why}; name another", folder.display())))
            }
        }
    }
}

impl Restore {
    pub(crate) fn run(self) -> Outcome {
        let dir = folder(&self.data);
        looks_like_one(&self.file)?;
        let actor = Actor::User { id: format!("uid:{}", rustix::process::getuid().as_raw()), via: "cli".to_owned() };
        let options = Options::new(&dir, SystemClock::shared());
        let made = meanwhile("verifying and restoring", || opspilot_ledger::restore(&self.file, options, &actor));
        let report = made.map_err(|error| {
            let doing = format!("cannot restore {} into {}", self.file.display(), dir.display());
            match &error {
                RestoreError::Directory(inner) => explained(&doing, inner, hint_for(inner)),
                RestoreError::Backup { source, .. } => explained(&doing, source, &hint(source, &self.file)),
                RestoreError::Ledger(inner) => explained(&doing, &error, &hint(inner, &dir)),
            }
        })?;
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
        assert!(said(dir.path()).contains("is not an OpsPilot backup"));
        std::fs::write(&file, "hello").unwrap();
        assert!(said(&file).contains("is not an OpsPilot backup") && said(&file).contains("`opspilot backup`"));
        std::fs::write(&file, b"SQLite format 3\0and more").unwrap();
        assert!(looks_like_one(&file).is_ok());
    }

    #[test]
    fn every_failure_says_what_was_wrong_where_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
        let of = |data: &Path| Data { data: Some(data.to_owned()) };
        let backup = |to: &Path| Backup { file: to.to_owned(), data: of(&data) }.run().unwrap_err().text;
        let restore = |from: &Path| Restore { file: from.to_owned(), data: of(&data) }.run().unwrap_err().text;
        assert!(backup(&copy).contains("there is no database in"));
        let ledger = opspilot_ledger::Ledger::open(Options::new(&data, SystemClock::shared())).unwrap();
        assert!(backup(dir.path()).contains("is a folder; name a file in it"));
        assert!(backup(&dir.path().join("none/copy")).contains("there is no folder"));
        Backup { file: copy.clone(), data: of(&data) }.run().unwrap();
        assert!(backup(&copy).contains("not overwritten; name another file"));
        let said = restore(&copy);
        assert!(said.contains(&copy.display().to_string()) && said.contains("in use") && said.contains("stop the service"), "{said}");
        crate::cli::waiting(async { Ok(ledger.shut_down().await?) }).unwrap();
        drop(ledger);
        let whole = std::fs::read(&copy).unwrap();
        let short = dir.path().join("short");
        std::fs::write(&short, &whole[..whole.len() / 2]).unwrap();
        let said = restore(&short);
        assert!(said.contains(&short.display().to_string()) && said.contains("take another copy"), "{said}");
    }
}
