//! What the sink offers beside moving data.

mod offsets;

use philotes_sdk::{Action, ActionOutput, Error, Result, TaskContext};

use crate::config::Config;

/// What there is.
pub(crate) fn list() -> Vec<Action> {
    vec![offsets::action()]
}

/// Does one of them.
pub(crate) async fn act(
    config: &Config,
    context: &TaskContext,
    action: &str,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    match action {
        offsets::NAME => offsets::offsets(config, context, arguments).await,
        other => {
            let known: Vec<String> = list().into_iter().map(|action| action.name).collect();
            Err(Error::config(format!("no action {other:?}; allowed: {}", known.join(", "))))
        }
    }
}
