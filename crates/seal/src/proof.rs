//! Inclusion and consistency proofs (RFC 6962 §2.1.1–2.1.2; verification as in RFC 9162 §2.1.3.2 and §2.1.4.2).
//!
//! Making a proof needs the tree's nodes (from tiles); checking one needs only the roots. A proof says nothing about
//! who made the root: check the checkpoint's signature too.

use crate::{Hash, empty_root, node_hash};

/// The complete subtrees of a tree, wherever they are kept.
pub trait Nodes {
    /// The root of the complete subtree of `2^level` leaves that begins at leaf `index · 2^level`.
    fn node(&self, level: u32, index: u64) -> Option<Hash>;
}

/// Why there is no proof, or why one was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The leaf or the older tree is not inside the tree.
    OutOfRange,
    /// A node that the proof needs is not there.
    MissingNode,
    /// The proof has too few or too many hashes.
    Length,
    /// The proof leads to another root.
    WrongRoot,
}

/// The hashes that prove leaf `index` to be in the tree of the first `size` leaves.
pub fn inclusion_proof(nodes: &dyn Nodes, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let mut proof = Vec::new();
    let (mut lo, mut hi) = (0, size);
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        let (keep, other) = if index < middle { ((lo, middle), (middle, hi)) } else { ((middle, hi), (lo, middle)) };
        proof.push(range_hash(nodes, other.0, other.1).ok_or(ProofError::MissingNode)?);
        (lo, hi) = keep;
    }
    proof.reverse();
    Ok(proof)
}

/// Whether the proof leads from `leaf` (a leaf hash) at `index` to the root of a tree of `size` leaves.
pub fn check_inclusion(proof: &[Hash], index: u64, size: u64, leaf: &Hash, root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut first, mut last) = (index, size - 1);
    let mut node = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if first & 1 == 1 || first == last {
            node = node_hash(sibling, &node);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        first >>= 1;
        last >>= 1;
    }
    match (last, node == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::WrongRoot),
        _ => Err(ProofError::Length),
    }
}

/// The hashes that prove the tree of the first `old` leaves to be the beginning of the tree of the first `size`.
pub fn consistency_proof(nodes: &dyn Nodes, old: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    if old > size {
        return Err(ProofError::OutOfRange);
    }
    let mut proof = Vec::new();
    if old == 0 || old == size {
        return Ok(proof);
    }
    let (mut lo, mut hi) = (0, size);
    // Whether the subtree at hand is still the whole old tree, whose root the checker has.
    let mut whole = true;
    while old != hi {
        let middle = lo + split(hi - lo);
        let other = if old <= middle {
            let right = (middle, hi);
            hi = middle;
            right
        } else {
            let left = (lo, middle);
            lo = middle;
            whole = false;
            left
        };
        proof.push(range_hash(nodes, other.0, other.1).ok_or(ProofError::MissingNode)?);
    }
    if !whole {
        proof.push(range_hash(nodes, lo, hi).ok_or(ProofError::MissingNode)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether the proof shows the tree (`old`, `old_root`) to be the beginning of the tree (`size`, `root`).
pub fn check_consistency(proof: &[Hash], old: u64, old_root: &Hash, size: u64, root: &Hash) -> Result<(), ProofError> {
    if old > size {
        return Err(ProofError::OutOfRange);
    }
    if old == size || old == 0 {
        let expected = if old == 0 { &empty_root() } else { root };
        return match (proof.is_empty(), old_root == expected) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::WrongRoot),
            _ => Err(ProofError::Length),
        };
    }
    let mut hashes = proof.iter();
    let mut seed = *if old.is_power_of_two() { old_root } else { hashes.next().ok_or(ProofError::Length)? };
    let (mut first, mut last) = (old - 1, size - 1);
    while first & 1 == 1 {
        first >>= 1;
        last >>= 1;
    }
    let mut old_node = seed;
    for sibling in hashes {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if first & 1 == 1 || first == last {
            old_node = node_hash(sibling, &old_node);
            seed = node_hash(sibling, &seed);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            seed = node_hash(&seed, sibling);
        }
        first >>= 1;
        last >>= 1;
    }
    match (last, old_node == *old_root && seed == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::WrongRoot),
        _ => Err(ProofError::Length),
    }
}

/// The root over the leaves `lo..hi`, where `lo` is where a subtree of that width begins. `None`: a node is missing.
pub(crate) fn range_hash(nodes: &dyn Nodes, lo: u64, hi: u64) -> Option<Hash> {
    let width = hi.checked_sub(lo)?;
    if width.is_power_of_two() && lo.is_multiple_of(width) {
        return nodes.node(width.trailing_zeros(), lo / width);
    }
    if width == 0 {
        return None;
    }
    let middle = lo + split(width);
    Some(node_hash(&range_hash(nodes, lo, middle)?, &range_hash(nodes, middle, hi)?))
}

