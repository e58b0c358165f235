//! Sessions at the database: TLS, time-outs, and what a lost or failed one means to the host.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use philotes_sdk::{Error, ErrorKind, Result, Secret, is_out_of_files};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Config, TlsMode};
use crate::dsn::Dsn;
use crate::sql::SEARCH_PATH;

/// What arrives on a session outside of answers; polling it is what moves the session's bytes.
type Messages = Pin<Box<dyn Stream<Item = Result<AsyncMessage, tokio_postgres::Error>> + Send>>;

/// How long connecting may take where the connection string does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a COPY that has run dry is left alone. The server sends eight kibibytes at a time, and waking up for each costs
/// half of what decoding it does; meanwhile the socket's buffer takes what comes.
const GATHER: Duration = Duration::from_micros(400);

/// Opens sessions at one database.
pub(crate) struct Connector {
    config: tokio_postgres::Config,
    tls: Tls,
    /// How long all of connecting may take, at every address together.
    timeout: Duration,
    /// The host reads the password anew for the next open, where it stands in a file.
    renewed: bool,
}

impl Connector {
    /// For the database of `dsn`, the key that the errors name being `key`. The string's own
    /// `connect_timeout` covers all of connecting: address, TLS, password and the session's
    /// settings.
    pub(crate) fn new(key: &str, dsn: &Secret, source: &Config) -> Result<Self> {
        let dsn = Dsn::parse(dsn.expose()).map_err(|fault| Error::config(format!("{key}: {fault}")))?;
        let tls = dsn.tls(source.tls);
        let mut config = dsn.config;
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
        });
        // PostgreSQL speaks no TLS on a Unix socket; there the file's permissions are the protection.
        if config.get_hosts().iter().all(|host| matches!(host, tokio_postgres::config::Host::Unix(_))) {
            config.ssl_mode(SslMode::Disable);
        }
        let timeout = config.get_connect_timeout().copied().filter(|timeout| !timeout.is_zero());
        let timeout = timeout.unwrap_or(CONNECT_TIMEOUT);
        config.connect_timeout(timeout);
        config
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(60));
        Ok(Self { config, tls: Tls(MakeRustlsConnect::new(tls_config(tls, source)?)), timeout, renewed: false })
    }

    /// With a password that may be another one at the next open; see
    /// [`TaskInfo::renewed`](philotes_sdk::TaskInfo).
    pub(crate) fn renewed(self, renewed: bool) -> Self {
        Self { renewed, ..self }
    }

    /// Opens a session; `role` says in the server's views what it is for, `settings` are SQL `SET` statements.
    pub(crate) async fn open(&self, role: &str, settings: &str) -> Result<Session> {
        // The client's own time-out ends with the TCP connection; a server may be silent
        // afterwards, too.
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.connect(role, settings)).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "dsn: cannot connect: no session after {} s; connect_timeout in the connection string allows more",
                timeout.as_secs()
            )))
        })
    }

    async fn connect(&self, role: &str, settings: &str) -> Result<Session> {
        let mut config = self.config.clone();
        config.application_name(role);
        let (client, mut connection) = config.connect(self.tls.clone()).await.map_err(|error| {
            let refused = error.code() == Some(&SqlState::INVALID_PASSWORD);
            let failed = failed("dsn: cannot connect", error);
            if refused && self.renewed {
                // Between the change at the server and the one of the file.
                return Error::unavailable(format!(
                    "{}; the file that holds the password is read again",
                    failed.message()
                ));
            }
            failed
        })?;
        let mut session = Session {
            client: Arc::new(client),
            messages: stream::poll_fn(move |cx| connection.poll_message(cx)).boxed(),
            notified: false,
        };
        let settings = format!("{SEARCH_PATH}; SET client_min_messages = warning; SET timezone = 'UTC'; {settings}");
        let setting = session.client.batch_execute(&settings);
        let outcome = drive(&mut session.messages, &mut session.notified, setting).await?;
        outcome.map_err(|e| failed("cannot set up the session", e))?;
        Ok(session)
    }
}

/// A session whose bytes move only while one of its methods runs: the reader decodes on the task that receives.
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    messages: Messages,
    /// A notification came since this was last cleared.
    pub(crate) notified: bool,
}

impl Session {
    /// Runs `work` while moving the session's bytes; an error where the session was lost.
    pub(crate) async fn drive<F: Future>(&mut self, work: F) -> Result<F::Output> {
        drive(&mut self.messages, &mut self.notified, work).await
    }

    /// Waits for a notification or for `wake`.
    pub(crate) async fn wait(&mut self, wake: impl Future<Output = ()>) -> Result<()> {
        let mut wake = pin!(wake);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(lost) = receive(&mut self.messages, &mut self.notified, cx) {
                return Poll::Ready(Err(lost));
            }
            if self.notified { Poll::Ready(Ok(())) } else { wake.as_mut().poll(cx).map(Ok) }
        })
        .await
    }

    /// Waits until `time`, whatever notifications come.
    pub(crate) async fn wait_until(&mut self, time: tokio::time::Instant) -> Result<()> {
        self.drive(tokio::time::sleep_until(time)).await
    }

    /// The next chunk of a COPY.
    pub(crate) async fn next<S: Stream + Unpin>(&mut self, copy: &mut S) -> Result<Option<S::Item>> {
        let mut gathered = false;
        std::future::poll_fn(|cx| {
            loop {
                // What has arrived already is taken before the socket is asked for more.
                if let Poll::Ready(item) = copy.poll_next_unpin(cx) {
                    return Poll::Ready(Ok(item));
                }
                if let Poll::Ready(lost) = receive(&mut self.messages, &mut self.notified, cx) {
                    return Poll::Ready(Err(lost));
                }
                match copy.poll_next_unpin(cx) {
                    Poll::Ready(item) => return Poll::Ready(Ok(item)),
                    Poll::Pending if gathered => return Poll::Pending,
                    Poll::Pending => {
                        gathered = true;
                        // This holds up the runtime's only worker on purpose: waiting in the runtime, it would be woken by
                        // everything that arrives.
                        std::thread::sleep(GATHER);
                    }
                }
            }
        })
        .await
    }

    /// Lets a task of its own move the session's bytes; `lost` hears of its end unless the client was dropped first.
    pub(crate) fn spawn(self, lost: impl FnOnce(Error) + Send + 'static) -> Arc<Client> {
        let Self { client, mut messages, .. } = self;
        tokio::spawn(async move {
            loop {
                match messages.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return lost(failed("session lost", error)),
                    None => return,
                }
            }
        });
        client
    }
}

