//! The static descriptor, built when the host first asks for it.

use std::panic::catch_unwind;
use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use super::{Plugin, connector, sink as sink_table, source as source_table};
use crate::abi::{
    self, ABI_MAJOR, ABI_MINOR, ARGUMENT_EXCLUSIVE, ARGUMENT_REQUIRED, KIND_SINK, KIND_SOURCE, MAGIC, POINTER_BITS,
    Sized32, Text,
};
use crate::{Action, Sink, Source};

/// A descriptor's address. What it points to is static and never written again.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor(*const abi::Plugin);

// SAFETY: everything behind the pointer is leaked and never written after `descriptor` has returned.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

/// The place of a plugin's descriptor.
#[derive(Debug, Default)]
pub struct Exported(OnceLock<Descriptor>);

impl Exported {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The descriptor, built on the first call; null where building it panics, which the host refuses.
    pub fn get(&self, build: fn() -> Descriptor) -> *const abi::Plugin {
        let null = Descriptor(std::ptr::null());
        self.0.get_or_init(|| catch_unwind(build).unwrap_or(null)).0
    }
}

/// Builds a plugin's descriptor.
#[must_use]
pub fn descriptor<P: Plugin>(connectors: Vec<&'static abi::Connector>) -> Descriptor {
    let (connectors, connector_count) = pointers(connectors);
    Descriptor(leak(abi::Plugin {
        magic: MAGIC,
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred bytes")]
        struct_size: size_of::<abi::Plugin>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        pointer_bits: POINTER_BITS,
        id: Text::lend(P::ID),
        version: Text::lend(P::VERSION),
        sdk: text(format!("{}{}", abi::SDK_PREFIX, env!("CARGO_PKG_VERSION"))),
        target: text(format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        connectors,
        connector_count,
        required_capability_count: 0,
        required_capabilities: std::ptr::null(),
    }))
}

/// A source's part of the descriptor.
#[must_use]
pub fn source<P: Plugin, S: Source>() -> &'static abi::Connector {
    let mut this = described::<P, S::Config>(KIND_SOURCE, S::NAME, S::DOC, S::actions());
    this.source = leak(source_table::table::<P, S>());
    this.validate = Some(connector::source::validate::<P, S>);
    this.check = Some(connector::source::check::<P, S>);
    this.tasks = Some(connector::tasks::<P, S>);
    this.streams = Some(connector::streams::<P, S>);
    this.act = Some(connector::source::act::<P, S>);
    leak(this)
}

/// A sink's part of the descriptor.
#[must_use]
pub fn sink<P: Plugin, S: Sink>() -> &'static abi::Connector {
    let mut this = described::<P, S::Config>(KIND_SINK, S::NAME, S::DOC, S::actions());
    this.sink = leak(sink_table::table::<P, S>());
    this.validate = Some(connector::sink::validate::<P, S>);
    this.check = Some(connector::sink::check::<P, S>);
    this.plan = Some(connector::plan::<P, S>);
    this.flags = if S::DEAD_LETTERS { abi::CONNECTOR_DEAD_LETTERS } else { 0 };
    this.act = Some(connector::sink::act::<P, S>);
    leak(this)
}

fn described<P: Plugin, C: JsonSchema>(
    kind: u32,
    name: &'static str,
    doc: &'static str,
    actions: Vec<Action>,
) -> abi::Connector {
    let mut this = abi::Connector::zeroed();
    this.kind = kind;
    this.name = Text::lend(name);
    this.version = Text::lend(P::VERSION);
    this.doc = Text::lend(doc);
    this.config_spec = text(config_spec::<C>());
    (this.actions, this.action_count) = pointers(actions.into_iter().map(action).collect());
    this
}

/// The JSON Schema without references: readers of the spec need not resolve any.
fn config_spec<C: JsonSchema>() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<C>().as_value().to_string()
}

fn action(action: Action) -> &'static abi::Action {
    let arguments = action.arguments.into_iter().map(|argument| {
        let mut this = abi::Argument::zeroed();
        this.flags = if argument.required { ARGUMENT_REQUIRED } else { 0 };
        this.flags |= if argument.exclusive { ARGUMENT_EXCLUSIVE } else { 0 };
        this.name = text(argument.name);
        this.doc = text(argument.doc);
        leak(this)
    });
    let mut this = abi::Action::zeroed();
    (this.arguments, this.argument_count) = pointers(arguments.collect());
    this.name = text(action.name);
    this.doc = text(action.doc);
    leak(this)
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn text(text: String) -> Text {
    Text::lend(text.leak())
}

/// A leaked array of pointers, and its length.
#[expect(clippy::cast_possible_truncation, reason = "a plugin has a handful of connectors and actions")]
fn pointers<T>(items: Vec<&'static T>) -> (*const *const T, u32) {
    let items: Vec<*const T> = items.into_iter().map(std::ptr::from_ref).collect();
    let items: &'static [*const T] = items.leak();
    (items.as_ptr(), items.len() as u32)
}
