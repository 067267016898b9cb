//! The program as it is opened: by a path that nobody but root and ourselves can change, and run through the very
//! descriptor that was looked at, so that nothing can be put in its place afterwards.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use sha2::{Digest as _, Sha256};

/// More symbolic links than this lead nowhere.
const MOST_LINKS: usize = 40;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const WRITABLE_BY_OWNER: u32 = 0o200;
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;

/// A larger file is no program: it would have to be read as a whole before each run.
const MOST_BYTES: u64 = 1 << 30;

/// What a file is, as far as that can be seen without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version([i128; 7]);

/// A program that was looked at.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
    /// The first line of a script: its interpreter reads it from the descriptor, which therefore stays open.
    pub(crate) script: Option<String>,
    /// Whether the user we run as could change it.
    pub(crate) is_ours_to_write: bool,
}

impl Program {
    /// Opens what `path` names; `own` is the user we run as.
    pub(crate) fn open(path: &str, own: u32) -> Result<Program, String> {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err("the program is not named by its absolute path".to_owned());
        }
        let (fd, stat) = walk(path, own)?;
        if stat.st_mode & EXECUTABLE == 0 {
            return Err(format!("{} is not executable", path.display()));
        }
        Ok(Program::found(fd, &stat, own))
    }

    /// Opens a file that is run, perhaps by another program: a script behind its interpreter need not be executable.
    pub(crate) fn look_at(path: &str, own: u32) -> Result<Program, String> {
        let (fd, stat) = walk(Path::new(path), own)?;
        Ok(Program::found(fd, &stat, own))
    }

    fn found(fd: OwnedFd, stat: &Stat, own: u32) -> Program {
        let script = shebang(&fd);
        let is_ours_to_write = own != 0 && stat.st_uid == own && stat.st_mode & WRITABLE_BY_OWNER != 0;
        Program { fd, script, is_ours_to_write }
    }

    /// SHA-256 over what is in it, in hex.
    pub(crate) fn sha256(&self) -> Result<String, String> {
        let no = |error: io::Error| format!("it cannot be read: {error}");
        let mut file = File::open(self.path()).map_err(no)?.take(MOST_BYTES + 1);
        let (mut hash, mut buffer, mut length) = (Sha256::new(), vec![0; 1 << 16], 0_u64);
        loop {
            let read = file.read(&mut buffer).map_err(no)?;
            if read == 0 {
                return Ok(hex::encode(hash.finalize()));
            }
            length += u64::try_from(read).unwrap_or(u64::MAX);
            if length > MOST_BYTES {
                return Err(format!("it has more than {MOST_BYTES} bytes"));
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    }

    /// Which file it is, and since when.
    pub(crate) fn version(&self) -> Result<Version, String> {
        let stat = fstat(&self.fd).map_err(|error| format!("it cannot be looked at: {error}"))?;
        Ok(Version([
            stat.st_dev.into(),
            stat.st_ino.into(),
            stat.st_size.into(),
            stat.st_mtime.into(),
            stat.st_mtime_nsec.into(),
            stat.st_ctime.into(),
            stat.st_ctime_nsec.into(),
        ]))
    }

    /// What to execute: the descriptor itself.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Whether its descriptor is the one with this number, and is meant to stay open.
    pub(crate) fn keeps_open(&self, fd: i32) -> bool {
        self.script.is_some() && fd == self.fd.as_raw_fd()
    }

    /// Leaves a script open for its interpreter.
    pub(crate) fn hand_on(&self) -> Result<(), String> {
        if self.script.is_none() {
            return Ok(());
        }
        rustix::io::fcntl_setfd(&self.fd, rustix::io::FdFlags::empty()).map_err(|error| format!("the script cannot be handed on: {error}"))
    }
}

/// Goes down the path descriptor by descriptor, so that what was looked at is what is entered.
fn walk(path: &Path, own: u32) -> Result<(OwnedFd, Stat), String> {
    let root = || openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("/: {e}"));
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut here = root()?;
    let mut todo = parts(path);
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            here = above.pop().map_or_else(root, Ok)?;
            continue;
        }
        let name = part.to_string_lossy().into_owned();
        let fd = openat(&here, &part, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("{name} of {} cannot be opened: {error}", path.display()))?;
        let stat = fstat(&fd).map_err(|error| format!("{name}: {error}"))?;
        if stat.st_uid != 0 && stat.st_uid != own {
            return Err(format!("{name} of {} belongs to user {}, who is neither root nor the service's own", path.display(), stat.st_uid));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(format!("{} has too many symbolic links", path.display()));
                }
                let target = readlinkat(&fd, "", Vec::new()).map_err(|error| format!("{name}: {error}"))?;
                let target = OsString::from_vec(target.into_bytes());
                let target = Path::new(&target);
                if target.is_absolute() {
                    above.clear();
                    here = root()?;
                }
                let mut longer = parts(target);
                longer.append(&mut todo);
                todo = longer;
            }
            FileType::Directory => {
                // in a sticky directory nobody can replace what belongs to somebody else
                if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
                    return Err(format!("the directory {name} of {} can be written by others", path.display()));
                }
                above.push(std::mem::replace(&mut here, fd));
            }
            FileType::RegularFile if todo.is_empty() => {
                if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
                    return Err(format!("{} can be written by others", path.display()));
                }
                return Ok((fd, stat));
            }
            _ => return Err(format!("{} is no program", path.display())),
        }
    }
    Err(format!("{} is a directory", path.display()))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

