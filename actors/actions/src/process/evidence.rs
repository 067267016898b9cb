//! Evidence: what a run's helper writes down as it goes, one small file for each run, so that whoever comes later knows
//! what happened and what did not.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use opspilot_kernel::{ids::ExecutionId, time::Timestamp};
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use super::proc::ProcessName;

/// How far a run came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Evidence {
    /// Nobody may start it any more: whoever looked after it found that nothing was started.
    NotStarted,
    /// The process is there, or was; the program itself may have begun.
    Spawned {
        /// What became the program, and the group it leads.
        #[serde(flatten)]
        program: ProcessName,
        /// Who watches it.
        helper: ProcessName,
    },
    /// The program itself was never begun.
    Refused {
        /// Why.
        reason: String,
    },
    /// The program ended.
    Exited(Exit),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// What it returned.
    pub(crate) code: Option<i32>,
    /// Which signal ended it.
    pub(crate) signal: Option<i32>,
    /// Why it was ended, if not by itself.
    pub(crate) ended: Option<Ended>,
}

/// Why a program was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// It took too long.
    Timeout,
    /// It was silent for too long.
    Idle,
    /// Nobody was left who waited for it.
    Interrupted,
}

/// The folder of all evidence.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    dir: PathBuf,
}

impl Runs {
    /// The folder `<data>/runs`, which is made if it is not there; nobody else may look into it.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Runs> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(Runs { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self, id: &ExecutionId) -> io::Result<PathBuf> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if id.as_str().is_empty() || !id.as_str().bytes().all(is_plain) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a run"));
        }
        Ok(self.dir.join(format!("{id}.json")))
    }

    /// The first word about a run: true if there was none yet. Of several only one can have it.
    pub(crate) fn claim(&self, id: &ExecutionId, evidence: &Evidence) -> io::Result<bool> {
        self.write(id, evidence, RenameFlags::NOREPLACE)
    }

    /// The next word about a run.
    pub(crate) fn replace(&self, id: &ExecutionId, evidence: &Evidence) -> io::Result<()> {
        self.write(id, evidence, RenameFlags::empty()).map(drop)
    }

    fn write(&self, id: &ExecutionId, evidence: &Evidence, flags: RenameFlags) -> io::Result<bool> {
        let file = self.file(id)?;
        let new = self.dir.join(format!(".{id}.{}", std::process::id()));
        let mut open = OpenOptions::new();
        let mut writer = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writer.write_all(&serde_json::to_vec(evidence)?)?;
        writer.sync_all()?;
        match rustix::fs::renameat_with(CWD, &new, CWD, &file, flags) {
            Ok(()) => File::open(&self.dir)?.sync_all().map(|()| true),
            Err(error) => {
                fs::remove_file(&new)?;
                if error == rustix::io::Errno::EXIST { Ok(false) } else { Err(error.into()) }
            }
        }
    }

    /// The last word about a run. What cannot be read is an error, not silence.
    pub(crate) fn read(&self, id: &ExecutionId) -> io::Result<Option<Evidence>> {
        match fs::read(self.file(id)?) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the evidence of a run whose end is on record.
    pub(crate) fn forget(&self, id: &ExecutionId) -> io::Result<()> {
        fs::remove_file(self.file(id)?)
    }

    /// When the last word about a run was written.
    pub(crate) fn written(&self, id: &ExecutionId) -> Option<Timestamp> {
        let written = fs::metadata(self.file(id).ok()?).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp::from_millis(i64::try_from(written.as_millis()).ok()?))
    }

    /// Every run there is evidence of.
    pub(crate) fn list(&self) -> io::Result<Vec<ExecutionId>> {
        let name = |entry: io::Result<fs::DirEntry>| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned());
        Ok(fs::read_dir(&self.dir)?.filter_map(name).filter(|name| !name.starts_with('.')).map(ExecutionId::given).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_claimed_once_and_its_last_word_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::open(dir.path().join("runs")).unwrap();
        assert_eq!(fs::metadata(runs.dir()).unwrap().permissions().mode() & 0o777, 0o700);
        let id = ExecutionId::random();
        assert_eq!(runs.read(&id).unwrap(), None);
        let name = ProcessName { pid: 7, starttime: 9, boot: "b".to_owned() };
        let spawned = Evidence::Spawned { program: name.clone(), helper: name };
        assert!(runs.claim(&id, &spawned).unwrap());
        assert!(!runs.claim(&id, &Evidence::NotStarted).unwrap());
        assert_eq!(runs.read(&id).unwrap(), Some(spawned));
        let exited = Evidence::Exited(Exit { code: Some(3), signal: None, ended: Some(Ended::Idle) });
        runs.replace(&id, &exited).unwrap();
        assert_eq!(runs.read(&id).unwrap(), Some(exited));
        assert_eq!(runs.list().unwrap(), std::slice::from_ref(&id), "nothing but the one file is left");
        assert_eq!(fs::read_dir(runs.dir()).unwrap().count(), 1);
        runs.forget(&id).unwrap();
        assert_eq!(runs.read(&id).unwrap(), None);
    }

    #[test]
    fn a_name_leads_nowhere_else_and_a_torn_file_is_no_silence() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::open(dir.path().to_owned()).unwrap();
        for name in ["", "../x", "a/b", ".hidden"] {
            assert!(runs.read(&ExecutionId::given(name)).is_err(), "{name}");
        }
        fs::write(dir.path().join("exe_1.json"), b"{\"state\":\"spaw").unwrap();
        assert!(runs.read(&ExecutionId::given("exe_1")).is_err());
    }
}
