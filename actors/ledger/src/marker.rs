//! The file `running`: there while a process works on the database. If it is there at start, the last run
//! did not stop in order.
//!
//! It also says up to which numbers the run acknowledged its work. Nothing forces these to the device: they
//! outlive a kill, and after a loss of power they may be too low but never too high. SQLite takes the
//! write-ahead log away itself once all of it is in the database, so a log that is not there proves nothing;
//! a database that ends before these numbers does. If the run met damage, the marker says that too.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use opspilot_kernel::ids::Seq;

use crate::tx::Heads;

/// The last numbers of the logs and the size of the audit chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    signal: Seq,
    alert: Seq,
    event: Seq,
    audit: Seq,
}

impl From<&Heads> for Acknowledged {
    fn from(heads: &Heads) -> Acknowledged {
        Acknowledged { signal: heads.signal, alert: heads.alert, event: heads.event, audit: heads.audit.size }
    }
}

impl Acknowledged {
    /// What of this is not in a database that ends at `found`.
    pub(crate) fn missing_in(&self, found: &Acknowledged) -> Option<String> {
        let logs = [
            ("signals", self.signal, found.signal),
            ("alerts", self.alert, found.alert),
            ("events", self.event, found.event),
            ("audit entries", self.audit, found.audit),
        ];
        let missing: Vec<String> = logs
            .iter()
            .filter(|(_, acknowledged, found)| acknowledged > found)
            .map(|(name, acknowledged, found)| format!("{name} up to {acknowledged} were acknowledged and it ends at {found}"))
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl fmt::Display for Acknowledged {
    /// Always of the same length, so that it can be written over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020} {:020} {:020} {:020}", self.signal, self.alert, self.event, self.audit)
    }
}

/// What the line about damage begins with.
const DAMAGE: &str = "damaged: ";

/// What the marker of the last run says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// What was acknowledged; nothing if the marker does not say.
    pub(crate) acknowledged: Option<Acknowledged>,
    /// The damage that was met.
    pub(crate) damage: Option<String>,
}

impl Left {
    fn parse(text: &str) -> Left {
        let mut lines = text.lines();
        let mut numbers = lines.next().unwrap_or_default().split(' ').skip(1).map(str::parse::<Seq>);
        let mut next = || numbers.next().and_then(Result::ok);
        let acknowledged = (|| Some(Acknowledged { signal: next()?, alert: next()?, event: next()?, audit: next()? }))();
        let damage = lines.next().and_then(|line| line.strip_prefix(DAMAGE)).map(str::to_owned);
        Left { acknowledged, damage }
    }
}

/// What the last run left at `path`; nothing if it stopped in order.
pub(crate) fn left(path: &Path) -> io::Result<Option<Left>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Left::parse(&String::from_utf8_lossy(&bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The marker of this run.
#[derive(Debug)]
pub(crate) struct Marker {
    file: File,
    /// Where the numbers begin.
    numbers_at: u64,
    /// Where a line about damage begins.
    damage_at: u64,
}

impl Marker {
    /// Marks that the run `boot` works on a database that ends at `heads`. The marker of the run before it is
    /// written over in place: at no moment is there none.
    pub(crate) fn set(path: &Path, boot: &str, heads: &Heads) -> io::Result<Marker> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let line = format!("{boot} {}\n", Acknowledged::from(heads));
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(length(&line))?;
        file.sync_all()?;
        Ok(Marker { file, numbers_at: length(boot) + 1, damage_at: length(&line) })
    }

    /// The database is damaged: the next run looks it through before it serves anything.
    pub(crate) fn damaged(&self, detail: &str) -> io::Result<()> {
        let line = format!("{DAMAGE}{}\n", detail.replace(['\n', '\r'], " "));
        self.file.write_all_at(line.as_bytes(), self.damage_at)?;
        self.file.sync_all()
    }

    /// Work up to `heads` is committed and about to be acknowledged.
    pub(crate) fn acknowledge(&self, heads: &Heads) -> io::Result<()> {
        self.file.write_all_at(Acknowledged::from(heads).to_string().as_bytes(), self.numbers_at)
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_last_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running");
        assert_eq!(left(&path).unwrap(), None);
        std::fs::write(&path, "the marker of some other release, which may be a good deal longer than this one is, whatever it says")
            .unwrap();
        assert_eq!(left(&path).unwrap(), Some(Left::default()));
        let marker = Marker::set(&path, "00ff", &Heads { signal: 7, ..Heads::default() }).unwrap();
        marker.acknowledge(&Heads { signal: u64::MAX, alert: 2, event: 3, ..Heads::default() }).unwrap();
        let acknowledged = Acknowledged { signal: u64::MAX, alert: 2, event: 3, audit: 0 };
        assert_eq!(left(&path).unwrap(), Some(Left { acknowledged: Some(acknowledged), damage: None }));
        marker.damaged("page 7\nand page 8").unwrap();
        assert_eq!(left(&path).unwrap(), Some(Left { acknowledged: Some(acknowledged), damage: Some("page 7 and page 8".to_owned()) }));
        assert_eq!(acknowledged.missing_in(&acknowledged), None);
        let found = Acknowledged { alert: 1, ..acknowledged };
        assert_eq!(acknowledged.missing_in(&found).unwrap(), "alerts up to 2 were acknowledged and it ends at 1");
        assert_eq!(found.missing_in(&acknowledged), None, "more is no loss");
    }
}
