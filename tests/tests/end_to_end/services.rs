//! `services up` and `services down`, with a state of the test's own: a developer's servers are not touched.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use philotes_tests::services::{is_alive, signal};
use philotes_tests::skip;
use philotes_tests::sql::Session;
use serde_json::Value;

const SERVERS: [&str; 4] = ["rest", "kafka", "minio", "postgres"];

/// Runs the program; what it printed.
fn services(command: &str, state: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_services")).arg(command).arg(state).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `services down`, whatever becomes of the test.
struct Up(PathBuf);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = services("down", &self.0);
    }
}

fn environment(printed: &str) -> BTreeMap<&str, &str> {
    printed
        .lines()
        .map(|line| {
            let (name, value) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
            (name, value.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap())
        })
        .collect()
}

/// What the state says of a server: its process id and its folder.
fn remembered(state: &Path) -> [(u32, PathBuf); 4] {
    let state: Value = serde_json::from_str(&std::fs::read_to_string(state).unwrap()).unwrap();
    SERVERS.map(|name| {
        let server = &state[name];
        let pid = server["daemon"]["server"]["pid"].as_u64().unwrap();
        (u32::try_from(pid).unwrap(), PathBuf::from(server["dir"].as_str().unwrap()))
    })
}

#[test]
fn services_outlive_their_program_until_they_are_put_down() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("services.json");
    assert_eq!(services("down", &state).unwrap(), "");

    let up = Up(state.clone());
    let printed = match services("up", &state) {
        Ok(printed) => printed,
        Err(error) => return skip(&error),
    };
    let environment = environment(&printed);
    let session = || Session::connect(environment["PHILOTES_BUFFER_DSN"]);
    session().unwrap().batch("create table kept (a int)").unwrap();
    let addresses = ["PHILOTES_CATALOG_URI", "PHILOTES_S3_ENDPOINT", "PHILOTES_KAFKA_BOOTSTRAP"]
        .map(|name| environment[name].trim_start_matches("http://"));
    for address in addresses {
        TcpStream::connect(address).unwrap();
    }
    let first = remembered(&state);

    // Nothing new while all are alive; what has died comes again where it was, and the others stay.
    assert_eq!(services("up", &state).unwrap(), printed);
    assert_eq!(remembered(&state), first);
    let minio = first[2].0;
    signal(minio, "KILL");
    assert_eq!(services("up", &state).unwrap(), printed);
    let second = remembered(&state);
    assert_eq!(SERVERS.map(|name| name == "minio"), std::array::from_fn(|at| first[at].0 != second[at].0));
    TcpStream::connect(addresses[1]).unwrap();
    assert_eq!(session().unwrap().number("select count(*) from kept").unwrap(), 0);

    assert_eq!(services("down", &state).unwrap(), "");
    for (pid, dir) in &second {
        assert!(!is_alive(*pid) && !dir.exists(), "{}", dir.display());
    }
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address}");
    }
    assert!(!state.exists() && session().is_err());
    drop(up);
}
