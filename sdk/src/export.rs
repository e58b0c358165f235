//! The plugin's side of the ABI: [`export_plugin!`](crate::export_plugin) and what it expands to.
//!
//! Plugin authors need the macro only. Each C function is a shim that runs the trait's method to its end on the instance's
//! own runtime, turns a panic into an error and keeps the host's pointers no longer than the ABI allows. It decides nothing
//! about delivery; that is the traits' contract.

mod connector;
mod descriptor;
mod events;
mod host;
mod instance;
mod sink;
mod source;

pub use descriptor::{Descriptor, Exported, descriptor, sink, source};

/// What [`export_plugin!`](crate::export_plugin) says about a plugin as a whole.
pub trait Plugin: 'static {
    /// The plugin's name, `[a-z0-9-]{1,63}`.
    const ID: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// Worker threads of each instance's runtime, beside the host's thread that calls. At least one, so that connections
    /// stay alive while the host is not calling.
    const WORKER_THREADS: usize = 1;
}

/// Whether a text can name a plugin or a connector: `[a-z0-9-]{1,63}`.
#[must_use]
pub const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        index += 1;
    }
    index >= 1 && index <= 63
}

/// Whether a text can name an action: `[a-z0-9_-]{1,63}`.
#[must_use]
pub fn is_action_name(name: &str) -> bool {
    is_name(&name.replace('_', "-"))
}

/// Exports a plugin: its sources and its sinks, under one id.
///
/// Once per crate, which is a `cdylib`. `worker_threads: N` at the end gives each instance's runtime more than one worker
/// thread. A plugin cannot be compiled with `panic = "abort"`: its panic would end the host.
///
/// `export_plugin! { id: "shop", sources: [Orders], sinks: [Ledger] }`; the crate's page has whole plugins.
#[macro_export]
macro_rules! export_plugin {
    (
        id: $id:literal
        $(, sources: [$($source:ty),* $(,)?])?
        $(, sinks: [$($sink:ty),* $(,)?])?
        $(, worker_threads: $workers:expr)?
        $(,)?
    ) => {
        const _: () = {
            #[cfg(panic = "abort")]
            compile_error!("a Philotes Connect plugin needs panic = \"unwind\": an abort would end the host");

            struct ExportedPlugin;
            impl $crate::export::Plugin for ExportedPlugin {
                const ID: &'static str = $id;
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                $(const WORKER_THREADS: usize = $workers;)?
            }
            assert!($crate::export::is_name($id), "a plugin's id matches [a-z0-9-]{{1,63}}");
            $($(assert!(
                $crate::export::is_name(<$source as $crate::Source>::NAME),
                "a source's NAME matches [a-z0-9-]{{1,63}}"
            );)*)?
            $($(assert!(
                $crate::export::is_name(<$sink as $crate::Sink>::NAME),
                "a sink's NAME matches [a-z0-9-]{{1,63}}"
            );)*)?

            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn philotes_plugin_v1() -> *const $crate::abi::Plugin {
                static EXPORTED: $crate::export::Exported = $crate::export::Exported::new();
                EXPORTED.get(|| {
                    $crate::export::descriptor::<ExportedPlugin>(vec![
                        $($($crate::export::source::<ExportedPlugin, $source>(),)*)?
                        $($($crate::export::sink::<ExportedPlugin, $sink>(),)*)?
                    ])
                })
            }
        };
    };
}

#[cfg(test)]
mod boundary_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "postgres-buffer", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_action_name("dead_letters") && is_action_name("init") && !is_action_name("Init"));
    }
}
