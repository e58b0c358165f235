//! No answer of a server takes what a request carries to another server.

use philotes_sdk::Secret;

use super::*;

/// What must not get anywhere but to the server that it is for.
const SECRETS: [&str; 3] = ["s3cr3t", "tenant-s3cr3t", "client-s3cr3t"];

/// A server that nobody may ask.
struct Trap(Scripted);

impl Trap {
    async fn set() -> Self {
        Self(Scripted::start((0..8).map(|_| settings()).collect()).await)
    }

    /// Where a redirect leads, with something secret of its own.
    fn url(&self) -> String {
        format!("{}/there?ticket=query-s3cr3t", self.0.uri)
    }

    fn assert_nobody_came(&self) {
        let asked = self.0.asked.lock().unwrap();
        assert!(asked.is_empty(), "{asked:?}");
    }
}

fn assert_refused(error: &CatalogError, trap: &Trap, key: &str) {
    trap.assert_nobody_came();
    let said = format!("{error} {error:?}");
    assert_eq!(error.kind(), Kind::Refused, "{said}");
    assert!(said.contains(&format!("it redirects to {}/there?[redacted]", trap.0.uri)) && said.contains(key), "{said}");
    for secret in SECRETS.into_iter().chain(["query-s3cr3t"]) {
        assert!(!said.contains(secret), "{said}");
    }
}

async fn open_with_everything(server: &Scripted) -> Result<RestCatalog> {
    let mut config = config(server);
    config.headers.insert("X-Tenant".into(), Secret::from(SECRETS[1]));
    RestCatalog::open(&config, None).await
}

#[tokio::test]
async fn a_catalogs_redirect_elsewhere_is_an_error() {
    for status in [301, 302, 303, 307, 308] {
        let trap = Trap::set().await;
        let server = Scripted::start(vec![(Some(status), trap.url())]).await;
        assert_refused(&open_with_everything(&server).await.unwrap_err(), &trap, "catalog.uri");

        let server = Scripted::start(vec![settings(), (Some(status), trap.url())]).await;
        let catalog = open_with_everything(&server).await.unwrap();
        assert_refused(&catalog.commit_table(&table(), commit()).await.unwrap_err(), &trap, "catalog.uri");
    }
}

#[tokio::test]
async fn a_redirect_to_the_same_server_repeats_the_request_or_is_an_error() {
    let answer = ok(&json!({"metadata": metadata("s3://lake/t")}));
    for status in [307, 308] {
        let server = Scripted::bind().await;
        let server = server.play(|uri| vec![settings(), (Some(status), format!("{uri}/moved")), answer.clone()]);
        let catalog = open_with_everything(&server).await.unwrap();
        catalog.commit_table(&table(), commit()).await.unwrap();
        let asked = server.asked(2);
        assert!(asked.starts_with("POST /catalog/moved "), "{asked}");
        assert!(asked.contains("assert-table-uuid") && header(&asked, "x-tenant") == Some(SECRETS[1]), "{asked}");
        assert_eq!(header(&asked, "authorization"), Some("Bearer s3cr3t"));
    }
    // A GET's answer would look like that of a commit that was never made.
    for status in [301, 302, 303] {
        let server = Scripted::bind().await;
        let server = server.play(|uri| vec![settings(), (Some(status), format!("{uri}/moved")), answer.clone()]);
        let catalog = open_with_everything(&server).await.unwrap();
        let error = catalog.commit_table(&table(), commit()).await.unwrap_err();
        assert!(error.kind() == Kind::Refused && error.to_string().contains("/catalog/moved"), "{error}");
        assert_eq!(server.asked.lock().unwrap().len(), 2);
    }
    // For ever.
    let server = Scripted::bind().await;
    let server = server.play(|uri| (0..50).map(|_| (Some(307), format!("{uri}/again"))).collect());
    assert_eq!(open_with_everything(&server).await.unwrap_err().kind(), Kind::Refused);
    assert!(server.asked.lock().unwrap().len() < 10);
}

#[tokio::test]
async fn a_token_endpoints_redirect_elsewhere_is_an_error() {
    for status in [302, 307, 308] {
        let trap = Trap::set().await;
        let server = Scripted::start(vec![(Some(status), trap.url())]).await;
        let oauth2 = OAuth2Config {
            uri: None,
            client_id: "philotes".into(),
            client_secret: Secret::from(SECRETS[2]),
            scope: None,
            audience: None,
        };
        let config = RestCatalogConfig { token: None, oauth2: Some(oauth2), ..config(&server) };
        let error = RestCatalog::open(&config, None).await.unwrap_err();
        assert_refused(&error, &trap, "catalog.oauth2.uri");
        assert!(server.asked(0).contains("client_secret=client-s3cr3t"), "the server itself is told");
    }
}

