//! What each kind of answer means, by a server that says what a script tells it; and what is sent to it.

use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::config::OAuth2Config;

use std::collections::BTreeMap;

use super::*;

mod redirects;

/// A server that gives these answers, one connection each, and keeps what it was asked.
struct Scripted {
    uri: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Status and body; without a status the connection is cut once the request was read.
type Scene = (Option<u16>, String);

/// A server that has no script yet.
struct Bound {
    listener: TcpListener,
    uri: String,
}

impl Bound {
    /// Plays a script that needs to know where it is played.
    fn play(self, scenes: impl FnOnce(&str) -> Vec<Scene>) -> Scripted {
        let Self { listener, uri } = self;
        let scenes = scenes(&uri);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            for (status, body) in scenes {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await;
                log.lock().unwrap().push(request);
                let Some(status) = status else { continue };
                let length = body.len();
                // The body of a redirect is where it leads.
                let location =
                    if (300..400).contains(&status) { format!("location: {body}\r\n") } else { String::new() };
                let answer = format!(
                    "HTTP/1.1 {status} x\r\n{location}content-length: {length}\r\netag: \"e\"\r\nconnection: close\r\n\r\n{body}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Scripted { uri, asked }
    }
}

impl Scripted {
    async fn bind() -> Bound {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/catalog", listener.local_addr().unwrap());
        Bound { listener, uri }
    }

    async fn start(scenes: Vec<Scene>) -> Self {
        Self::bind().await.play(|_| scenes)
    }

    fn asked(&self, index: usize) -> String {
        self.asked.lock().unwrap()[index].clone()
    }
}

/// Head and body of a request.
async fn read_request(socket: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return String::from_utf8(bytes).unwrap();
            }
        }
        let mut part = [0; 4096];
        let read = socket.read(&mut part).await.unwrap();
        assert!(read > 0, "the request ended early");
        bytes.extend_from_slice(&part[..read]);
    }
}

fn ok(body: &serde_json::Value) -> Scene {
    (Some(200), body.to_string())
}

