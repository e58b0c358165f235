//! The admin server of `--listen`, and the client of `philotes health`.
//!
//! It reads the status and changes nothing. Its runtime is one thread of its own; no task ever waits for it. Whoever reaches the address
//! can take up no more than [`Limits`] lets it: `axum::serve` has no bounds, so the connections are served here.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::status::{ConnectorSnapshot, HostStatus, State};

/// How long `philotes health` waits for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often histograms are folded together, so that they do not grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What connections may take up.
#[derive(Clone, Copy)]
struct Limits {
    /// How many are served at once. One more ends the oldest: a probe is answered at once, and those that stay open are others.
    connections: usize,
    /// How long the head of a request may take, and how long a connection may be idle between two.
    idle: Duration,
    /// How old a connection may become, whatever it does: clients connect again.
    age: Duration,
}

const LIMITS: Limits = Limits { connections: 64, idle: Duration::from_secs(10), age: Duration::from_secs(60) };
/// How long a connection that is too old may take to end the answer that it is at.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long to wait after a connection could not be accepted: the process has no file left for it.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Where metrics are kept until they are scraped.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder of the process; to be called before any metric is recorded.
    ///
    /// # Errors
    /// When the process has a recorder already.
    pub fn install() -> anyhow::Result<Self> {
        const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let handle = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
        Ok(Self(handle))
    }
}

#[derive(Clone)]
struct Admin {
    status: Arc<HostStatus>,
    metrics: Metrics,
}

/// Serves until the process ends. The address that it listens on is in the log (and returned), for port 0.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(address: &str, status: Arc<HostStatus>, metrics: Metrics) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    let router = router(Admin { status, metrics: metrics.clone() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = move || {
        let served = runtime.block_on(async move {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    metrics.0.run_upkeep();
                }
            });
            accept(&tokio::net::TcpListener::from_std(listener)?, &router, LIMITS).await;
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = served {
            warn!(error = %error, "the admin server ended");
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(body)?;
    info!(address = %local, "listening");
    Ok(local)
}

/// Serves connections for ever.
async fn accept(listener: &tokio::net::TcpListener, router: &Router, limits: Limits) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= limits.connections
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(connection(stream, router.clone(), limits)).abort_handle());
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = %error, "cannot accept a connection of the admin server; trying again");
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, router: Router, limits: Limits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How it ended is the client's to know.
    if timeout(limits.age, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// 200 unless a connector is FAILED.
async fn healthz(Shared(admin): Shared<Admin>) -> Response {
    judged(&admin, |connector| (connector.state == State::Failed).then(|| connector.state.name()))
}

/// 200 once every connector moves rows, stands by to take over, or has ended well, and while none waits for a call that does not
/// come back.
async fn readyz(Shared(admin): Shared<Admin>) -> Response {
    judged(&admin, |connector| match connector.state {
        State::Running | State::Standby | State::Stopped | State::Finished => connector.stalled.then_some("stalled"),
        other => Some(other.name()),
    })
}

/// 503 if something is wrong with any connector, and what it is.
fn judged(admin: &Admin, wrong: impl Fn(&ConnectorSnapshot) -> Option<&'static str>) -> Response {
    let connectors = admin.status.connectors().iter().map(|connector| connector.snapshot());
    let bad: Vec<String> = connectors
        .filter_map(|connector| wrong(&connector).map(|what| format!("{}: {what}\n", connector.name)))
        .collect();
    match bad.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, bad.concat()).into_response(),
    }
}

async fn status(Shared(admin): Shared<Admin>) -> Response {
    Json(admin.status.snapshot()).into_response()
}

async fn metrics(Shared(admin): Shared<Admin>) -> Response {
    admin.status.record_gauges();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.0.render()).into_response()
}

