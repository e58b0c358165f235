//! What capture runs as its owner may not be of anybody else's making: attacks by a role with
//! nothing but INSERT, and by the owner of a table. Each function of an attacker's writes down who
//! runs it.

use philotes_sdk::ErrorKind;
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::driver::{Buffer, Driver, error_of};

/// A buffer, a captured table of an attacker's, and `public.loot`, which says as whom an attacker's
/// code ran.
async fn prepared() -> Option<Buffer> {
    let buffer = Buffer::new().await?;
    let Buffer { database, .. } = &buffer;
    // Roles belong to the whole server.
    let (owner, writer) = (role(&buffer, "owner"), role(&buffer, "writer"));
    buffer
        .sql(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {writer} LOGIN; GRANT CREATE ON DATABASE {database} TO {owner};
             CREATE TABLE loot (who text, what text); GRANT ALL ON loot TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC"
        ))
        .await;
    Some(buffer)
}

fn role(buffer: &Buffer, name: &str) -> String {
    format!("{name}_{}", buffer.database)
}

async fn login(buffer: &Buffer, name: &str) -> Client {
    let dsn = buffer.server.dsn(&buffer.database).replace("user=postgres", &format!("user={}", role(buffer, name)));
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    run(&client, "SET lock_timeout = '10s'; SET statement_timeout = '30s'").await;
    client
}

async fn run(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
}

/// The SQLSTATE with which a statement fails.
async fn refused(client: &Client, statement: &str) -> String {
    let error = client.batch_execute(statement).await.expect_err(statement);
    error.code().unwrap_or_else(|| panic!("{statement}: {error:?}")).code().to_owned()
}

/// An attacker's code never ran as the owner of capture, and nobody became what they were not.
async fn assert_nothing_gained(buffer: &Buffer) {
    let loot =
        buffer.ask("SELECT coalesce(string_agg(DISTINCT what, ', '), '') FROM loot WHERE who = 'postgres'").await;
    let superusers = buffer
        .ask("SELECT coalesce(string_agg(rolname, ', '), '') FROM pg_roles WHERE rolsuper AND rolname <> 'postgres'")
        .await;
    assert_eq!((loot, superusers), (String::new(), String::new()));
}

