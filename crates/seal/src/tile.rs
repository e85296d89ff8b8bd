//! Tiles (C2SP tlog-tiles): the tree's hashes in files of 256, at paths that everybody can compute.
//!
//! Tile level `l` holds the tree's nodes of level `8·l`. A full tile never changes; the last of a level is partial and
//! named with its width. What lies between two tile levels is computed, not stored.

use crate::proof::{Nodes, range_hash};
use crate::{Hash, node_hash};

/// Tree levels per tile.
pub const HEIGHT: u32 = 8;
/// Hashes in a full tile.
pub const WIDTH: usize = 256;
/// Bytes of a full tile.
pub const BYTES: usize = WIDTH * 32;

/// How many tile levels a tree of this size has.
#[must_use]
pub const fn levels(size: u64) -> u8 {
    let bits = u64::BITS - size.leading_zeros();
    bits.div_ceil(HEIGHT) as u8
}

/// The width of the unfinished tile of a level, 0 to 255.
#[must_use]
pub const fn edge_width(size: u64, level: u8) -> u8 {
    match size.checked_shr(HEIGHT * level as u32) {
        Some(hashes) => (hashes & 0xff) as u8,
        None => 0,
    }
}

/// The bytes of all unfinished tiles of a tree of this size together (at most 8 × 255 × 32).
#[must_use]
pub const fn edge_bytes(size: u64) -> u64 {
    let mut sum = 0;
    let mut level = 0;
    while level < levels(size) {
        sum += edge_width(size, level) as u64 * 32;
        level += 1;
    }
    sum
}

/// The path of a tile: `tile/<level>/<number>`, with `.p/<width>` if it is partial (width 1 to 255).
#[must_use]
pub fn path(level: u8, number: u64, width: Option<u8>) -> String {
    let mut path = String::new();
    let mut rest = number;
    loop {
        let part = rest % 1000;
        path = if path.is_empty() { format!("{part:03}") } else { format!("x{part:03}/{path}") };
        rest /= 1000;
        if rest == 0 {
            break;
        }
    }
    match width {
        Some(width) => format!("tile/{level}/{path}.p/{width}"),
        None => format!("tile/{level}/{path}"),
    }
}

/// Where a node of a tree of `size` leaves is found: which tile of which width, and which hashes of it make the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Tile level.
    pub level: u8,
    /// Tile number within the level.
    pub number: u64,
    /// Its width if it is unfinished at that size.
    pub width: Option<u8>,
    /// The first hash.
    pub first: usize,
    /// How many hashes, a power of two.
    pub count: usize,
}

/// The place of the complete subtree at (`level`, `index`) in a tree of `size` leaves. `None` if the tree does not hold
/// it whole.
#[must_use]
pub fn place(size: u64, level: u32, index: u64) -> Option<Place> {
    let end = index.checked_add(1)?.checked_shl(level).filter(|end| *end >> level == index + 1)?;
    if end > size {
        return None;
    }
    let tile_level = u8::try_from(level / HEIGHT).ok()?;
    let within = level % HEIGHT;
    let first = index << within;
    let number = first >> HEIGHT;
    let full = size.checked_shr(HEIGHT * (u32::from(tile_level) + 1)).unwrap_or(0);
    let width = if number < full { None } else { Some(edge_width(size, tile_level)) };
    Some(Place { level: tile_level, number, width, first: usize::try_from(first & 0xff).ok()?, count: 1 << within })
}

/// The node at a place, from its tile's bytes. `None` if the tile is too short.
#[must_use]
pub fn node(place: &Place, tile: &[u8]) -> Option<Hash> {
    let (hashes, []) = tile.as_chunks::<32>() else { return None };
    perfect(hashes.get(place.first..place.first.checked_add(place.count)?)?)
}

/// The roots of a partial tile's power-of-two runs, largest first.
pub(crate) fn peaks(tile: &[Hash]) -> Vec<Hash> {
    let mut rest = tile;
    let mut peaks = Vec::new();
    while let Some(power) = rest.len().checked_ilog2()
        && let Some((run, after)) = rest.split_at_checked(1 << power)
    {
        peaks.extend(perfect(run));
        rest = after;
    }
    peaks
}

