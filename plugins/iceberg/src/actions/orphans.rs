//! The action `orphans`: finds files in a table's folders that its metadata does not reach, and removes them.
//!
//! The order makes it safe against tasks of any age, paused ones included: what is old enough is listed; an empty snapshot
//! sets the fence (see `fence.rs`); what is in use is read from the metadata after that; and what was listed and is not in
//! use goes. Other programs know nothing of the fence: against them only the age protects.
//!
//! Whatever else lies in the folders is somebody's: only a file below the table's own location that bears a name which
//! Iceberg's writers give (`names.rs`) is ever removed. The others are listed, with the reason.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::StreamExt;
use futures::future::BoxFuture;
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use philotes_sdk::quantity;
use philotes_sdk::{Action, ActionOutput, Error, Result, StreamName, TaskContext};
use serde::Deserialize;

use super::{Switch, argument, names};
use crate::base::Base;
use crate::catalog::{self, Catalog, CatalogErrorKind, LoadedTable, Shown};
use crate::config::Config;
use crate::dead_letters;
use crate::error::from_iceberg;
use crate::expire;
use crate::fence;
use crate::lineage;
use crate::live::{Live, shows_its_history};
use crate::snapshot::{self, Changes};
use crate::storage::{Listed, normalised};
use crate::table::{self, ROUNDS};
use crate::template::Template;
use crate::token;

pub(super) const NAME: &str = "orphans";

/// As in Iceberg's own procedure.
const OLDER_THAN: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Files removed at a time.
const REMOVALS_AT_ONCE: usize = 16;

/// What it is and takes.
pub(super) fn action() -> Action {
    Action {
        name: NAME.into(),
        doc: "Lists the files of the connector's tables that nothing in the table's metadata reaches, each with whether remove=true would \
              remove it; with remove=true removes those, which makes a running task start over."
            .into(),
        arguments: vec![
            argument("stream", "Only this stream's table, as in public.orders; without it, the tables that hold offsets of the connector."),
            argument("table", "Only this table, as in cdc.public_orders."),
            argument(
                "older_than",
                "Only files that were written so long ago, as in 12h; 3d by default. It must be more than other programs that write to \
                 the table ever take from their first file to their commit.",
            ),
            argument(
                "remove",
                "true: remove what was found, where it lies below the table's own location and bears a name that Iceberg's writers give.",
            ),
        ],
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    stream: Option<String>,
    table: Option<String>,
    older_than: Option<String>,
    #[serde(default)]
    remove: Switch,
}

/// Does the action.
pub(super) async fn orphans(
    config: &Config,
    context: &TaskContext,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let arguments: Arguments =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of orphans").with_source(e))?;
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let remove = arguments.remove.on("remove")?;
    let older_than = match &arguments.older_than {
        None => OLDER_THAN,
        Some(text) => quantity::duration(text).ok_or_else(|| {
            Error::config(format!("older_than={text}: allowed is a number with ms, s, m, h or d, as in 3d"))
        })?,
    };
    let before = chrono::Duration::from_std(older_than)
        .ok()
        .and_then(|age| Utc::now().checked_sub_signed(age))
        .ok_or_else(|| Error::config("older_than: too long"))?;
    let Some(catalog) = catalog::open_existing(config).await? else {
        return Err(Error::config("catalog.uri: no catalog is there yet, so that there are no files either"));
    };
    let dead_letters = config.dead_letters_table().map_err(Error::config)?;
    let search = Search { catalog, connector: &context.info().connector, dead_letters, remove };
    let tables = match (arguments.stream, arguments.table) {
        (Some(_), Some(_)) => return Err(Error::config("stream= and table=: only one of them is allowed")),
        (Some(stream), None) => vec![template.table(&stream.parse::<StreamName>()?)?],
        (None, Some(table)) => vec![TableIdent::from_strs(table.split('.')).map_err(|e| {
            Error::config(format!("table={table}: no table's name, as in cdc.public_orders")).with_source(e)
        })?],
        (None, None) => search.own_tables(&template).await?,
    };
    let found = search.run(tables, before).await?;
    warn_of_kept(&found);
    let rows = found.into_iter().map(|(table, Orphan { file, kept })| {
        let modified = file.modified.to_rfc3339_opts(SecondsFormat::Secs, true);
        let verdict = kept.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
        vec![table.to_string(), file.location, file.bytes.to_string(), modified, verdict]
    });
    let rows = rows.collect();
    let columns = ["table", "file", "bytes", "modified", if remove { "removed" } else { "removable" }];
    Ok(ActionOutput::Rows { columns: columns.map(str::to_owned).to_vec(), rows })
}

/// A file that nothing reaches.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    pub(crate) file: Listed,
    /// Why it is never removed, if that is so.
    pub(crate) kept: Option<Kept>,
}