/// A function of an attacker's that writes down who runs it; `returns` is what it gives back.
fn trap(name: &str, argument: &str, result: &str, returns: &str) -> String {
    format!(
        "CREATE FUNCTION {name}({argument}) RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO public.loot VALUES (current_user, '{name}({argument})'); RETURN {returns}; END $$;"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_sets_is_not_believed() {
    let Some(buffer) = prepared().await else { return };
    let writer = role(&buffer, "writer");
    buffer
        .sql(&format!("CREATE TABLE t (id int PRIMARY KEY, f text[], n float8); GRANT INSERT ON t TO {writer}"))
        .await;
    buffer.act("capture", json!({"table": "public.t"})).await.unwrap();
    buffer.sql("INSERT INTO t VALUES (0, '{NULL,b}', 1.5)").await;
    let session = login(&buffer, "writer").await;
    let oid = buffer.ask("SELECT 't'::regclass::oid").await;
    let description = format!(
        "{{\"key\": [], \"metadata\": {{}}, \"image\": \"WITH x AS (UPDATE pg_authid SET rolsuper = true WHERE rolname = ''{writer}'') \
         SELECT to_jsonb(1)\"}}"
    );
    for set in [
        // As it was published: within the statement, and so after what its own trigger has set.
        format!("INSERT INTO t SELECT 1, '{{NULL,b}}', 1.5 + 0 * length(set_config('philotes.table_{oid}', '{description}', true))"),
        format!("SELECT set_config('philotes.table_{oid}', '{description}', false); INSERT INTO t VALUES (2, '{{NULL,b}}', 1.5)"),
        "SET quote_all_identifiers = on; SET array_nulls = off; SET standard_conforming_strings = off; SET transform_null_equals = on; \
         SET extra_float_digits = -15; SET bytea_output = escape; INSERT INTO t VALUES (3, ARRAY[NULL,'b'], 1.5)"
            .to_owned(),
        "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (4, ARRAY[NULL,'b'], 1.5); COMMIT".to_owned(),
        "CREATE FUNCTION public.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb_build_array()';
         CREATE FUNCTION public.format(text, anyelement) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
         SET search_path = public, pg_catalog; INSERT INTO t VALUES (5, ARRAY[NULL,'b'], 1.5)"
            .to_owned(),
    ] {
        let session = login(&buffer, "writer").await;
        run(&session, &set).await;
    }
    assert_nothing_gained(&buffer).await;
    let same = "SELECT count(*) || ' ' || count(DISTINCT (after_data - 'id', metadata, key_columns)) || ' ' || min(after_data ->> 'f') \
        FROM philotes.cdc_events";
    assert_eq!(buffer.ask(same).await, "6 1 [null, \"b\"]");
    assert_eq!(
        buffer.ask("SELECT metadata #>> '{columns,2,type}' FROM philotes.cdc_events LIMIT 1").await,
        "double precision"
    );

    // Nor does it reach what capture consists of.
    for statement in [
        "INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation) VALUES ('shop', 'public', 't', 'TRUNCATE')",
        "INSERT INTO philotes.descriptions DEFAULT VALUES",
        "SELECT philotes.capture('t', 'shop')",
        "SELECT philotes.buffer_truncated()",
        "CREATE TABLE mine (id int); CREATE TRIGGER x AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION philotes.capture_row('shop', '')",
    ] {
        assert_eq!(refused(&session, statement).await, "42501", "{statement}");
    }
    let functions = "SELECT coalesce(string_agg(proname, ' '), '') FROM pg_proc WHERE pronamespace = 'philotes'::regnamespace AND \
        (has_function_privilege('public', oid, 'EXECUTE') OR prosecdef AND NOT 'search_path=pg_catalog, pg_temp' = ANY (proconfig))";
    assert_eq!(buffer.ask(functions).await, "");
    // With rights to the schema they are still out of reach.
    buffer.sql(&format!("GRANT USAGE ON SCHEMA philotes TO {writer}")).await;
    for statement in
        ["SELECT philotes.capture('t', 'shop')", "SELECT philotes.uncapture('t')", "TRUNCATE philotes.descriptions"]
    {
        assert_eq!(refused(&session, statement).await, "42501", "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tables_owner_runs_as_the_owner_of_capture() {
    let Some(buffer) = prepared().await else { return };
    let (owner, writer) = (role(&buffer, "owner"), role(&buffer, "writer"));
    let session = login(&buffer, "owner").await;
    let mut types = format!(
        "CREATE SCHEMA AUTHORIZATION {owner}; SET search_path = {owner}; CREATE TYPE mood AS ENUM ('sad', 'ok');"
    );
    for (target, returns) in [
        ("text", "'stolen'"),
        ("json", "'1'"),
        ("jsonb", "'2'"),
        ("int", "3"),
        ("float8", "4"),
        ("tsvector", "''"),
        ("text[]", "'{}'"),
    ] {
        let name = format!("cast_{}", target.replace("[]", "s"));
        types += &trap(&name, "mood", target, returns);
        types += &format!("CREATE CAST (mood AS {target}) WITH FUNCTION {name}(mood) AS IMPLICIT;");
    }
    for (target, returns) in [("text", "'stolen'"), ("text[]", "'{stolen}'"), ("json", "'1'"), ("jsonb", "'1'")] {
        let name = format!("list_{}", target.replace("[]", "s"));
        types += &trap(&name, "mood[]", target, returns);
        types += &format!("CREATE CAST (mood[] AS {target}) WITH FUNCTION {name}(mood[]) AS IMPLICIT;");
    }
    types += "CREATE TYPE pair AS (a mood, b float8, list mood[]);";
    for (target, returns) in [("text", "'stolen'"), ("json", "'1'"), ("jsonb", "'1'")] {
        types += &trap(&format!("pair_{target}"), "pair", target, returns);
        types += &format!("CREATE CAST (pair AS {target}) WITH FUNCTION pair_{target}(pair) AS IMPLICIT;");
    }
    types += &trap("fits", "text", "boolean", "true");
    types += &trap("range_json", "moods", "json", "'1'")
        .replace("CREATE FUNCTION", "CREATE TYPE moods AS RANGE (subtype = mood); CREATE FUNCTION");
    types += "CREATE CAST (moods AS json) WITH FUNCTION range_json(moods);";
    types += &trap("equal", "mood, int", "boolean", "true");
    types += "CREATE OPERATOR public.= (LEFTARG = mood, RIGHTARG = int, FUNCTION = equal);";
    for (name, argument, result, returns) in [
        ("public.to_jsonb", "mood", "jsonb", "'1'"),
        ("public.format", "text, mood", "text", "'1'"),
        ("public.num_nonnulls", "mood", "int", "1"),
        ("seen", "int", "boolean", "true"),
    ] {
        types += &trap(name, argument, result, returns);
    }
    // An immutable function cannot write.
    types += "CREATE FUNCTION plain(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
            IF current_user = 'postgres' THEN RAISE 'gained'; END IF; RETURN 1; END $$;
        CREATE DOMAIN checked AS text CHECK (fits(VALUE)); CREATE DOMAIN checks AS text[] CHECK (fits('list'));
        CREATE DOMAIN checked_pair AS pair CHECK (fits('pair')); CREATE DOMAIN checked_float AS float8 CHECK (fits('float'));
        CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], p pair, ps pair[], c checked, cs checks, cc checked[], cp checked_pair,
            cf checked_float, cfs checked_float[], r moods, rs moods[], g int GENERATED ALWAYS AS (plain(id)) STORED, w float8);
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON t USING (seen(id)) WITH CHECK (seen(id));
        CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.loot VALUES (current_user, 'before'); NEW.w := 0.5; RETURN NEW; END $$;
        CREATE TRIGGER a BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION before();";
    run(&session, &types).await;
    run(&session, &format!("GRANT USAGE ON SCHEMA {owner} TO {writer}; GRANT INSERT ON t TO {writer}")).await;
    buffer.act("capture", json!({"table": format!("{owner}.t")})).await.unwrap();
    let rows = "VALUES ({id}, 'sad', '{ok,NULL}', '(ok,-0,\"{sad}\")', '{\"(ok,1.5,)\",NULL}', 'it''s, \"so\"', '{a}', '{b,NULL}', '(sad,,)', \
        '-0', '{1.5,NULL}', '[sad,ok]', '{\"[sad,sad]\",NULL}')";
    let insert = |id: &str| format!("INSERT INTO {owner}.t {}", rows.replace("{id}", id));
    run(&session, &insert("1")).await;
    run(&login(&buffer, "writer").await, &insert("2")).await;
    run(&session, &format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}; COMMIT", insert("3"))).await;
    run(
        &session,
        &format!(
            "SET search_path = {owner}, public, pg_catalog; UPDATE t SET id = id + 10; DELETE FROM t WHERE id = 11"
        ),
    )
    .await;
    assert_nothing_gained(&buffer).await;
    assert_ne!(buffer.ask("SELECT count(*) FROM loot").await, "0", "the traps do not spring");
    let expected = json!({"m": "sad", "ms": ["ok", null], "p": {"a": "ok", "b": "-0", "list": ["sad"]}, "ps": [{"a": "ok", "b": 1.5, "list": null}, null],
        "c": "it's, \"so\"", "cs": ["a"], "cc": ["b", null], "cp": {"a": "sad", "b": null, "list": null}, "cf": "-0", "cfs": ["1.5", null],
        "r": "[sad,ok]", "rs": ["[sad,sad]", null], "g": 1, "w": 0.5});
    let found = buffer
        .client
        .query_one(
            "SELECT count(*), count(DISTINCT after_data - 'id'), min((after_data - 'id')::text) FROM philotes.cdc_events WHERE after_data IS NOT NULL",
            &[],
        )
        .await
        .unwrap();
    let image: serde_json::Value = serde_json::from_str(found.get(2)).unwrap();
    assert_eq!((found.get::<_, i64>(0), found.get::<_, i64>(1)), (6, 1), "{image:#}");
    assert_eq!(image, expected);
}

/// The type of a column, or of a field, becomes another one while a transaction looks at the
/// catalog of before.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changes_meanwhile_gains_nothing() {
    let Some(buffer) = prepared().await else { return };
    let owner = role(&buffer, "owner");
    let (session, other) = (login(&buffer, "owner").await, login(&buffer, "owner").await);
    let mut sql =
        format!("CREATE SCHEMA AUTHORIZATION {owner}; SET search_path = {owner}; CREATE TYPE mood AS ENUM ('sad');");
    for (target, returns) in [("json", "'1'"), ("float8", "1"), ("int", "1"), ("text", "'x'"), ("jsonb", "'{}'")] {
        sql += &trap(&format!("cast_{target}"), "mood", target, returns);
        sql += &format!("CREATE CAST (mood AS {target}) WITH FUNCTION cast_{target}(mood) AS IMPLICIT;");
    }
    sql += "CREATE TYPE pair AS (a float8); CREATE TABLE t (id int PRIMARY KEY, v float8); CREATE TABLE w (id int, v int); CREATE TABLE p (id int, p pair)";
    run(&session, &sql).await;
    run(&other, &format!("SET search_path = {owner}")).await;
    for table in ["t", "w", "p"] {
        buffer.act("capture", json!({"table": format!("{owner}.{table}")})).await.unwrap();
    }
    run(&session, "INSERT INTO t VALUES (1, 1); INSERT INTO w VALUES (1, 1); INSERT INTO p VALUES (1, '(1)')").await;
    for (alter, insert) in [
        ("ALTER TABLE t ALTER v TYPE mood USING 'sad'::mood", "INSERT INTO t VALUES (2, 'sad')"),
        ("ALTER TABLE w ADD m mood", "INSERT INTO w VALUES (2, 2, 'sad')"),
        ("ALTER TYPE pair DROP ATTRIBUTE a, ADD ATTRIBUTE a mood", "INSERT INTO p VALUES (2, '(sad)')"),
        ("ALTER TYPE pair ADD ATTRIBUTE b mood", "INSERT INTO p VALUES (3, '(sad,sad)')"),
        ("CREATE TABLE n (id int, m mood)", "SELECT"),
    ] {
        run(&session, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
        run(&other, alter).await;
        // It may fail or go well; what it may not do is run the cast, or tell a wrong row.
        let _ = session.batch_execute(insert).await;
        let _ = session.batch_execute("COMMIT").await;
        run(&session, "ROLLBACK").await;
        assert_nothing_gained(&buffer).await;
    }
    run(&session, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1").await;
    run(&other, "ALTER TABLE w ADD x int").await;
    assert_eq!(
        refused(&session, "INSERT INTO w VALUES (5, 5, 'sad', 5)").await,
        "40001",
        "the application tries again, as such transactions have to"
    );
    run(&session, "ROLLBACK; INSERT INTO w VALUES (6, 6, 'sad', 6); INSERT INTO p VALUES (6, '(sad,sad)'); INSERT INTO t VALUES (6, 'sad')").await;
    // A trigger of one's own, in the middle of the statement.
    run(
        &session,
        "CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE 'ALTER TYPE pair ADD ATTRIBUTE c' || NEW.id || ' mood'; RETURN NEW; END $$;
         CREATE TRIGGER swap BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION swap(); INSERT INTO p VALUES (7, '(sad,sad)'), (8, NULL)",
    )
    .await;
    assert_nothing_gained(&buffer).await;
    assert_eq!(buffer.ask("SELECT after_data ->> 'm' FROM philotes.cdc_events WHERE table_name = 'w' AND after_data ->> 'id' = '6'").await, "sad");
    assert_eq!(buffer.ask("SELECT after_data ->> 'p' FROM philotes.cdc_events WHERE table_name = 'p' AND after_data ->> 'id' = '6'").await, r#"{"a": "sad", "b": "sad"}"#);
    assert_eq!(
        buffer
            .ask("SELECT count(*) FROM philotes.cdc_events WHERE table_name = 'p' AND (after_data ->> 'id')::int >= 7")
            .await,
        "2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_in_strange_hands_is_refused() {
    let Some(buffer) = prepared().await else { return };
    let (owner, writer) = (role(&buffer, "owner"), role(&buffer, "writer"));
    buffer.sql("CREATE TABLE t (id int)").await;
    let capture = json!({"table": "public.t"});
    for (plant, uproot, named) in [
        (format!("GRANT CREATE ON SCHEMA philotes TO {writer}"), format!("REVOKE CREATE ON SCHEMA philotes FROM {writer}"), "right to create in schema philotes"),
        ("GRANT CREATE ON SCHEMA philotes TO PUBLIC".to_owned(), "REVOKE CREATE ON SCHEMA philotes FROM PUBLIC".to_owned(), "(PUBLIC)"),
        (format!("GRANT TRIGGER ON philotes.cdc_events TO {writer}"), format!("REVOKE TRIGGER ON philotes.cdc_events FROM {writer}"), "right to create triggers on philotes.cdc_events"),
        (format!("ALTER FUNCTION philotes.buffer_truncated OWNER TO {owner}"), "ALTER FUNCTION philotes.buffer_truncated OWNER TO postgres".to_owned(), "function philotes.buffer_truncated"),
        (format!("ALTER TABLE philotes.batches OWNER TO {owner}"), "ALTER TABLE philotes.batches OWNER TO postgres".to_owned(), "relation philotes.batches"),
        (format!("CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; ALTER FUNCTION public.mine OWNER TO {owner};
            CREATE TRIGGER mine BEFORE INSERT ON philotes.cdc_events FOR EACH ROW EXECUTE FUNCTION public.mine()"), "DROP TRIGGER mine ON philotes.cdc_events".to_owned(), "function of trigger mine on philotes.cdc_events"),
        (format!("ALTER SCHEMA philotes OWNER TO {owner}"), "ALTER SCHEMA philotes OWNER TO postgres".to_owned(), "schema philotes"),
    ] {
        buffer.sql(&plant).await;
        for (action, arguments) in [("init", &json!({})), ("capture", &capture)] {
            let error = error_of(buffer.act(action, arguments.clone()).await);
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(text.contains(named) && text.contains("OWNER TO"), "{named}: {text}");
        }
        buffer.sql(&uproot).await;
    }
    buffer.act("init", json!({})).await.unwrap();
    buffer.act("capture", capture.clone()).await.unwrap();

    // Made before anybody came, with a function in wait.
    let buffer = prepared().await.unwrap();
    let owner = role(&buffer, "owner");
    buffer.sql("DROP SCHEMA philotes CASCADE").await;
    let session = login(&buffer, "owner").await;
    run(&session, &format!("CREATE SCHEMA philotes; {}", trap("philotes.base_type", "oid", "oid", "1"))).await;
    let error = error_of(buffer.act("init", json!({})).await);
    assert!(error.to_string().contains(&format!("schema philotes ({owner})")), "{error}");
    assert_nothing_gained(&buffer).await;
}

/// Roles that are no superusers: the owner of the schema captures what it may create triggers on.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_no_superuser_prepares_and_captures() {
    let Some(mut buffer) = prepared().await else { return };
    buffer.sql("DROP SCHEMA philotes CASCADE").await;
    let (owner, writer) = (role(&buffer, "owner"), role(&buffer, "writer"));
    buffer.sql(&format!("CREATE TABLE t (id int PRIMARY KEY); GRANT TRIGGER ON t TO {owner}; GRANT INSERT ON t TO {writer}; CREATE TABLE u (id int)")).await;
    buffer.keys["dsn"] = json!(buffer.server.dsn(&buffer.database).replace("user=postgres", &format!("user={owner}")));
    for _ in 0..2 {
        buffer.act("init", json!({})).await.unwrap();
    }
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
    let error = error_of(buffer.act("capture", json!({"table": "u"})).await);
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("42501"), "{error}");
    run(&login(&buffer, "writer").await, "INSERT INTO t VALUES (7)").await;
    assert_eq!(buffer.ask("SELECT after_data FROM philotes.cdc_events").await, r#"{"id": 7}"#);
    // A member of the role that owns it all may go on with it.
    buffer.sql(&format!("GRANT {owner} TO {writer}")).await;
    buffer.keys["dsn"] = json!(buffer.server.dsn(&buffer.database).replace("user=postgres", &format!("user={writer}")));
    buffer.act("init", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_quoted_and_capture_leaves_itself_alone() {
    let Some(buffer) = Buffer::new().await else { return };
    let (schema, table) = (r#""s'x; --""#, r#""t"" %I $$ ; DROP TABLE loot; --""#);
    buffer
        .sql(&format!(
            "CREATE TABLE loot (); CREATE SCHEMA {schema}; CREATE TABLE {schema}.{table} (\"a'b\" int PRIMARY KEY, \"%s \\ \"\"\" float8, \
             \"$1\" jsonb)"
        ))
        .await;
    let mut quoted = buffer;
    quoted.keys["source_id"] = json!("it's \\ \"so\"");
    quoted.act("capture", json!({"table": format!("{schema}.{table}")})).await.unwrap();
    quoted.sql(&format!("INSERT INTO {schema}.{table} VALUES (1, 1.5, '[1]'); TABLE loot")).await;
    assert_eq!(
        quoted.ask("SELECT after_data || jsonb_build_object('id', source_id) FROM philotes.cdc_events").await,
        r#"{"$1": [1], "id": "it's \\ \"so\"", "a'b": 1, "%s \\ \"": 1.5}"#
    );
    let mut driver = Driver::open(&quoted).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.column("a'b"), ["1"]);
    driver.close().await;

    for table in
        ["philotes.cdc_events", "philotes.descriptions", "pg_catalog.pg_class", "information_schema.sql_features"]
    {
        let error = error_of(quoted.act("capture", json!({"table": table})).await);
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("or of capture itself"), "{error}");
        let error = quoted.client.batch_execute(&format!("SELECT philotes.capture('{table}', 'x')")).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42809", "{table}");
    }
}
