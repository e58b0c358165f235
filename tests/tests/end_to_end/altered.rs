//! Random tables that are altered at random while their rows are on the way: the lake follows, and every cell is right.
//!
//! `make types SECONDS=900` goes on for longer. What fails is shrunk to the smallest that still does, and its seed kept in
//! `proptest-regressions`, to be tried first from then on.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_same;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{READERS, Reader};
use philotes_tests::services::postgres::Postgres;
use philotes_tests::source_table::{SourceTable, literal, quoted};
use philotes_tests::sql::Session;
use philotes_tests::torture::{COLUMNS, Column, TIMES, prepare};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};

/// How long it goes on in `make test`.
const SECONDS: u64 = 20;
/// What is added to a column's number to make its name.
const NAMES: [&str; 10] =
    ["c", "a.b", "Größe", "with \"quotes\" ", "UPPER", "🦀", "select", " space", "it's \\", "tab\t and line\n"];

/// A table, and what becomes of it.
#[derive(Clone)]
struct Case {
    seed: u16,
    columns: Vec<usize>,
    steps: Vec<Step>,
    /// The host runs all the while; else it is started at each commit.
    live: bool,
    /// Columns that are gone from the source go from the lake's table, too.
    drop: bool,
}

impl fmt::Debug for Case {
    /// In one line, with the types' names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, columns, steps, live, drop } = self;
        let called = |number: &usize| match number % 16 {
            0 => "row[]".to_owned(),
            1 => "row".to_owned(),
            _ => Type::choose(number / 16).name,
        };
        let columns: Vec<String> = columns.iter().map(called).collect();
        let steps = format!("{steps:?}");
        write!(f, "seed {seed}, live {live}, drop {drop}, columns {}, steps {steps}", columns.join(", "))
    }
}

/// One thing that is done. Numbers choose among the columns that there are.
#[derive(Clone, Debug)]
enum Step {
    Insert(u8),
    Update,
    MoveKey,
    Delete,
    Commit,
    Add(usize),
    Drop(usize),
    /// The new column takes the name of the old one.
    Replace(usize, usize),
    Rename(usize),
    Swap(usize, usize),
    Widen(usize),
    SetNotNull(usize),
    DropNotNull(usize),
    Comment(usize),
    /// The composite type of the case gets one more attribute.
    AddAttribute(usize),
}

fn cases() -> impl Strategy<Value = Case> {
    let one = any::<usize>;
    let step = prop_oneof![
        6 => (1..40_u8).prop_map(Step::Insert),
        3 => Just(Step::Update),
        1 => Just(Step::MoveKey),
        1 => Just(Step::Delete),
        2 => Just(Step::Commit),
        3 => one().prop_map(Step::Add),
        2 => one().prop_map(Step::Drop),
        1 => (one(), one()).prop_map(|(column, kind)| Step::Replace(column, kind)),
        2 => one().prop_map(Step::Rename),
        1 => (one(), one()).prop_map(|(one, other)| Step::Swap(one, other)),
        4 => one().prop_map(Step::Widen),
        1 => one().prop_map(Step::SetNotNull),
        1 => one().prop_map(Step::DropNotNull),
        1 => one().prop_map(Step::Comment),
        1 => one().prop_map(Step::AddAttribute),
    ];
    (any::<u16>(), vec(one(), 1..12), vec(step, 1..24), any::<bool>(), any::<bool>())
        .prop_map(|(seed, columns, steps, live, drop)| Case { seed, columns, steps, live, drop })
}

/// Stands in an expression for a row of the case's composite type.
const ROW: &str = "$row";

/// A type that a column can have, and how its values are drawn.
#[derive(Clone, Debug)]
struct Type {
    name: String,
    draw: String,
}