/// Why a file that nothing reaches is never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    Elsewhere,
    Name,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elsewhere => "it lies outside of the table's location",
            Self::Name => "its name is none that Iceberg's writers give",
        })
    }
}

/// Counts what stays, and says what can be done about it.
fn warn_of_kept(found: &[(TableIdent, Orphan)]) {
    let mut counts: BTreeMap<(String, Kept), (u64, u64)> = BTreeMap::new();
    for (table, Orphan { file, kept }) in found {
        if let Some(why) = kept {
            let (files, bytes) = counts.entry((table.to_string(), *why)).or_default();
            (*files, *bytes) = (*files + 1, *bytes + file.bytes);
        }
    }
    for ((table, why), (files, bytes)) in counts {
        tracing::warn!(
            table,
            files,
            bytes,
            "files that nothing in the table reaches are never removed by this action, because of each {why}; look whose they are, \
             and remove by hand what nobody needs"
        );
    }
}

/// What a table's metadata does not reach.
struct Orphans {
    files: Vec<Orphan>,
    live: Live,
    /// The table as it was then.
    of: LoadedTable,
}

/// A table of the catalog.
struct Neighbour {
    name: TableIdent,
    /// Where its files may lie.
    folders: Vec<String>,
    /// What it says of files with dead letters, which lie in another table's folder.
    intents: Vec<String>,
}

/// What is looked through, for whom, and whether what is found is removed.
pub(crate) struct Search<'a> {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) connector: &'a str,
    /// The connector's table of dead letters.
    pub(crate) dead_letters: TableIdent,
    pub(crate) remove: bool,
}

