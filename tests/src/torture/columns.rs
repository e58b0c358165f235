//! One column of each type, with the values at its edges and the way to draw others.

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name; [`Column::name`] is its type's where there is none.
    name: Option<&'static str>,
    /// Its type, as CREATE TABLE takes it.
    pub type_name: &'static str,
    /// Values as PostgreSQL reads them from text; those that begin with `=` are expressions.
    pub edges: &'static [&'static str],
    /// An expression for one more value. It is generated where it begins with `generated`.
    pub draw: &'static str,
}

impl Column {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.unwrap_or(self.type_name)
    }

    /// Whether PostgreSQL computes it.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.draw.starts_with("generated")
    }

    /// How CREATE TABLE declares it.
    #[must_use]
    pub fn declaration(&self) -> String {
        let name = crate::source_table::quoted(self.name());
        format!(
            "{name} {}{}",
            self.type_name,
            if self.is_generated() { format!(" {}", self.draw) } else { String::new() }
        )
    }

    /// SQL for its value in the row of this number: an edge while there are some, then NULL now and then.
    #[must_use]
    pub fn edge(&self, row: usize) -> String {
        match self.edges.get(row) {
            None => format!("null::{}", self.type_name),
            Some(edge) => match edge.strip_prefix('=') {
                Some(expression) => format!("({expression})::{}", self.type_name),
                None => format!("{}::{}", crate::source_table::literal(edge), self.type_name),
            },
        }
    }

    /// SQL for a value that is drawn, or NULL.
    #[must_use]
    pub fn drawn(&self) -> String {
        format!("case when random() < 0.05 then null else ({})::{} end", self.draw, self.type_name)
    }
}

