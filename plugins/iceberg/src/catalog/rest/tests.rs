//! What each kind of answer means, by a server that says what a script tells it; and what is sent to it.

use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;

/// A server that gives these answers, one connection each, and keeps what it was asked.
struct Scripted {
    uri: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Status and body; without a status the connection is cut once the request was read.
type Scene = (Option<u16>, String);

impl Scripted {
    async fn start(scenes: Vec<Scene>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/catalog", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            for (status, body) in scenes {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await;
                log.lock().unwrap().push(request);
                let Some(status) = status else { continue };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { uri, asked }
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
    }
}

async fn open(server: &Scripted) -> Result<RestCatalog> {
    let config =
        RestCatalogConfig { uri: server.uri.clone(), warehouse: Some("philotes".into()), token: Some("s3cr3t".into()) };
    RestCatalog::open(&config, None).await
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

#[tokio::test]
async fn the_connectors_keys_win_over_the_catalogs() {
    let server = Scripted::start(vec![ok(&json!({"defaults": {"s3.region": "r-1"}, "overrides": {}}))]).await;
    let mut catalog = open(&server).await.unwrap();
    let said = [
        ("s3.endpoint", "http://there:9000/"),
        ("s3.path-style-access", "true"),
        ("s3.access-key-id", "a"),
        ("s3.secret-access-key", "b"),
        ("s3.session-token", "c"),
    ];
    let said = said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let expected = S3Access {
        endpoint: Some("http://there:9000/".into()),
        region: Some("r-1".into()),
        keys: Some(("a".into(), "b".into())),
        session_token: Some("c".into()),
        path_style: true,
    };
    assert!(catalog.access(&said) == expected);
    catalog.storage = StorageConfig {
        endpoint: Some("here:9000".into()),
        access_key: Some("d".into()),
        secret_key: Some("e".into()),
        region: Some("r-2".into()),
        ..StorageConfig::default()
    };
    let expected = S3Access {
        endpoint: Some("http://here:9000".into()),
        region: Some("r-2".into()),
        keys: Some(("d".into(), "e".into())),
        session_token: None,
        path_style: true,
    };
    assert!(catalog.access(&said) == expected);
}