/// Takes in what the server says on its own; ready only when the session is lost.
fn receive(messages: &mut Messages, notified: &mut bool, cx: &mut std::task::Context<'_>) -> Poll<Error> {
    loop {
        match messages.poll_next_unpin(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(AsyncMessage::Notification(_)))) => *notified = true,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(failed("session lost", error)),
            Poll::Ready(None) => return Poll::Ready(Error::unavailable("session closed")),
        }
    }
}

async fn drive<F: Future>(messages: &mut Messages, notified: &mut bool, work: F) -> Result<F::Output> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if let Poll::Ready(lost) = receive(messages, notified, cx) {
            return Poll::Ready(Err(lost));
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Turns an error of the client into one of the host's kinds; the only place that does.
///
/// Of a server's error only message and code are kept: its detail may quote values of a row.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn failed(what: &str, error: tokio_postgres::Error) -> Error {
    let Some(server) = error.as_db_error() else {
        let mut message = format!("{what}: {error}");
        // Below lie input and output errors, and those of TLS; none of them carries a secret.
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            message = format!("{message}: {cause}");
            next = cause.source();
        }
        return Error::unavailable(message);
    };
    let code = server.code().code();
    Error::new(kind_of(code), format!("{what}: {} ({code})", server.message()))
}

/// What an SQLSTATE means to the host.
fn kind_of(code: &str) -> ErrorKind {
    match code {
        // Read only: a server that was just demoted, or is being upgraded; what reads again finds
        // the new primary.
        "25006" => ErrorKind::Unavailable,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, resources, operator's intervention, time-outs and locks, deadlocks: all
            // pass.
            "08" | "53" | "55" | "57" | "58" | "40" | "XX" => ErrorKind::Unavailable,
            // Password, database, rights, missing tables: all are the operator's to mend.
            "28" | "3D" | "3F" | "42" | "25" => ErrorKind::Config,
            _ => ErrorKind::Internal,
        },
    }
}

fn tls_config(tls: TlsMode, source: &Config) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS versions").with_source(e))?;
    if tls != TlsMode::VerifyFull {
        let verifier = Arc::new(EncryptOnly(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    match &source.tls_ca {
        Some(file) => {
            let bad = |e: &dyn std::fmt::Display| Error::config(format!("tls_ca: {file}: {e}"));
            let unread = |e: pem::Error| match &e {
                pem::Error::Io(io) => Error::new(ErrorKind::of_io(io), format!("tls_ca: {file}: {e}")),
                _ => bad(&e),
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(unread)? {
                roots.add(certificate.map_err(unread)?).map_err(|e| bad(&e))?;
            }
            if roots.is_empty() {
                return Err(bad(&"holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() && is_out_of_files() {
                return Err(Error::unavailable(
                    "tls: verify-full cannot read this system's certificate authorities just now",
                ));
            }
            if roots.is_empty() {
                return Err(Error::config(
                    "tls: verify-full finds no certificate authorities on this system; name a file in tls_ca",
                ));
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Rustls for sockets that have a server's name, and nothing for those that have none.
#[derive(Clone)]
struct Tls(MakeRustlsConnect);

impl<S> MakeTlsConnect<S> for Tls
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // The client asks for a connector on a Unix socket, too, and does not use it; an empty name would be an error.
        self.0.make_tls_connect(if host.is_empty() { "localhost" } else { host })
    }
}

/// What `prefer` and `require` mean to PostgreSQL's own clients: encryption, and no check of whom one talks to.
#[derive(Debug)]
struct EncryptOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PostgreSQL's appendix A of error codes.
    #[test]
    fn what_passes_by_itself_is_unavailable() {
        for (code, kind) in [
            ("25006", ErrorKind::Unavailable), // read_only_sql_transaction
            ("57P01", ErrorKind::Unavailable), // admin_shutdown
            ("57P02", ErrorKind::Unavailable), // crash_shutdown
            ("57P03", ErrorKind::Unavailable), // cannot_connect_now
            ("53000", ErrorKind::Unavailable), // insufficient_resources
            ("53100", ErrorKind::Unavailable), // disk_full
            ("53200", ErrorKind::Unavailable), // out_of_memory
            ("53300", ErrorKind::Unavailable), // too_many_connections
            ("55P03", ErrorKind::Unavailable), // lock_not_available
            ("40001", ErrorKind::Unavailable), // serialization_failure
            ("28P01", ErrorKind::Config),      // invalid_password
            ("28000", ErrorKind::Config),      // invalid_authorization_specification
            ("3D000", ErrorKind::Config),      // invalid_catalog_name
            ("42501", ErrorKind::Config),      // insufficient_privilege
            ("42P01", ErrorKind::Config),      // undefined_table
            ("25P02", ErrorKind::Config),      // in_failed_sql_transaction
            ("22012", ErrorKind::Internal),    // division_by_zero
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }
}