fn error(status: u16, r#type: &str) -> Scene {
    (Some(status), json!({"error": {"message": "why", "type": r#type, "code": status}}).to_string())
}

/// As Lakekeeper answers: the prefix among the defaults.
fn settings() -> Scene {
    ok(&json!({"overrides": {}, "defaults": {"prefix": "w-1"}, "idempotency-key-lifetime": "PT30M"}))
}

fn metadata(location: &str) -> TableMetadata {
    let field = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let creation = TableCreation::builder()
        .name("t".into())
        .location(location.into())
        .schema(Schema::builder().with_fields([field.into()]).build().unwrap())
        .build();
    TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata
}

fn table() -> TableIdent {
    TableIdent::from_strs(["cdc", "a b", "orders"]).unwrap()
}

fn commit() -> CommitRequest {
    let updates = HashMap::from([("k".to_owned(), "v".to_owned())]);
    CommitRequest {
        id: Uuid::nil(),
        requirements: vec![TableRequirement::UuidMatch { uuid: Uuid::nil() }],
        updates: vec![TableUpdate::SetProperties { updates }],
        planned_on: None,
    }
}

fn config(server: &Scripted) -> RestCatalogConfig {
    RestCatalogConfig {
        uri: server.uri.clone(),
        warehouse: Some("philotes".into()),
        token: Some("s3cr3t".into()),
        oauth2: None,
        headers: BTreeMap::new(),
        timeout: "60s".into(),
        local_root: None,
    }
}

async fn open(server: &Scripted) -> Result<RestCatalog> {
    RestCatalog::open(&config(server), None).await
}

#[tokio::test]
async fn requests_are_the_specifications() {
    let answer = json!({"metadata-location": "s3://lake/m", "metadata": metadata("s3://lake/t"), "config": null});
    let server = Scripted::start(vec![settings(), ok(&answer)]).await;
    let catalog = open(&server).await.unwrap();
    catalog.commit_table(&table(), commit()).await.unwrap();
    let asked = server.asked(0);
    assert!(asked.starts_with("GET /catalog/v1/config?warehouse=philotes HTTP/1.1"), "{asked}");
    assert!(asked.contains("authorization: Bearer s3cr3t"), "{asked}");
    let asked = server.asked(1);
    assert!(asked.starts_with("POST /catalog/v1/w-1/namespaces/cdc%1Fa%20b/tables/orders HTTP/1.1"), "{asked}");
    assert!(asked.to_lowercase().contains(&format!("idempotency-key: {}", Uuid::nil())), "{asked}");
    let body: serde_json::Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = json!({
        "identifier": {"namespace": ["cdc", "a b"], "name": "orders"},
        "requirements": [{"type": "assert-table-uuid", "uuid": Uuid::nil()}],
        "updates": [{"action": "set-properties", "updates": {"k": "v"}}],
    });
    assert_eq!(body, expected);
    assert!(!format!("{catalog:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn what_became_of_a_commit() {
    for (scene, expected) in [
        (error(409, "CatalogCommitConflicts"), Kind::Conflict),
        (error(404, "NoSuchTableException"), Kind::NotFound),
        (error(400, "InvalidTableUpdate"), Kind::Refused),
        (error(403, "ForbiddenException"), Kind::Refused),
        (error(429, "TooManyRequests"), Kind::Unavailable),
        (error(500, "CommitStateUnknownException"), Kind::Unknown),
        (error(503, "ServiceUnavailableException"), Kind::Unknown),
        ((Some(502), "<html>bad gateway</html>".into()), Kind::Unknown),
        // Done, but what is said of it cannot be read.
        ((Some(200), "{}".into()), Kind::Unknown),
        ((None, String::new()), Kind::Unknown),
    ] {
        let server = Scripted::start(vec![settings(), scene.clone()]).await;
        let found = open(&server).await.unwrap().commit_table(&table(), commit()).await.unwrap_err();
        assert_eq!(found.kind(), expected, "{scene:?}: {found}");
        assert!(!found.never_left(), "{scene:?}");
    }
    let server = Scripted::start(vec![settings()]).await;
    let mut catalog = open(&server).await.unwrap();
    catalog.base = "http://127.0.0.1:1/v1".into();
    let found = catalog.commit_table(&table(), commit()).await.unwrap_err();
    assert!(found.kind() == Kind::Unavailable && found.never_left(), "{found}");
}

/// A server whose answers have no end, of this status.
async fn endless(status: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/catalog", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_request(&mut socket).await;
            let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n\r\n");
            let part = vec![b' '; 1 << 20];
            // Until the client has enough.
            let mut sent = socket.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = socket.write_all(&part).await;
            }
        }
    });
    uri
}

#[tokio::test]
async fn answers_without_an_end_are_cut_off() {
    let server = Scripted::start(vec![settings()]).await;
    let mut catalog = open(&server).await.unwrap();
    for (status, loaded, words) in [
        (200, Kind::Refused, "longer than the 256 MiB that are allowed"),
        (400, Kind::Refused, "400 Bad Request"),
        (503, Kind::Unavailable, "503 Service Unavailable"),
    ] {
        catalog.base = format!("{}/v1", endless(status).await);
        let error = catalog.load_table(&table()).await.unwrap_err();
        assert_eq!(error.kind(), loaded, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // It may have been done.
    catalog.base = format!("{}/v1", endless(200).await);
    assert_eq!(catalog.commit_table(&table(), commit()).await.unwrap_err().kind(), Kind::Unknown);
    let oauth2 =
        serde_json::from_value(json!({"uri": endless(401).await, "client_id": "c", "client_secret": "s"})).unwrap();
    let config = RestCatalogConfig { token: None, oauth2: Some(oauth2), ..config(&server) };
    let error = RestCatalog::open(&config, None).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("401"), "{error}");
}

/// Pages that each say that another follows.
#[tokio::test]
async fn lists_without_an_end_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/catalog/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let body = r#"{"namespaces": [], "identifiers": [], "next-page-token": "again"}"#;
        let answer = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while matches!(socket.read(&mut request).await, Ok(1..)) {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let server = Scripted::start(vec![settings()]).await;
    let mut catalog = open(&server).await.unwrap();
    catalog.base = base;
    for error in
        [catalog.list_namespaces().await.unwrap_err(), catalog.list_tables(table().namespace()).await.unwrap_err()]
    {
        assert!(error.kind() == Kind::Refused && error.to_string().contains("has no end"), "{error}");
    }
}

/// RFC 6749, section 5.1: seconds, of which nobody says how many there may be.
#[tokio::test]
async fn tokens_may_live_as_long_as_a_server_can_write() {
    for expires_in in ["18446744073709551615", "18446744073709551616", "1e308", "-1", "0"] {
        let granted = format!(r#"{{"access_token": "t1", "expires_in": {expires_in}}}"#);
        let server = Scripted::start(vec![(Some(200), granted), settings()]).await;
        let tokens = format!("{}/tokens", server.uri);
        let oauth2 = serde_json::from_value(json!({"uri": tokens, "client_id": "c", "client_secret": "s"})).unwrap();
        let config = RestCatalogConfig { token: None, oauth2: Some(oauth2), ..config(&server) };
        RestCatalog::open(&config, None).await.unwrap_or_else(|error| panic!("{expires_in}: {error}"));
        assert!(server.asked(1).contains("authorization: Bearer t1"), "{expires_in}");
    }
}

#[tokio::test]
async fn nessie_is_known_by_its_settings() {
    let nessie = ok(&json!({"overrides": {}, "defaults": {"nessie.is-nessie-catalog": "true"}}));
    for (settings, shown) in [(settings(), Shown::History), (nessie, Shown::Current)] {
        assert_eq!(open(&Scripted::start(vec![settings]).await).await.unwrap().shown(), shown);
    }
}

#[tokio::test]
async fn what_became_of_a_load() {
    let elsewhere = json!({"metadata": metadata("abfss://lake/t")});
    for (scene, expected) in [
        (error(404, "NoSuchTableException"), Kind::NotFound),
        (error(401, "NotAuthorizedException"), Kind::Refused),
        (error(500, "InternalServerError"), Kind::Unavailable),
        ((None, String::new()), Kind::Unavailable),
        ((Some(200), "[]".into()), Kind::Refused),
        (ok(&elsewhere), Kind::Refused),
    ] {
        let server = Scripted::start(vec![settings(), scene.clone()]).await;
        let found = open(&server).await.unwrap().load_table(&table()).await.unwrap_err();
        assert_eq!(found.kind(), expected, "{scene:?}: {found}");
    }
}

/// Refused when it is loaded; what a commit's answer shows is looked at by loading, for it was committed all the same.
#[tokio::test]
async fn a_column_of_a_type_that_is_not_known_is_named() {
    let mut metadata = serde_json::to_value(metadata("s3://lake/t")).unwrap();
    metadata["schemas"][0]["fields"][0]["type"] = json!("variant");
    let answer = ok(&json!({"metadata": metadata, "metadata-location": "s3://lake/t/m.json"}));
    let server = Scripted::start(vec![settings(), answer.clone(), answer]).await;
    let catalog = open(&server).await.unwrap();
    let why = "orders: the table cannot be written to: column \"id\" is of type variant, which is not known here; allowed are";
    let found = catalog.load_table(&table()).await.unwrap_err();
    assert_eq!(found.kind(), Kind::Refused);
    assert!(found.to_string().contains(why), "{found}");
    let request = CommitRequest { id: Uuid::nil(), requirements: Vec::new(), updates: Vec::new(), planned_on: None };
    let found = catalog.commit_table(&table(), request).await.unwrap_err();
    assert_eq!(found.kind(), Kind::Unknown);
    assert!(found.to_string().contains(why), "{found}");
}

#[tokio::test]
async fn what_exists_already_is_told_from_a_conflict() {
    let server = Scripted::start(vec![settings(), error(409, "AlreadyExistsException")]).await;
    let found = open(&server).await.unwrap().create_namespace(table().namespace()).await.unwrap_err();
    assert_eq!(found.kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn a_server_without_a_catalog_says_where_one_could_be() {
    let server = Scripted::start(vec![(Some(404), String::new())]).await;
    let found = open(&server).await.unwrap_err();
    assert_eq!(found.kind(), Kind::Refused);
    assert!(
        found.to_string().contains("/catalog/v1/config") && found.to_string().contains("such as /catalog"),
        "{found}"
    );
    // A warehouse that does not exist is another matter, and the server says which.
    let server = Scripted::start(vec![error(404, "NoSuchWarehouseException")]).await;
    assert_eq!(open(&server).await.unwrap_err().kind(), Kind::NotFound);
    // Nobody listens.
    let server = Scripted { uri: "http://127.0.0.1:1".into(), asked: Arc::default() };
    assert_eq!(open(&server).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn listings_go_to_their_last_page() {
    let server = Scripted::start(vec![
        settings(),
        ok(&json!({"namespaces": [["a"]], "next-page-token": "2"})),
        ok(&json!({"namespaces": [["b"]], "next-page-token": null})),
        ok(&json!({"namespaces": []})),
        ok(&json!({"namespaces": [["a", "c"]]})),
        ok(&json!({"namespaces": []})),
    ])
    .await;
    let found = open(&server).await.unwrap().list_namespaces().await.unwrap();
    let found: Vec<Vec<String>> = found.into_iter().map(|namespace| namespace.as_ref().clone()).collect();
    assert_eq!(found, [vec!["a"], vec!["a", "c"], vec!["b"]]);
    assert!(server.asked(2).starts_with("GET /catalog/v1/w-1/namespaces?pageToken=2 "));
    assert!(server.asked(4).starts_with("GET /catalog/v1/w-1/namespaces?parent=a "));
}

/// A table's answer with these settings, and maybe with some for its files alone.
fn loaded(config: &serde_json::Value, storage_credentials: &serde_json::Value) -> Scene {
    ok(&json!({"metadata": metadata("s3://lake/t"), "config": config, "storage-credentials": storage_credentials}))
}

/// What lends keys; the storage is the server itself.
fn lent(server_uri: &str, token: &str, lives_ms: i128) -> serde_json::Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    json!({
        "s3.endpoint": server_uri, "s3.path-style-access": "true", "s3.region": "r-1",
        "s3.access-key-id": "lent", "s3.secret-access-key": "secret", "s3.session-token": token,
        "s3.session-token-expires-at-ms": (i128::try_from(now).unwrap() + lives_ms).to_string(),
    })
}

/// Puts a file of the table where the catalog says.
async fn put(table: &LoadedTable) -> iceberg::Result<()> {
    table.files.io.new_output("s3://lake/t/data/file")?.write("content".into()).await
}

/// The value of a header.
fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    };
    request.lines().find_map(line)
}

#[tokio::test]
async fn lent_keys_are_used_and_renewed_before_they_expire() {
    let server = Scripted::bind().await;
    let server = server.play(|uri| {
        vec![
            settings(),
            loaded(
                &lent(uri, "of the table", 60_000),
                &json!([
                    {"prefix": "s3://lake", "config": lent(uri, "of the bucket", 60_000)},
                    {"prefix": "s3://lake/t", "config": lent(uri, "first", 60_000)},
                    {"prefix": "s3://other", "config": lent(uri, "of another", 60_000)},
                ]),
            ),
            (Some(200), String::new()),
            // Half of their life is over.
            loaded(&lent(uri, "second", 1), &json!(null)),
            loaded(&lent(uri, "third", 60_000), &json!(null)),
            (Some(200), String::new()),
            (Some(200), String::new()),
        ]
    });
    let mut config = config(&server);
    config.token = None;
    let catalog = RestCatalog::open(&config, None).await.unwrap();
    let loaded = catalog.load_table(&table()).await.unwrap();
    assert_eq!(header(&server.asked(1), "x-iceberg-access-delegation"), Some("vended-credentials,remote-signing"));
    put(&loaded).await.unwrap();
    let asked = server.asked(2);
    assert!(asked.starts_with("PUT /catalog/lake/t/data/file HTTP/1.1"), "{asked}");
    assert_eq!(header(&asked, "x-amz-security-token"), Some("first"));
    assert!(header(&asked, "authorization").unwrap().contains("Credential=lent/"), "{asked}");

    // The files of an earlier answer have the later keys as well.
    catalog.load_table(&table()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    put(&loaded).await.unwrap();
    let asked = server.asked(4);
    assert!(asked.starts_with("GET /catalog/v1/w-1/namespaces/cdc%1Fa%20b/tables/orders?snapshots=refs "), "{asked}");
    assert_eq!(header(&server.asked(5), "x-amz-security-token"), Some("third"));
    put(&loaded).await.unwrap();
    assert_eq!(header(&server.asked(6), "x-amz-security-token"), Some("third"));
}

#[tokio::test]
async fn keys_that_cannot_be_renewed_are_used_until_they_expire() {
    let server = Scripted::bind().await;
    let server = server.play(|uri| {
        vec![
            settings(),
            loaded(&lent(uri, "first", 400), &json!(null)),
            error(503, "Busy"),
            (Some(200), String::new()),
            error(503, "Busy"),
        ]
    });
    let catalog = open(&server).await.unwrap();
    let loaded = catalog.load_table(&table()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    put(&loaded).await.unwrap();
    assert_eq!(header(&server.asked(3), "x-amz-security-token"), Some("first"));
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let failed = put(&loaded).await.unwrap_err();
    assert!(failed.retryable(), "{failed:?}");
}

#[tokio::test]
async fn requests_to_s3_are_signed_by_the_catalog_where_it_lends_no_keys() {
    let server = Scripted::bind().await;
    let server = server.play(|uri| {
        let signed = json!({"uri": format!("{uri}/lake/t/data/file"), "headers": {
            "authorization": ["AWS4-HMAC-SHA256 by the catalog"], "x-amz-date": ["20260101T000000Z"], "host": ["elsewhere"],
        }});
        vec![
            settings(),
            loaded(
                &json!({
                    "s3.endpoint": uri, "s3.path-style-access": "true", "s3.region": "r-1",
                    "s3.remote-signing-enabled": "true", "s3.signer.uri": format!("{uri}/"), "s3.signer.endpoint": "v1/sign",
                }),
                &json!(null),
            ),
            ok(&signed),
            (Some(200), String::new()),
            error(403, "Forbidden"),
        ]
    });
    let catalog = open(&server).await.unwrap();
    let loaded = catalog.load_table(&table()).await.unwrap();
    put(&loaded).await.unwrap();
    let asked = server.asked(2);
    assert!(asked.starts_with("POST /catalog/v1/sign HTTP/1.1"), "{asked}");
    assert_eq!(header(&asked, "authorization"), Some("Bearer s3cr3t"));
    let question: serde_json::Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&question["method"], &question["region"]), (&json!("PUT"), &json!("r-1")));
    assert_eq!(question["uri"], json!(format!("{}/lake/t/data/file", server.uri)));
    let asked = server.asked(3);
    assert_eq!(header(&asked, "authorization"), Some("AWS4-HMAC-SHA256 by the catalog"));
    assert_eq!(header(&asked, "x-amz-date"), Some("20260101T000000Z"));
    assert!(!asked.contains("elsewhere"), "{asked}");
    assert!(asked.ends_with("content"), "{asked}");
    let refused = put(&loaded).await.unwrap_err();
    assert!(format!("{refused:?}").contains("Forbidden"), "{refused:?}");
}

#[tokio::test]
async fn the_connectors_keys_win_over_the_catalogs() {
    let storage = StorageConfig {
        endpoint: Some("here:9000".into()),
        access_key: Some("d".into()),
        secret_key: Some("e".into()),
        region: Some("r-2".into()),
        ..StorageConfig::default()
    };
    let keys = |key_id: &str, secret_key: &str| {
        let (key_id, secret_key) = (key_id.to_owned(), secret_key.to_owned());
        S3Credentials::Keys(Arc::new(object_store::aws::AwsCredential { key_id, secret_key, token: None }))
    };
    let base = json!({"s3.endpoint": "http://there:9000/", "s3.path-style-access": "true", "s3.access-key-id": "a",
        "s3.secret-access-key": "b"});
    for (storage, endpoint, region, credentials) in [
        (None, "http://there:9000/", "r-1", keys("a", "b")),
        (Some(&storage), "http://here:9000", "r-2", keys("d", "e")),
    ] {
        let settings = ok(&json!({"defaults": {"s3.region": "r-1"}, "overrides": {}}));
        let server = Scripted::start(vec![settings, loaded(&base, &json!(null))]).await;
        let catalog = RestCatalog::open(&config(&server), storage).await.unwrap();
        catalog.load_table(&table()).await.unwrap();
        let reached = catalog.reached();
        let access = &reached[&table()].access;
        let expected = S3Access {
            endpoint: Some(endpoint.into()),
            region: Some(region.into()),
            credentials,
            path_style: true,
            keeps_files: false,
        };
        assert!(*access == expected, "{access:?}");
        let delegation = storage.is_none().then_some("vended-credentials,remote-signing");
        assert_eq!(header(&server.asked(0), "x-iceberg-access-delegation"), delegation);
    }
}

#[tokio::test]
async fn a_commit_leaves_the_way_to_the_files() {
    for config in [json!(null), json!({"s3.endpoint": "http://elsewhere"})] {
        let server = Scripted::bind().await;
        let server = server.play(|uri| {
            vec![
                settings(),
                loaded(&lent(uri, "first", 60_000), &json!(null)),
                ok(&json!({"metadata": metadata("s3://lake/t"), "config": config})),
                (Some(200), String::new()),
            ]
        });
        let catalog = open(&server).await.unwrap();
        catalog.load_table(&table()).await.unwrap();
        let committed = catalog.commit_table(&table(), commit()).await.unwrap();
        put(&committed).await.unwrap();
        assert_eq!(header(&server.asked(3), "x-amz-security-token"), Some("first"));
    }
}

#[tokio::test]
async fn files_of_this_machine_are_reached_below_the_folder_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let location = format!("file://{}/t", root.display());
    let load = async |location: &str, local_root: Option<&Path>| {
        let server = Scripted::start(vec![settings(), ok(&json!({"metadata": metadata(location)}))]).await;
        let local_root = local_root.map(|root| root.display().to_string());
        let config = RestCatalogConfig { local_root, ..config(&server) };
        RestCatalog::open(&config, None).await.unwrap().load_table(&table()).await
    };
    let loaded = load(&location, Some(&root)).await.unwrap();
    loaded.files.io.new_output(format!("{location}/x")).unwrap().write("content".into()).await.unwrap();
    assert_eq!(std::fs::read(root.join("t/x")).unwrap(), b"content");

    let refused = load(&location, None).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().contains("catalog.local_root"), "{refused}");
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    let by_link = format!("file://{}/link/t", root.display());
    for location in ["file:///etc/philotes", "file:/etc/philotes", "/etc/philotes", by_link.as_str()] {
        let refused = sdk_error(load(location, Some(&root)).await.unwrap_err());
        assert_eq!(refused.kind(), philotes_sdk::ErrorKind::Config, "{location}: {refused}");
        assert!(refused.to_string().contains("catalog.local_root"), "{location}: {refused}");
    }
    // A table that is allowed and whose metadata leads elsewhere.
    for location in ["file:///etc/passwd", &format!("file://{}/link/passwd", root.display())] {
        let error = loaded.files.io.new_input(location).unwrap_err();
        let error = crate::error::from_iceberg("cannot read a manifest", error);
        assert_eq!(error.kind(), philotes_sdk::ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("catalog.local_root"), "{error}");
    }
}

fn sdk_error(error: CatalogError) -> philotes_sdk::Error {
    error.into()
}

fn granted(token: &str, seconds: u64) -> Scene {
    ok(&json!({"access_token": token, "token_type": "bearer", "expires_in": seconds}))
}

async fn open_by_oauth2(server: &Scripted) -> Result<RestCatalog> {
    let oauth2 = OAuth2Config {
        uri: None,
        client_id: "philotes".into(),
        client_secret: "p&ss".into(),
        scope: None,
        audience: Some("lake".into()),
    };
    let config = RestCatalogConfig { token: None, oauth2: Some(oauth2), ..config(server) };
    RestCatalog::open(&config, None).await
}

#[tokio::test]
async fn tokens_are_granted_kept_and_renewed() {
    let no = || (Some(204), String::new());
    let server = Scripted::start(vec![
        granted("one", 3600),
        settings(),
        no(),
        // The server has forgotten it.
        error(401, "NotAuthorizedException"),
        granted("two", 1),
        no(),
        // Half of its life is over.
        granted("three", 3600),
        no(),
    ])
    .await;
    let catalog = open_by_oauth2(&server).await.unwrap();
    let asked = server.asked(0);
    assert!(asked.starts_with("POST /catalog/v1/oauth/tokens HTTP/1.1"), "{asked}");
    assert_eq!(header(&asked, "authorization"), None);
    let form = "grant_type=client_credentials&client_id=philotes&client_secret=p%26ss&scope=catalog&audience=lake";
    assert!(asked.ends_with(&format!("\r\n\r\n{form}")), "{asked}");
    assert_eq!(header(&server.asked(1), "authorization"), Some("Bearer one"));
    assert!(catalog.table_exists(&table()).await.unwrap());
    assert_eq!(header(&server.asked(2), "authorization"), Some("Bearer one"));
    assert!(catalog.table_exists(&table()).await.unwrap());
    assert_eq!(header(&server.asked(5), "authorization"), Some("Bearer two"));
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert!(catalog.table_exists(&table()).await.unwrap());
    assert_eq!(header(&server.asked(7), "authorization"), Some("Bearer three"));
}

#[tokio::test]
async fn a_token_that_is_not_granted_says_why() {
    let refused = json!({"error": "invalid_client", "error_description": "wrong secret"}).to_string();
    for (scene, expected) in [
        ((Some(401), refused.clone()), Kind::Refused),
        ((Some(400), refused), Kind::Refused),
        ((Some(503), "later".into()), Kind::Unavailable),
        ((None, String::new()), Kind::Unavailable),
    ] {
        let server = Scripted::start(vec![scene.clone()]).await;
        let found = open_by_oauth2(&server).await.unwrap_err();
        assert_eq!(found.kind(), expected, "{scene:?}: {found}");
        let text = found.to_string();
        assert!(text.starts_with("catalog.oauth2: cannot get a token from http://"), "{text}");
        assert_eq!(text.contains("invalid_client wrong secret"), expected == Kind::Refused, "{text}");
    }
    // A commit that cannot get a token was not sent.
    let server = Scripted::start(vec![granted("one", 0), settings(), (Some(500), String::new())]).await;
    let catalog = open_by_oauth2(&server).await;
    let found = match catalog {
        Ok(catalog) => catalog.commit_table(&table(), commit()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(found.kind() == Kind::Unavailable && found.never_left(), "{found}");
}

#[tokio::test]
async fn extra_headers_go_with_every_request() {
    let server = Scripted::start(vec![settings(), (Some(204), String::new())]).await;
    let mut config = config(&server);
    config.headers.insert("X-Tenant".into(), "shop".into());
    config.headers.insert("x-iceberg-access-delegation".into(), "remote-signing".into());
    let catalog = RestCatalog::open(&config, None).await.unwrap();
    catalog.table_exists(&table()).await.unwrap();
    for request in [server.asked(0), server.asked(1)] {
        assert_eq!(header(&request, "x-tenant"), Some("shop"));
        assert_eq!(header(&request, "x-iceberg-access-delegation"), Some("remote-signing"));
    }
}

/// What Lakekeeper 0.13 was seen to answer: the metadata without what is empty, settings in the reply to a load, null for them
/// in the reply to a commit.
mod lakekeeper {
    use super::*;

    fn answer(config: &serde_json::Value) -> Scene {
        let mut metadata = json!(metadata("s3://lake/0198/0199"));
        let metadata_fields = metadata.as_object_mut().unwrap();
        for empty in
            ["snapshots", "current-snapshot-id", "snapshot-log", "metadata-log", "properties", "refs", "statistics"]
        {
            metadata_fields.remove(empty);
        }
        ok(&json!({
            "metadata-location": "s3://lake/0198/0199/metadata/00000-1.gz.metadata.json",
            "metadata": metadata,
            "config": config,
        }))
    }

    #[tokio::test]
    async fn a_table_is_made_loaded_and_committed_to() {
        let config = json!({"s3.endpoint": "http://127.0.0.1:9000/", "s3.path-style-access": "true", "s3.region": "local-01",
            "region": "local-01", "client.region": "local-01", "s3.delete-enabled": "false"});
        let overrides = json!({"uri": "", "idempotency-key-lifetime": "PT30M"});
        let server = Scripted::bind().await.play(|uri| {
            let mut overrides = overrides;
            overrides["uri"] = json!(uri);
            vec![
            ok(&json!({"overrides": overrides, "defaults": {"prefix": "w-1", "rest-page-size": "100"}})),
            error(404, "NoSuchNamespaceException"),
            ok(&json!({"namespace": ["cdc"], "properties": {"location": "s3://lake/0198", "namespace_id": "0198"}})),
            answer(&config),
            answer(&config),
            answer(&json!(null)),
        ]});
        let catalog = open(&server).await.unwrap();
        let namespace = NamespaceIdent::new("cdc".into());
        assert!(!catalog.namespace_exists(&namespace).await.unwrap());
        catalog.create_namespace(&namespace).await.unwrap();
        let creation = TableCreation::builder()
            .name("orders".into())
            .schema(metadata("s3://lake/t").current_schema().as_ref().clone())
            .build();
        let created = catalog.create_table(&namespace, creation).await.unwrap();
        assert!(created.metadata.current_snapshot().is_none());
        let body: serde_json::Value = serde_json::from_str(server.asked(3).split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["name"], &body["stage-create"]), (&json!("orders"), &json!(false)));
        // The warehouse chooses the location.
        assert_eq!(body.get("location"), None);
        let table = TableIdent::new(namespace, "orders".into());
        catalog.load_table(&table).await.unwrap();
        catalog.commit_table(&table, commit()).await.unwrap();
        assert_eq!(header(&server.asked(5), "idempotency-key"), Some(Uuid::nil().to_string().as_str()));
        let reached = catalog.reached();
        let access = &reached[&table].access;
        assert_eq!(access.endpoint.as_deref(), Some("http://127.0.0.1:9000/"));
        // A soft delete: the server deletes files by itself.
        assert!(access.keeps_files);
    }

    #[tokio::test]
    async fn refusals_are_told_by_their_status_not_their_type() {
        for (scene, expected) in [
            (error(409, "CatalogCommitConflicts"), Kind::Conflict),
            (error(400, "InvalidTableUpdate"), Kind::Refused),
            (error(400, "IdempotencyKeyReused"), Kind::Refused),
            (error(404, "NoSuchTableException"), Kind::NotFound),
            ((Some(422), "Failed to deserialize the JSON body into the target type".into()), Kind::Refused),
            // A route that it does not know.
            ((Some(404), String::new()), Kind::NotFound),
        ] {
            let server = Scripted::start(vec![settings(), scene.clone()]).await;
            let found = open(&server).await.unwrap().commit_table(&table(), commit()).await.unwrap_err();
            assert_eq!(found.kind(), expected, "{scene:?}: {found}");
        }
        for (scene, expected) in [
            (error(400, "GetConfigNoWarehouseProvided"), Kind::Refused),
            (error(404, "NoSuchWarehouseException"), Kind::NotFound),
        ] {
            let server = Scripted::start(vec![scene.clone()]).await;
            assert_eq!(open(&server).await.unwrap_err().kind(), expected, "{scene:?}");
        }
        let creation = || {
            TableCreation::builder()
                .name("t".into())
                .schema(metadata("s3://lake/t").current_schema().as_ref().clone())
                .build()
        };
        for (scene, expected) in [
            (error(409, "AlreadyExistsException"), Kind::AlreadyExists),
            (error(400, "InvalidLocation"), Kind::Refused),
            (error(404, "NoSuchNamespaceException"), Kind::NotFound),
        ] {
            let server = Scripted::start(vec![settings(), scene.clone()]).await;
            let catalog = open(&server).await.unwrap();
            let found = catalog.create_table(table().namespace(), creation()).await.unwrap_err();
            assert_eq!(found.kind(), expected, "{scene:?}: {found}");
        }
    }
}
