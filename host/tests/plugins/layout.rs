//! The header and its Rust mirror agree on every size and offset, and both with what was written down.

use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

use philotes_sdk::abi;

use crate::{abi_file, compile};

macro_rules! layout {
    ($out:ident, $c:literal, $rust:ty, [$($field:ident),*]) => {
        writeln!($out, "{} {}", $c, size_of::<$rust>()).unwrap();
        $(writeln!($out, "  {} {}", stringify!($field), offset_of!($rust, $field)).unwrap();)*
    };
}

fn in_rust() -> String {
    let mut out = String::new();
    layout!(out, "philotes_text", abi::Text, [data, length]);
    layout!(out, "philotes_error", abi::ErrorText, [struct_size, length, message, flags, reserved]);
    layout!(out, "philotes_partition", abi::Partition, [struct_size, part_count, parts, partition]);
    layout!(out, "philotes_position", abi::Position, [struct_size, reserved, at, offset]);
    layout!(
        out,
        "philotes_batch",
        abi::Batch,
        [struct_size, flags, at, offset, schema_id, schema, array, bytes, newest_micros]
    );
    layout!(out, "philotes_poll", abi::PollResult, [struct_size, outcome, caught_up, partition_count, partitions]);
    layout!(out, "philotes_stream", abi::Stream, [struct_size, sampled, sampled_rows, at, schema]);
    layout!(
        out,
        "philotes_host",
        abi::Host,
        [
            struct_size,
            abi_major,
            abi_minor,
            reserved,
            capabilities,
            context,
            log,
            log_enabled,
            metric,
            emit,
            emit_stream,
            is_cancelled,
            get_extension
        ]
    );
    layout!(
        out,
        "philotes_source",
        abi::SourceTable,
        [struct_size, reserved, create, open, poll, resume, commit, cancel, close, destroy]
    );
    layout!(
        out,
        "philotes_sink",
        abi::SinkTable,
        [struct_size, reserved, create, open, offsets, write, flush, buffered_bytes, cancel, close, destroy, revoke]
    );
    layout!(out, "philotes_argument", abi::Argument, [struct_size, flags, name, doc]);
    layout!(out, "philotes_action", abi::Action, [struct_size, argument_count, name, doc, arguments]);
    layout!(
        out,
        "philotes_connector",
        abi::Connector,
        [
            struct_size,
            kind,
            name,
            version,
            doc,
            config_spec,
            source,
            sink,
            actions,
            action_count,
            reserved,
            validate,
            check,
            tasks,
            streams,
            plan,
            act,
            flags
        ]
    );
    layout!(out, "philotes_capability", abi::Capability, [struct_size, bit, name]);
    layout!(
        out,
        "philotes_plugin",
        abi::Plugin,
        [
            magic,
            struct_size,
            abi_major,
            abi_minor,
            pointer_bits,
            id,
            version,
            sdk,
            target,
            connectors,
            connector_count,
            required_capability_count,
            required_capabilities
        ]
    );
    out
}

#[test]
fn c_and_rust_agree_on_every_size_and_offset() {
    let golden = std::fs::read_to_string(abi_file("layout.txt")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("layout");
    compile("layout.c", &[], &program);
    let in_c = String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap();
    assert_eq!(in_c, golden, "the header moved");
    assert_eq!(in_rust(), golden, "the Rust mirror moved");
}
