//! The RFC 6962 Merkle tree, grown leaf by leaf without keeping the leaves.
//!
//! [`Range`] is the compact form: the roots of the complete subtrees (at most 64). [`Tree`] also keeps the right-hand
//! edge of every tile level and hands out each tile when it is full. Both grow in amortised constant time; a root costs
//! O(log n).

use sha2::{Digest as _, Sha256};

use crate::tile::{self, WIDTH};
use crate::{Hash, sha256};

/// The hash of a leaf: `SHA-256(0x00 ‖ entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut state = Sha256::new();
    state.update([0]);
    state.update(entry);
    state.finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut state = Sha256::new();
    state.update([1]);
    state.update(left);
    state.update(right);
    state.finalize().into()
}

/// The root of a tree without leaves: the hash of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(b"")
}

/// A tree as the roots of its complete subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    size: u64,
    peaks: Vec<Hash>,
}

impl Range {
    /// A tree of `size` leaves from its complete subtrees' roots, largest first. `None` if their number does not fit
    /// the size.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u64::from(size.count_ones()) == u64::try_from(peaks.len()).ok()?).then_some(Self { size, peaks })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_seeing(leaf, |_, _| {});
    }

    /// Adds a leaf's hash and tells of every node that it completes, from level 0 upwards.
    fn push_seeing(&mut self, leaf: Hash, mut seen: impl FnMut(u32, Hash)) {
        let mut node = leaf;
        seen(0, node);
        // Each trailing one of the size is a complete subtree that the new node completes to a larger one.
        for level in 1..=self.size.trailing_ones() {
            // INVARIANT: there are as many peaks as ones in the size.
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            seen(level, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut from_right = self.peaks.iter().rev();
        let Some(last) = from_right.next() else { return empty_root() };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// A full tile that a leaf completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    /// Tile level (each is eight tree levels).
    pub level: u8,
    /// Number within the level.
    pub number: u64,
    /// 256 hashes.
    pub bytes: Vec<u8>,
}

/// A tree with the unfinished tiles of its right-hand edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    range: Range,
    /// Per tile level, the hashes of its unfinished tile (fewer than 256).
    edge: Vec<Vec<Hash>>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves from its edge as [`Tree::edge_bytes`] wrote it. `None` if the length does not fit.
    #[must_use]
    pub fn from_edge(size: u64, bytes: &[u8]) -> Option<Self> {
        if u64::try_from(bytes.len()).ok()? != tile::edge_bytes(size) {
            return None;
        }
        let (hashes, []) = bytes.as_chunks::<32>() else { return None };
        let mut hashes = hashes.iter().copied();
        let mut edge = Vec::new();
        let mut peaks = Vec::new();
        for level in 0..tile::levels(size) {
            let tile: Vec<Hash> = hashes.by_ref().take(usize::from(tile::edge_width(size, level))).collect();
            // The peaks below one tile are its power-of-two runs, so the largest level's come first.
            peaks.splice(0..0, tile::peaks(&tile));
            edge.push(tile);
        }
        Some(Self { range: Range::from_peaks(size, peaks)?, edge })
    }

    /// The hashes of the unfinished tiles, level 0 first: what [`Tree::from_edge`] needs.
    #[must_use]
    pub fn edge_bytes(&self) -> Vec<u8> {
        self.edge.iter().flatten().flatten().copied().collect()
    }

    /// Per tile level, level 0 first, the hashes of its unfinished tile.
    #[must_use]
    pub fn edge(&self) -> &[Vec<Hash>] {
        &self.edge
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.range.size
    }

    /// The compact form.
    #[must_use]
    pub const fn range(&self) -> &Range {
        &self.range
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.range.root()
    }

    /// Adds a leaf's hash; hands the tiles that it completed to `full`, lowest level first.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(FullTile)) {
        let edge = &mut self.edge;
        let size = self.range.size + 1;
        self.range.push_seeing(leaf, |level, hash| {
            if level % tile::HEIGHT != 0 {
                return;
            }
            let tile_level = (level / tile::HEIGHT) as usize;
            while edge.len() <= tile_level {
                edge.push(Vec::new());
            }
            let Some(hashes) = edge.get_mut(tile_level) else { return };
            hashes.push(hash);
            if hashes.len() == WIDTH {
                let bytes = hashes.drain(..).flatten().collect();
                let number = (size >> (tile::HEIGHT * (level / tile::HEIGHT + 1))) - 1;
                full(FullTile { level: tile_level as u8, number, bytes });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::Memory;

    /// The eight entries and roots of the RFC 6962 test vectors as published with Certificate Transparency.
    const ENTRIES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
        text.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
    }

    #[test]
    fn the_published_vectors() {
        let mut tree = Tree::new();
        assert_eq!(tree.root().to_vec(), unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (entry, root) in ENTRIES.iter().zip(ROOTS) {
            tree.push(leaf_hash(&unhex(entry)), |_| {});
            assert_eq!(tree.root().to_vec(), unhex(root), "after {entry:?}");
        }
    }

    /// The definition of RFC 6962 §2.1, word by word.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&defined(&leaves[..split]), &defined(&leaves[split..]))
            }
        }
    }

    #[test]
    fn every_size_has_the_defined_root_and_comes_back_from_its_edge() {
        let leaves: Vec<Hash> = (0..1100_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut tree = Tree::new();
        for size in 0..leaves.len() {
            assert_eq!(tree.root(), defined(&leaves[..size]), "size {size}");
            assert_eq!(Tree::from_edge(size as u64, &tree.edge_bytes()).as_ref().map(Tree::root), Some(tree.root()));
            let peaks = tree.range().peaks().to_vec();
            assert_eq!(Range::from_peaks(size as u64, peaks).as_ref(), Some(tree.range()));
            tree.push(leaves[size], |_| {});
        }
    }

    #[test]
    fn a_restored_tree_goes_on_as_if_nothing_had_happened() {
        let mut whole = Tree::new();
        let mut tiles = Vec::new();
        let mut again = Tree::new();
        let mut tiles_again = Vec::new();
        for number in 0..66_000_u32 {
            let leaf = leaf_hash(&number.to_be_bytes());
            whole.push(leaf, |tile| tiles.push(tile));
            again.push(leaf, |tile| tiles_again.push(tile));
            if number % 977 == 0 {
                again = Tree::from_edge(again.size(), &again.edge_bytes()).unwrap();
            }
        }
        assert_eq!(tiles, tiles_again);
        assert_eq!(whole, again);
        assert_eq!(tiles.iter().filter(|tile| tile.level == 0).count(), 66_000 / 256);
        assert_eq!(tiles.iter().filter(|tile| tile.level == 1).map(|tile| tile.number).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn wrong_edges_and_peaks_are_refused() {
        assert_eq!(Tree::from_edge(3, &[0; 64]), None);
        assert_eq!(Tree::from_edge(3, &[0; 95]), None);
        assert_eq!(Range::from_peaks(3, vec![[0; 32]]), None);
        assert_eq!(Tree::from_edge(0, &[]), Some(Tree::new()));
    }

    #[test]
    fn roots_and_tiles_agree_with_another_implementation() {
        let memory = Memory::of(700);
        let theirs = tlog_tiles::tlog::tree_hash(700, &memory.as_stored_hashes()).unwrap();
        assert_eq!(memory.tree.root(), theirs.0);
    }
}
