//! `checkpoints.log`: every signed note, one after the other, each followed by an empty line. It is only ever appended to,
//! so that a database that was put back to an earlier state is found out, and so that whoever copies it away holds what no
//! later change of the log can be brought into line with.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use diesel::SqliteConnection;
use sha2::{Digest as _, Sha256};

use super::note::{MAX_NOTE, SignedNote};
use crate::{
    error::{LedgerError, OpenError},
    lock::io_error,
    tables::{audit::said, meta},
};

/// The file in the data directory.
pub const PUBLISHED: &str = "checkpoints.log";

/// The notes in such a file, or in any text of notes. What is no note, as one that a crash cut off, is passed over.
pub fn notes(text: &str) -> impl Iterator<Item = SignedNote> {
    let mut body = "";
    text.split("\n\n").filter_map(move |piece| {
        let before = std::mem::replace(&mut body, piece);
        let piece = piece.trim_end_matches('\n');
        piece
            .starts_with('\u{2014}')
            .then(|| SignedNote::parse(format!("{}\n\n{piece}\n", before.trim_start_matches('\n')).as_bytes()).ok())?
    })
}

/// The note that was published last.
pub(crate) fn newest(path: &Path) -> io::Result<Option<SignedNote>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let tail = u64::try_from(2 * MAX_NOTE).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(tail)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // what does not end as it should was cut off by a crash, or is being written
    let whole = text.rfind("\n\n").and_then(|end| text.get(..end)).unwrap_or_default();
    Ok(notes(whole).last())
}

/// Adds a note, forced to the device.
pub(crate) fn append(path: &Path, note: &SignedNote) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o644).open(path)?;
    let length = file.metadata()?.len();
    let mut end = [0; 2];
    if length >= 2 {
        file.seek(SeekFrom::End(-2))?;
        file.read_exact(&mut end)?;
    }
    // a crash may have cut the last one off; half a signature must not be taken for one
    let gap = match end {
        _ if length == 0 => "",
        [b'\n', b'\n'] => "",
        [_, b'\n'] => "\n",
        _ => "!\n\n",
    };
    file.write_all(format!("{gap}{}\n", note.text()).as_bytes())?;
    file.sync_all()?;
    if length == 0 {
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    }
    Ok(())
}

/// Names a note.
pub(crate) fn digest(note: &SignedNote) -> String {
    hex::encode(Sha256::digest(note.text()))
}

/// Refuses a log that ends before what was published, unless a restore recorded that it went back behind just that. What
/// was used up since must not be usable again, so the epoch is another one from here on.
pub(crate) fn not_behind(dir: &Path, conn: &mut SqliteConnection, size: u64) -> Result<(), OpenError> {
    let path = dir.join(PUBLISHED);
    let Some(note) = newest(&path).map_err(io_error(&path))? else { return Ok(()) };
    if note.checkpoint().size <= size {
        return Ok(());
    }
    let failed = |source: LedgerError| OpenError::Database { path: path.display().to_string(), source };
    if said::went_back_behind(conn, &digest(&note)).map_err(failed)? {
        return Ok(());
    }
    meta::set(conn, meta::EPOCH, &hex::encode(rand::random::<[u8; 8]>())).map_err(failed)?;
    Err(OpenError::RolledBack { file: path.display().to_string(), published: note.checkpoint().size, found: size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::note::{Checkpoint, origin_of},
        keyfile::{KeyFile, KeyPurpose},
    };

    #[test]
    fn the_newest_is_found_also_behind_one_that_a_crash_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PUBLISHED);
        assert_eq!(newest(&path).unwrap(), None);
        let key = KeyFile::random(KeyPurpose::Audit);
        let mut all = Vec::new();
        for size in 1..200 {
            let note = Checkpoint { origin: origin_of("00"), size, root: [9; 32] }.sign(&key);
            append(&path, &note).unwrap();
            assert_eq!(newest(&path).unwrap().unwrap(), note);
            all.push(note);
        }
        assert_eq!(notes(&std::fs::read_to_string(&path).unwrap()).collect::<Vec<_>>(), all);
        let whole = std::fs::read(&path).unwrap();
        let last = all.last().unwrap().text().len() + 1;
        for cut in 1..=last {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let found = newest(&path).unwrap().unwrap();
            assert_eq!(found, all[197], "{cut}");
            append(&path, &all[198]).unwrap();
            assert_eq!(newest(&path).unwrap().unwrap(), all[198], "{cut}");
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(notes(&text).all(|note| all.contains(&note)), "{cut}: half a note is none");
        }
    }
}
