//! The Merkle tree of RFC 6962 over the leaves of the audit log: appending, roots, proofs, and checking them.
//!
//! `SHA-256(0x00 ‖ leaf)` is a leaf, `SHA-256(0x01 ‖ left ‖ right)` a node. Leaves are counted from 0 here; the entry
//! with the number `seq` is the leaf `seq - 1`.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// No log grows so tall.
pub(crate) const LEVELS: u8 = 48;

/// The hash of a leaf's stored bytes.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0x00]);
    hash.update(leaf);
    hash.finalize().into()
}

/// The hash of a node over its two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0x01]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The tallest complete subtrees of a tree, which are all that is needed to append to it and to know its root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// By level; zeros where the size has no such subtree.
    peaks: [Hash; 48],
}

impl Default for Frontier {
    fn default() -> Frontier {
        Frontier { size: 0, peaks: [[0; 32]; 48] }
    }
}

impl std::fmt::Debug for Frontier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frontier({}, {})", self.size, hex::encode(self.root()))
    }
}

impl Frontier {
    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf. `complete` is told of every node above the leaves that is complete with it: level, index, hash.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(u8, u64, &Hash)) {
        let (mut hash, mut index) = (leaf, self.size);
        for (level, peak) in (0_u8..).zip(self.peaks.iter_mut()) {
            if index & 1 == 0 {
                *peak = hash;
                break;
            }
            hash = node_hash(peak, &hash);
            *peak = [0; 32];
            index >>= 1;
            complete(level + 1, index, &hash);
        }
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks().map(|(_, _, hash)| hash);
        let Some(smallest) = peaks.next() else { return empty_root() };
        peaks.fold(*smallest, |right, left| node_hash(left, &right))
    }

    /// The subtrees, the smallest first: level, index, hash.
    pub(crate) fn peaks(&self) -> impl Iterator<Item = (u8, u64, &Hash)> {
        let size = self.size;
        (0_u8..LEVELS)
            .zip(&self.peaks)
            .filter(move |(level, _)| size >> level & 1 == 1)
            .map(move |(level, hash)| (level, (size >> level) - 1, hash))
    }

    /// The hashes of the subtrees, the smallest first, as they are stored.
    pub(crate) fn packed(&self) -> Vec<u8> {
        self.peaks().flat_map(|(_, _, hash)| hash.iter().copied()).collect()
    }

    /// The frontier of a tree of `size` leaves whose complete subtrees `nodes` knows.
    pub(crate) fn gather<N: Nodes>(size: u64, nodes: &mut N) -> Result<Frontier, N::Error> {
        let mut frontier = Frontier { size, ..Frontier::default() };
        for (level, peak) in (0_u8..).zip(frontier.peaks.iter_mut()) {
            if size >> level & 1 == 1 {
                *peak = nodes.node(level, (size >> level) - 1)?;
            }
        }
        Ok(frontier)
    }
}

/// Where the hashes of complete subtrees are found.
pub trait Nodes {
    /// What can go wrong on the way.
    type Error;
    /// The subtree over the leaves `index · 2^level` up to, and without, `(index + 1) · 2^level`.
    fn node(&mut self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The largest power of two below `width`, which is at least 2.
fn split(width: u64) -> u64 {
    1 << (63 - (width - 1).leading_zeros())
}

/// The root over the leaves from `low` up to, and without, `high`.
fn root_of<N: Nodes>(nodes: &mut N, low: u64, high: u64) -> Result<Hash, N::Error> {
    let width = high - low;
    if width.is_power_of_two() {
        let level = width.trailing_zeros();
        return nodes.node(u8::try_from(level).unwrap_or(u8::MAX), low >> level);
    }
    let middle = low + split(width);
    let left = root_of(nodes, low, middle)?;
    Ok(node_hash(&left, &root_of(nodes, middle, high)?))
}

/// The root of the tree when it had `size` leaves.
pub fn root_at<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(empty_root()) } else { root_of(nodes, 0, size) }
}

