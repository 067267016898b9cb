//! What the files that a plan runs are: SHA-256 over each. A file is read again whenever anything about it changed; the
//! time of its last change cannot be set by whoever may write it. A run does not rely on this: it reads the file anew.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::program::{Program, Version};

/// More files than this are not remembered.
const MOST: usize = 4096;

/// Hashes of files, by what the files were when they were read.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    known: Mutex<HashMap<Version, String>>,
}

impl Hashes {
    /// SHA-256 over what stands at this path now, or why it cannot be run.
    pub(crate) fn of(&self, path: &str) -> Result<String, String> {
        let file = Program::look_at(path, rustix::process::geteuid().as_raw())?;
        let version = file.version()?;
        if let Some(known) = self.known.lock().get(&version) {
            return Ok(known.clone());
        }
        let hash = file.sha256()?;
        // what changed while it was read is not remembered
        if file.version()? == version {
            let mut known = self.known.lock();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(version, hash.clone());
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn t7_a_file_that_changed_has_another_hash_however_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        let path = file.to_str().unwrap();
        let hashes = Hashes::default();
        assert!(hashes.of(path).unwrap_err().contains("cannot be opened"));
        fs::write(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let one = hashes.of(path).unwrap();
        assert_eq!(one, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        assert_eq!(hashes.of(path).unwrap(), one);
        // another file with the same length and the same times at its place
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "two").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(times).unwrap();
        fs::rename(&other, &file).unwrap();
        let two = hashes.of(path).unwrap();
        assert_ne!(two, one);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(hashes.of(path).unwrap_err().contains("written by others"));
    }
}
