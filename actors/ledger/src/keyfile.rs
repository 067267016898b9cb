//! Key files: one secret of 32 bytes for each purpose, in `<data>/keys/<purpose>.key`.
//!
//! Such a file is made with mode 0600 and belongs to the user the service runs as; one that others may read or write,
//! or that is no key, stops the start. No key serves two purposes.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

/// What a key is for, and the only thing it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
    /// Signs session tokens.
    Session,
    /// Signs approval tokens.
    Approval,
    /// Signs checkpoints of the audit log.
    Audit,
    /// Hashes sensitive values, so that they can be confirmed but not read.
    Redaction,
}

impl KeyPurpose {
    /// Every purpose.
    pub const ALL: [KeyPurpose; 4] = [KeyPurpose::Session, KeyPurpose::Approval, KeyPurpose::Audit, KeyPurpose::Redaction];

    /// The purpose as files, the audit log and the command line name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyPurpose::Session => "session",
            KeyPurpose::Approval => "approval",
            KeyPurpose::Audit => "audit",
            KeyPurpose::Redaction => "redaction",
        }
    }

    /// What it costs to have a new one made.
    const fn cost(self) -> &'static str {
        match self {
            KeyPurpose::Session => "which ends all sessions",
            KeyPurpose::Approval => "which ends all approvals that were not executed",
            KeyPurpose::Audit => "after which only the audit log itself vouches for the new key",
            KeyPurpose::Redaction => "after which what was hashed before cannot be confirmed any more",
        }
    }

    /// Its file in the data directory `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join("keys").join(format!("{}.key", self.as_str()))
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than the service may read it.
    #[error("{0}: others may read or write this key; make it mode 0600, owned by the user the service runs as")]
    Exposed(PathBuf),
    /// It is no key.
    #[error("{path}: not a key; remove the file to have a new one made, {}", .purpose.cost())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What it should be for.
        purpose: KeyPurpose,
    },
    /// The audit log says that it counts no more.
    #[error(
        "{path}: the audit log says that the key {kid} was {how}; put the one that is in use back, or run `opspilot keys revoke --purpose {purpose}` to have another made"
    )]
    Ended {
        /// Which file.
        path: PathBuf,
        /// The key in it.
        kid: String,
        /// Revoked or retired.
        how: &'static str,
        /// What it is for.
        purpose: KeyPurpose,
    },
    /// It is the key of another purpose.
    #[error("{path}: this is also the {other} key; no key may serve two purposes")]
    Shared {
        /// Which file.
        path: PathBuf,
        /// The other purpose.
        other: KeyPurpose,
    },
}

/// The name of a public key: the first eight bytes of its SHA-256, in hex.
pub fn kid_of(public: &[u8; 32]) -> String {
    hex::encode(Sha256::digest(public).get(..8).unwrap_or_default())
}

/// A secret with its purpose. It is overwritten in memory when it is dropped.
pub struct KeyFile {
    purpose: KeyPurpose,
    key: SigningKey,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({} {})", self.purpose, self.kid())
    }
}

impl KeyFile {
    /// Reads the key in the data directory `dir`, if there is one.
    pub fn read(dir: &Path, purpose: KeyPurpose) -> Result<Option<KeyFile>, KeyError> {
        let path = purpose.path(dir);
        let Some(seed) = read_seed(&path, purpose)? else { return Ok(None) };
        for other in KeyPurpose::ALL.into_iter().filter(|other| *other != purpose) {
            // what is wrong with another purpose's file is that purpose's matter
            if read_seed(&other.path(dir), other).ok().flatten() == Some(seed) {
                return Err(KeyError::Shared { path, other });
            }
        }
        Ok(Some(KeyFile { purpose, key: SigningKey::from_bytes(&seed) }))
    }

    /// Reads the key in the data directory `dir`, or makes one; says whether it was made.
    pub fn open(dir: &Path, purpose: KeyPurpose) -> Result<(KeyFile, bool), KeyError> {
        match KeyFile::read(dir, purpose)? {
            Some(key) => Ok((key, false)),
            None => {
                let key = KeyFile::random(purpose);
                key.store(dir)?;
                Ok((key, true))
            }
        }
    }

    /// A new key, not stored yet.
    pub fn random(purpose: KeyPurpose) -> KeyFile {
        KeyFile { purpose, key: SigningKey::from_bytes(&rand::random()) }
    }

    /// A key that a test can make again.
    #[cfg(test)]
    pub(crate) fn from_seed(purpose: KeyPurpose, seed: [u8; 32]) -> KeyFile {
        KeyFile { purpose, key: SigningKey::from_bytes(&seed) }
    }