/// What shows that the leaf `index` is in the tree of `size` leaves; `None` if there is no such leaf in it.
pub fn inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(root_of(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(root_of(nodes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// What shows that the tree of `to` leaves begins with the tree of `from` leaves; `None` if it has fewer.
pub fn consistency<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if from > to {
        return Ok(None);
    }
    let mut path = Vec::new();
    if from == 0 || from == to {
        return Ok(Some(path));
    }
    let (mut low, mut high) = (0, to);
    // the old tree is a subtree from the first leaf on: whoever checks has its root already
    let mut known = true;
    while from != high {
        let middle = low + split(high - low);
        if from <= middle {
            path.push(root_of(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(root_of(nodes, low, middle)?);
            (low, known) = (middle, false);
        }
    }
    if !known {
        path.push(root_of(nodes, low, high)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether `path` shows that `leaf` is the leaf `index` of the tree of `size` leaves with this `root`.
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in path {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(step, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` shows that the tree of `to` leaves with the root `new` begins with the tree of `from` leaves with the
/// root `old`.
pub fn check_consistency(from: u64, old: &Hash, to: u64, new: &Hash, path: &[Hash]) -> bool {
    if from > to {
        return false;
    }
    if from == to {
        return path.is_empty() && old == new;
    }
    if from == 0 {
        return path.is_empty() && *old == empty_root();
    }
    let mut steps = path.iter();
    let (mut place, mut last) = (from - 1, to - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let seed = if from.is_power_of_two() { Some(old) } else { steps.next() };
    let Some(seed) = seed else { return false };
    let (mut before, mut after) = (*seed, *seed);
    for step in steps {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            before = node_hash(step, &before);
            after = node_hash(step, &after);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old && after == *new
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, convert::Infallible};

    use proptest::prelude::*;

    use super::*;

    /// A tree as a test holds it: every complete subtree, leaves included.
    #[derive(Default)]
    struct Whole {
        frontier: Frontier,
        nodes: HashMap<(u8, u64), Hash>,
    }

    impl Whole {
        fn of(leaves: impl IntoIterator<Item = Vec<u8>>) -> Whole {
            let mut whole = Whole::default();
            for leaf in leaves {
                let hash = leaf_hash(&leaf);
                whole.nodes.insert((0, whole.frontier.size()), hash);
                whole.frontier.push(hash, |level, index, hash| {
                    whole.nodes.insert((level, index), *hash);
                });
            }
            whole
        }

        fn numbered(size: u64) -> Whole {
            Whole::of((0..size).map(|n| n.to_le_bytes().to_vec()))
        }
    }

    impl Nodes for Whole {
        type Error = Infallible;
        fn node(&mut self, level: u8, index: u64) -> Result<Hash, Infallible> {
            Ok(self.nodes[&(level, index)])
        }
    }

    /// The definition of RFC 6962, section 2.1, word for word.
    fn by_definition(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => leaf_hash(leaf),
            _ => {
                let k = (1..).map(|n| 1_usize << n).take_while(|k| *k < leaves.len()).last().unwrap_or(1);
                node_hash(&by_definition(&leaves[..k]), &by_definition(&leaves[k..]))
            }
        }
    }

    /// The leaves and roots that the reference implementation of certificate transparency is tested with.
    #[test]
    fn the_published_example_has_its_published_roots() {
        let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, root) in roots.iter().enumerate() {
            let whole = Whole::of(leaves[..size].iter().map(|leaf| hex::decode(leaf).unwrap()));
            assert_eq!(hex::encode(whole.frontier.root()), *root, "{size}");
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_holds_and_no_other_does() {
        let mut whole = Whole::numbered(40);
        for size in 0..=40_u64 {
            let leaves: Vec<Vec<u8>> = (0..size).map(|n| n.to_le_bytes().to_vec()).collect();
            let root = by_definition(&leaves);
            assert_eq!(root_at(&mut whole, size).unwrap(), root);
            assert_eq!(Frontier::gather(size, &mut whole).unwrap().root(), root);
            for index in 0..size {
                let path = inclusion(&mut whole, index, size).unwrap().unwrap();
                let leaf = leaf_hash(&index.to_le_bytes());
                assert!(check_inclusion(&leaf, index, size, &path, &root));
                assert!(!check_inclusion(&leaf_hash(b"x"), index, size, &path, &root));
                assert!(!(0..=size).any(|other| other != index && check_inclusion(&leaf, other, size, &path, &root)));
                f12_a_wrong_length_is_refused(&path, |path| check_inclusion(&leaf, index, size, path, &root));
            }
            assert_eq!(inclusion(&mut whole, size, size).unwrap(), None);
            for from in 0..=size {
                let old = root_at(&mut whole, from).unwrap();
                let path = consistency(&mut whole, from, size).unwrap().unwrap();
                assert!(check_consistency(from, &old, size, &root, &path), "{from} {size}");
                assert!(!check_consistency(from, &leaf_hash(b"x"), size, &root, &path));
                assert_eq!(check_consistency(from, &old, size, &leaf_hash(b"x"), &path), from == 0 && size > 0);
                f12_a_wrong_length_is_refused(&path, |path| check_consistency(from, &old, size, &root, path));
            }
            assert_eq!(consistency(&mut whole, size + 1, size).unwrap(), None);
        }
    }

    fn f12_a_wrong_length_is_refused(path: &[Hash], holds: impl Fn(&[Hash]) -> bool) {
        let longer: Vec<Hash> = path.iter().copied().chain([[7; 32]]).collect();
        assert!(!holds(&longer), "too long");
        if let Some((_, shorter)) = path.split_last() {
            assert!(!holds(shorter), "too short");
            assert!(!holds(&path[1..]), "too short");
        }
    }

    #[test]
    fn f12_absurd_sizes_are_refused_and_not_met_with_a_panic() {
        let path = vec![[1; 32]; 70];
        for size in [0, 1, 2, 3, (1 << 62) + 5, 1 << 63, u64::MAX - 1, u64::MAX] {
            for other in [0, 1, 2, 3, 1 << 62, 1 << 63, u64::MAX] {
                for length in [0, 1, 62, 63, 64, 65, 70] {
                    assert!(!check_inclusion(&[2; 32], other, size, &path[..length], &[3; 32]));
                    let same = other == size && length == 0;
                    assert!(!check_consistency(other, &[2; 32], size, &[3; 32], &path[..length]));
                    assert_eq!(check_consistency(other, &[2; 32], size, &[2; 32], &path[..length]), same);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn f12_no_flipped_bit_passes(from in 1_u64..400, more in 1_u64..400, at in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let mut whole = Whole::numbered(from + more);
            let (old, new) = (root_at(&mut whole, from).unwrap(), root_at(&mut whole, from + more).unwrap());
            let mut path = consistency(&mut whole, from, from + more).unwrap().unwrap();
            prop_assert!(check_consistency(from, &old, from + more, &new, &path));
            let flipped = at.index(path.len());
            path[flipped][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!check_consistency(from, &old, from + more, &new, &path));
            let index = from - 1;
            let mut path = inclusion(&mut whole, index, from + more).unwrap().unwrap();
            prop_assert!(check_inclusion(&leaf_hash(&index.to_le_bytes()), index, from + more, &path, &new));
            let flipped = at.index(path.len());
            path[flipped][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!check_inclusion(&leaf_hash(&index.to_le_bytes()), index, from + more, &path, &new));
        }
    }
}
