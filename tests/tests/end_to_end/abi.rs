//! Plugins that are no Rust: the C source and sink, compiled against the header alone.

use std::process::Command;

use philotes_tests::host::Host;
use philotes_tests::readers::{READERS, Table};
use philotes_tests::{services, skip, target};

use crate::PATIENCE;

/// Plain, under valgrind and under the sanitizers; what it prints says which.
#[test]
fn the_c_plugins_leak_nothing_and_touch_nothing_that_is_not_theirs() {
    if let Err(error) = services::install(&["gcc:gcc", "valgrind:valgrind"]) {
        return skip(&error);
    }
    let output = Command::new("sh").arg(target::repository().join("tests/abi/check.sh")).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("valgrind:"), "{said}");
}

/// In the real host, into a real table.
#[test]
fn the_c_source_fills_a_table() {
    if let Err(error) = services::install(&["gcc:gcc"]) {
        return skip(&error);
    }
    let dir = tempfile::tempdir().unwrap();
    let repository = target::repository();
    let compiled = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-shared", "-I"])
        .arg(repository.join("sdk/include"))
        .arg(repository.join("tests/abi/source.c"))
        .arg("-o")
        .arg(dir.path().join("libc_counter.so"))
        .status();
    assert!(compiled.unwrap().success());
    let file = dir.path().join("counter.yaml");
    let yaml = format!(
        "name: counter\nsource: {{plugin: c-counter, rows: 12345}}\n\
         sink:\n  plugin: iceberg\n  table: cdc.{{stream}}\n\
         \x20 catalog: {{type: sql, uri: \"sqlite://{0}/catalog.db\", warehouse: \"file://{0}/warehouse\"}}\n",
        dir.path().display()
    );
    std::fs::write(&file, yaml).unwrap();
    // Twice: the second time the offset in the table says that all is there.
    for run in 0..2 {
        let log = dir.path().join(format!("host-{run}.log"));
        let arguments = ["--until-idle", "--plugin-path", dir.path().to_str().unwrap()];
        let mut host = Host::start_in(&[], &file, &log, &arguments).unwrap();
        assert_eq!(host.wait(PATIENCE).unwrap(), 0, "{}", host.log_tail());
    }
    let table = Table::new(&dir.path().join("catalog.db"), "cdc.c_counter");
    for reader in READERS {
        assert_eq!(reader.number(&table, "select count(*) from t").unwrap(), 12_345, "{reader}");
    }
}

/// What is inside of a plugin stays there: SQLite, librdkafka, OpenSSL. Another plugin may hold another version of it.
#[test]
fn the_plugins_export_one_symbol_each_and_want_nothing_but_the_c_library() {
    if let Err(error) = services::install(&["nm:binutils"]) {
        return skip(&error);
    }
    let lines = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for plugin in ["postgres_buffer", "kafka", "iceberg"] {
        let library = target::profile_dir().join(format!("libphilotes_{plugin}.so"));
        let exported = lines(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
        assert!(exported.len() == 1 && exported[0].ends_with(" T philotes_plugin_v1"), "{plugin}: {exported:?}");
        let needed = lines(Command::new("objdump").arg("-p").arg(&library));
        let needed = needed.iter().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim);
        let theirs = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux"];
        let others: Vec<_> = needed.filter(|name| !theirs.iter().any(|own| name.starts_with(own))).collect();
        assert!(others.is_empty(), "{plugin}: {others:?}");
    }
}