impl Type {
    /// Those that can be widened come up as often as all others.
    fn choose(number: usize) -> Self {
        const WIDENED: [&str; 10] = [
            "smallint",
            "integer",
            "real",
            "numeric(10,2)",
            "character varying(80)",
            "numeric(1)",
            "integer[]",
            "real[]",
            "numeric(10,3)[]",
            "smallint[]",
        ];
        let all: Vec<&Column> = COLUMNS
            .iter()
            .chain(TIMES)
            .filter(|of| !of.is_generated() && of.draw != "null" && of.name() == of.type_name)
            .collect();
        let column = match number % 2 {
            0 => all[number / 2 % all.len()],
            _ => all.iter().find(|of| of.type_name == WIDENED[number / 2 % WIDENED.len()]).unwrap_or(&all[0]),
        };
        Self { name: column.type_name.to_owned(), draw: column.draw.to_owned() }
    }

    /// A wider one that Iceberg follows to.
    fn wider(&self) -> Option<Self> {
        let element = self.name.strip_suffix("[]");
        let name = match element.unwrap_or(&self.name) {
            "smallint" => "integer".to_owned(),
            "integer" => "bigint".to_owned(),
            "real" => "double precision".to_owned(),
            "character varying(80)" => "text".to_owned(),
            numeric => {
                let (precision, scale) = numeric.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
                let (precision, scale): (i32, i32) = (precision.parse().ok()?, scale.parse().ok()?);
                if scale < 0 || scale > precision || precision > 35 {
                    return None;
                }
                format!("numeric({},{scale})", precision + 3)
            }
        };
        let draw = match name.as_str() {
            "integer" => "draw.whole(-2147483648, 2147483647)".to_owned(),
            "bigint" => "draw.big()".to_owned(),
            "double precision" => "draw.float(-307, 308)".to_owned(),
            "text" => "draw.text(100)".to_owned(),
            numeric => numeric.replace("numeric", "draw.exact"),
        };
        Some(match element {
            Some(_) => Self { name: format!("{name}[]"), draw: format!("array[{draw}, null]") },
            None => Self { name, draw },
        })
    }
}

/// A column that there is now.
#[derive(Clone, Debug)]
struct Live {
    name: String,
    kind: Type,
    required: bool,
}

impl Live {
    fn drawn(&self, row: &str) -> String {
        let Type { name, draw } = &self.kind;
        let draw = draw.replace(ROW, row);
        if self.required {
            format!("({draw})::{name}")
        } else {
            format!("case when random() < 0.1 then null else ({draw})::{name} end")
        }
    }
}

/// A case under way.
struct Run<'a> {
    session: &'a Session,
    table: String,
    connector: Connector,
    host: Option<Host>,
    columns: Vec<Live>,
    attributes: Vec<Type>,
    named: usize,
    rows: i64,
    drop: bool,
}

impl<'a> Run<'a> {
    fn start(postgres: &Postgres, session: &'a Session, number: usize, case: &Case) -> Result<Self> {
        let table = format!("altered_{number}");
        let connector = Connector::new(&postgres.dsn())?
            .named(&format!("altered-{number}"))
            .source_id(&table)
            .source("poll_interval: 50ms")
            .sink("evolve: full")
            .sink(if case.drop { "dropped_columns: drop" } else { "dropped_columns: keep" })
            .top("commit: {interval: 100ms}");
        let mut run = Self {
            session,
            table,
            connector,
            host: None,
            columns: Vec::new(),
            attributes: Vec::new(),
            named: 0,
            rows: 0,
            drop: case.drop,
        };
        session.batch(&format!("select setseed({}::float8 / 65536)", case.seed))?;
        session.batch(&format!("create table {} (id bigint primary key)", run.table))?;
        session.batch(&format!("create type {}_row as (a0 integer)", run.table))?;
        run.attributes.push(Type { name: "integer".to_owned(), draw: "draw.whole(-9, 9)".to_owned() });
        for column in &case.columns {
            run.add(*column)?;
        }
        session.batch(&format!("select philotes.capture('public.{table}', '{table}')", table = run.table))?;
        if case.live {
            run.host = Some(Host::start(&run.connector, &[])?);
        }
        Ok(run)
    }

    fn alter(&self, what: &str) -> Result<()> {
        self.session.batch(&format!("alter table {} {what}", self.table))
    }

    fn new_name(&mut self) -> String {
        self.named += 1;
        format!("{}{}", NAMES[self.named % NAMES.len()], self.named)
    }

