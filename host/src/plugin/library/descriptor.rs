//! The descriptor of a library, read once and checked field by field.

use std::mem::offset_of;

use philotes_sdk::abi::{
    self, ABI_MAJOR, ABI_MINOR, CAPABILITIES, KIND_SINK, KIND_SOURCE, MAGIC, POINTER_BITS, SinkTable, Sized32,
    SourceTable, Text,
};
use philotes_sdk::export::{is_action_name, is_name};
use philotes_sdk::{Action, ActionArgument};

use crate::plugin::Kind;

/// More connectors, actions or arguments than any plugin has: a count beyond it is garbage.
const MAX_ITEMS: u32 = 1024;

/// Why a library is no plugin for this host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The dynamic linker's reason.
    #[error("cannot be loaded: {0}")]
    Open(String),
    /// Not a plugin at all.
    #[error("is no Philotes Connect plugin: it does not export {symbol}", symbol = abi::SYMBOL)]
    NoSymbol,
    /// Building it failed inside the plugin.
    #[error("{symbol} returned no descriptor", symbol = abi::SYMBOL)]
    NoDescriptor,
    /// Damaged, or something else under this name.
    #[error("its descriptor begins with {0:#018x} instead of {magic:#018x}", magic = MAGIC)]
    Magic(u64),
    /// Another machine's layout.
    #[error("is built for {0}-bit pointers; this host has {POINTER_BITS}-bit pointers")]
    PointerBits(u32),
    /// An incompatible ABI.
    #[error("speaks ABI {0}.{1}; this host speaks ABI {ABI_MAJOR}.{ABI_MINOR}")]
    Major(u32, u32),
    /// A newer or older ABI while it may still change.
    #[error(
        "speaks ABI {ABI_MAJOR}.{0}; this host speaks ABI {ABI_MAJOR}.{ABI_MINOR}, and before 1.0 both must be the same"
    )]
    Minor(u32),
    /// A struct that lacks required fields.
    #[error("{what} is {found} bytes long; ABI {ABI_MAJOR}.{ABI_MINOR} needs at least {needed}")]
    StructSize {
        /// Which struct.
        what: String,
        /// Its `struct_size`.
        found: u32,
        /// The least that is allowed.
        needed: u32,
    },
    /// A function that every connector must have.
    #[error("{connector}: the required function {function} is NULL")]
    Function {
        /// Whose.
        connector: String,
        /// Which.
        function: &'static str,
    },
    /// A host that can do more is needed.
    #[error("needs host capability {name} (bit {bit}); this host speaks ABI {ABI_MAJOR}.{ABI_MINOR}")]
    Capability {
        /// As the plugin calls it.
        name: String,
        /// Its number.
        bit: u32,
    },
    /// A text that is none.
    #[error("{0} is no valid UTF-8")]
    Utf8(String),
    /// A name that cannot be written in a connector file.
    #[error("{what} is {name:?}; names match [a-z0-9-]{{1,63}}")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An action that cannot be named on a command line.
    #[error("an action's name is {0:?}; names of actions match [a-z0-9_-]{{1,63}}")]
    ActionName(String),
    /// Neither source nor sink.
    #[error("{connector} is of kind {kind}; there are 1 (source) and 2 (sink)")]
    Kind {
        /// Which.
        connector: String,
        /// Its kind.
        kind: u32,
    },
    /// A spec that nothing can be checked against.
    #[error("{connector}: the configuration spec is no JSON object: {reason}")]
    Spec {
        /// Whose.
        connector: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An array that is missing or absurd.
    #[error("{what}: {count} items, or NULL; {least} to {MAX_ITEMS} are allowed")]
    Items {
        /// Which array.
        what: String,
        /// Its length.
        count: u32,
        /// The least that is allowed.
        least: u32,
    },
    /// Two connectors that YAML could not tell apart.
    #[error("offers the {0} {1} twice")]
    Twice(&'static str, String),
}

type Result<T> = std::result::Result<T, Refusal>;

/// A descriptor that fits, in the host's own memory.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) sdk: String,
    pub(super) target: String,
    pub(super) connectors: Vec<CheckedConnector>,
}

/// A connector that fits.
#[derive(Debug)]
pub(super) struct CheckedConnector {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) doc: String,
    pub(super) config_spec: serde_json::Value,
    pub(super) actions: Vec<Action>,
    pub(super) functions: abi::Connector,
    pub(super) source: Option<SourceTable>,
    pub(super) sink: Option<SinkTable>,
}