/// Asks a host's /healthz; what it says when it is not well.
///
/// # Errors
/// When nobody answers, or the answer is not 200; the text says which.
pub fn health(address: &str) -> Result<(), String> {
    let get = || -> std::io::Result<String> {
        let mut last = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no such address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, HEALTH_TIMEOUT) {
                Ok(mut stream) => {
                    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
                    stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
                    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
                    let mut answer = String::new();
                    // A host's answer is short; whoever sends more is no host.
                    stream.take(64 << 10).read_to_string(&mut answer)?;
                    return Ok(answer);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let answer = get().map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") if head.starts_with("HTTP/1.") => Ok(()),
        Some(status) if head.starts_with("HTTP/1.") => Err(format!("{address}: status {status}: {}", body.trim())),
        _ => Err(format!("{address}: the answer is no HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use philotes_sdk::{Error, StreamName, StreamPartition};

    use super::*;
    use crate::plugin::Kind;
    use crate::status::{Calls, ConnectorStatus, TaskStatus};

    fn get(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    }

    #[test]
    fn health_readiness_status_and_metrics() {
        let metrics = Metrics::install().unwrap();
        let task = Arc::new(TaskStatus::new("admin-test", 0));
        let connector = ConnectorStatus::new("admin-test", PathBuf::from("f"), "a", "b", vec![Arc::clone(&task)]);
        let status = Arc::new(HostStatus::new(vec![Arc::new(connector)]));
        let address = serve("127.0.0.1:0", status, metrics).unwrap();
        let text = address.to_string();

        assert_eq!(get(address, "/healthz").0, "200");
        assert_eq!(get(address, "/readyz"), ("503".into(), "admin-test: opening\n".into()));
        task.running();
        let at = StreamPartition::only(StreamName::new(["public", "t"]).unwrap());
        task.read(&at, 7, 700, 1);
        assert_eq!(get(address, "/readyz").0, "200");
        assert_eq!(health(&text), Ok(()));

        let calls = Arc::new(Calls::new(Duration::from_millis(1)));
        task.session(Some(Arc::clone(&calls)));
        calls.during(Kind::Sink, "flush", || {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(get(address, "/readyz"), ("503".into(), "admin-test: stalled\n".into()));
            assert_eq!(health(&text), Ok(()));
            let metrics = get(address, "/metrics").1;
            let running = r#"philotes_call_running_seconds{connector="admin-test",task="0",end="sink"} 0.0"#;
            assert!(metrics.contains(running), "{metrics}");
        });
        assert_eq!(get(address, "/readyz").0, "200");

        task.failed(Kind::Sink, &Error::data("a row too far"));
        assert_eq!(get(address, "/healthz"), ("503".into(), "admin-test: failed\n".into()));
        assert!(health(&text).unwrap_err().ends_with("status 503: admin-test: failed"));

        let (code, body) = get(address, "/status");
        assert_eq!(code, "200");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let connector = &body["connectors"][0];
        assert_eq!(connector["state"], "failed");
        assert_eq!(connector["tasks"][0]["last_error"]["message"], "a row too far");
        assert_eq!(connector["tasks"][0]["streams"][0]["stream"], "public.t");
        assert_eq!(connector["tasks"][0]["streams"][0]["uncommitted_rows"], 7);
        assert!(connector["lag_seconds"].as_f64().unwrap() > 1e9, "newest row is of 1970: {connector}");

        let (code, metrics) = get(address, "/metrics");
        assert_eq!(code, "200");
        let rows = r#"philotes_source_rows_total{connector="admin-test",stream="public.t"} 7"#;
        assert!(metrics.lines().any(|line| line == rows), "{metrics}");
        let lag = |metrics: &str| -> f64 {
            let name = r#"philotes_lag_seconds{connector="admin-test",stream="public.t"} "#;
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
        };
        assert!(lag(&metrics) > 1e9, "{metrics}");
        task.committed(&at, 7, 1);
        task.caught_up(chrono::Utc::now());
        assert_eq!(lag(&get(address, "/metrics").1), 0.0);
        assert_eq!(get(address, "/nothing").0, "404");
    }

    /// A server with these limits; its runtime.
    fn limited(limits: Limits) -> (SocketAddr, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let metrics = Metrics(PrometheusBuilder::new().build_recorder().handle());
        let router = router(Admin { status: Arc::new(HostStatus::new(Vec::new())), metrics });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { accept(&listener, &router, limits).await });
        (address, runtime)
    }

    fn connected(address: SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream
    }

    /// Waits until the server ends a connection; what it sent until then.
    fn until_ended(mut stream: TcpStream) -> String {
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            // What was sent after the server was done makes it a reset.
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        String::from_utf8(said).unwrap()
    }

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(600);
    const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn connections_that_send_nothing_or_half_a_head_are_ended() {
        let (address, _runtime) = limited(Limits { connections: 9, idle: SHORT, age: LONG });
        for sent in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: a\r\n"] {
            let said = until_ended(connected(address, sent));
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{sent:?}: {said}");
        }
        // Idle after an answer.
        let said = until_ended(connected(address, REQUEST));
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("ok\n"), "{said}");
        // A head without an end.
        let said = until_ended(connected(address, &format!("GET / HTTP/1.1\r\na: {}", "x".repeat(64 << 10))));
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    }

    #[test]
    fn one_connection_too_many_ends_the_oldest() {
        let (address, _runtime) = limited(Limits { connections: 3, idle: LONG, age: LONG });
        let mut open: Vec<TcpStream> = (0..3).map(|_| connected(address, "GET /healthz HT")).collect();
        // A probe is answered although all are taken, by the oldest one's place.
        assert_eq!(get(address, "/healthz"), ("200".into(), "ok\n".into()));
        assert_eq!(until_ended(open.remove(0)), "");
        for mut stream in open {
            stream.write_all(b"TP/1.0\r\n\r\n").unwrap();
            assert!(until_ended(stream).starts_with("HTTP/1.0 200"));
        }
    }

    #[test]
    fn a_connection_becomes_only_so_old() {
        let (address, _runtime) = limited(Limits { connections: 3, idle: LONG, age: SHORT });
        assert!(until_ended(connected(address, REQUEST)).starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn health_of_nobody() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(health(&free.to_string()).unwrap_err().contains("refused"));
        assert!(health("nonsense").is_err());
    }
}
