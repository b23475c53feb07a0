//! The published vectors of the certificate-transparency reference implementation.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use merkle::{Digest, Frontier, Tree, empty_root, leaf_hash, verify_consistency, verify_inclusion};

const LEAVES: [&[u8]; 8] = [
    b"",
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
];

/// Roots of the trees of 1 to 8 of the leaves.
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

const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const F: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

fn digests(texts: &[&str]) -> Vec<Digest> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn tree(size: usize) -> Tree {
    Tree::new(LEAVES[..size].iter().map(|leaf| leaf_hash(leaf)).collect())
}

#[test]
fn roots() {
    assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(Tree::default().root(), empty_root());
    assert_eq!(Frontier::default().root(), empty_root());
    let mut frontier = Frontier::default();
    for (leaf, root) in LEAVES.iter().zip(ROOTS) {
        frontier.push(leaf_hash(leaf));
        assert_eq!(frontier.root().to_string(), root);
        let size = usize::try_from(frontier.size()).unwrap();
        assert_eq!(tree(size).root().to_string(), root);
        assert_eq!(tree(8).root_at(frontier.size()).unwrap().to_string(), root);
    }
}

#[test]
fn inclusion_proofs() {
    let vectors: [(usize, u64, &[&str]); 7] = [
        (1, 0, &[]),
        (2, 0, &[A]),
        (2, 1, &[ROOTS[0]]),
        (3, 2, &[ROOTS[1]]),
        (5, 1, &[ROOTS[0], B, D]),
        (8, 0, &[A, B, C]),
        (8, 5, &[D, E, ROOTS[3]]),
    ];
    for (size, index, proof) in vectors {
        let tree = tree(size);
        let proof = digests(proof);
        assert_eq!(tree.inclusion_proof(index).unwrap(), proof, "leaf {index} of {size}");
        let leaf = leaf_hash(LEAVES[usize::try_from(index).unwrap()]);
        verify_inclusion(&leaf, index, tree.size(), &proof, &tree.root()).unwrap();
    }
    assert_eq!(tree(8).inclusion_proof(8), None);
}

#[test]
fn consistency_proofs() {
    let vectors: [(usize, usize, &[&str]); 4] =
        [(1, 1, &[]), (1, 8, &[A, B, C]), (2, 5, &[B, D]), (6, 8, &[F, E, ROOTS[3]])];
    for (old, new, proof) in vectors {
        let (old, new) = (tree(old), tree(new));
        let proof = digests(proof);
        assert_eq!(new.consistency_proof(old.size()).unwrap(), proof, "{} to {}", old.size(), new.size());
        verify_consistency((old.size(), &old.root()), (new.size(), &new.root()), &proof).unwrap();
    }
    assert_eq!(tree(8).consistency_proof(0), None);
    assert_eq!(tree(8).consistency_proof(9), None);
}
