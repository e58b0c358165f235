//! The functions of a connector that need no instance.

use std::ffi::c_void;
use std::sync::Arc;

use arrow::ffi::FFI_ArrowSchema;
use serde::Serialize;

use super::Plugin;
use super::instance::{once, parse, parse_task};
use crate::abi::{self, ErrorText, Partition, Text, import_schema, read_partition};
use crate::{Error, Result, Sink, Source, TaskContext};

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("an answer does not serialise").with_source(e))
}

/// A configuration's faults: those of its structure, or those that the plugin finds.
fn faults<C: serde::de::DeserializeOwned>(
    config: Text,
    name: &str,
    validate: impl FnOnce(&C) -> Vec<String>,
) -> Vec<String> {
    // SAFETY: the host lends the text for the call.
    match unsafe { parse::<C>(config, name) } {
        Ok(config) => validate(&config),
        Err(error) => vec![error.to_string()],
    }
}

/// The functions that sources and sinks have alike.
macro_rules! common {
    ($module:ident, $trait:ident) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::export) unsafe extern "C" fn validate<P: Plugin, S: $trait>(
                host: *const abi::Host,
                config: Text,
                slot: *mut c_void,
                error: *mut ErrorText,
            ) -> u32 {
                // SAFETY: the host calls with the ABI's arguments.
                unsafe {
                    once::<P>(S::NAME, "validate", host, error, |host, _| {
                        for fault in faults::<S::Config>(config, S::NAME, S::validate) {
                            host.emit(slot, &fault);
                        }
                        Ok(())
                    })
                }
            }

            pub(in crate::export) unsafe extern "C" fn check<P: Plugin, S: $trait>(
                host: *const abi::Host,
                config: Text,
                task: Text,
                error: *mut ErrorText,
            ) -> u32 {
                // SAFETY: the host calls with the ABI's arguments.
                unsafe {
                    once::<P>(S::NAME, "check", host, error, |host, runtime| {
                        let context = TaskContext::new(parse_task(task)?, Arc::clone(host) as Arc<dyn crate::Host>);
                        runtime.block_on(S::check(parse(config, S::NAME)?, context))
                    })
                }
            }

            pub(in crate::export) unsafe extern "C" fn act<P: Plugin, S: $trait>(
                host: *const abi::Host,
                config: Text,
                task: Text,
                action: Text,
                arguments: Text,
                slot: *mut c_void,
                error: *mut ErrorText,
            ) -> u32 {
                // SAFETY: the host calls with the ABI's arguments.
                unsafe {
                    once::<P>(S::NAME, "act", host, error, |host, runtime| {
                        let context = TaskContext::new(parse_task(task)?, Arc::clone(host) as Arc<dyn crate::Host>);
                        let action = action.read("an action's name")?;
                        let arguments = serde_json::from_str(arguments.read("an action's arguments")?)
                            .map_err(|e| Error::internal("an action's arguments are no JSON").with_source(e))?;
                        let output = runtime.block_on(S::act(parse(config, S::NAME)?, context, action, arguments))?;
                        host.emit(slot, &to_json(&output)?);
                        Ok(())
                    })
                }
            }
        }
    };
}
common!(source, Source);
common!(sink, Sink);

pub(super) unsafe extern "C" fn tasks<P: Plugin, S: Source>(
    host: *const abi::Host,
    config: Text,
    max: u32,
    count: *mut u32,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with the ABI's arguments.
    unsafe {
        once::<P>(S::NAME, "tasks", host, error, |_, _| {
            count.write(S::tasks(&parse(config, S::NAME)?, max));
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn streams<P: Plugin, S: Source>(
    host: *const abi::Host,
    config: Text,
    task: Text,
    slot: *mut c_void,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with the ABI's arguments.
    unsafe {
        once::<P>(S::NAME, "streams", host, error, |host, runtime| {
            let context = TaskContext::new(parse_task(task)?, Arc::clone(host) as Arc<dyn crate::Host>);
            for stream in runtime.block_on(S::streams(parse(config, S::NAME)?, context))? {
                host.emit_stream(slot, stream)?;
            }
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn plan<P: Plugin, S: Sink>(
    host: *const abi::Host,
    config: Text,
    task: Text,
    at: *const Partition,
    schema: *const FFI_ArrowSchema,
    slot: *mut c_void,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with the ABI's arguments.
    unsafe {
        once::<P>(S::NAME, "plan", host, error, |host, runtime| {
            let context = TaskContext::new(parse_task(task)?, Arc::clone(host) as Arc<dyn crate::Host>);
            let schema = schema.as_ref().ok_or_else(|| Error::internal("plan without a schema"))?;
            let (at, schema) = (read_partition(at)?, import_schema(schema)?);
            let plan = runtime.block_on(S::plan(parse(config, S::NAME)?, context, &at, schema))?;
            host.emit(slot, &to_json(&plan)?);
            Ok(())
        })
    }
}