    /// One type in eight is the case's own composite type or an array of it.
    fn choose(&self, number: usize) -> Type {
        let row = format!("{}_row", self.table);
        match number % 16 {
            0 => Type { name: format!("{row}[]"), draw: format!("array[{ROW}, null, {ROW}]") },
            1 => Type { name: row, draw: ROW.to_owned() },
            _ => Type::choose(number / 16),
        }
    }

    /// SQL that draws a row of the composite type.
    fn row(&self) -> String {
        let drawn: Vec<String> = self.attributes.iter().map(|of| format!("({})::{}", of.draw, of.name)).collect();
        format!("row({})::{}_row", drawn.join(", "), self.table)
    }

    fn add(&mut self, number: usize) -> Result<()> {
        let (name, kind) = (self.new_name(), self.choose(number));
        self.alter(&format!("add {} {}", quoted(&name), kind.name))?;
        self.columns.push(Live { name, kind, required: false });
        Ok(())
    }

    /// The place of a column; `None` where there is none.
    fn place(&self, number: usize) -> Option<usize> {
        number.checked_rem(self.columns.len())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        let table = self.table.clone();
        match step {
            Step::Insert(rows) => self.insert(i64::from(*rows))?,
            Step::Update => {
                let set: Vec<String> = self
                    .columns
                    .iter()
                    .map(|column| format!("{} = {}", quoted(&column.name), column.drawn(&self.row())))
                    .collect();
                if !set.is_empty() {
                    self.session.batch(&format!(
                        "update {table} set {} where id % 3 = {}",
                        set.join(", "),
                        self.rows % 3
                    ))?;
                }
            }
            Step::MoveKey => self.session.batch(&format!(
                "update {table} set id = id + 1000000 where id = (select min(id) from {table} where id < 1000000)"
            ))?,
            Step::Delete => self.session.batch(&format!("delete from {table} where id % 5 = {}", self.rows % 5))?,
            Step::Commit => match &self.host {
                Some(_) => std::thread::sleep(Duration::from_millis(300)),
                None => Host::until_idle(&self.connector)?,
            },
            Step::Add(number) => self.add(*number)?,
            Step::AddAttribute(number) => {
                let kind = Type::choose(*number);
                let place = self.attributes.len();
                self.session.batch(&format!("alter type {table}_row add attribute a{place} {}", kind.name))?;
                self.attributes.push(kind);
            }
            _ => return self.alter_one(step),
        }
        Ok(())
    }

    fn insert(&mut self, rows: i64) -> Result<()> {
        let (names, drawn): (String, String) = self
            .columns
            .iter()
            .map(|column| (format!(", {}", quoted(&column.name)), format!(", {}", column.drawn(&self.row()))))
            .unzip();
        let (first, last) = (self.rows + 1, self.rows + rows);
        self.rows = last;
        self.session.batch(&format!(
            "insert into {} (id{names}) select i{drawn} from generate_series({first}, {last}) i",
            self.table
        ))
    }