const fn of(type_name: &'static str, edges: &'static [&'static str], draw: &'static str) -> Column {
    Column { name: None, type_name, edges, draw }
}

const fn named(name: &'static str, type_name: &'static str, draw: &'static str) -> Column {
    Column { name: Some(name), type_name, edges: &[], draw }
}

const TIMESTAMPS: &[&str] = &[
    "4714-11-24 00:00:00 BC",
    "0001-01-01 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "0001-01-01 00:00:00",
    "1582-10-04 12:00:00",
    "1582-10-10 12:00:00",
    "1582-10-15 12:00:00",
    "1883-11-18 12:03:58",
    "1899-12-31 23:59:59.999999",
    "1969-12-31 23:59:59.999999",
    "1970-01-01 00:00:00",
    "2024-02-29 23:59:59.000001",
    "2262-04-12 00:00:00.000001",
    "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00",
    "294246-12-31 23:59:59.999999",
    "infinity",
    "-infinity",
];

const MOMENTS: &[&str] = &[
    "4714-11-24 00:00:00+00 BC",
    "0001-01-01 00:00:00+00 BC",
    "0001-12-31 23:59:59.999999+00 BC",
    "0001-01-01 00:00:00+00",
    "1582-10-04 12:00:00+00",
    "1582-10-10 12:00:00+00",
    "1582-10-15 12:00:00+00",
    "1883-11-18 12:03:58+00",
    "1899-12-31 23:59:59.999999+00",
    "1969-12-31 23:59:59.999999+00",
    "1970-01-01 00:00:00+00",
    "2024-02-29 23:59:59.000001+00",
    "2262-04-12 00:00:00.000001+00",
    "9999-12-31 23:59:59.999999+00",
    "10000-01-01 00:00:00+00",
    "294246-12-31 23:59:59.999999+00",
    "infinity",
    "-infinity",
];

const TEXTS: &[&str] = &[
    "",
    " ",
    "null",
    "NULL",
    "\\N",
    "it's \"quoted\"\\ \t\r\n",
    "\u{1}\u{7f}\u{85}\u{2028}\u{feff}",
    "ü€𝄞🦀👩\u{200d}👩\u{200d}👧",
    "{\"a\": 1}",
    "2024-01-01",
    "=repeat('a rather long text, äöü ', 5000)",
];

const RANGES: &[&str] = &["empty", "(,)", "[1,1]", "(,5)", "[-7,)"];

/// All but those of `time`, which Spark cannot read.
pub const COLUMNS: &[Column] = &[
    of("boolean", &["true", "false"], "random() < 0.5"),
    of("smallint", &["0", "-1", "-32768", "32767"], "draw.whole(-32768, 32767)"),
    of("integer", &["0", "-1", "-2147483648", "2147483647"], "draw.whole(-2147483648, 2147483647)"),
    of(
        "bigint",
        &["0", "-1", "-9223372036854775808", "9223372036854775807", "9007199254740993", "-9007199254740993"],
        "draw.big()",
    ),
    of("oid", &["0", "4294967295", "2147483648"], "draw.whole(0, 4294967295)::bigint"),
    of(
        "real",
        &[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-45",
            "-1e-45",
            "1.1754944e-38",
            "3.4028235e38",
            "0.1",
            "16777217",
        ],
        "draw.float(-30, 38)",
    ),
    of(
        "double precision",
        &[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "5e-324",
            "-5e-324",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "0.1",
            "9007199254740993",
            "0.30000000000000004",
            "1e22",
            "1e23",
            "123456789012345678",
        ],
        "draw.float(-307, 308)",
    ),
    of(
        "numeric",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "-0.00",
            "1.10",
            "1000000",
            "0.1000000000000000055511151231257827021181583404541015625",
            "99999999999999999999999999999999999999",
            "100000000000000000000000000000000000000",
            "1e131071",
            "-1e-16383",
        ],
        "draw.exact(200, 90)",
    ),
    of("numeric(1)", &["-9", "9", "0"], "draw.exact(1, 0)"),
    of("numeric(10,2)", &["99999999.99", "-99999999.99", "0", "0.01", "-0.01"], "draw.exact(10, 2)"),
    of("numeric(9,9)", &["0.999999999", "-0.000000001"], "draw.exact(9, 9)"),
    of("numeric(18,6)", &["999999999999.999999", "-999999999999.999999"], "draw.exact(18, 6)"),
    of("numeric(19,0)", &["9999999999999999999", "-9999999999999999999"], "draw.exact(19, 0)"),
    of(
        "numeric(38,0)",
        &["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "1e37"],
        "draw.exact(38, 0)",
    ),
    of("numeric(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001"], "draw.exact(38, 10)"),
    of(
        "numeric(38,38)",
        &["0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"],
        "draw.exact(38, 38)",
    ),
    of("numeric(2,5)", &["0.00099", "-0.00099", "0", "0.00001"], "draw.exact(2, 5)"),
    of("numeric(3,-2)", &["99900", "-99900", "0", "149"], "draw.exact(3, -2)"),
    of("numeric(36,-2)", &["=(repeat('9', 36) || '00')", "-100"], "draw.exact(36, -2)"),
    of("numeric(38,-1)", &["=(repeat('9', 38) || '0')", "NaN", "-10"], "draw.exact(38, -1)"),
    of("numeric(39,0)", &["=repeat('9', 39)", "=('-' || repeat('9', 39))", "NaN"], "draw.exact(39, 0)"),
    of("numeric(38,39)", &["0.000000000000000000000000000000000000009", "0"], "draw.exact(38, 39)"),
    of("numeric(1000,500)", &["1", "-0.1", "=repeat('9', 500)"], "draw.exact(400, 200)"),
    of("money", &["-92233720368547758.08", "92233720368547758.07", "0", "-0.01"], "draw.big()::numeric / 100"),
    of("text", TEXTS, "draw.text(40)"),
    of("character varying", TEXTS, "draw.text(10)"),
    of("character varying(80)", &["", "short", "🦀"], "draw.text(80)"),
    of("character", &["", "a", "ü"], "substr(draw.text(1), 1, 1)"),
    of("character(5)", &["", "ab", "     ", "  ab ", "ü€𝄞"], "draw.text(5)"),
    of("bpchar", &["", "ab  ", "  "], "draw.text(5)"),
    of("\"char\"", &["a", "", "\""], "chr(draw.whole(32, 126)::integer)"),
    of("name", &["", "pg_class", "ü\"x"], "draw.word()"),
    of(
        "bytea",
        &["", "\\x00ff", "ab\\000\\134\\377", "=decode(repeat('00ff5c', 40000), 'hex')"],
        "decode(draw.hexadecimal(20), 'hex')",
    ),
    of(
        "json",
        &[
            "{\"a\": 1.10, \"a\" :2,\n \"b\":[ 1,2 ]}",
            "1e5",
            "1E400",
            "-0",
            "\"\\u0000\"",
            "\"\\ud83e\\udd80 \\/ \\u00fc ü\"",
            "12345678901234567890.12345678901234567890",
            " null ",
            "null",
            "\"\"",
            "[]",
            "{\"\": {\"\": [[[]]]}}",
            "=('[' || repeat('1.50, ', 20000) || 'null]')",
        ],
        "draw.json(3)",
    ),
    of(
        "jsonb",
        &[
            "{\"b\": 1, \"aa\": 2.10, \"a\": null}",
            "1e5",
            "1.10",
            "-0.0",
            "null",
            "\"x\\ny\"",
            "[]",
            "12345678901234567890.12345678901234567890",
            "1e-300",
        ],
        "draw.json(3)",
    ),
    of("jsonpath", &["$", "strict $.\"a b\"[*]?(@ > 1.10)"], "'$.' || to_json(draw.word())"),
    of("xml", &["<a>x</a>", "text only", "", "<a b=\"&lt;\">ü<!-- c --></a>"], "'<a>' || draw.word() || '</a>'"),
    of(
        "date",
        &[
            "4714-11-24 BC",
            "0001-12-31 BC",
            "0001-01-01",
            "1582-10-04",
            "1582-10-15",
            "1900-02-28",
            "1969-12-31",
            "1970-01-01",
            "2000-02-29",
            "9999-12-31",
            "10000-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ],
        "draw.date()",
    ),
    of("timestamp", TIMESTAMPS, "draw.timestamp()"),
    of("timestamp(0)", &["0044-03-15 12:00:00.6 BC", "infinity", "-infinity"], "draw.timestamp()"),
    of("timestamp(3)", &["1969-12-31 23:59:59.9994", "-infinity"], "draw.timestamp()"),
    of("timestamptz", MOMENTS, "draw.timestamp() at time zone 'America/St_Johns'"),
    of(
        "timestamp(4) with time zone",
        &["1883-11-18 12:03:58-04:56:02", "2024-03-10 02:30:00-05", "9999-12-31 23:59:59.9999-15:59", "infinity"],
        "draw.timestamp() at time zone 'UTC'",
    ),
    of(
        "timetz",
        &["24:00:00-15:59", "00:00:00+15:59:59", "12:00:00.000001+05:30", "23:59:59.999999-00"],
        "(draw.time() || '+' || draw.whole(0, 15) || ':30')",
    ),
    of("time(2) with time zone", &["12:00:00.99+01"], "(draw.time() || '-03:30')"),
    of(
        "interval",
        &[
            "0",
            "-178000000 years",
            "178000000 years",
            "1 mon -1 day +00:00:00.000001",
            "-1 mons +1 day -00:00:01",
            "2562047788 hours",
        ],
        "draw.interval()",
    ),
    of("interval year to month", &["1-2", "-1-2"], "draw.interval()"),
    of("interval(3)", &["1.9999 seconds"], "draw.interval()"),
    of(
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        ],
        "draw.hexadecimal(16)",
    ),
    of("inet", &["192.168.1.1", "192.168.1.0/24", "::1", "fe80::/10", "::ffff:1.2.3.4", "0.0.0.0/0"], "draw.address()"),
    of("cidr", &["10.0.0.0/8", "::/0", "192.168.1.1/32"], "network(draw.address())"),
    of("macaddr", &["08:00:2b:01:02:03", "ff-ff-ff-ff-ff-ff"], "draw.hexadecimal(6)"),
    of("macaddr8", &["08:00:2b:01:02:03:04:05"], "draw.hexadecimal(8)"),
    of("bit", &["0", "1"], "draw.bits(1)"),
    of("bit(70)", &["=repeat('01', 35)"], "draw.bits(70)"),
    of("bit varying", &["", "0", "=repeat('1', 1000)"], "draw.bits(draw.whole(0, 40)::integer)"),
    of("bit varying(5)", &["", "10101"], "draw.bits(5)"),
    of("tsvector", &["", "'it''s':2,3B a:1A", "\\\\ü"], "to_tsvector('simple', draw.word() || ' ' || draw.word())"),
    of("tsquery", &["", "'a b' & !c:*A <2> d"], "draw.word() || ' | ' || draw.word()"),
    of("point", &["(0,-0)", "(Infinity,NaN)", "(5e-324,1.7976931348623157e308)"], "draw.point()"),
    of("line", &["{1,-1,0}", "{0,-1,3.5}"], "line(draw.point(), point(1e9, 1e9))"),
    of("lseg", &["[(0,0),(1,1)]"], "lseg(draw.point(), draw.point())"),
    of("box", &["(1,1),(0,0)"], "box(draw.point(), draw.point())"),
    of("path", &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"], "format('[%s,%s]', draw.point(), draw.point())"),
    of("polygon", &["((0,0),(1,1),(2,0))"], "polygon(box(draw.point(), draw.point()))"),
    of("circle", &["<(0,0),1>", "<(1,1),0>"], "circle(draw.point(), draw.float(0, 5)::numeric::float8 ^ 2)"),
    of("int4range", RANGES, "int4range(0, draw.whole(0, 99)::integer, (array['[]', '(]'])[draw.whole(1, 2)::integer])"),
    of("int8range", RANGES, "int8range(-5, draw.whole(0, 1e17)::bigint)"),
    of("numrange", RANGES, "numrange(-1e20, draw.exact(20, 5))"),
    of(
        "daterange",
        &["empty", "(,)", "[2024-01-01,2024-01-01]", "[-infinity,infinity]", "[4714-11-24 BC,)"],
        "daterange('-infinity', draw.date())",
    ),
    of(
        "tsrange",
        &["empty", "(,)", "[\"2024-01-01 00:00:00.000001\",infinity]", "[\"0044-03-15 12:00 BC\",)"],
        "tsrange('-infinity', draw.timestamp())",
    ),
    of(
        "tstzrange",
        &["empty", "(,)", "[\"2024-01-01 00:00:00.000001+05:30\",infinity]", "[\"1883-11-18 12:03:58-04:56:02\",)"],
        "tstzrange('-infinity', draw.timestamp() at time zone 'UTC')",
    ),
    of(
        "int4multirange",
        &["{}", "{(,)}", "{[1,3),[5,8)}"],
        "int4multirange(int4range(0, draw.whole(1, 9)::integer), int4range(50, 60))",
    ),
    of("int8multirange", &["{}", "{[1,3),[5,8)}"], "int8multirange(int8range(0, draw.whole(1, 9)::bigint))"),
    of("nummultirange", &["{}", "{[0.10,1.50],(3,]}"], "nummultirange(numrange(-1e20, draw.exact(20, 5)))"),
    of(
        "datemultirange",
        &["{}", "{[2024-01-01,2024-01-03),[infinity,infinity]}"],
        "datemultirange(daterange('-infinity', draw.date()))",
    ),
    of("tsmultirange", &["{}", "{[2024-01-01,2024-01-03)}"], "tsmultirange(tsrange('-infinity', draw.timestamp()))"),
    of(
        "tstzmultirange",
        &["{}", "{[2024-01-01 00:00+05:30,2024-01-03)}"],
        "tstzmultirange(tstzrange('-infinity', draw.timestamp() at time zone 'UTC'))",
    ),
    of("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"], "pg_lsn '0/0' + draw.whole(0, 1e17)"),
    of("pg_snapshot", &["10:20:10,14,15", "1:1:"], "'10:' || draw.whole(20, 99) || ':'"),
    of("txid_snapshot", &["10:20:10,14,15"], "'10:' || draw.whole(20, 99) || ':'"),
    of("xid", &["0", "4294967295"], "draw.whole(0, 4294967295)::text"),
    of("xid8", &["0", "18446744073709551615"], "draw.whole(0, 1e17)::text"),
    of("cid", &["0", "4294967295"], "draw.whole(0, 4294967295)::text"),
    of("tid", &["(0,0)", "(4294967295,65535)"], "format('(%s,%s)', draw.whole(0, 4294967295), draw.whole(0, 65535))"),
    of("aclitem", &["postgres=r/postgres", "='=arwdDxt/postgres'"], "'=r*/postgres'"),
    of("refcursor", &["", "ü"], "draw.text(9)"),
    of("regclass", &["pg_class", "-", "public.catalogued", "4294967295"], "'pg_type'"),
    of("regcollation", &["\"C\"", "-"], "'pg_catalog.\"POSIX\"'"),
    of("regconfig", &["simple", "english", "-"], "'german'"),
    of("regdictionary", &["simple", "-"], "'english_stem'"),
    of("regnamespace", &["public", "pg_catalog", "-"], "'draw'"),
    of("regoper", &["pg_catalog.||/", "0"], "'pg_catalog.|/'"),
    of("regoperator", &["+(integer,integer)", "0"], "'-(real,double precision)'"),
    of("regproc", &["now", "-"], "'draw.big'"),
    of("regprocedure", &["now()", "substr(text,integer)", "-"], "'draw.text(integer)'"),
    of("regrole", &["postgres", "-"], "'pg_monitor'"),
    of("regtype", &["integer", "-", "public.mood", "timestamptz"], "'public.address'"),
    of("int2vector", &["", "1 -2 32767"], "draw.whole(0, 9) || ' 7'"),
    of("oidvector", &["", "1 4294967295"], "draw.whole(0, 9) || ' 7'"),
    of("gtsvector", &[], "null"),
    of("pg_node_tree", &["=(select adbin from pg_attrdef where adrelid = 'catalogued'::regclass)"], "null"),
    of("pg_ndistinct", &["=(select stxdndistinct from pg_statistic_ext_data)"], "null"),
    of("pg_dependencies", &["=(select stxddependencies from pg_statistic_ext_data)"], "null"),
    of("pg_mcv_list", &["=(select stxdmcv from pg_statistic_ext_data)"], "null"),
    of("pg_brin_bloom_summary", &[], "null"),
    of("pg_brin_minmax_multi_summary", &[], "null"),
    // Of extensions.
    of("citext", TEXTS, "draw.text(20)"),
    of("hstore", &["", "a=>1, \"b c\"=>NULL, \"\"=>\"\\\"\""], "hstore(draw.word(), draw.text(9))"),
    of("ltree", &["", "Top.Science_1"], "draw.word() || '.' || draw.word()"),
    of("lquery", &["Top.*.a|b{1,2}"], "draw.word() || '.*'"),
    of("ltxtquery", &["a & b*@"], "draw.word() || ' | b'"),
    of("cube", &["(0,-0.5)", "(1,2),(3,1e300)"], "cube(draw.float(-5, 5), draw.float(-5, 5))"),
    of("earth", &["=ll_to_earth(1, 2)"], "ll_to_earth(1, draw.float(0, 2))"),
    of("seg", &["1.10 .. 2", "~5", "<7"], "draw.whole(-9, 9)::text || ' .. 20'"),
    of("query_int", &["1&(2|!3)"], "'1&' || draw.whole(0, 9)"),
    of("isbn13", &["978-0-393-04002-9"], "isbn13('978-0-393-04002-9')"),
    of("lo", &["0", "4294967295"], "draw.whole(0, 4294967295)::bigint::oid"),
    // Of the table's owner.
    of("mood", &["sad", "ok", "it's \"fine\"", "🦀"], "(enum_range(null::mood))[draw.whole(1, 4)::integer]"),
    of("positive", &["1", "2147483647"], "draw.whole(1, 2147483647)"),
    of("very_positive", &["10"], "draw.whole(10, 2147483647)"),
    of("price", &["999999999.999", "-0.001"], "draw.exact(12, 3)"),
    of("word", &["", "a"], "draw.word()"),
    of(
        "\"odd. Type\"",
        &["(,,)", "(\"{a,NULL}\",1.10,t)"],
        "row(array[draw.text(9), null], draw.exact(5, 2), random() < 0.5)",
    ),
    of(
        "address",
        &[
            "(,,,,,,,,,,,,,,,,,,)",
            "(\"a \"\"b\"\", (c)\",-1,\"1883-11-18 12:03:58-04:56:02\",infinity,\"10000-01-01\",NaN,-0,\"{\"\"a\"\":  1e5}\",\"1e5\",\"\\\\x00\",\
             a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,1.1,NaN,ab,\"({},,)\",\"{NULL,\"\"(,1.10,f)\"\"}\",\"{{1,2},{NULL,4}}\",sad,empty)",
        ],
        "row(draw.text(9), draw.whole(-9, 9), draw.timestamp() at time zone 'UTC', draw.date(), draw.timestamp(), draw.float(-300, 300), \
         draw.float(-30, 30), draw.json(2), draw.json(2), decode(draw.hexadecimal(3), 'hex'), draw.hexadecimal(16)::uuid, \
         draw.exact(10, 4), draw.exact(50, 20), draw.text(4), row(array[draw.text(3)], draw.exact(5, 2), null)::\"odd. Type\", \
         array[null, row(null, draw.exact(5, 2), true)]::\"odd. Type\"[], array[array[1, 2]], 'ok', \
         tstzrange(null, draw.timestamp() at time zone 'UTC'))",
    ),
    of("odd", &["(\"{x}\",-9.99,)"], "row(array[draw.text(3)], draw.exact(5, 2), true)::\"odd. Type\""),
    of("nothing", &["()"], "'()'"),
    of("own_range", &["empty", "(,)", "[-0,1e300)", "[NaN,)"], "own_range(0, abs(draw.float(-5, 5)))"),
    // Arrays.
    of("boolean[]", &["{}", "{t,f,NULL}"], "array[random() < 0.5]"),
    of("smallint[]", &["{}", "{NULL}", "{-32768,32767}"], "array[draw.whole(-9, 9)]"),
    of(
        "integer[]",
        &["{}", "{NULL}", "{NULL,1,NULL}", "[0:2]={1,2,3}", "[-5:-5]={7}"],
        "array[draw.whole(-9, 9), null]",
    ),
    of("bigint[]", &["{}", "{9223372036854775807,-9223372036854775808}"], "array[draw.big(), draw.big()]"),
    of("real[]", &["{}", "{NaN,-0,Infinity,1e-45}"], "array[draw.float(-30, 30)]"),
    of("double precision[]", &["{}", "{NaN,-0,-Infinity,5e-324}"], "array[draw.float(-300, 300)]"),
    of("numeric[]", &["{}", "{NaN,Infinity,1.10,NULL}"], "array[draw.exact(50, 20)]"),
    of("numeric(10,3)[]", &["{}", "{9999999.999,NULL}"], "array[draw.exact(10, 3)]"),
    of("text[]", &["{}", "{\"\",NULL,\"NULL\",\"a,b\",\"\\\"\\\\\",\" x \"}"], "array[draw.text(9), draw.text(9)]"),
    of("character(3)[]", &["{}", "{a,NULL,\"  b\"}"], "array[draw.text(3)]"),
    of("bytea[]", &["{}", "{\"\\\\x00ff\",\"\\\\x\",NULL}"], "array[decode(draw.hexadecimal(3), 'hex')]"),
    of("json[]", &["{}", "{\"{\\\"a\\\":  1e5}\",\"null\",NULL}"], "array[draw.json(2), draw.json(2)]"),
    of("jsonb[]", &["{}", "{\"{\\\"a\\\":  1e5}\",\"null\",NULL}"], "array[draw.json(2), draw.json(2)]"),
    of("date[]", &["{}", "{infinity,-infinity,\"4714-11-24 BC\",5874897-12-31,NULL}"], "array[draw.date()]"),
    of(
        "timestamp[]",
        &["{}", "{infinity,-infinity,\"4714-11-24 BC\",\"294246-12-31 23:59:59.999999\",NULL}"],
        "array[draw.timestamp()]",
    ),
    of(
        "timestamptz[]",
        &["{}", "{infinity,\"1883-11-18 12:03:58-04:56:02\",NULL}"],
        "array[draw.timestamp() at time zone 'UTC']",
    ),
    of("interval[]", &["{}", "{\"1 mon -1 day\",NULL}"], "array[draw.interval()]"),
    of("uuid[]", &["{}", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"], "array[draw.hexadecimal(16)]"),
    of("inet[]", &["{}", "{10.0.0.1,NULL}"], "array[draw.address()]"),
    of("int4range[]", &["{}", "{empty,\"[1,5)\",NULL}"], "array[int4range(1, draw.whole(2, 9)::integer)]"),
    of("hstore[]", &["{}", "{\"a=>1\",NULL}"], "array[hstore('a', draw.text(5))]"),
    of("mood[]", &["{}", "{sad,NULL,🦀}"], "array[(enum_range(null::mood))[draw.whole(1, 4)::integer]]"),
    of("positive[]", &["{}", "{1,NULL}"], "array[draw.whole(1, 99)]"),
    of("price[]", &["{}", "{1.1,NULL}"], "array[draw.exact(12, 3)]"),
    of("numbers", &["{}", "{1,NULL}", "[3:4]={3,4}"], "array[draw.whole(1, 99)]"),
    of("grid", &["{}", "{{1.1,NULL},{3,4}}"], "array[array[draw.exact(10, 3)]]"),
    of(
        "\"odd. Type\"[]",
        &["{}", "{NULL,\"(,,)\",\"({},1.10,t)\"}"],
        "array[row(array[draw.text(3)], draw.exact(5, 2), true)::\"odd. Type\"]",
    ),
    of(
        "odd[]",
        &["{}", "{NULL,\"(,1.10,)\"}"],
        "array[row(array[draw.text(3)], draw.exact(5, 2), true)::\"odd. Type\"]",
    ),
    of(
        "integer[][]",
        &["{}", "{{1,2},{3,4}}", "{{NULL},{NULL}}", "[2:3][0:1]={{1,NULL},{3,4}}"],
        "array[array[1, draw.whole(1, 9)], array[3, 4]]",
    ),
    of(
        "\"odd. Type\"[][]",
        &["{}", "{{\"({x},1.10,t)\",NULL}}"],
        "array[array[row(null, draw.exact(5, 2), true)::\"odd. Type\"]]",
    ),
    of(
        "text[][][]",
        &["{}", "{{{a,NULL}},{{\"\",\"b,c\"}}}"],
        "array[array[array[draw.text(3)], array[draw.text(3)]]]",
    ),
    of("timestamptz[][]", &["{}", "{{infinity,NULL}}"], "array[array[draw.timestamp() at time zone 'UTC']]"),
    // Generated columns.
    named("generated long", "bigint", "generated always as (id * 3) stored"),
    named("generated text", "text", "generated always as ('row ' || id) stored"),
    named("generated sum", "numeric(20,4)", "generated always as (id / 7.0) stored"),
    // Names.
    named("with.dots.in it", "integer", "draw.whole(-9, 9)"),
    named("with \"quotes\" and 'these'", "integer", "draw.whole(-9, 9)"),
    named(" spaces around ", "integer", "draw.whole(-9, 9)"),
    named("UPPER and lower", "integer", "draw.whole(-9, 9)"),
    named("🦀👩\u{200d}👩\u{200d}👧", "integer", "draw.whole(-9, 9)"),
    named("\\back\\slash, `tick`; $1 %s {} [0] #/?*", "integer", "draw.whole(-9, 9)"),
    named("tab\tand\nline", "integer", "draw.whole(-9, 9)"),
    named("select", "integer", "draw.whole(-9, 9)"),
    named("sixty-three bytes are as many as PostgreSQL keeps of any name..", "integer", "draw.whole(-9, 9)"),
    named("ü0123456789ü0123456789ü0123456789ü0123456789ü0123456789ü012", "integer", "draw.whole(-9, 9)"),
    named("1", "integer", "draw.whole(-9, 9)"),
    named("element", "text[]", "array[draw.text(3)]"),
    named("key.with.dots", "\"odd. Type\"", "row(null, 1.1, true)"),
];

/// Those that Spark cannot read; DuckDB and PyIceberg do.
pub const TIMES: &[Column] = &[
    of("time", &["00:00:00", "23:59:59.999999", "12:34:56.7"], "draw.time()"),
    of("time(0)", &["23:59:59"], "date_trunc('minute', draw.time()::interval)::time"),
    of("late", &["12:34:56.78"], "'00:00:01.25'::time"),
    of("time[]", &["{}", "{23:59:59.999999,NULL}"], "array[draw.time()]"),
    of(
        "clock",
        &["(,,)", "(00:00:01,24:00:00+01,\"{00:00:00.001,NULL}\")"],
        "row(draw.time(), (draw.time() || '+05:30')::timetz, array[time '01:02:03.004'])",
    ),
];
