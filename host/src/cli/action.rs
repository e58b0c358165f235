//! `philotes action`: what plugins offer beside moving data.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use philotes_sdk::{Action, ActionArgument, ActionOutput};
use serde_json::{Map, Value};

use super::{Exit, Plugins, load_or_print, table};
use crate::config::{ConnectorConfig, Endpoint, nearest};
use crate::plugin::{Kind, Services, SourceInstance};
use crate::printable::{line, lines};
use crate::run::single_task;
use crate::status::end_name;

/// How long the source may take to let go after an action.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn action(
    file: &Path,
    end: Option<Kind>,
    name: Option<&str>,
    arguments: &[String],
    plugins: &dyn Plugins,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let Some(loaded) = load_or_print(&[PathBuf::from(file)], plugins, out)? else { return Ok(Exit::Config) };
    let [connector] = &loaded.connectors[..] else {
        writeln!(out, "{}: found {} connectors; allowed: the file of one", file.display(), loaded.connectors.len())?;
        return Ok(Exit::Config);
    };
    let (Some(end), Some(name)) = (end, name) else {
        for kind in [Kind::Source, Kind::Sink].into_iter().filter(|kind| end.is_none_or(|end| end == *kind)) {
            list(kind, endpoint(connector, kind), out)?;
        }
        return Ok(Exit::Done);
    };
    let plugin = endpoint(connector, end);
    let actions = plugin.connector.actions();
    let path = format!("{}: {} {name}", file.display(), end_name(end));
    let path = line(&path);
    let Some(action) = actions.iter().find(|action| action.name == name) else {
        let known: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
        let near = nearest(&known, name).map_or(String::new(), |near| format!(", did you mean {near}?"));
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        writeln!(out, "{path}: no such action of {}{near}; allowed: {known}", plugin.connector.name())?;
        return Ok(Exit::Config);
    };
    let arguments = match parse(action, arguments) {
        Ok(arguments) => arguments,
        Err(faults) => {
            for fault in faults {
                writeln!(out, "{path}: {}", line(&fault))?;
            }
            return Ok(Exit::Config);
        }
    };
    let held = match hold(connector, action, &arguments) {
        Ok(held) => held,
        Err(error) => {
            writeln!(out, "{path}: {}", line(&error.to_string()))?;
            return Ok(Exit::of(&error));
        }
    };
    let outcome = plugin.connector.act(&plugin.config, &single_task(connector, end), name, &arguments);
    if let Some(source) = held
        && let Err(error) = source.close(CLOSE_TIMEOUT)
    {
        tracing::warn!(%error, "closing the source failed");
    }
    match outcome {
        Ok(ActionOutput::Text(text)) => writeln!(out, "{}", lines(text.trim_end_matches('\n')))?,
        Ok(ActionOutput::Rows { columns, rows }) => {
            let head: Vec<&str> = columns.iter().map(String::as_str).collect();
            table::print(out, "", &head, &rows)?;
        }
        Err(error) => {
            writeln!(out, "{path}: {}", line(&error.to_string()))?;
            return Ok(Exit::of(&error));
        }
    }
    Ok(Exit::Done)
}

/// Takes hold of the connector's source where an argument wants the connector to be stopped: opening it takes its lock, where it
/// has one, and fences an instance that lost it without noticing.
fn hold(
    connector: &ConnectorConfig,
    action: &Action,
    arguments: &Value,
) -> philotes_sdk::Result<Option<Box<dyn SourceInstance>>> {
    let given = |argument: &&ActionArgument| argument.exclusive && arguments.get(&argument.name).is_some();
    let Some(argument) = action.arguments.iter().find(given) else { return Ok(None) };
    let source = &connector.source;
    let services = Services { span: tracing::Span::none(), connector: connector.name.clone(), status: None };
    let opened = source.connector.open_source(&source.config, &single_task(connector, Kind::Source), services);
    opened.map(Some).map_err(|error| {
        error.context(format!(
            "{}= wants the connector to be stopped, and its source cannot be held meanwhile; nothing was changed. If the \
             connector runs, stop it first",
            argument.name
        ))
    })
}

fn endpoint(connector: &ConnectorConfig, end: Kind) -> &Endpoint {
    match end {
        Kind::Source => &connector.source,
        Kind::Sink => &connector.sink,
    }
}

fn list(kind: Kind, endpoint: &Endpoint, out: &mut dyn Write) -> std::io::Result<()> {
    for action in endpoint.connector.actions() {
        writeln!(out, "{} {}", end_name(kind), signature(action))?;
        writeln!(out, "    {}", action.doc)?;
        for argument in &action.arguments {
            writeln!(out, "    {}: {}", argument.name, argument.doc)?;
        }
    }
    Ok(())
}

/// `capture table=… [drop=…]`
pub(super) fn signature(action: &Action) -> String {
    let mut text = action.name.clone();
    for argument in &action.arguments {
        match argument.required {
            true => text.push_str(&format!(" {}=…", argument.name)),
            false => text.push_str(&format!(" [{}=…]", argument.name)),
        }
    }
    text
}

/// `key=value` arguments as JSON, checked against the action's spec; all faults at once.
fn parse(action: &Action, arguments: &[String]) -> Result<Value, Vec<String>> {
    let known: Vec<&str> = action.arguments.iter().map(|argument| argument.name.as_str()).collect();
    let allowed = if known.is_empty() { "no arguments".to_owned() } else { known.join(", ") };
    let mut values = Map::new();
    let mut faults = Vec::new();
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else {
            faults.push(format!("found {argument:?}; allowed: key=value with {allowed}"));
            continue;
        };
        if !known.contains(&key) {
            let near = nearest(&known, key).map_or(String::new(), |near| format!(", did you mean {near}?"));
            faults.push(format!("{key}: unknown argument{near}; allowed: {allowed}"));
        } else if values.insert(key.to_owned(), Value::String(value.to_owned())).is_some() {
            faults.push(format!("{key}: given twice; allowed: once"));
        }
    }
    for argument in action.arguments.iter().filter(|argument| argument.required) {
        if !values.contains_key(&argument.name) {
            faults.push(format!("{}: missing; allowed: {}", argument.name, argument.doc));
        }
    }
    if faults.is_empty() { Ok(Value::Object(values)) } else { Err(faults) }
}