impl Search<'_> {
    /// Finds the orphans that were written before a moment, and removes them where that is wanted.
    pub(crate) async fn run(
        &self,
        tables: Vec<TableIdent>,
        before: DateTime<Utc>,
    ) -> Result<Vec<(TableIdent, Orphan)>> {
        // All that can be refused is, before anything is removed.
        let all = self.all_tables().await?;
        let mut found = Vec::new();
        for table in tables {
            let mut orphans = self.find(&table, &all).await?;
            orphans.files.retain(|orphan| orphan.file.modified <= before);
            found.push((table, orphans));
        }
        let mut files = Vec::new();
        for (table, orphans) in found {
            let orphans = if self.remove { self.remove(&table, orphans).await? } else { orphans.files };
            files.extend(orphans.into_iter().map(|file| (table.clone(), file)));
        }
        Ok(files)
    }

    /// The tables that hold offsets of the connector.
    async fn own_tables(&self, template: &Template) -> Result<Vec<TableIdent>> {
        let mut own = Vec::new();
        for table in super::tables(self.catalog.as_ref(), template).await? {
            let metadata = self.catalog.load_table(&table).await?.metadata;
            if !token::read_all(&metadata, self.connector)?.is_empty() {
                own.push(table);
            }
        }
        Ok(own)
    }

    async fn find(&self, table: &TableIdent, all: &[Neighbour]) -> Result<Orphans> {
        let loaded = self.catalog.load_table(table).await?;
        self.check(table, &loaded)?;
        let folders = folders(&loaded.metadata);
        check_alone(table, &folders, all)?;
        let mut files = Vec::new();
        for folder in &folders {
            let listed = loaded.files.list(folder).await;
            files.extend(listed.map_err(|e| from_iceberg(format!("table {table}: cannot list its files"), e))?);
        }
        let mut live = Live::default();
        live.mention(all.iter().flat_map(|other| other.intents.iter().cloned()));
        let of = live.reach(self.catalog.as_ref(), table).await?;
        expire::check_decided(table, &of).await?;
        files.retain(|file| !live.holds(&file.location));
        files.sort_by(|a, b| a.location.cmp(&b.location));
        let files = files.into_iter().map(|file| Orphan { kept: kept(&loaded, &file), file }).collect();
        Ok(Orphans { files, live, of })
    }

    /// Refuses a table of which it cannot be said what is in use, or where nothing may be removed.
    fn check(&self, table: &TableIdent, loaded: &LoadedTable) -> Result<()> {
        let metadata = &loaded.metadata;
        table::check_format(table, metadata)?;
        let refused = |reason: &str| Err(Error::config(format!("table {table}: {reason}. Nothing was removed")));
        if self.catalog.shown() == Shown::Current {
            return refused(
                "this catalog shows one snapshot of the table on one branch, and hides others that may be in use: what it does \
                 not show cannot be told from orphans; use the catalog's own garbage collection",
            );
        }
        if self.catalog.shown() == Shown::History && !shows_its_history(metadata) {
            return refused(
                "its history begins with a snapshot that is not the first: the table was replaced, or the catalog hides older \
                 snapshots, so that what they use cannot be told from orphans",
            );
        }
        if loaded.metadata_location.is_none() {
            return refused("the catalog does not say which file its metadata is in");
        }
        if !self.remove {
            return Ok(());
        }
        if *table == self.dead_letters || dead_letters::holds_letters(metadata) {
            return refused(
                "it holds dead letters, whose files may be named by commits of other tables that are still on their way. \
                 They are listed only",
            );
        }
        if !expire::gc_enabled(metadata) {
            return refused("its property gc.enabled says that its files may be in use elsewhere");
        }
        if loaded.files.keeps_files() {
            return refused("the catalog does not let its files be deleted (s3.delete-enabled)");
        }
        for (connector, at, token) in token::read_everyones(metadata)? {
            // A snapshot on top of it would hide what is wrong.
            if let Err(reason) = lineage::check(metadata, &token) {
                return refused(&format!("{reason}. Set the offset of connector {connector}, {at}, right first"));
            }
        }
        Ok(())
    }

    /// Every table of the catalog.
    async fn all_tables(&self) -> Result<Vec<Neighbour>> {
        let mut all = Vec::new();
        for namespace in self.catalog.list_namespaces().await? {
            for table in self.catalog.list_tables(&namespace).await? {
                let metadata = match self.catalog.load_table(&table).await {
                    Ok(loaded) => loaded.metadata,
                    // Dropped since it was listed.
                    Err(error) if error.kind() == CatalogErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                let mut folders = folders(&metadata);
                folders.push(normalised(metadata.location()));
                let intents = dead_letters::intents(&metadata).map(str::to_owned).collect();
                all.push(Neighbour { name: table, folders, intents });
            }
        }
        Ok(all)
    }

    /// Removes what is not in use after the fence; gives back what it removed, and what stays whatever it is.
    async fn remove(&self, table: &TableIdent, orphans: Orphans) -> Result<Vec<Orphan>> {
        let Orphans { files, mut live, of } = orphans;
        let (mut kept, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|orphan| orphan.kept.is_some());
        if files.is_empty() {
            return Ok(kept);
        }
        self.fence(table, &of).await?;
        let now = live.reach(self.catalog.as_ref(), table).await?;
        self.check_same(table, &of, &now)?;
        expire::check_decided(table, &now).await?;
        // Asked again of the table as it is now, whose location may have been changed.
        files.retain(|orphan| !live.holds(&orphan.file.location) && self::kept(&now, &orphan.file).is_none());
        let mut removals: Vec<BoxFuture<'_, iceberg::Result<Orphan>>> = Vec::new();
        for orphan in files {
            let io = &now.files.io;
            removals.push(Box::pin(async move { io.delete(&orphan.file.location).await.map(|()| orphan) }));
        }
        let results: Vec<_> = futures::stream::iter(removals).buffered(REMOVALS_AT_ONCE).collect().await;
        let (mut removed, mut failed) = (Vec::new(), None);
        for result in results {
            match result {
                Ok(orphan) => removed.push(orphan),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let bytes: u64 = removed.iter().map(|orphan| orphan.file.bytes).sum();
        tracing::info!(%table, files = removed.len(), bytes, "removed orphan files");
        match failed {
            None => {
                kept.extend(removed);
                kept.sort_by(|a, b| a.file.location.cmp(&b.file.location));
                Ok(kept)
            }
            Some(error) => Err(from_iceberg(
                format!("table {table}: {} orphan files were removed, others could not be", removed.len()),
                error,
            )),
        }
    }

    /// Sets the fence: from here on, no task commits a file that it wrote before.
    async fn fence(&self, table: &TableIdent, of: &LoadedTable) -> Result<()> {
        let mut last = None;
        for _ in 0..ROUNDS {
            let loaded = self.catalog.load_table(table).await?;
            self.check_same(table, of, &loaded)?;
            self.check(table, &loaded)?;
            let changes = Changes {
                connector: self.connector,
                files: &[],
                empties: false,
                offsets: &BTreeMap::new(),
                properties: &HashMap::new(),
                forget: &[],
            };
            let (mut request, attempt) = snapshot::propose(&mut Base::new(loaded), changes).await?;
            request.updates.push(fence::set(attempt.commit_id));
            match super::commit(self.catalog.as_ref(), table, request, &attempt, self.connector).await? {
                None => return Ok(()),
                Some(reason) => last = Some(reason),
            }
        }
        let error = Error::unavailable(format!("table {table} is changed by others all the time; nothing was removed"));
        Err(match last {
            Some(last) => error.with_source(last),
            None => error,
        })
    }

    fn check_same(&self, table: &TableIdent, before: &LoadedTable, now: &LoadedTable) -> Result<()> {
        if before.metadata.uuid() == now.metadata.uuid() {
            return Ok(());
        }
        Err(Error::unavailable(format!("table {table} was replaced meanwhile; nothing was removed, try again")))
    }
}

/// Why a file of a table's folders is never removed, if that is so.
fn kept(table: &LoadedTable, file: &Listed) -> Option<Kept> {
    let location = normalised(table.metadata.location());
    let below = normalised(&file.location).strip_prefix(location.as_str()).is_some_and(|rest| rest.starts_with('/'));
    if !below || !table.files.lies_below(&file.location, &location) {
        return Some(Kept::Elsewhere);
    }
    (!names::is_a_writers(&file.location)).then_some(Kept::Name)
}

/// Where a table's files lie, no folder within another.
fn folders(metadata: &TableMetadata) -> Vec<String> {
    let location = metadata.location().trim_end_matches('/');
    // The sink and some catalogs write below the location whatever the properties say.
    let chosen =
        ["write.data.path", "write.metadata.path"].into_iter().filter_map(|name| metadata.properties().get(name));
    let all = [format!("{location}/data"), format!("{location}/metadata")].into_iter().chain(chosen.cloned());
    let mut folders: Vec<String> = Vec::new();
    for folder in all.map(|folder| normalised(&folder)) {
        if folders.iter().any(|taken| is_within(&folder, taken)) {
            continue;
        }
        folders.retain(|taken| !is_within(taken, &folder));
        folders.push(folder);
    }
    folders
}

/// Refuses a table whose folders are another table's as well: a folder that was chosen, or one that a table kept when it was
/// renamed, before its name was given to a new one.
fn check_alone(table: &TableIdent, folders: &[String], all: &[Neighbour]) -> Result<()> {
    for other in all.iter().filter(|other| other.name != *table) {
        let shared = |mine: &str| other.folders.iter().any(|its| is_within(mine, its) || is_within(its, mine));
        if let Some(folder) = folders.iter().find(|folder| shared(folder)) {
            let other = &other.name;
            return Err(Error::config(format!(
                "table {table}: its folder {folder} is table {other}'s as well, so that its files cannot be told from \
                 orphans. Nothing was removed"
            )));
        }
    }
    Ok(())
}

/// Whether one normalised location is the other or below it.
fn is_within(one: &str, other: &str) -> bool {
    one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
