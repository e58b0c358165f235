//! `philotes plan`: what a sink would do for the streams that a source has.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use philotes_sdk::batch::Contract;
use philotes_sdk::{Error, Plan, Route, StreamDescription, TaskInfo};

use super::validate::plugin_fault;
use super::{Exit, Plugins, load_or_print, table};
use crate::config::{ConnectorConfig, Fault};
use crate::plugin::Kind;
use crate::printable::line;
use crate::run::single_task;
use crate::task::routing::Routing;

/// A stream and what its sink would do.
pub(super) struct Planned {
    stream: StreamDescription,
    plan: Plan,
}

/// So many names of streams are listed; more are counted.
const LISTED: usize = 10;

pub(super) fn plan(files: &[PathBuf], plugins: &dyn Plugins, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let Some(loaded) = load_or_print(files, plugins, out)? else { return Ok(Exit::Config) };
    let mut exit = Exit::Done;
    for connector in &loaded.connectors {
        let planned = planned(connector).and_then(|plans| match plans.is_empty() {
            true => why_none(connector).map(|why| (plans, Some(why))),
            false => Ok((plans, None)),
        });
        match planned {
            Ok((plans, why_none)) => {
                print(connector, &plans, out)?;
                if let Some(why) = why_none {
                    writeln!(out, "  no streams: {}", line(&why))?;
                }
                for fault in collisions(connector, &plans) {
                    writeln!(out, "{fault}")?;
                    exit = Exit::Config;
                }
            }
            Err((end, error)) => {
                writeln!(out, "{}", plugin_fault(connector, end, &error))?;
                if exit == Exit::Done {
                    exit = Exit::of(&error);
                }
            }
        }
    }
    Ok(exit)
}

/// Asks the source for its streams, and the sink what it would do for each that the route takes.
pub(super) fn planned(connector: &ConnectorConfig) -> Result<Vec<Planned>, (Kind, Error)> {
    let routing = Routing::new(connector.route.clone(), connector.rename.clone());
    let task = single_task(connector, Kind::Sink);
    let mut plans = Vec::new();
    for stream in streams(connector, &single_task(connector, Kind::Source))? {
        if !routing.wants(&stream.at.stream).map_err(|error| (Kind::Source, error))? {
            continue;
        }
        let at = routing.to_sink(&stream.at);
        let plan = connector.sink.connector.plan(&connector.sink.config, &task, &at, &stream.schema);
        let plan = plan.map_err(|error| (Kind::Sink, error.context(&stream.at.stream)))?;
        plans.push(Planned { stream, plan });
    }
    Ok(plans)
}

fn streams(connector: &ConnectorConfig, task: &TaskInfo) -> Result<Vec<StreamDescription>, (Kind, Error)> {
    let source = &connector.source;
    let streams = source.connector.streams(&source.config, task).map_err(|error| (Kind::Source, error))?;
    for stream in &streams {
        Contract::of_rows(&stream.at, &stream.schema).map_err(|error| (Kind::Source, error))?;
    }
    Ok(streams)
}

/// Why there is nothing to plan: the source has no stream, or the route leaves all of them out, which the source may have done itself.
fn why_none(connector: &ConnectorConfig) -> Result<String, (Kind, Error)> {
    let Route { include, exclude } = &connector.route;
    let source = connector.source.connector.name();
    let every = TaskInfo { route: Route::default(), ..single_task(connector, Kind::Source) };
    let all = if include.is_empty() && exclude.is_empty() { Vec::new() } else { streams(connector, &every)? };
    if all.is_empty() {
        return Ok(format!(
            "{source} finds none now, as its configuration stands: nothing is there to be read yet, or it looks in another place \
             than was meant. A stream appears once something of it can be read; `philotes action FILE source` lists what {source} \
             can say and do about it"
        ));
    }
    let mut names: Vec<String> = all.iter().map(|stream| stream.at.stream.to_string()).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.truncate(LISTED);
    let mut patterns = Vec::new();
    for (key, list) in [("route.include", include), ("route.exclude", exclude)] {
        if !list.is_empty() {
            patterns.push(format!("{key} is [{}]", list.join(", ")));
        }
    }
    Ok(format!("the route leaves out all that {source} has: {}{more}; {}", names.join(", "), patterns.join(", ")))
}

/// Streams that would share a table; compared without case, as catalogs fold it.
pub(super) fn collisions(connector: &ConnectorConfig, plans: &[Planned]) -> Vec<Fault> {
    let mut tables: BTreeMap<String, Vec<&Planned>> = BTreeMap::new();
    for planned in plans {
        tables.entry(planned.plan.table.to_lowercase()).or_default().push(planned);
    }
    let mut faults = Vec::new();
    for sharing in tables.values() {
        let mut streams: Vec<String> = sharing.iter().map(|planned| planned.stream.at.stream.to_string()).collect();
        streams.sort();
        streams.dedup();
        if streams.len() > 1 {
            faults.push(Fault {
                file: connector.file.clone(),
                path: "sink.table".to_owned(),
                found: format!("the streams {} all go to the table {}", streams.join(" and "), sharing[0].plan.table),
                allowed:
                    "one stream per table; tell them apart by the table's name, or leave streams out by route.exclude"
                        .to_owned(),
            });
        }
    }
    faults
}

fn print(connector: &ConnectorConfig, plans: &[Planned], out: &mut dyn Write) -> std::io::Result<()> {
    let (source, sink) = (connector.source.connector.name(), connector.sink.connector.name());
    writeln!(out, "{}: {source} to {sink}, {} streams", connector.name, plans.len())?;
    for Planned { stream, plan } in plans {
        let sampled = stream.sampled_rows.map_or(String::new(), |rows| format!(", sampled from {rows} rows"));
        let head = format!("{} -> {} ({}{sampled})", stream.at.stream, plan.table, plan.change);
        writeln!(out, "\n{}", line(&head))?;
        let rows: Vec<Vec<String>> = plan
            .columns
            .iter()
            .map(|column| {
                let inferred = if column.inferred { " (inferred)" } else { "" };
                vec![
                    column.name.clone(),
                    format!("{}{inferred}", column.source_type),
                    column.target_type.clone(),
                    if column.required { "required" } else { "optional" }.to_owned(),
                    column.change.clone(),
                ]
            })
            .collect();
        table::print(out, "  ", &["column", "source type", "target type", "", "change"], &rows)?;
        match plan.partition_by.is_empty() {
            true => writeln!(out, "  not partitioned")?,
            false => writeln!(out, "  partitioned by {}", line(&plan.partition_by.join(", ")))?,
        }
        for note in &plan.notes {
            writeln!(out, "  note: {}", line(note))?;
        }
    }
    Ok(())
}
