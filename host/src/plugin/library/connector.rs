//! A connector of a loaded library.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::ffi::FFI_ArrowSchema;
use philotes_sdk::abi::{self, ErrorText, LentPartitions, Text, Validation};
use philotes_sdk::{Action, ActionOutput, Error, Plan, Result, StreamDescription, StreamPartition, TaskInfo};
use serde::de::DeserializeOwned;

use super::descriptor::CheckedConnector;
use super::host_table::{HostTable, Slot};
use super::instance::task_json;
use super::sink::{ForeignSink, SinkFunctions};
use super::source::{ForeignSource, SourceFunctions};
use crate::plugin::{Connector, Kind, Services, SinkInstance, SourceInstance};

pub(super) struct ForeignConnector {
    kind: Kind,
    name: String,
    version: String,
    doc: String,
    config_spec: serde_json::Value,
    actions: Vec<Action>,
    takes_dead_letters: bool,
    library: PathBuf,
    validation: Validation,
    source: Option<SourceFunctions>,
    sink: Option<SinkFunctions>,
    functions: Functions,
}

/// The connector's own functions, each optional.
struct Functions {
    validate: Option<abi::Validate>,
    check: Option<abi::Check>,
    tasks: Option<abi::Tasks>,
    streams: Option<abi::Streams>,
    plan: Option<abi::PlanFor>,
    act: Option<abi::Act>,
}

impl ForeignConnector {
    pub(super) fn new(checked: CheckedConnector, library: PathBuf, validation: Validation) -> Self {
        let functions = checked.functions;
        Self {
            kind: checked.kind,
            name: checked.name,
            version: checked.version,
            doc: checked.doc,
            config_spec: checked.config_spec,
            actions: checked.actions,
            takes_dead_letters: checked.kind == Kind::Sink && functions.flags & abi::CONNECTOR_DEAD_LETTERS != 0,
            library,
            validation,
            source: checked.source.as_ref().and_then(SourceFunctions::new),
            sink: checked.sink.as_ref().and_then(SinkFunctions::new),
            functions: Functions {
                validate: functions.validate,
                check: functions.check,
                tasks: functions.tasks,
                streams: functions.streams,
                plan: functions.plan,
                act: functions.act,
            },
        }
    }

    fn cannot(&self, what: &str) -> Error {
        Error::config(format!("{} cannot {what}", self.name))
    }
}

fn parse<T: DeserializeOwned>(json: &str, call: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|e| Error::internal(format!("{call} emitted what is not understood")).with_source(e))
}

impl Connector for ForeignConnector {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn doc(&self) -> &str {
        &self.doc
    }

    fn library(&self) -> &Path {
        &self.library
    }

    fn config_spec(&self) -> &serde_json::Value {
        &self.config_spec
    }

    fn actions(&self) -> &[Action] {
        &self.actions
    }

    fn takes_dead_letters(&self) -> bool {
        self.takes_dead_letters
    }

    fn validate(&self, config: &str) -> Result<Vec<String>> {
        let Some(validate) = self.functions.validate else { return Ok(Vec::new()) };
        let host = HostTable::for_call("");
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: everything lent lives through the call.
        let status = unsafe { validate(host.as_ptr(), Text::lend(config), slot.as_ptr(), &raw mut error) };
        error.result(status, "validate")?;
        slot.items()
    }

    fn check(&self, config: &str, task: &TaskInfo) -> Result<()> {
        let Some(check) = self.functions.check else { return Ok(()) };
        let (host, task) = (HostTable::for_call(&task.connector), task_json(task)?);
        let mut error = ErrorText::new();
        // SAFETY: everything lent lives through the call.
        let status = unsafe { check(host.as_ptr(), Text::lend(config), Text::lend(&task), &raw mut error) };
        error.result(status, "check")
    }

    fn tasks(&self, config: &str, max: u32) -> Result<u32> {
        let Some(tasks) = self.functions.tasks else { return Ok(1) };
        let host = HostTable::for_call("");
        let (mut count, mut error) = (0, ErrorText::new());
        // SAFETY: everything lent lives through the call.
        let status = unsafe { tasks(host.as_ptr(), Text::lend(config), max, &raw mut count, &raw mut error) };
        error.result(status, "tasks")?;
        if count == 0 || count > max.max(1) {
            return Err(Error::internal(format!("tasks returned {count}; 1 to {max} are allowed")));
        }
        Ok(count)
    }

    fn open_source(&self, config: &str, task: &TaskInfo, services: Services) -> Result<Box<dyn SourceInstance>> {
        let functions = self.source.ok_or_else(|| self.cannot("be a source"))?;
        Ok(Box::new(ForeignSource::open(functions, self.validation, config, task, services)?))
    }

    fn open_sink(&self, config: &str, task: &TaskInfo, services: Services) -> Result<Box<dyn SinkInstance>> {
        let functions = self.sink.ok_or_else(|| self.cannot("be a sink"))?;
        Ok(Box::new(ForeignSink::open(functions, config, task, services)?))
    }

    fn streams(&self, config: &str, task: &TaskInfo) -> Result<Vec<StreamDescription>> {
        let streams = self.functions.streams.ok_or_else(|| self.cannot("list its streams"))?;
        let (host, task) = (HostTable::for_call(&task.connector), task_json(task)?);
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: everything lent lives through the call.
        let status =
            unsafe { streams(host.as_ptr(), Text::lend(config), Text::lend(&task), slot.as_ptr(), &raw mut error) };
        error.result(status, "streams")?;
        slot.streams()
    }

    fn plan(&self, config: &str, task: &TaskInfo, at: &StreamPartition, schema: &SchemaRef) -> Result<Plan> {
        let plan = self.functions.plan.ok_or_else(|| self.cannot("plan"))?;
        let (host, task) = (HostTable::for_call(&task.connector), task_json(task)?);
        let schema = FFI_ArrowSchema::try_from(schema.as_ref())
            .map_err(|e| Error::internal(format!("the schema of {at} cannot be exported")).with_source(e))?;
        let at = LentPartitions::new(vec![at.clone()]);
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: everything lent lives through the call.
        let status = unsafe {
            plan(
                host.as_ptr(),
                Text::lend(config),
                Text::lend(&task),
                at.first(),
                &raw const schema,
                slot.as_ptr(),
                &raw mut error,
            )
        };
        error.result(status, "plan")?;
        parse(&slot.one("plan")?, "plan")
    }

    fn act(&self, config: &str, task: &TaskInfo, action: &str, arguments: &serde_json::Value) -> Result<ActionOutput> {
        let act = self.functions.act.ok_or_else(|| self.cannot("do actions"))?;
        let (host, task) = (HostTable::for_call(&task.connector), task_json(task)?);
        let arguments = arguments.to_string();
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: everything lent lives through the call.
        let status = unsafe {
            act(
                host.as_ptr(),
                Text::lend(config),
                Text::lend(&task),
                Text::lend(action),
                Text::lend(&arguments),
                slot.as_ptr(),
                &raw mut error,
            )
        };
        error.result(status, "act")?;
        parse(&slot.one("act")?, "act")
    }
}
