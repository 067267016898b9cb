//! One process for each data directory: an advisory lock that the kernel gives back when the process ends,
//! however it ends.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::error::OpenError;

/// The file that is locked.
pub const LOCK_FILE: &str = "lock";

/// The lock on a data directory, held until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.display().to_string();
    move |source| OpenError::Io { path, source }
}

/// Makes the directory, readable by its owner alone, if it is not there.
pub(crate) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    Ok(())
}

/// Forces the names in a directory to the device: a new file is not there after a loss of power otherwise.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(io_error(dir))
}

/// What kind of file system a directory lies on, as far as it matters.
pub(crate) enum FileSystem {
    Network(&'static str),
    Volatile(&'static str),
    Local,
}

pub(crate) fn file_system(dir: &Path) -> Result<FileSystem, OpenError> {
    let stat = rustix::fs::statfs(dir).map_err(|error| io_error(dir)(error.into()))?;
    // numbers of linux/magic.h
    Ok(match u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff {
        0x6969 => FileSystem::Network("nfs"),
        0x517b => FileSystem::Network("smb"),
        0xff53_4d42 => FileSystem::Network("cifs"),
        0xfe53_4d42 => FileSystem::Network("smb2"),
        0x0102_1997 => FileSystem::Network("9p"),
        0x00c3_6400 => FileSystem::Network("ceph"),
        0x5346_414f => FileSystem::Network("afs"),
        0x0bd0_0bd0 => FileSystem::Network("lustre"),
        0x0102_1994 => FileSystem::Volatile("tmpfs"),
        0x794c_7630 => FileSystem::Volatile("overlayfs"),
        _ => FileSystem::Local,
    })
}

impl DirLock {
    /// Takes the lock, or says that another process has it.
    pub fn take(dir: &Path) -> Result<DirLock, OpenError> {
        let path = dir.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io_error(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(OpenError::InUse { dir: dir.display().to_string(), lock: path.display().to_string() })
            }
            Err(error) => Err(io_error(&path)(error.into())),
        }
    }
}
