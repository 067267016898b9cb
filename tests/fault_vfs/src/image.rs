//! What would be on the disk if the power failed now.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What a power failure can tear: the smallest piece that a disk writes whole.
const SECTOR: usize = 512;

/// A sequence of numbers that the seed decides (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }
}

/// A change that no sync has covered yet.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// One file, as the disk may have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    /// What is certain.
    pub(crate) synced: Vec<u8>,
    /// What may or may not be there.
    pub(crate) pending: Vec<Pending>,
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(room) = bytes.get_mut(at..end) {
        room.copy_from_slice(data);
    }
}

impl Content {
    /// A sync: everything pending is certain now.
    pub(crate) fn settle(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Pending::Write(at, data) => write(&mut self.synced, at, &data),
                Pending::Truncate(len) => self.synced.resize(len, 0),
            }
        }
    }

    /// One way in which it may be found: of each pending change all, nothing, or some sectors.
    fn torn(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.pending {
            match (change, dice.below(3)) {
                (_, 0) => {}
                (Pending::Truncate(len), _) => bytes.resize(*len, 0),
                (Pending::Write(at, data), 1) => write(&mut bytes, *at, data),
                (Pending::Write(at, data), _) => {
                    // Sectors are counted from the start of the file, not of the write.
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((at + from) / SECTOR + 1) * SECTOR - at).min(data.len());
                        if dice.below(2) == 0
                            && let Some(piece) = data.get(from..to)
                        {
                            write(&mut bytes, at + from, piece);
                        }
                        from = to;
                    }
                }
            }
        }
        bytes
    }
}

/// The files at one moment: what is certain of each, and what is not.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    pub(crate) files: BTreeMap<PathBuf, Content>,
}

impl Recording {
    /// How many changes no sync has covered: with none, a power failure loses nothing.
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|content| content.pending.len()).sum()
    }

    /// Writes into `dir` what might be found after a power failure at this moment.
    pub fn power_loss(&self, dice: &mut Dice, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for (path, content) in &self.files {
            if let Some(name) = path.file_name() {
                fs::write(dir.join(name), content.torn(dice))?;
            }
        }
        Ok(())
    }
}
