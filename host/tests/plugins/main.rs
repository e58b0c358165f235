//! Real shared libraries through the loader: in Rust and in C, sound and unsound.
//!
//! The Rust plugins are development dependencies, so that cargo has built them beside this test; those in C are compiled
//! here, by gcc against the header alone.

mod c;
mod conformance;
mod layout;
mod probe;
mod refusals;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use philotes_host::plugin::{Connector, Kind, Library, Services};
use philotes_sdk::TaskInfo;

/// The library of a Rust plugin among the development dependencies.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().join(format!("lib{name}.so"))
}

/// A file of `tests/abi`.
fn abi_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/abi").join(name)
}

/// Compiles a C file of `tests/abi`.
fn compile(source: &str, flags: &[&str], output: &Path) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/include");
    let compiled = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(include)
        .args(flags)
        .arg(abi_file(source))
        .arg("-o")
        .arg(output)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}

fn library(source: &str, flags: &[&str], dir: &Path, name: &str) -> PathBuf {
    let output = dir.join(name);
    compile(source, &[&["-fPIC", "-shared"], flags].concat(), &output);
    output
}

fn connector(library: &Path, kind: Kind) -> Arc<dyn Connector> {
    let library = Library::load(library).unwrap();
    Arc::clone(library.connectors().iter().find(|connector| connector.kind() == kind).unwrap())
}

fn services() -> Services {
    Services { span: tracing::info_span!("task", connector = "shop"), connector: "shop".into(), status: None }
}

fn task() -> TaskInfo {
    TaskInfo { connector: "shop".into(), tasks: 1, max_memory: 1 << 20, ..TaskInfo::default() }
}

/// The symbols that a library exports.
fn exported(library: &Path) -> Vec<String> {
    let output = Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_rust_plugin_exports_one_symbol() {
    for plugin in ["philotes_probe", "philotes_memory"] {
        assert_eq!(exported(&built(plugin)), ["philotes_plugin_v1"], "{plugin}");
    }
}
