//! What a connector file holds that nobody may read in a log: passwords, tokens, keys, connection strings.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

/// A secret of a configuration. It cannot be printed by accident: it has no `Display` and no `Serialize`, its `Debug`
/// says nothing, an error of its parsing does not quote what was found, and `writeOnly` in the configuration spec keeps
/// the host from printing it. [`expose`](Self::expose) is the one way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What it is, for whoever it is meant for. It belongs in no message, log, status or plan.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own error would quote what is no text, such as a password of digits only.
        String::deserialize(deserializer).map(Self).map_err(|_| D::Error::custom("a secret must be a text"))
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "writeOnly": true})
    }
}

/// A URL as it may be printed: without user, password, query and fragment, each of which may hold a secret. Also of a
/// text that is no URL, because someone may have mistyped one.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    // A password with an unescaped `?` or `#` in it, before the host: nothing behind it can be told apart.
    let end = if url[end..].contains('@') { url.len() } else { end };
    let (shown, hidden) = url.split_at(end);
    let (scheme, rest) = shown.find("://").map_or(("", shown), |at| shown.split_at(at + 3));
    let (redacted, rest) = rest.rfind('@').map_or(("", rest), |at| ("[redacted]@", &rest[at + 1..]));
    // Behind such a password the query is still there.
    let (rest, hidden) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, hidden),
    };
    let query = match hidden.chars().next() {
        None => "",
        Some('?') => "?[redacted]",
        Some(_) => "#[redacted]",
    };
    format!("{scheme}{redacted}{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    struct Config {
        /// Lets in.
        password: Secret,
        #[serde(default)]
        #[schemars(with = "Secret")]
        token: Option<Secret>,
    }

    #[test]
    fn a_secret_is_read_and_not_printed() {
        let config: Config = serde_json::from_str(r#"{"password": "hunter2", "token": "t0k3n"}"#).unwrap();
        assert_eq!(config.password.expose(), "hunter2");
        assert_eq!(config.token, Some(Secret::from("t0k3n")));
        let printed = format!("{config:?} {config:#?}");
        assert!(!printed.contains("hunter2") && !printed.contains("t0k3n"), "{printed}");
        for wrong in [r#"{"password": 4711}"#, r#"{"password": {"x": "4711"}}"#, r#"{"password": [4711]}"#] {
            let error = serde_json::from_str::<Config>(wrong).unwrap_err().to_string();
            assert!(error.contains("a secret must be a text") && !error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn the_spec_says_that_it_is_one() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let password = serde_json::json!({"type": "string", "writeOnly": true, "description": "Lets in."});
        assert_eq!(schema["properties"]["password"], password);
        assert_eq!(schema["properties"]["token"]["writeOnly"], true);
        assert!(schema.get("$defs").is_none(), "{schema:#}");
    }

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("http://host:8181/catalog", "http://host:8181/catalog"),
            ("https://user:s3cret@host/path", "https://[redacted]@host/path"),
            ("https://s3cret@host", "https://[redacted]@host"),
            ("https://u:s3cret@s3cret@host/a", "https://[redacted]@host/a"),
            ("https://u:s3c/ret@host/a", "https://[redacted]@host/a"),
            ("https://u:s3c?ret@host/a?token=s3cret", "https://[redacted]@host/a?[redacted]"),
            ("https://u:s3c#ret@host/a", "https://[redacted]@host/a"),
            ("https://host/sign?token=s3cret&x=y", "https://host/sign?[redacted]"),
            ("https://host/a#s3cret", "https://host/a#[redacted]"),
            ("user:s3cret@host", "[redacted]@host"),
            ("http:/user:s3cret@host", "[redacted]@host"),
            ("", ""),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_secrets(url), shown, "{url}");
        }
    }
}