/// The first line of a script, if it is one that we can read.
fn shebang(fd: &OwnedFd) -> Option<String> {
    let mut start = Vec::new();
    File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!"))?;
    Some(String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn opened(path: &Path) -> Result<Program, String> {
        Program::open(path.to_str().unwrap(), own())
    }

    #[test]
    fn e8_a_program_that_others_could_change_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        fs::copy("/bin/true", &file).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(&file, 0o755);
        assert!(opened(&file).is_ok());
        for (bad, why) in [(0o775, "written by others"), (0o757, "written by others"), (0o644, "not executable")] {
            mode(&file, bad);
            assert!(opened(&file).unwrap_err().contains(why), "{bad:o}");
        }
        mode(&file, 0o755);
        mode(dir.path(), 0o777);
        assert!(opened(&file).unwrap_err().contains("the directory"), "somebody could put another file there");
        mode(dir.path(), 0o1777);
        assert!(opened(&file).is_ok(), "but not where only the owner removes");
        mode(dir.path(), 0o755);
        if own() == 0 {
            chown(&file, Some(12_345), None).unwrap();
            assert!(opened(&file).unwrap_err().contains("belongs to user 12345"));
            chown(&file, Some(0), None).unwrap();
            chown(dir.path(), Some(12_345), None).unwrap();
            assert!(opened(&file).unwrap_err().contains("belongs to user 12345"), "the owner of a directory on the way");
            chown(dir.path(), Some(0), None).unwrap();
        }
        assert!(opened(dir.path()).is_err());
        assert!(Program::open("true", own()).is_err());
        assert!(opened(&dir.path().join("missing")).unwrap_err().contains("cannot be opened"));
    }

    #[test]
    fn e8_a_symbolic_link_is_followed_only_as_far_as_it_can_be_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (near, far) = (dir.path().join("near"), dir.path().join("far"));
        fs::create_dir(&near).unwrap();
        fs::create_dir(&far).unwrap();
        fs::copy("/bin/true", far.join("tool")).unwrap();
        symlink("../far/tool", near.join("relative")).unwrap();
        symlink(far.join("tool"), near.join("absolute")).unwrap();
        symlink("loop", near.join("loop")).unwrap();
        assert!(opened(&near.join("relative")).is_ok());
        assert!(opened(&near.join("absolute")).is_ok());
        assert!(opened(&near.join("loop")).unwrap_err().contains("too many"));
        // the file is as good as before, but the way to it leads through a place where anybody could have led it
        fs::set_permissions(&far, Permissions::from_mode(0o777)).unwrap();
        assert!(opened(&near.join("relative")).is_err());
        if own() == 0 {
            fs::set_permissions(&far, Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::lchown(near.join("relative"), Some(12_345), None).unwrap();
            assert!(opened(&near.join("relative")).unwrap_err().contains("12345"), "whose link is it");
        }
    }

    #[test]
    fn e8_what_is_put_in_its_place_later_is_not_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        fs::copy("/bin/true", &file).unwrap();
        let program = opened(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::copy("/bin/false", &file).unwrap();
        assert!(std::process::Command::new(program.path()).status().is_ok_and(|status| status.success()), "true, not false");
    }

    #[test]
    fn a_script_is_told_from_a_binary() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("script");
        fs::write(&file, "#!/bin/cat -n\nx\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(opened(&file).unwrap().script.as_deref(), Some("#!/bin/cat -n"));
        assert_eq!(Program::open("/bin/true", own()).unwrap().script, None);
    }
}