/// The root over a power of two of hashes.
fn perfect(hashes: &[Hash]) -> Option<Hash> {
    struct Run<'a>(&'a [Hash]);
    impl Nodes for Run<'_> {
        fn node(&self, level: u32, index: u64) -> Option<Hash> {
            match level.checked_sub(1) {
                None => self.0.get(usize::try_from(index).ok()?).copied(),
                Some(below) => Some(node_hash(&self.node(below, index * 2)?, &self.node(below, index * 2 + 1)?)),
            }
        }
    }
    range_hash(&Run(hashes), 0, u64::try_from(hashes.len()).ok()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tree::{Tree, leaf_hash};

    /// A tree with all its tiles in memory.
    pub(crate) struct Memory {
        pub(crate) tree: Tree,
        pub(crate) leaves: Vec<Hash>,
        pub(crate) files: BTreeMap<String, Vec<u8>>,
    }

    impl Memory {
        pub(crate) fn of(size: u32) -> Self {
            let mut memory = Self { tree: Tree::new(), leaves: Vec::new(), files: BTreeMap::new() };
            for number in 0..size {
                let leaf = leaf_hash(format!("entry {number}").as_bytes());
                memory.leaves.push(leaf);
                let files = &mut memory.files;
                memory.tree.push(leaf, |tile| {
                    files.insert(path(tile.level, tile.number, None), tile.bytes);
                });
            }
            for (level, hashes) in memory.tree.edge().iter().enumerate() {
                if let (level, Ok(width @ 1..)) = (level as u8, u8::try_from(hashes.len())) {
                    let number = u64::from(size) >> (HEIGHT * (u32::from(level) + 1));
                    memory.files.insert(path(level, number, Some(width)), hashes.concat());
                }
            }
            memory
        }

        /// The same leaves in the other implementation's storage order.
        pub(crate) fn as_stored_hashes(&self) -> Stored {
            let mut stored = Stored(Vec::new());
            for (number, leaf) in self.leaves.iter().enumerate() {
                let more = tlog_tiles::tlog::stored_hashes_for_record_hash(
                    number as u64,
                    tlog_tiles::tlog::Hash(*leaf),
                    &stored,
                )
                .unwrap();
                stored.0.extend(more);
            }
            stored
        }
    }

    impl Nodes for Memory {
        fn node(&self, level: u32, index: u64) -> Option<Hash> {
            let place = place(self.tree.size(), level, index)?;
            node(&place, self.files.get(&path(place.level, place.number, place.width))?)
        }
    }

    pub(crate) struct Stored(pub(crate) Vec<tlog_tiles::tlog::Hash>);

    impl tlog_tiles::tlog::HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::tlog::Hash>, tlog_tiles::tlog::Error> {
            Ok(indexes.iter().map(|at| self.0[*at as usize]).collect())
        }
    }

    #[test]
    fn paths() {
        assert_eq!(path(0, 0, None), "tile/0/000");
        assert_eq!(path(0, 273, None), "tile/0/273");
        assert_eq!(path(1, 1234067, None), "tile/1/x001/x234/067");
        assert_eq!(path(2, 5, Some(112)), "tile/2/005.p/112");
        for number in [0, 1, 999, 1000, 70_000, 1_234_067] {
            assert_eq!(
                path(3, number, None),
                tlog_tiles::tile::Tile::new(8, 3, number, 256, false).path().replacen("tile/8/", "tile/", 1)
            );
        }
    }

    #[test]
    fn sizes_of_edges() {
        assert_eq!((levels(0), levels(1), levels(255), levels(256), levels(65_536)), (0, 1, 1, 2, 3));
        assert_eq!(levels(u64::MAX), 8);
        assert_eq!((edge_width(300, 0), edge_width(300, 1), edge_width(300, 7)), (44, 1, 0));
        assert_eq!(edge_bytes(300), 45 * 32);
        assert_eq!(edge_bytes(u64::MAX), 8 * 255 * 32);
    }

    #[test]
    fn every_complete_subtree_is_found_in_its_tile() {
        let memory = Memory::of(1500);
        for level in 0..11_u32 {
            for index in 0..=(1500_u64 >> level) {
                let lo = index << level;
                let hi = lo + (1 << level);
                let expected = (hi <= 1500).then(|| {
                    let mut tree = Tree::new();
                    memory.leaves[lo as usize..hi as usize].iter().for_each(|leaf| tree.push(*leaf, |_| {}));
                    tree.root()
                });
                assert_eq!(memory.node(level, index), expected, "level {level} index {index}");
            }
        }
        assert_eq!(place(10, 63, 1), None);
        assert_eq!(place(10, 64, 0), None);
        assert_eq!(place(10, 0, u64::MAX), None);
    }
}