impl Checked {
    /// Checks a descriptor.
    ///
    /// # Safety
    /// `descriptor` is null or points to memory of at least the frozen first fields; if those are right, it is a
    /// descriptor of the ABI, static with all that it points to.
    pub(super) unsafe fn read(descriptor: *const abi::Plugin) -> Result<Self> {
        if descriptor.is_null() {
            return Err(Refusal::NoDescriptor);
        }
        // SAFETY: the caller warrants the frozen fields.
        let (magic, size, major, minor, bits) = unsafe {
            (
                (*descriptor).magic,
                (*descriptor).struct_size,
                (*descriptor).abi_major,
                (*descriptor).abi_minor,
                (*descriptor).pointer_bits,
            )
        };
        if magic != MAGIC {
            return Err(Refusal::Magic(magic));
        }
        if bits != POINTER_BITS {
            return Err(Refusal::PointerBits(bits));
        }
        if major != ABI_MAJOR {
            return Err(Refusal::Major(major, minor));
        }
        // Until 1.0 a minor version may change anything.
        if ABI_MAJOR == 0 && minor != ABI_MINOR {
            return Err(Refusal::Minor(minor));
        }
        at_least("the descriptor", size, size_of::<abi::Plugin>())?;
        // SAFETY: all fields are there, and the caller warrants what they point to.
        unsafe {
            let plugin = &*descriptor;
            // First: a plugin that needs more than this host may look different in all that follows.
            for capability in items(plugin.required_capabilities, plugin.required_capability_count, 0, "capabilities")?
            {
                let capability = abi::Capability::read(*capability);
                if !CAPABILITIES.iter().any(|(bit, _)| *bit == capability.bit) {
                    let name = text(capability.name, || "a capability's name".into())?;
                    return Err(Refusal::Capability { name, bit: capability.bit });
                }
            }
            let id = name(plugin.id, "the plugin's id")?;
            let mut connectors: Vec<CheckedConnector> = Vec::new();
            for connector in items(plugin.connectors, plugin.connector_count, 1, "connectors")? {
                let connector = CheckedConnector::read(*connector)?;
                if connectors.iter().any(|c| c.kind == connector.kind && c.name == connector.name) {
                    return Err(Refusal::Twice(noun(connector.kind), connector.name));
                }
                connectors.push(connector);
            }
            Ok(Self {
                id,
                version: text(plugin.version, || "the plugin's version".into())?,
                sdk: text(plugin.sdk, || "the plugin's sdk".into())?,
                target: text(plugin.target, || "the plugin's target".into())?,
                connectors,
            })
        }
    }
}

impl CheckedConnector {
    /// # Safety
    /// `connector` points to a connector of the ABI, static with all that it points to.
    unsafe fn read(connector: *const abi::Connector) -> Result<Self> {
        // SAFETY: the caller warrants it.
        let raw = unsafe { abi::Connector::read(connector) };
        at_least("a connector", raw.struct_size, offset_of!(abi::Connector, actions))?;
        // SAFETY: as above.
        unsafe {
            let name = name(raw.name, "a connector's name")?;
            let of = |what: &str| format!("{what} of {name}");
            let (mut source, mut sink) = (None, None);
            let kind = match raw.kind {
                KIND_SOURCE => {
                    source = Some(source_table(&name, raw.source)?);
                    Kind::Source
                }
                KIND_SINK => {
                    sink = Some(sink_table(&name, raw.sink)?);
                    Kind::Sink
                }
                kind => return Err(Refusal::Kind { connector: name, kind }),
            };
            let spec = text(raw.config_spec, || of("the configuration spec"))?;
            let spec_error = |reason: String| Refusal::Spec { connector: name.clone(), reason };
            let config_spec: serde_json::Value = serde_json::from_str(&spec).map_err(|e| spec_error(e.to_string()))?;
            if !config_spec.is_object() {
                return Err(spec_error("it is another kind of value".into()));
            }
            let mut actions = Vec::new();
            for action in items(raw.actions, raw.action_count, 0, &of("actions"))? {
                let action = read_action(*action, &name)?;
                if actions.iter().any(|other: &Action| other.name == action.name) {
                    return Err(Refusal::Twice("action", action.name));
                }
                actions.push(action);
            }
            Ok(Self {
                kind,
                version: text(raw.version, || of("the version"))?,
                doc: text(raw.doc, || of("the documentation"))?,
                name,
                config_spec,
                actions,
                functions: raw,
                source,
                sink,
            })
        }
    }
}

