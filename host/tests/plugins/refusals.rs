//! Every refusal has a message of its own, which names what is wrong and what is allowed.

use std::path::PathBuf;

use philotes_host::plugin::{Kind, Library, Registry};

use crate::{built, library};

#[test]
fn every_unsound_library_is_refused_for_its_own_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("REFUSE_NO_SYMBOL", "is no Philotes Connect plugin: it does not export philotes_plugin_v1"),
        ("REFUSE_NULL_DESCRIPTOR", "philotes_plugin_v1 returned no descriptor"),
        ("REFUSE_MAGIC", "its descriptor begins with 0x5345544f4c494851 instead of 0x5345544f4c494850"),
        ("REFUSE_POINTER_BITS", "is built for 32-bit pointers; this host has 64-bit pointers"),
        ("REFUSE_MAJOR", "speaks ABI 1.1; this host speaks ABI 0.1"),
        ("REFUSE_MINOR", "speaks ABI 0.2; this host speaks ABI 0.1, and before 1.0 both must be the same"),
        ("REFUSE_STRUCT_SIZE", "the descriptor is 88 bytes long; ABI 0.1 needs at least 112"),
        ("REFUSE_NULL_FUNCTION", "refused: the required function poll is NULL"),
        ("REFUSE_TABLE_SIZE", "the function table of refused is 64 bytes long; ABI 0.1 needs at least 72"),
        ("REFUSE_NO_TABLE", "refused: the required function source is NULL"),
        ("REFUSE_KIND", "refused is of kind 3; there are 1 (source) and 2 (sink)"),
        ("REFUSE_CAPABILITY", "needs host capability two_phase (bit 3); this host speaks ABI 0.1"),
        ("REFUSE_UTF8", "a connector's name is no valid UTF-8"),
        ("REFUSE_CONNECTOR_NAME", "a connector's name is \"Refused_One\"; names match [a-z0-9-]{1,63}"),
        ("REFUSE_EMPTY_NAME", "a connector's name is \"\"; names match [a-z0-9-]{1,63}"),
        ("REFUSE_SPEC", "refused: the configuration spec is no JSON object: EOF while parsing"),
        ("REFUSE_SPEC_ARRAY", "refused: the configuration spec is no JSON object: it is another kind of value"),
        ("REFUSE_ACTION_TWICE", "offers the action again twice"),
        ("REFUSE_NULL_CONNECTORS", "connectors: 1 items, or NULL; 1 to 1024 are allowed"),
        ("REFUSE_NULL_CONNECTOR", "connectors: 1 items, or NULL; 1 to 1024 are allowed"),
        ("REFUSE_NO_CONNECTORS", "connectors: 0 items, or NULL; 1 to 1024 are allowed"),
    ];
    for (flag, expected) in cases {
        let path = library("refusals.c", &[&format!("-D{flag}")], dir.path(), &format!("{flag}.so"));
        let message = Library::load(&path).err().unwrap_or_else(|| panic!("{flag} was accepted")).to_string();
        assert!(message.starts_with(&format!("{flag}.so: {expected}")), "{message:?} should say {expected:?}");
    }
    let sound = library("refusals.c", &[], dir.path(), "sound.so");
    assert_eq!(Library::load(&sound).unwrap().id(), "refused");
}

#[test]
fn what_the_linker_cannot_load_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Library::load(&dir.path().join("missing.so")).err().unwrap().to_string();
    assert!(missing.starts_with("missing.so: cannot be loaded: No such file"), "{missing}");
    let text = dir.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    let message = Library::load(&text).err().unwrap().to_string();
    assert!(message.starts_with("text.so: cannot be loaded: ") && message.contains("text.so"), "{message}");
}

#[test]
fn the_registry_takes_the_first_and_tells_of_the_rest() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&first, &second] {
        std::fs::copy(built("philotes_probe"), dir.path().join("libprobe.so")).unwrap();
    }
    std::fs::write(second.path().join("broken.so"), "no library").unwrap();
    std::fs::write(second.path().join("README.txt"), "no plugin").unwrap();
    let missing = PathBuf::from("no/such/directory");
    let dirs = [missing, first.path().to_owned(), second.path().to_owned(), first.path().to_owned()];
    let registry = Registry::discover(&dirs);

    let found: Vec<_> = registry.connectors().map(|connector| (connector.kind(), connector.name())).collect();
    assert_eq!(found, [(Kind::Source, "probe"), (Kind::Sink, "probe")]);
    let source = registry.connector(Kind::Source, "probe").unwrap();
    assert_eq!(source.library(), first.path().canonicalize().unwrap().join("libprobe.so"));
    assert!(registry.connector(Kind::Sink, "other").is_none());
    // The same file found twice is no conflict; another file with the same connectors is.
    let shadowed: Vec<_> = registry.shadowed().iter().map(|s| (s.kind, s.name.as_str(), s.ignored.clone())).collect();
    let ignored = second.path().canonicalize().unwrap().join("libprobe.so");
    assert_eq!(shadowed, [(Kind::Source, "probe", ignored.clone()), (Kind::Sink, "probe", ignored)]);
    assert_eq!(registry.refused().len(), 1);
    assert!(registry.refused()[0].to_string().starts_with("broken.so: cannot be loaded"));
}