/// The largest power of two below `width`, for widths of at least two.
const fn split(width: u64) -> u64 {
    1 << (u64::BITS - 1 - (width - 1).leading_zeros())
}

impl std::fmt::Display for ProofError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProofError::OutOfRange => "the tree does not reach that far",
            ProofError::MissingNode => "a tile that the proof needs is missing",
            ProofError::Length => "the proof has the wrong length",
            ProofError::WrongRoot => "the proof leads to another root",
        })
    }
}

impl std::error::Error for ProofError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::Memory;
    use crate::tree::Tree;

    fn root_of(memory: &Memory, size: u64) -> Hash {
        let mut tree = Tree::new();
        memory.leaves[..size as usize].iter().for_each(|leaf| tree.push(*leaf, |_| {}));
        tree.root()
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved_and_agrees_with_another_implementation() {
        for size in 1..40_u64 {
            let memory = Memory::of(size as u32);
            let stored = memory.as_stored_hashes();
            let root = memory.tree.root();
            for index in 0..size {
                let proof = inclusion_proof(&memory, index, size).unwrap();
                let theirs = tlog_tiles::tlog::prove_record(size, index, &stored).unwrap();
                assert_eq!(proof, theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), "{index} of {size}");
                let leaf = &memory.leaves[index as usize];
                assert_eq!(check_inclusion(&proof, index, size, leaf, &root), Ok(()));
            }
            for old in 1..=size {
                let proof = consistency_proof(&memory, old, size).unwrap();
                let theirs = tlog_tiles::tlog::prove_tree(size, old, &stored).unwrap();
                assert_eq!(proof, theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), "{old} in {size}");
                assert_eq!(check_consistency(&proof, old, &root_of(&memory, old), size, &root), Ok(()));
            }
        }
    }

    #[test]
    fn proofs_across_tile_borders() {
        let size = 70_000;
        let memory = Memory::of(size);
        let (size, root) = (u64::from(size), memory.tree.root());
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let index = state % size;
            let proof = inclusion_proof(&memory, index, size).unwrap();
            assert_eq!(check_inclusion(&proof, index, size, &memory.leaves[index as usize], &root), Ok(()), "{index}");
        }
        for old in [1, 255, 256, 257, 65_535, 65_536, 65_537, 69_999] {
            let proof = consistency_proof(&memory, old, size).unwrap();
            assert_eq!(check_consistency(&proof, old, &root_of(&memory, old), size, &root), Ok(()), "{old}");
        }
    }

    #[test]
    fn a_changed_proof_is_never_believed() {
        let size = 21;
        let memory = Memory::of(size as u32);
        let root = memory.tree.root();
        for index in 0..size {
            let leaf = &memory.leaves[index as usize];
            let proof = inclusion_proof(&memory, index, size).unwrap();
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at][0] ^= 1;
                assert_eq!(check_inclusion(&changed, index, size, leaf, &root), Err(ProofError::WrongRoot));
                changed.remove(at);
                assert!(check_inclusion(&changed, index, size, leaf, &root).is_err());
            }
            let mut longer = proof.clone();
            longer.push([0; 32]);
            assert!(check_inclusion(&longer, index, size, leaf, &root).is_err());
            assert!(check_inclusion(&proof, (index + 1) % size, size, leaf, &root).is_err());
        }
        for old in 1..size {
            let old_root = root_of(&memory, old);
            let proof = consistency_proof(&memory, old, size).unwrap();
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at][31] ^= 1;
                assert!(check_consistency(&changed, old, &old_root, size, &root).is_err());
                changed.remove(at);
                assert!(check_consistency(&changed, old, &old_root, size, &root).is_err());
            }
            assert!(check_consistency(&proof, old, &[0; 32], size, &root).is_err());
            assert!(check_consistency(&proof, old, &old_root, size, &[0; 32]).is_err());
        }
    }

    #[test]
    fn borders() {
        let memory = Memory::of(5);
        let root = memory.tree.root();
        assert_eq!(inclusion_proof(&memory, 5, 5), Err(ProofError::OutOfRange));
        assert_eq!(inclusion_proof(&memory, 0, 9), Err(ProofError::MissingNode));
        assert_eq!(consistency_proof(&memory, 6, 5), Err(ProofError::OutOfRange));
        assert_eq!(consistency_proof(&memory, 0, 5), Ok(vec![]));
        assert_eq!(check_consistency(&[], 0, &empty_root(), 5, &root), Ok(()));
        assert_eq!(check_consistency(&[], 0, &root, 5, &root), Err(ProofError::WrongRoot));
        assert_eq!(check_consistency(&[], 5, &root, 5, &root), Ok(()));
        assert_eq!(check_consistency(&[root], 5, &root, 5, &root), Err(ProofError::Length));
        assert_eq!(check_consistency(&[], 6, &root, 5, &root), Err(ProofError::OutOfRange));
    }
}
