use proptest::prelude::*;

use super::*;

/// Builds serde_json's value with the scanner alone, entering everything.
fn tree(scanner: &mut Scanner<'_>) -> Result<serde_json::Value, Fault> {
    match scanner.next_byte() {
        Some(b'{') => {
            scanner.open(b'{')?;
            let mut object = serde_json::Map::new();
            while let Some(entry) = scanner.entry(b"\"a\":")? {
                let key = match entry {
                    Entry::Expected => "a".to_owned(),
                    Entry::Other(key) => key.into_owned(),
                };
                object.insert(key, tree(scanner)?);
            }
            Ok(object.into())
        }
        Some(b'[') => {
            scanner.open(b'[')?;
            let mut array = Vec::new();
            while scanner.another()? {
                array.push(tree(scanner)?);
            }
            Ok(array.into())
        }
        _ => Ok(match scanner.value()? {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => truth.into(),
            number @ Value::Number(digits) => {
                assert_eq!(number.scalar()?.as_deref(), Some(digits));
                serde_json::from_str(digits).map_err(|_| text::NO_NUMBER)?
            }
            string => string.scalar()?.expect("a string").into_owned().into(),
        }),
    }
}

/// What the scanner makes of a text when it enters everything, and whether it takes it when it passes over everything.
fn scan(text: &str) -> (Option<serde_json::Value>, bool) {
    let mut entering = Scanner::new(text);
    let tree = tree(&mut entering).and_then(|tree| entering.end().map(|()| tree)).ok();
    let mut passing = Scanner::new(text);
    let passed = passing.value().is_ok() && passing.end().is_ok();
    (tree, passed)
}

fn agrees(text: &str) {
    let theirs = serde_json::from_str::<serde_json::Value>(text).ok();
    let (ours, passed) = scan(text);
    // A number beyond a double is one by the grammar, which serde_json's tree does not hold.
    let ours_without_far_numbers = theirs.is_none() && passed && text.contains(|c: char| c.is_ascii_digit());
    if ours_without_far_numbers {
        assert_eq!(ours, None, "{text}");
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(), "{text}");
        return;
    }
    assert_eq!(ours, theirs, "{text}");
    assert_eq!(passed, theirs.is_some(), "{text}");
}

#[test]
fn the_grammar_is_kept() {
    for text in [
        "",
        " ",
        "null",
        "nul",
        "nulll",
        "true false",
        "0",
        "-0",
        "-",
        "01",
        "1.",
        ".5",
        "1.5e",
        "1e+5",
        "1E-05",
        "1.2.3",
        "+1",
        "--1",
        "\"\"",
        "\"a",
        "\"\\\"",
        "\"\t\"",
        "\"\u{7f}\"",
        "\"\\u00e4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud83d\\ude00\"",
        "\"\\x\"",
        "[]",
        "[",
        "]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1,2]",
        "[[],[[]]]",
        "[1}",
        "{}",
        "{",
        "}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\" : 1 , \"b\" : [ ] }",
        "{\"a\":1,,\"b\":2}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1]",
        "{\"a\":{\"a\":[{}]}}",
        "[1]x",
        "[1] ",
        "\u{a0}1",
        "[\"\\\\\"]",
        "{\"a\\\"b\":1}",
        "1e400",
        "[1e400]",
        "{\"a\":tru}",
        "NaN",
        "[0x10]",
        "/**/1",
    ] {
        agrees(text);
    }
}

#[test]
fn every_truncation_is_refused() {
    let text = r#"{"id": -1.5e3, "a\"b": "x\\ \u00e4", "n": {"s": "}]\"", "l": [1, [], {}]}, "t":true,"f" : false, "z": null}"#;
    assert!(scan(text).0.is_some() && scan(text).1);
    for end in 0..text.len() {
        assert_eq!(scan(&text[..end]), (None, false), "{}", &text[..end]);
    }
}

#[test]
fn depth_has_a_limit_and_needs_no_stack() {
    for (depth, taken) in
        [(127, true), (128, true), (129, true), (300, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false)]
    {
        let mut text: String = (0..depth).map(|level| if level % 3 == 0 { "{\"k\":" } else { "[" }).collect();
        text.push('1');
        text.extend((0..depth).rev().map(|level| if level % 3 == 0 { '}' } else { ']' }));
        let mut scanner = Scanner::new(&text);
        assert_eq!(scanner.value().is_ok() && scanner.end().is_ok(), taken, "{depth}");
        // Two brackets of different kinds, changed for one another.
        if let Some(at) = text.find("]]}") {
            text.replace_range(at..at + 3, "]}]");
            assert!(Scanner::new(&text).value().is_err(), "{depth}");
        }
    }
}

#[test]
fn what_is_known_is_passed() {
    let mut scanner = Scanner::enter(r#"{"schema": {"a":[1]}, "payload": 7}"#, b'{').unwrap();
    assert_eq!(scanner.entry(b"").unwrap(), Some(Entry::Other("schema".into())));
    assert!(!scanner.pass("{\"a\":[2]}") && !scanner.pass(""));
    assert!(scanner.pass("{\"a\":[1]}"));
    assert_eq!(scanner.entry(b"\"payload\":").unwrap(), Some(Entry::Expected));
    assert_eq!(scanner.raw().unwrap(), "7");
    assert_eq!(scanner.entry(b"").unwrap(), None);
    scanner.end().unwrap();
}

#[test]
fn a_token_is_the_key_as_it_is_printed() {
    for name in ["id", "a\"b", "ä\\", "\n"] {
        let text = format!("{{{}1}}", String::from_utf8(token(name)).unwrap());
        let mut scanner = Scanner::enter(&text, b'{').unwrap();
        assert_eq!(scanner.entry(&token(name)).unwrap(), Some(Entry::Expected), "{name:?}");
        let mut scanner = Scanner::enter(&text, b'{').unwrap();
        assert_eq!(scanner.entry(b"").unwrap(), Some(Entry::Other(name.into())));
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn valid_texts_are_read_as_serde_reads_them(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        agrees(&text.unwrap());
    }

    /// Most of these are broken by one byte.
    #[test]
    fn changed_texts_are_judged_as_serde_judges_them(value in json(), at in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let mut text = serde_json::to_string(&value).unwrap().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(text) = std::str::from_utf8(&text) {
            agrees(text);
        }
    }

    #[test]
    fn any_text_is_judged_as_serde_judges_it(text in "[\\[\\]{}:,\"\\\\ 0-9eE+.tfnu-]{0,24}") {
        agrees(&text);
    }
}