    /// A step on one column.
    fn alter_one(&mut self, step: &Step) -> Result<()> {
        let (Step::Drop(number)
        | Step::Replace(number, _)
        | Step::Rename(number)
        | Step::Swap(number, _)
        | Step::Widen(number)
        | Step::SetNotNull(number)
        | Step::DropNotNull(number)
        | Step::Comment(number)) = step
        else {
            return Ok(());
        };
        let Some(place) = self.place(*number) else { return Ok(()) };
        let name = quoted(&self.columns[place].name);
        match step {
            Step::Drop(_) => {
                self.columns.remove(place);
                self.alter(&format!("drop {name}"))
            }
            // A name that comes again is taken where the lake keeps every column: that is a fault, or the old column goes on.
            Step::Replace(..) | Step::Swap(..) if !self.drop => Ok(()),
            Step::Replace(_, kind) => {
                let kind = self.choose(*kind);
                self.alter(&format!("drop {name}, add {name} {}", kind.name))?;
                let mut column = self.columns.remove(place);
                (column.kind, column.required) = (kind, false);
                self.columns.push(column);
                Ok(())
            }
            Step::Rename(_) => {
                let new = self.new_name();
                self.alter(&format!("rename {name} to {}", quoted(&new)))?;
                self.columns[place].name = new;
                Ok(())
            }
            Step::Swap(_, other) => {
                let other = other % self.columns.len();
                if place == other {
                    return Ok(());
                }
                let second = quoted(&self.columns[other].name);
                self.session.batch(&format!(
                    "begin; alter table {table} rename {name} to swapped; alter table {table} rename {second} to {name}; \
                     alter table {table} rename swapped to {second}; commit",
                    table = self.table
                ))?;
                let first = std::mem::take(&mut self.columns[place].name);
                self.columns[place].name = std::mem::replace(&mut self.columns[other].name, first);
                Ok(())
            }
            Step::Widen(_) => {
                let Some(kind) = self.columns[place].kind.wider() else { return Ok(()) };
                self.alter(&format!("alter {name} type {}", kind.name))?;
                self.columns[place].kind = kind;
                Ok(())
            }
            Step::SetNotNull(_) => {
                self.session.batch(&format!("delete from {} where {name} is null", self.table))?;
                self.alter(&format!("alter {name} set not null"))?;
                self.columns[place].required = true;
                Ok(())
            }
            Step::DropNotNull(_) => {
                self.columns[place].required = false;
                self.alter(&format!("alter {name} drop not null"))
            }
            _ => self.session.batch(&format!(
                "comment on column {}.{name} is {}",
                self.table,
                literal(&format!("about {name}"))
            )),
        }
    }

    /// Has all delivered, and compares; gives back how many changes there were.
    fn finish(mut self) -> Result<usize> {
        self.insert(5)?;
        if let Some(host) = self.host.take() {
            ensure!(!host.log().contains("FAILED"), "{}", host.log_tail());
            host.kill9();
        }
        Host::until_idle(&self.connector)?;
        let source = SourceTable::read(self.session, &self.table)?;
        let table = self.connector.table(&format!("cdc.public_{}", self.table));
        let mut changes = 0;
        for reader in READERS {
            changes = expect_same(self.session, &self.table, &source.name, reader, &table)?;
        }
        let names: Vec<String> = Reader::PyIceberg.schema(&table)?.into_iter().map(|column| column.name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with("_cdc_")).collect();
        let expected: Vec<&str> = source.names().collect();
        ensure!(names.starts_with(&expected), "the columns are {names:?}, which should begin with {expected:?}");
        ensure!(!self.drop || names.len() == expected.len(), "the columns are {names:?} instead of {expected:?}");
        self.session.batch(&format!(
            "drop table {table}; drop type {table}_row; delete from philotes.cdc_events where source_id = '{table}'",
            table = self.table
        ))?;
        Ok(changes)
    }
}

#[test]
fn random_tables_are_followed() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    prepare(&session, 0.5).unwrap();
    session.batch("create table first (id bigint primary key)").unwrap();
    Connector::new(&postgres.dsn()).unwrap().capture(&["public.first"]).unwrap();

    let seconds = std::env::var("PHILOTES_TYPES_SECONDS").ok().map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let start = Instant::now();
    let (tried, rows) = (Cell::new(0), Cell::new(0));
    while start.elapsed() < Duration::from_secs(seconds) {
        let config = Config {
            cases: 5,
            max_shrink_iters: 150,
            max_shrink_time: 90_000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/altered.txt"))),
            ..Config::default()
        };
        TestRunner::new(config)
            .run(&cases(), |case| {
                tried.set(tried.get() + 1);
                let run = || {
                    let mut run = Run::start(&postgres, &session, tried.get(), &case)?;
                    for step in &case.steps {
                        run.take(step).with_context(|| format!("{step:?}"))?;
                    }
                    run.finish()
                };
                let changes = run().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
                rows.set(rows.get() + changes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }
    let line = format!(
        "altered: {} tables, {} changes equal ({:.0} s)\n",
        tried.get(),
        rows.get(),
        start.elapsed().as_secs_f32()
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
