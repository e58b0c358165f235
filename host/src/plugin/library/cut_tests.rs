//! Descriptors that end early: refused where something required is missing, taken where it is not.

use std::mem::offset_of;

use philotes_sdk::abi::{self, Sized32, SourceTable, Text};

use super::descriptor::{Checked, Refusal};

unsafe extern "C" fn create(
    _: *const abi::Host,
    _: Text,
    _: Text,
    _: *mut *mut std::ffi::c_void,
    _: *mut abi::ErrorText,
) -> u32 {
    abi::OK
}
unsafe extern "C" fn open(_: *mut std::ffi::c_void, _: *mut abi::ErrorText) -> u32 {
    abi::OK
}
unsafe extern "C" fn poll(
    _: *mut std::ffi::c_void,
    _: u64,
    _: u64,
    _: *mut abi::PollResult,
    _: *mut abi::Batch,
    _: *mut abi::ErrorText,
) -> u32 {
    abi::OK
}
unsafe extern "C" fn resume(
    _: *mut std::ffi::c_void,
    _: *const abi::Partition,
    _: *const Text,
    _: *mut abi::ErrorText,
) -> u32 {
    abi::OK
}
unsafe extern "C" fn commit(
    _: *mut std::ffi::c_void,
    _: *const *const abi::Position,
    _: u32,
    _: *mut abi::ErrorText,
) -> u32 {
    abi::OK
}
unsafe extern "C" fn close(_: *mut std::ffi::c_void, _: u64, _: *mut abi::ErrorText) -> u32 {
    abi::OK
}
unsafe extern "C" fn notify(_: *mut std::ffi::c_void) {}
unsafe extern "C" fn tasks(_: *const abi::Host, _: Text, _: u32, _: *mut u32, _: *mut abi::ErrorText) -> u32 {
    abi::OK
}
unsafe extern "C" fn check(_: *const abi::Host, _: Text, _: Text, _: *mut abi::ErrorText) -> u32 {
    abi::OK
}

fn source() -> SourceTable {
    SourceTable {
        struct_size: SourceTable::SIZE,
        reserved: 0,
        create: Some(create),
        open: Some(open),
        poll: Some(poll),
        resume: Some(resume),
        commit: Some(commit),
        cancel: Some(notify),
        close: Some(close),
        destroy: Some(notify),
    }
}

fn connector(source: &SourceTable) -> abi::Connector {
    let mut connector = abi::Connector::zeroed();
    connector.kind = abi::KIND_SOURCE;
    connector.name = Text::lend("cut");
    connector.config_spec = Text::lend("{}");
    connector.source = source;
    connector.check = Some(check);
    connector.tasks = Some(tasks);
    connector
}

fn plugin(connectors: &[*const abi::Connector; 1]) -> abi::Plugin {
    abi::Plugin {
        magic: abi::MAGIC,
        struct_size: u32::try_from(size_of::<abi::Plugin>()).unwrap(),
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        pointer_bits: abi::POINTER_BITS,
        id: Text::lend("cut"),
        version: Text::EMPTY,
        sdk: Text::EMPTY,
        target: Text::EMPTY,
        connectors: connectors.as_ptr(),
        connector_count: 1,
        required_capability_count: 0,
        required_capabilities: std::ptr::null(),
    }
}

fn read(plugin: &abi::Plugin) -> Result<Checked, Refusal> {
    // SAFETY: a whole descriptor of our own, whatever it says of its size.
    unsafe { Checked::read(plugin) }
}

fn is_size(outcome: &Result<Checked, Refusal>) -> bool {
    matches!(outcome, Err(Refusal::StructSize { .. }))
}

#[test]
fn a_descriptor_may_not_end_early() {
    let source = source();
    let connector = connector(&source);
    let connectors = [&raw const connector];
    let mut plugin = plugin(&connectors);
    assert!(read(&plugin).is_ok());
    for size in 0..plugin.struct_size {
        plugin.struct_size = size;
        assert!(is_size(&read(&plugin)), "{size}");
    }
    // A later minor version appends.
    plugin.struct_size += 400;
    assert!(read(&plugin).is_ok());
}

#[test]
fn a_function_table_may_not_end_early() {
    let mut source = source();
    for size in 0..SourceTable::SIZE {
        source.struct_size = size;
        let connector = connector(&source);
        assert!(is_size(&read(&plugin(&[&raw const connector]))), "{size}");
    }
    source.struct_size = SourceTable::SIZE + 8;
    let connector = connector(&source);
    assert!(read(&plugin(&[&raw const connector])).is_ok());
}

#[test]
fn a_connector_may_end_before_what_is_optional() {
    let source = source();
    for size in 0..=abi::Connector::SIZE {
        let mut connector = connector(&source);
        connector.struct_size = size;
        let outcome = read(&plugin(&[&raw const connector]));
        if (size as usize) < offset_of!(abi::Connector, actions) {
            assert!(is_size(&outcome), "{size}");
            continue;
        }
        let functions = &outcome.unwrap().connectors[0].functions;
        assert_eq!(functions.check.is_some(), size as usize >= offset_of!(abi::Connector, check) + 8, "{size}");
        assert_eq!(functions.tasks.is_some(), size as usize >= offset_of!(abi::Connector, tasks) + 8, "{size}");
    }
}