#[tokio::test]
async fn neither_the_signer_nor_the_storage_leads_elsewhere() {
    let remote = |uri: &str| json!({"s3.remote-signing-enabled": "true", "s3.endpoint": uri, "s3.path-style-access": "true", "s3.region": "r-1"});
    // The signer.
    let trap = Trap::set().await;
    let server = Scripted::bind().await;
    let url = trap.url();
    let server = server
        .play(|uri| vec![settings(), loaded(&remote(uri), &json!(null)), (Some(307), url.clone()), (Some(307), url)]);
    let table_loaded = open_with_everything(&server).await.unwrap().load_table(&table()).await.unwrap();
    let error = put(&table_loaded).await.unwrap_err();
    trap.assert_nobody_came();
    let said = format!("{error} {error:?}");
    assert!(!SECRETS.iter().any(|secret| said.contains(secret)) && !said.contains("query-s3cr3t"), "{said}");

    // The storage, which gets a session's token.
    let trap = Trap::set().await;
    let url = trap.url();
    let server = Scripted::bind().await.play(|uri| {
        let redirects = (0..8).map(|_| (Some(307), url.clone()));
        let first = [settings(), loaded(&lent(uri, "session-s3cr3t", 60_000), &json!(null))];
        first.into_iter().chain(redirects).collect()
    });
    let table_loaded = open_with_everything(&server).await.unwrap().load_table(&table()).await.unwrap();
    let error = put(&table_loaded).await.unwrap_err();
    trap.assert_nobody_came();
    assert_eq!(header(&server.asked(2), "x-amz-security-token"), Some("session-s3cr3t"));
    let said = format!("{error} {error:?}");
    assert!(said.contains("307") && !said.contains("session-s3cr3t"), "{said}");
}

#[test]
fn passwords_in_urls_are_refused_and_not_told() {
    let faults = |catalog: serde_json::Value, storage: serde_json::Value| {
        let config = json!({"catalog": catalog, "storage": storage});
        serde_json::from_value::<crate::config::Config>(config).unwrap().faults()
    };
    let oauth = |uri: &str| json!({"client_id": "i", "client_secret": "client-s3cr3t", "uri": uri});
    let rest = |uri: &str| json!({"type": "rest", "uri": uri});
    for (catalog, storage, expected) in [
        (
            rest("http://me:s3cr3t@lake:8181/c"),
            json!({}),
            "catalog.uri: \"http://[redacted]@lake:8181/c\" holds a user or a password",
        ),
        (rest("http://s3cr3t@lake"), json!({}), "catalog.uri: \"http://[redacted]@lake\" holds a user"),
        (rest("http://lake?token=s3cr3t"), json!({}), "catalog.uri: \"http://lake?[redacted]\" has a query"),
        (rest("lake:s3cr3t@x"), json!({}), "catalog.uri: \"[redacted]@x\" is no server"),
        (
            json!({"type": "rest", "uri": "http://lake", "oauth2": oauth("https://me:s3cr3t@idp/token")}),
            json!({}),
            "catalog.oauth2.uri: \"https://[redacted]@idp/token\" holds",
        ),
        (
            rest("http://lake"),
            json!({"endpoint": "http://me:s3cr3t@s3"}),
            "storage.endpoint: \"http://[redacted]@s3\" holds",
        ),
        (
            json!({"type": "sql", "uri": "postgresql+psycopg2://me:s3cr3t@db/catalog", "warehouse": "s3://b/w"}),
            json!({}),
            "catalog.uri: \"postgresql+psycopg2://[redacted]@db/catalog\" is no SQLite file",
        ),
        (
            json!({"type": "sql", "uri": "sqlite:///c.db", "warehouse": "gs://me:s3cr3t@b"}),
            json!({}),
            "catalog.warehouse: \"gs://[redacted]@b\" is neither",
        ),
        (
            json!({"type": "rest", "uri": "http://lake", "local_root": "srv"}),
            json!({}),
            "catalog.local_root: \"srv\" is no folder",
        ),
        (
            json!({"type": "rest", "uri": "http://lake", "local_root": "/a/../b"}),
            json!({}),
            "catalog.local_root: \"/a/../b\"",
        ),
    ] {
        let faults = faults(catalog, storage);
        assert!(matches!(&faults[..], [fault] if fault.starts_with(expected)), "{expected}: {faults:?}");
        assert!(!format!("{faults:?}").contains("s3cr3t"), "{faults:?}");
    }
    for uri in ["https://idp/token?tenant=x", "http://idp:8080/realms/lake/token"] {
        let faults = faults(
            json!({"type": "rest", "uri": "http://lake", "oauth2": oauth(uri), "local_root": "/srv"}),
            json!({}),
        );
        assert!(faults.is_empty(), "{faults:?}");
    }
}
