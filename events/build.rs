//! A new file in `schema/` is a new version of this crate, which embeds them.

fn main() {
    println!("cargo:rerun-if-changed=../schema");
}
