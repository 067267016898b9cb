//! Opening files that others may be tampering with.
//!
//! The configured folder is resolved once; everything below it is opened with `openat2` under `RESOLVE_BENEATH`,
//! `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`, never blocking, and only regular files of real file systems
//! are accepted, as the *opened* descriptor shows: what a name meant a moment earlier does not matter.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, open, openat2, statat},
    io::Errno,
};

use super::pattern::{Name, Pattern};

/// Device and inode: what a file is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) id: FileId,
    pub(crate) size: u64,
    /// Last change of the content, in nanoseconds; only ever compared for equality.
    pub(crate) changed: i128,
    /// Whether any name still leads to it.
    pub(crate) linked: bool,
}

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not a regular file.
    Kind(&'static str),
    /// A file that the kernel makes up, as in /proc.
    NoLog,
    /// The name, or a folder on the way, is a link.
    Link,
    /// More folders than are followed match.
    Folders,
    /// The folder holds more names than are looked at.
    Names,
    /// The system says no.
    System(Errno),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Kind(kind) => write!(f, "it is a {kind}, not a regular file"),
            Refused::Folders => write!(f, "more than {MAX_FOLDERS} folders match; only the first of them are followed, so name fewer"),
            Refused::Names => {
                write!(f, "it holds more than {MAX_NAMES} names; those beyond are not looked at, so move some of them elsewhere")
            }
            Refused::NoLog => f.write_str("it lies in a file system that the kernel makes up, such as /proc, and is not a log"),
            Refused::Link => f.write_str("it is a symbolic link or lies behind one, and links are not followed; name the file itself"),
            Refused::System(Errno::ACCESS | Errno::PERM) => {
                f.write_str("the user that the service runs as may not read it, or not enter its folder (permission denied)")
            }
            Refused::System(Errno::NOENT | Errno::NOTDIR) => {
                f.write_str("there is nothing of that name yet; it is followed once it appears")
            }
            Refused::System(errno) => f.write_str(&io::Error::from(*errno).to_string().to_lowercase()),
        }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        match errno {
            // What `openat2` answers when the rules would be broken.
            Errno::LOOP | Errno::XDEV => Refused::Link,
            Errno::NXIO => Refused::Kind("named pipe or socket"),
            errno => Refused::System(errno),
        }
    }
}

impl Refused {
    /// Whether there simply is nothing (yet, or any more).
    pub(crate) fn is_absence(self) -> bool {
        matches!(self, Refused::System(Errno::NOENT | Errno::NOTDIR))
    }
}

/// File systems whose "regular" files are made up by the kernel while one reads.
const KERNEL_FILE_SYSTEMS: &[u64] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6367_7270, // cgroup2
    0x0027_e0eb, // cgroup
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0xf97c_ff8c, // selinux
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x1cd1,      // devpts
    0x4249_4e4d, // binfmt_misc
];

fn is_made_up(fd: impl AsFd) -> Result<bool, Errno> {
    // Only the low 32 bits of the type mean anything.
    #[allow(clippy::useless_conversion, reason = "the word is narrower on some machines")]
    let kind = u64::from_ne_bytes(i64::from(fstatfs(fd)?.f_type).to_ne_bytes()) & 0xffff_ffff;
    Ok(KERNEL_FILE_SYSTEMS.contains(&kind))
}

fn facts(stat: &Stat) -> Result<Facts, Refused> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Facts {
            id: FileId { device: stat.st_dev, inode: stat.st_ino },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            linked: stat.st_nlink > 0,
        }),
        FileType::Symlink => Err(Refused::Link),
        FileType::Directory => Err(Refused::Kind("directory")),
        FileType::Fifo => Err(Refused::Kind("named pipe")),
        FileType::Socket => Err(Refused::Kind("socket")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(Refused::Kind("device")),
        FileType::Unknown => Err(Refused::Kind("thing of unknown type")),
    }
}

/// Facts of an open file.
pub(crate) fn facts_of(file: &File) -> Result<Facts, Refused> {
    facts(&fstat(file)?)
}

