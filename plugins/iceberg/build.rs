//! What dependencies export for C (a checksum crate does) stays inside of the library: the host and other plugins see one symbol.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}
