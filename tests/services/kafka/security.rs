//! A broker's listeners with TLS and SASL: an authority of their own, certificates, users, and who may be whom.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::services::daemon::free_port;
use crate::services::{install, run};

/// What every mechanism with a password knows.
pub const USER: &str = "alice";
/// That user's password, and that of the client's encrypted key.
pub const PASSWORD: &str = "alice-secret";

const SASL_MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// Authorities and what certificates say. The broker's is for this address only: `localhost` is a wrong name.
const OPENSSL: &str = "[req]\n\
    distinguished_name=name\n\
    [name]\n\
    [authority]\n\
    basicConstraints=critical,CA:TRUE\n\
    keyUsage=critical,keyCertSign,cRLSign\n\
    [broker]\n\
    basicConstraints=critical,CA:FALSE\n\
    subjectAltName=IP:127.0.0.1\n\
    [client]\n\
    basicConstraints=critical,CA:FALSE\n";

/// The listeners of a secured broker, and the files that clients need.
#[derive(Debug, Serialize, Deserialize)]
pub struct Security {
    dir: PathBuf,
    tls: u16,
    mutual: u16,
    sasl: u16,
    sasl_open: u16,
}

/// What the listeners add to a broker's properties and to its format.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) addresses: String,
    pub(super) protocols: String,
    pub(super) properties: String,
    pub(super) users: Vec<String>,
}

impl Security {
    /// Free ports, and certificates in this folder.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        install(&["openssl:openssl"])?;
        let dir = dir.join("certificates");
        std::fs::create_dir(&dir)?;
        std::fs::write(dir.join("openssl.cnf"), OPENSSL)?;
        let security =
            Self { dir, tls: free_port()?, mutual: free_port()?, sasl: free_port()?, sasl_open: free_port()? };
        security.certify("authority", "authority", None)?;
        security.certify("stranger", "authority", None)?;
        security.certify("broker", "broker", Some("authority"))?;
        security.certify("client", "client", Some("authority"))?;
        run(security
            .openssl("pkcs8")
            .args(["-topk8", "-in", "client.key", "-out", "client-encrypted.key", "-passout"])
            .arg(format!("pass:{PASSWORD}")))?;
        // Kafka wants key and certificate in one file.
        let broker = ["broker.key", "broker.pem"].map(|name| std::fs::read_to_string(security.dir.join(name)));
        let [key, certificate] = broker;
        std::fs::write(security.dir.join("broker-keystore.pem"), key? + &certificate?)?;
        Ok(security)
    }

    /// A key and a certificate, by an authority or by itself.
    fn certify(&self, name: &str, extensions: &str, by: Option<&str>) -> Result<()> {
        let mut command = self.openssl("req");
        command
            .args(["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
            .args(["-config", "openssl.cnf", "-extensions", extensions, "-subj"])
            .arg(format!("/CN={name}"))
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if let Some(authority) = by {
            command.args(["-CA", &format!("{authority}.pem"), "-CAkey", &format!("{authority}.key")]);
        }
        run(&mut command)?;
        Ok(())
    }

    fn openssl(&self, subcommand: &str) -> Command {
        let mut command = Command::new("openssl");
        command.arg(subcommand).current_dir(&self.dir);
        command
    }

    pub(super) fn listeners(&self) -> Listeners {
        const MODULES: &str = "org.apache.kafka.common.security";
        let all = [
            ("TLS", "SSL", self.tls),
            ("MUTUAL", "SSL", self.mutual),
            ("SASL", "SASL_SSL", self.sasl),
            ("OPEN", "SASL_PLAINTEXT", self.sasl_open),
        ];
        let dir = self.dir.display();
        let mut properties = format!(
            "inter.broker.listener.name=PLAINTEXT\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={dir}/broker-keystore.pem\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={dir}/authority.pem\n\
             listener.name.mutual.ssl.client.auth=required\n\
             sasl.enabled.mechanisms={}\n",
            SASL_MECHANISMS.join(","),
        );
        for listener in ["sasl", "open"] {
            let mut jaas = |mechanism: &str, module: &str, options: &str| {
                properties += &format!(
                    "listener.name.{listener}.{mechanism}.sasl.jaas.config={MODULES}.{module} required{options};\n"
                );
            };
            jaas("plain", "plain.PlainLoginModule", &format!(" user_{USER}=\"{PASSWORD}\""));
            jaas("scram-sha-256", "scram.ScramLoginModule", "");
            jaas("scram-sha-512", "scram.ScramLoginModule", "");
            // Kafka's own for tests: it takes tokens that nobody signed.
            let claim = " unsecuredLoginStringClaim_sub=\"broker\"";
            jaas("oauthbearer", "oauthbearer.OAuthBearerLoginModule", claim);
        }
        let scram = SASL_MECHANISMS.iter().filter(|mechanism| mechanism.starts_with("SCRAM"));
        Listeners {
            addresses: all.iter().map(|(name, _, port)| format!(",{name}://127.0.0.1:{port}")).collect(),
            protocols: all.iter().map(|(name, protocol, _)| format!(",{name}:{protocol}")).collect(),
            properties,
            users: scram
                .flat_map(|mechanism| {
                    ["--add-scram".to_owned(), format!("{mechanism}=[name={USER},password={PASSWORD}]")]
                })
                .collect(),
        }
    }

    /// The port with TLS, where anybody may do anything.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls
    }

    /// The port with TLS where clients need a certificate.
    #[must_use]
    pub fn mutual_port(&self) -> u16 {
        self.mutual
    }

    /// The port with SASL within TLS.
    #[must_use]
    pub fn sasl_port(&self) -> u16 {
        self.sasl
    }

    /// The port with SASL in the clear.
    #[must_use]
    pub fn sasl_open_port(&self) -> u16 {
        self.sasl_open
    }

    /// A PEM file: `authority`, which has signed the others, `stranger`, an authority that has signed nothing, `client`.
    #[must_use]
    pub fn certificate(&self, name: &str) -> String {
        self.dir.join(format!("{name}.pem")).display().to_string()
    }

    /// The client's key, PEM; the encrypted one needs [`PASSWORD`].
    #[must_use]
    pub fn client_key(&self, encrypted: bool) -> String {
        self.dir.join(if encrypted { "client-encrypted.key" } else { "client.key" }).display().to_string()
    }
}