const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const PLAIN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folder below which files are followed, pinned to where its name led when it was first found.
#[derive(Debug)]
pub(crate) struct Root {
    configured: PathBuf,
    /// The same without links, relative to `/`.
    real: Option<PathBuf>,
}

impl Root {
    /// The folder `configured`; it need not exist yet.
    pub(crate) fn new(configured: &Path) -> Root {
        Root { configured: configured.to_owned(), real: None }
    }

    /// Opens the folder, or the folder `below` it.
    pub(crate) fn folder(&mut self, below: &Path) -> Result<Folder, Refused> {
        if self.real.is_none() {
            let real = std::fs::canonicalize(&self.configured).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            self.real = Some(real.strip_prefix("/").map(Path::to_owned).unwrap_or_default());
        }
        let real = self.real.as_deref().unwrap_or(Path::new(""));
        let slash = open("/", FOLDER, Mode::empty())?;
        let fd = if real.as_os_str().is_empty() { slash } else { openat2(&slash, real, FOLDER, Mode::empty(), BELOW)? };
        if is_made_up(&fd)? {
            return Err(Refused::NoLog);
        }
        let fd = if below.as_os_str().is_empty() { fd } else { openat2(&fd, below, FOLDER, Mode::empty(), BELOW)? };
        Ok(Folder { fd })
    }
}

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
}

/// A name in a folder.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) inode: u64,
}

/// The names in a folder.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) names: Vec<Listed>,
    /// There are more: that a name is not among these says nothing.
    pub(crate) is_cut: bool,
}

impl Folder {
    /// The device it lies on.
    pub(crate) fn device(&self) -> Option<u64> {
        fstat(&self.fd).ok().map(|stat| stat.st_dev)
    }

    /// The names in it, in order; those that are not UTF-8 are left out, and so are those beyond [`MAX_NAMES`].
    pub(crate) fn list(&self) -> Result<Listing, Refused> {
        self.list_at_most(MAX_NAMES)
    }

