//! `type: file`: one JSON object a line, forced to the device before it counts as delivered.
//!
//! The file is made for its owner alone, and never through a symbolic link. Above `max_size` it becomes `path.1`, that
//! becomes `path.2`, and so on; `keep` of them stay. A line that a crash cut off is ended before the next one begins.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::carry::{Aside, Carry, Message, NotCarried};

#[derive(Clone)]
pub(super) struct Lines {
    pub(super) path: PathBuf,
    pub(super) max_size: u64,
    pub(super) keep: usize,
}

pub(super) struct ToFile {
    pub(super) lines: Lines,
    pub(super) timeout: Duration,
    pub(super) aside: Aside,
}

impl Carry for ToFile {
    fn carry(&self, message: Message) -> BoxFuture<'static, Result<(), NotCarried>> {
        let (lines, body) = (self.lines.clone(), message.body.to_string());
        self.aside.run(self.timeout, move || lines.append(&body))
    }
}

impl Lines {
    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = open(&self.path)?;
        let mut length = file.metadata()?.len();
        if length > 0 && length.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX)) >= self.max_size {
            self.rotate()?;
            file = open(&self.path)?;
            length = 0;
        }
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if length > 0 && !ends_in_newline(&mut file)? {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        file.sync_data()
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |n: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            if numbered(n).exists() {
                std::fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        std::fs::rename(&self.path, numbered(1))
    }
}

fn open(path: &Path) -> io::Result<File> {
    // O_NOFOLLOW: a link that somebody put there does not lead us elsewhere
    const NO_FOLLOW: i32 = 0o400_000;
    OpenOptions::new().create(true).append(true).read(true).mode(0o600).custom_flags(NO_FOLLOW).open(path)
}

fn ends_in_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lines(dir: &Path, max_size: u64) -> Lines {
        Lines { path: dir.join("out.ndjson"), max_size, keep: 2 }
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_rotates_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let lines = lines(dir.path(), 64);
        for n in 0..40 {
            lines.append(&format!("{{\"number\":{n:04}}}")).unwrap();
        }
        let mut names: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["out.ndjson", "out.ndjson.1", "out.ndjson.2"]);
        for name in names {
            let about = std::fs::metadata(dir.path().join(name)).unwrap();
            assert!(about.permissions().mode() & 0o777 == 0o600 && about.len() <= 64);
        }
        assert!(std::fs::read_to_string(&lines.path).unwrap().ends_with("{\"number\":0039}\n"));
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_spoil_the_next_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let lines = lines(dir.path(), 1 << 20);
        std::fs::write(&lines.path, "{\"cut").unwrap();
        lines.append("{}").unwrap();
        assert_eq!(std::fs::read_to_string(&lines.path).unwrap(), "{\"cut\n{}\n");
        let other = dir.path().join("other");
        std::fs::write(&other, "").unwrap();
        std::fs::remove_file(&lines.path).unwrap();
        std::os::unix::fs::symlink(&other, &lines.path).unwrap();
        assert!(lines.append("{}").is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "");
    }
}
