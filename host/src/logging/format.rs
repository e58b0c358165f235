//! How an event is written: a line for people, or a JSON object for machines. Both are one line, whatever the event holds.
//!
//! A plugin's event arrives with its fields as one JSON object ([`plugin`]), because events of `tracing` have the fields of their place
//! in the code; here they become fields like the host's own.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use crate::printable::{is_hidden, line};

/// Names that a plugin's event has in the host's log: see `plugin::library::host_table`.
pub(crate) mod plugin {
    /// The target of all events of plugins.
    pub(crate) const TARGET: &str = "plugin";
    /// The field with the plugin's own target.
    pub(crate) const ITS_TARGET: &str = "plugin_target";
    /// The field with the event's fields, a JSON object.
    pub(crate) const FIELDS: &str = "fields";
}

pub(super) struct Format {
    pub(super) format: LogFormat,
    pub(super) colours: bool,
}

/// How the fields of spans are kept until an event is written: as JSON, whatever the format.
pub(super) fn span_fields() -> JsonFields {
    JsonFields::new()
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields { of_plugin: metadata.target() == plugin::TARGET, ..Fields::default() };
        event.record(&mut fields);
        let spans = context.event_scope().map(|scope| {
            let span = |span: tracing_subscriber::registry::SpanRef<'_, S>| {
                let fields = span.extensions().get::<FormattedFields<N>>().map(|fields| fields.fields.clone());
                (span.name(), serde_json::from_str(&fields.unwrap_or_default()).unwrap_or_default())
            };
            scope.from_root().map(span).collect()
        });
        let line =
            Line { level: *metadata.level(), target: metadata.target(), fields, spans: spans.unwrap_or_default() };
        match self.format {
            LogFormat::Text => line.text(writer, self.colours),
            LogFormat::Json => line.json(writer),
        }
    }
}

/// An event, taken apart.
struct Line<'a> {
    level: Level,
    target: &'a str,
    fields: Fields,
    spans: Vec<(&'static str, serde_json::Map<String, Value>)>,
}

impl Line<'_> {
    /// `time level span{key=value}: target: message key=value`.
    fn text(&self, mut to: Writer<'_>, colours: bool) -> fmt::Result {
        let (dim, level, plain) = match (colours, self.level) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
        };
        write!(to, "{dim}{}{plain} {level}{:>5}{plain} ", now(), self.level.as_str())?;
        for (name, fields) in &self.spans {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| pair(name, &Said::Value(value.clone()))).collect();
            match fields.is_empty() {
                true => write!(to, "{name}: ")?,
                false => write!(to, "{name}{{{}}}: ", fields.join(" "))?,
            }
        }
        write!(to, "{dim}{}:{plain} {}", line(self.target), line(&self.fields.message))?;
        for (name, said) in &self.fields.others {
            write!(to, " {}", pair(name, said))?;
        }
        writeln!(to)
    }

    /// `{"timestamp":…,"level":…,"fields":{"message":…,…},"target":…,"span":{…}}`.
    fn json(&self, mut to: Writer<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        // JSON escapes only some of what a terminal would obey. All of it can stand in strings alone.
        for c in json.chars() {
            match is_hidden(c) {
                true => write!(to, "\\u{:04x}", u32::from(c))?,
                false => to.write_char(c)?,
            }
        }
        writeln!(to)
    }
}

impl serde::Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("timestamp", &now())?;
        object.serialize_entry("level", self.level.as_str())?;
        object.serialize_entry("fields", &self.fields)?;
        object.serialize_entry("target", self.target)?;
        if let Some((name, fields)) = self.spans.last() {
            let mut span = fields.clone();
            span.insert("name".to_owned(), (*name).into());
            object.serialize_entry("span", &span)?;
        }
        object.end()
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `key=value`: texts in quotes, what has been formatted where it was logged as it is.
fn pair(name: &str, said: &Said) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    let name = if plain { name.to_owned() } else { quoted(name) };
    match said {
        Said::Text(text) | Said::Value(Value::String(text)) => format!("{name}={}", quoted(text)),
        Said::Formatted(text) => format!("{name}={}", line(text)),
        Said::Value(value) => format!("{name}={}", line(&value.to_string())),
    }
}

fn quoted(text: &str) -> String {
    line(&format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))).into_owned()
}

/// What a field holds.
enum Said {
    /// A text.
    Text(String),
    /// By `Display` or `Debug`, where it was logged.
    Formatted(String),
    /// A number, a truth, or what a plugin's JSON holds.
    Value(Value),
}

/// The fields of an event: the message, and the others in their order.
#[derive(Default)]
struct Fields {
    of_plugin: bool,
    message: String,
    others: Vec<(String, Said)>,
}