    /// Stores it as the key of its purpose, in the place of any other.
    pub fn store(&self, dir: &Path) -> Result<(), KeyError> {
        let keys = dir.join("keys");
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(KeyError::Io { path: keys, source }),
            _ => {}
        }
        let path = self.purpose.path(dir);
        let line = format!("{}\n", URL_SAFE_NO_PAD.encode(self.key.as_bytes()));
        replace(&path, line.as_bytes(), 0o600).map_err(|source| KeyError::Io { path, source })
    }

    /// What it is for.
    pub fn purpose(&self) -> KeyPurpose {
        self.purpose
    }

    /// The secret itself, to derive from or to sign with.
    pub fn seed(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The key as Ed25519 signs with it.
    pub fn signing(&self) -> &SigningKey {
        &self.key
    }

    /// How a sensitive value is written where it must not be read: the same value at the same place gives the same text,
    /// so that whoever has the key can confirm a guess. A path names a field and holds no NUL, which parts it from the value.
    pub fn hashed(&self, path: &str, value: &[u8]) -> String {
        let mut hash = match Hmac::<Sha256>::new_from_slice(self.seed()) {
            Ok(hash) => hash,
            // HMAC takes keys of any length; were that ever to change, nothing could be confirmed
            Err(_) => return "hmac:v1::".to_owned(),
        };
        hash.update(path.as_bytes());
        hash.update(&[0]);
        hash.update(value);
        format!("hmac:v1:{}:{}", self.kid(), hex::encode(hash.finalize().into_bytes()))
    }

    /// What others check its signatures with.
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The name of its public part.
    pub fn kid(&self) -> String {
        kid_of(&self.public())
    }
}

/// Writes a file whole or not at all: aside, forced to the device, and renamed.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn read_seed(path: &Path, purpose: KeyPurpose) -> Result<Option<[u8; 32]>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(no_follow).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let about = file.metadata().map_err(io)?;
    if !about.is_file() || about.mode() & 0o077 != 0 || about.uid() != rustix::process::geteuid().as_raw() {
        return Err(KeyError::Exposed(path.to_owned()));
    }
    let mut text = String::new();
    (&file).take(1024).read_to_string(&mut text).map_err(io)?;
    let seed = URL_SAFE_NO_PAD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    // what somebody typed in by hand is no secret
    let guessable = |seed: &[u8; 32]| seed.iter().all(|byte| Some(byte) == seed.first());
    seed.filter(|seed| !guessable(seed)).map(Some).ok_or_else(|| KeyError::Unusable { path: path.to_owned(), purpose })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        for purpose in KeyPurpose::ALL {
            let (first, made) = KeyFile::open(dir.path(), purpose).unwrap();
            assert!(made);
            let (again, made) = KeyFile::open(dir.path(), purpose).unwrap();
            assert!(!made && first.kid() == again.kid());
            let path = purpose.path(dir.path());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            for mode in [0o640, 0o604, 0o620] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                assert!(matches!(KeyFile::open(dir.path(), purpose), Err(KeyError::Exposed(_))));
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            for content in ["nonsense", "", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
                fs::write(&path, content).unwrap();
                assert!(matches!(KeyFile::open(dir.path(), purpose), Err(KeyError::Unusable { .. })), "{content:?}");
            }
            first.store(dir.path()).unwrap();
        }
        assert_eq!(fs::metadata(dir.path().join("keys")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn no_key_serves_two_purposes() {
        let dir = tempfile::tempdir().unwrap();
        KeyFile::open(dir.path(), KeyPurpose::Session).unwrap();
        fs::copy(KeyPurpose::Session.path(dir.path()), KeyPurpose::Approval.path(dir.path())).unwrap();
        let refused = KeyFile::open(dir.path(), KeyPurpose::Approval).unwrap_err();
        assert!(refused.to_string().contains("also the session key"), "{refused}");
    }

    #[test]
    fn a_hashed_value_can_be_confirmed_and_not_guessed_without_the_key() {
        let [one, two] = [1, 2].map(|seed| KeyFile::from_seed(KeyPurpose::Redaction, [seed; 32]));
        assert_eq!(one.hashed("params/password", b"hunter2"), one.hashed("params/password", b"hunter2"));
        let others =
            [one.hashed("params/password", b"hunter3"), one.hashed("params/token", b"hunter2"), two.hashed("params/password", b"hunter2")];
        assert!(!others.contains(&one.hashed("params/password", b"hunter2")));
        assert_ne!(one.hashed("a", b"bc"), one.hashed("ab", b"c"), "place and value do not run together");
    }

    #[test]
    fn a_link_is_not_followed_to_a_key() {
        let dir = tempfile::tempdir().unwrap();
        KeyFile::open(dir.path(), KeyPurpose::Session).unwrap();
        std::os::unix::fs::symlink(KeyPurpose::Session.path(dir.path()), KeyPurpose::Audit.path(dir.path())).unwrap();
        assert!(KeyFile::open(dir.path(), KeyPurpose::Audit).is_err());
    }
}