/// # Safety
/// `table` is null or points to a table of the ABI.
unsafe fn source_table(connector: &str, table: *const SourceTable) -> Result<SourceTable> {
    if table.is_null() {
        return Err(Refusal::Function { connector: connector.to_owned(), function: "source" });
    }
    // SAFETY: not null, and the caller warrants the rest.
    let table = unsafe { SourceTable::read(table) };
    at_least(&format!("the function table of {connector}"), table.struct_size, size_of::<SourceTable>())?;
    let missing = [
        ("create", table.create.is_none()),
        ("open", table.open.is_none()),
        ("poll", table.poll.is_none()),
        ("resume", table.resume.is_none()),
        ("commit", table.commit.is_none()),
        ("cancel", table.cancel.is_none()),
        ("close", table.close.is_none()),
        ("destroy", table.destroy.is_none()),
    ];
    required(connector, &missing)?;
    Ok(table)
}

/// # Safety
/// `table` is null or points to a table of the ABI.
unsafe fn sink_table(connector: &str, table: *const SinkTable) -> Result<SinkTable> {
    if table.is_null() {
        return Err(Refusal::Function { connector: connector.to_owned(), function: "sink" });
    }
    // SAFETY: not null, and the caller warrants the rest.
    let table = unsafe { SinkTable::read(table) };
    at_least(&format!("the function table of {connector}"), table.struct_size, offset_of!(SinkTable, revoke))?;
    let missing = [
        ("create", table.create.is_none()),
        ("open", table.open.is_none()),
        ("offsets", table.offsets.is_none()),
        ("write", table.write.is_none()),
        ("flush", table.flush.is_none()),
        ("buffered_bytes", table.buffered_bytes.is_none()),
        ("cancel", table.cancel.is_none()),
        ("close", table.close.is_none()),
        ("destroy", table.destroy.is_none()),
    ];
    required(connector, &missing)?;
    Ok(table)
}

fn required(connector: &str, missing: &[(&'static str, bool)]) -> Result<()> {
    match missing.iter().find(|(_, missing)| *missing) {
        Some((function, _)) => Err(Refusal::Function { connector: connector.to_owned(), function }),
        None => Ok(()),
    }
}

/// # Safety
/// `action` points to an action of the ABI.
unsafe fn read_action(action: *const abi::Action, connector: &str) -> Result<Action> {
    // SAFETY: the caller warrants it, and what it points to.
    unsafe {
        let raw = abi::Action::read(action);
        at_least(&format!("an action of {connector}"), raw.struct_size, size_of::<abi::Action>())?;
        let name = text(raw.name, || "an action's name".into())?;
        if !is_action_name(&name) {
            return Err(Refusal::ActionName(name));
        }
        let mut arguments = Vec::new();
        let what = format!("arguments of the action {name} of {connector}");
        for argument in items(raw.arguments, raw.argument_count, 0, &what)? {
            let raw = abi::Argument::read(*argument);
            at_least(&what, raw.struct_size, size_of::<abi::Argument>())?;
            arguments.push(ActionArgument {
                name: text(raw.name, || what.clone())?,
                doc: text(raw.doc, || what.clone())?,
                required: raw.flags & abi::ARGUMENT_REQUIRED != 0,
                exclusive: raw.flags & abi::ARGUMENT_EXCLUSIVE != 0,
            });
        }
        let doc = text(raw.doc, || format!("the documentation of the action {name} of {connector}"))?;
        Ok(Action { name, doc, arguments })
    }
}

/// # Safety
/// `items` is null or points to `count` pointers.
unsafe fn items<'a, T>(items: *const *const T, count: u32, least: u32, what: &str) -> Result<&'a [*const T]> {
    let wrong = || Refusal::Items { what: what.to_owned(), count, least };
    if !(least..=MAX_ITEMS).contains(&count) || (items.is_null() && count > 0) {
        return Err(wrong());
    }
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, and the caller warrants the count.
    let items = unsafe { std::slice::from_raw_parts(items, count as usize) };
    if items.iter().any(|item| item.is_null()) { Err(wrong()) } else { Ok(items) }
}

/// # Safety
/// As [`Text::get`].
unsafe fn text(text: Text, what: impl FnOnce() -> String) -> Result<String> {
    // SAFETY: the caller warrants it.
    unsafe { text.get() }.map(str::to_owned).ok_or_else(|| Refusal::Utf8(what()))
}

/// # Safety
/// As [`Text::get`].
unsafe fn name(name: Text, what: &'static str) -> Result<String> {
    // SAFETY: the caller warrants it.
    let name = unsafe { text(name, || what.to_owned()) }?;
    if is_name(&name) { Ok(name) } else { Err(Refusal::Name { what, name }) }
}

fn at_least(what: &str, found: u32, needed: usize) -> Result<()> {
    if (found as usize) < needed {
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        return Err(Refusal::StructSize { what: what.to_owned(), found, needed });
    }
    Ok(())
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Sink => "sink",
    }
}