impl Fields {
    fn put(&mut self, field: &Field, said: Said) {
        match (field.name(), said) {
            ("message", Said::Text(text) | Said::Formatted(text)) => self.message = text,
            (plugin::FIELDS, Said::Text(json)) if self.of_plugin => self.unpack(json),
            (name, said) => self.others.push((name.strip_prefix("r#").unwrap_or(name).to_owned(), said)),
        }
    }

    /// A plugin's fields; those with names that the event has anyway keep apart from them.
    fn unpack(&mut self, json: String) {
        match serde_json::from_str(&json) {
            Ok(Value::Object(fields)) => self.others.extend(fields.into_iter().map(|(name, value)| match &*name {
                "message" | plugin::ITS_TARGET => (format!("fields.{name}"), Said::Value(value)),
                _ => (name, Said::Value(value)),
            })),
            _ => self.others.push((plugin::FIELDS.to_owned(), Said::Text(json))),
        }
    }
}

impl serde::Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("message", &self.message)?;
        for (name, said) in &self.others {
            match said {
                Said::Text(text) | Said::Formatted(text) => map.serialize_entry(name, text)?,
                Said::Value(value) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Said::Formatted(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Said::Text(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Said::Value(value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Said::Value(value.into()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Said::Value(value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Said::Value(value.into()));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is written of these events, without the time.
    fn written(format: LogFormat, events: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(span_fields())
            .event_format(Format { format, colours: false })
            .with_writer(captured.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("task", connector = "shop", task = 0_u32);
            span.in_scope(events);
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| match format {
                LogFormat::Text => line.split_once(' ').unwrap().1.to_owned(),
                LogFormat::Json => line.to_owned(),
            })
            .collect()
    }

    fn objects(events: impl FnOnce()) -> Vec<Value> {
        let lines = written(LogFormat::Json, events);
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn hosts_own() {
        let error = "cannot connect:\nrefused\x1b[31m";
        tracing::warn!(kind = "unavailable", attempts = 3, late = true, error = %error, key = ?"a\"b", "trying\r\nagain");
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        assert_eq!(
            written(LogFormat::Text, hosts_own),
            [" WARN task{connector=\"shop\" task=0}: philotes_host::logging::format::tests: trying\\r\\nagain \
              kind=\"unavailable\" attempts=3 late=true error=cannot connect:\\nrefused\\u{1b}[31m key=\"a\\\"b\""]
        );
    }

    #[test]
    fn an_event_is_one_object_of_json() {
        let objects = objects(hosts_own);
        let [event] = &objects[..] else { panic!("{objects:?}") };
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["target"], "philotes_host::logging::format::tests");
        assert_eq!(event["span"], serde_json::json!({"name": "task", "connector": "shop", "task": 0}));
        let fields = serde_json::json!({
            "message": "trying\r\nagain", "kind": "unavailable", "attempts": 3, "late": true,
            "error": "cannot connect:\nrefused\u{1b}[31m", "key": "\"a\\\"b\""
        });
        assert_eq!(event["fields"], fields);
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    fn of_a_plugin() {
        let fields =
            r#"{"stream":"public.\"a\nb\"","rows":7,"ok":true,"in":{"deep":[1,"\u001b"]},"message":"x","a b":null}"#;
        tracing::info!(target: plugin::TARGET, plugin_target = "mine", fields, "{}", "re\u{9b}ad");
    }

    #[test]
    fn a_plugins_fields_are_fields() {
        assert_eq!(
            written(LogFormat::Text, of_a_plugin),
            [" INFO task{connector=\"shop\" task=0}: plugin: re\\u{9b}ad plugin_target=\"mine\" \"a b\"=null \
              in={\"deep\":[1,\"\\u001b\"]} fields.message=\"x\" ok=true rows=7 stream=\"public.\\\"a\\nb\\\"\""]
        );
        let lines = written(LogFormat::Json, of_a_plugin);
        assert!(!lines[0].contains('\u{9b}') && lines[0].contains("re\\u009bad"), "{}", lines[0]);
        let event: Value = serde_json::from_str(&lines[0]).unwrap();
        let fields = serde_json::json!({
            "message": "re\u{9b}ad", "plugin_target": "mine", "stream": "public.\"a\nb\"", "rows": 7, "ok": true,
            "in": {"deep": [1, "\u{1b}"]}, "fields.message": "x", "a b": null
        });
        assert_eq!(event["fields"], fields);
    }

    #[test]
    fn fields_that_are_no_object_stay_a_text() {
        let events = objects(|| tracing::info!(target: plugin::TARGET, fields = "[1]", "said"));
        assert_eq!(events[0]["fields"], serde_json::json!({"message": "said", "fields": "[1]"}));
        // Of the host itself it is a field like others.
        let events = objects(|| tracing::info!(fields = "{\"a\":1}", "said"));
        assert_eq!(events[0]["fields"], serde_json::json!({"message": "said", "fields": "{\"a\":1}"}));
    }
}