    fn list_at_most(&self, most: usize) -> Result<Listing, Refused> {
        let (mut names, mut is_cut) = (Vec::new(), false);
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            if names.len() >= most {
                is_cut = true;
                break;
            }
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(Listed { name: name.to_owned(), inode: entry.ino() });
            }
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { names, is_cut })
    }

    /// What the name leads to, without opening it.
    pub(crate) fn look_at(&self, name: &str) -> Result<Facts, Refused> {
        facts(&statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether the name leads to a folder, links not counted.
    fn is_folder(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Opens the regular file of this name.
    pub(crate) fn open(&self, name: &str) -> Result<(File, Facts), Refused> {
        // Looking first keeps devices from being opened at all; that the name may change its meaning in between is
        // what the second look, at the open file, is for.
        self.look_at(name)?;
        let file = File::from(openat2(&self.fd, name, PLAIN, Mode::empty(), BELOW)?);
        let facts = facts_of(&file)?;
        if is_made_up(&file)? { Err(Refused::NoLog) } else { Ok((file, facts)) }
    }
}

/// A file that a pattern leads to.
#[derive(Debug)]
pub(crate) struct Found {
    /// The folder it is in, from the root.
    pub(crate) below: PathBuf,
    pub(crate) name: String,
    /// As a person would write it.
    pub(crate) path: PathBuf,
    pub(crate) facts: Facts,
}

/// What a walk found, and what stood in its way.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) found: Vec<Found>,
    pub(crate) refused: Vec<(PathBuf, Refused)>,
    /// Not all names were looked at: that a file was not found says nothing.
    pub(crate) is_cut: bool,
}

/// How many folders one pattern may lead through.
const MAX_FOLDERS: usize = 1024;
/// How many names of one folder are looked at.
const MAX_NAMES: usize = 100_000;

/// Every file that the pattern means, now.
pub(crate) fn walk(root: &mut Root, pattern: &Pattern) -> Walk {
    walk_at_most(root, pattern, MAX_NAMES)
}

fn walk_at_most(root: &mut Root, pattern: &Pattern, most: usize) -> Walk {
    let mut walk = Walk::default();
    let mut folders = vec![PathBuf::new()];
    let Some((file_name, folder_names)) = pattern.names().split_last() else { return walk };
    for name in folder_names {
        let mut inner = Vec::new();
        for below in &folders {
            match names_in(root, below, name, most) {
                Ok((folder, names, is_cut)) => {
                    inner.extend(names.into_iter().filter(|name| folder.is_folder(name)).map(|name| below.join(name)));
                    walk.cut(is_cut, || pattern.base().join(below));
                }
                Err(refused) => walk.refused.push((pattern.base().join(below), refused)),
            }
        }
        if inner.len() > MAX_FOLDERS {
            walk.refused.push((pattern.base().to_owned(), Refused::Folders));
            inner.truncate(MAX_FOLDERS);
        }
        folders = inner;
    }
    for below in folders {
        match names_in(root, &below, file_name, most) {
            Err(refused) => walk.refused.push((pattern.base().join(&below), refused)),
            Ok((folder, names, is_cut)) => {
                walk.cut(is_cut, || pattern.base().join(&below));
                for name in names {
                    let path = pattern.base().join(&below).join(&name);
                    match folder.look_at(&name) {
                        Ok(facts) => walk.found.push(Found { below: below.clone(), name, path, facts }),
                        Err(refused) => walk.refused.push((path, refused)),
                    }
                }
            }
        }
    }
    // A file that is not there (yet) is nothing to report; that its whole folder is missing may well be a misspelling.
    walk.refused.retain(|(path, refused)| !refused.is_absence() || path == pattern.base());
    // A wildcard matches folders and sockets without meaning them.
    if matches!(file_name, Name::Glob(_)) {
        walk.refused.retain(|(path, refused)| !(matches!(refused, Refused::Kind("directory" | "socket")) && path != pattern.base()));
    }
    walk
}

impl Walk {
    fn cut(&mut self, is_cut: bool, folder: impl FnOnce() -> PathBuf) {
        if is_cut {
            self.is_cut = true;
            self.refused.push((folder(), Refused::Names));
        }
    }
}

/// The names in a folder that `name` means, and whether there are more in it than were looked at.
fn names_in(root: &mut Root, below: &Path, name: &Name, most: usize) -> Result<(Folder, Vec<String>, bool), Refused> {
    let folder = root.folder(below)?;
    let (names, is_cut) = match name {
        Name::Literal(name) => (vec![name.clone()], false),
        glob @ Name::Glob(_) => {
            let Listing { names, is_cut } = folder.list_at_most(most)?;
            (names.into_iter().map(|listed| listed.name).filter(|name| glob.matches(name)).collect(), is_cut)
        }
    };
    Ok((folder, names, is_cut))
}

/// Whether the one file of a pattern could be read now; a file that is not there is no problem.
pub(crate) fn probe(pattern: &Pattern) -> Result<(), Refused> {
    let mut root = Root::new(pattern.base());
    let [Name::Literal(name)] = pattern.names() else { return Ok(()) };
    match root.folder(Path::new("")).and_then(|folder| folder.open(name)) {
        Err(refused) if !refused.is_absence() => Err(refused),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    fn walked(path: &Path) -> (Vec<String>, Vec<String>) {
        let pattern = Pattern::parse(path.to_str().unwrap()).unwrap();
        let walk = walk(&mut Root::new(pattern.base()), &pattern);
        let refused = walk.refused.iter().map(|(path, why)| format!("{} {why}", path.display())).collect();
        (walk.found.iter().map(|found| found.path.display().to_string()).collect(), refused)
    }

    #[test]
    fn h7_nothing_but_regular_files_below_the_folder_is_found_or_opened() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        let logs = base.join("logs");
        std::fs::create_dir_all(logs.join("sub.log")).unwrap();
        std::fs::write(logs.join("good.log"), "x\n").unwrap();
        std::fs::write(base.join("secret"), "s\n").unwrap();
        symlink(base.join("secret"), logs.join("link.log")).unwrap();
        symlink("/proc/self/environ", logs.join("environ.log")).unwrap();
        symlink("/dev/zero", logs.join("zero.log")).unwrap();
        symlink(base, logs.join("up")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, logs.join("fifo.log"), FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(logs.join("socket.log")).unwrap();

        let (found, refused) = walked(&logs.join("*.log"));
        assert_eq!(found, [logs.join("good.log").display().to_string()]);
        assert_eq!(refused.len(), 4, "three links and the pipe: {refused:?}");
        // Through a link to a folder: nothing, though the names match.
        assert_eq!(walked(&logs.join("*/secret")).0, Vec::<String>::new());

        let folder = Root::new(&logs).folder(Path::new("")).unwrap();
        for (name, why) in [
            ("link.log", Refused::Link),
            ("environ.log", Refused::Link),
            ("zero.log", Refused::Link),
            ("fifo.log", Refused::Kind("named pipe")),
            ("socket.log", Refused::Kind("socket")),
            ("sub.log", Refused::Kind("directory")),
            ("../secret", Refused::Link),
            ("up/secret", Refused::Link),
        ] {
            assert_eq!(folder.open(name).map(|(_, facts)| facts), Err(why), "{name}");
        }
        assert!(folder.open("good.log").is_ok());
        assert!(matches!(Root::new(Path::new("/proc/self")).folder(Path::new("")), Err(Refused::NoLog)));
        assert!(matches!(Root::new(Path::new("/dev")).folder(Path::new("")).unwrap().open("zero"), Err(Refused::Kind("device"))));
    }

    #[test]
    fn a_folder_of_too_many_names_is_looked_through_in_part_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for name in 0..12 {
            std::fs::write(dir.path().join(format!("{name}.log")), "x\n").unwrap();
        }
        let pattern = Pattern::parse(dir.path().join("*.log").to_str().unwrap()).unwrap();
        let mut root = Root::new(pattern.base());
        let cut = walk_at_most(&mut root, &pattern, 10);
        assert_eq!((cut.found.len(), cut.is_cut), (10, true));
        assert_eq!(cut.refused, [(dir.path().to_owned(), Refused::Names)]);
        assert!(cut.refused[0].1.to_string().starts_with("it holds more than 100000 names"));
        let whole = walk_at_most(&mut root, &pattern, 12);
        assert_eq!((whole.found.len(), whole.is_cut, whole.refused), (12, false, Vec::new()));
        // a name that is written out needs no listing
        let one = Pattern::parse(dir.path().join("11.log").to_str().unwrap()).unwrap();
        assert_eq!(walk_at_most(&mut Root::new(one.base()), &one, 1).found.len(), 1);
    }

    #[test]
    fn h7_a_folder_that_becomes_a_link_later_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, other) = (dir.path().join("logs"), dir.path().join("other"));
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("a.log"), "secret\n").unwrap();
        let mut root = Root::new(&logs);
        assert!(root.folder(Path::new("")).is_ok());
        std::fs::remove_dir(&logs).unwrap();
        symlink(&other, &logs).unwrap();
        assert!(matches!(root.folder(Path::new("")), Err(Refused::Link)));
    }

    #[test]
    fn h7_a_file_swapped_for_a_link_while_it_is_opened_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(dir.path().join("secret"), "secret\n").unwrap();
        let secret = std::fs::metadata(dir.path().join("secret")).unwrap();
        let (target, good, evil) = (logs.join("a.log"), logs.join("good"), logs.join("evil"));
        std::fs::write(&good, "good\n").unwrap();
        symlink(dir.path().join("secret"), &evil).unwrap();
        std::fs::rename(&good, &target).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, target, evil) = (stop.clone(), target.clone(), evil.clone());
            move || {
                // RENAME_EXCHANGE swaps the two in one step, over and over.
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(CWD, &target, CWD, &evil, rustix::fs::RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let folder = Root::new(&logs).folder(Path::new("")).unwrap();
        let (mut opened, mut refused) = (0, 0);
        for _ in 0..20_000 {
            match folder.open("a.log") {
                Ok((_, facts)) => {
                    opened += 1;
                    assert_ne!(facts.id.inode, std::os::unix::fs::MetadataExt::ino(&secret));
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(opened > 0 && refused > 0, "the race took place: opened {opened}, refused {refused}");
    }
}
