//! Connection strings, as libpq reads them: a URL, or key=value pairs.
//!
//! The client's parser knows three of libpq's `sslmode`s and does not tell whether one was there, so it is taken out before.

use std::ops::Range;

use crate::config::TlsMode;

/// libpq's word for how a session is encrypted.
const SSLMODE: &str = "sslmode";

/// A connection string that was read.
pub(crate) struct Dsn {
    /// All of it but `sslmode`.
    pub(crate) config: tokio_postgres::Config,
    sslmode: Option<TlsMode>,
}

impl Dsn {
    /// Reads a connection string. What is wrong with one never quotes it: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FAULT: &str = "not a connection string; allowed: postgresql://user@host:5432/database or key=value pairs (sslrootcert \
                             is `tls_ca` here)";
        let mut rest = text.to_owned();
        let mut sslmode = None;
        for (place, value) in settings(text, SSLMODE).into_iter().rev() {
            sslmode = sslmode.or(Some(mode(&value)?));
            rest.replace_range(place, "");
        }
        Ok(Self { config: rest.parse().map_err(|_| FAULT.to_owned())?, sslmode })
    }

    /// How a session is encrypted: as the stricter of `tls` and `sslmode` says, else where the server offers it.
    pub(crate) fn tls(&self, tls: Option<TlsMode>) -> TlsMode {
        tls.max(self.sslmode).unwrap_or_default()
    }
}

fn mode(value: &str) -> Result<TlsMode, String> {
    Ok(match value {
        "disable" => TlsMode::Disable,
        "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-full" => TlsMode::VerifyFull,
        // Never a value that could be part of a password.
        _ => {
            return Err(
                "the connection string's sslmode is not known here; allowed: disable, prefer, require, verify-full"
                    .into(),
            );
        }
    })
}

/// Where a setting stands in a connection string, and what it says; the last of several counts.
fn settings(text: &str, name: &str) -> Vec<(Range<usize>, String)> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        in_url(text, name)
    } else {
        in_pairs(text, name).unwrap_or_default()
    }
}

/// Of a URL's query. The `&` behind a parameter goes with it.
fn in_url(text: &str, name: &str) -> Vec<(Range<usize>, String)> {
    // The client takes all up to the first @ for user and password.
    let credentials = text.find('@').unwrap_or(0);
    let Some(query) = text[credentials..].find('?').map(|at| credentials + at + 1) else { return Vec::new() };
    let mut found = Vec::new();
    let mut start = query;
    for parameter in text[query..].split_inclusive('&') {
        let end = start + parameter.len();
        if let Some((key, value)) = parameter.split_once('=')
            && key == name
        {
            found.push((start..end, value.trim_end_matches('&').to_owned()));
        }
        start = end;
    }
    found
}

/// Of `key = value` pairs, where values may be quoted and have escapes; `None` where it does not read so.
fn in_pairs(text: &str, name: &str) -> Option<Vec<(Range<usize>, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let (key, value) = rest.split_once('=')?;
        let mut chars = value.trim_start().chars();
        let quoted = chars.as_str().starts_with('\'');
        if quoted {
            chars.next();
        }
        let mut said = String::new();
        loop {
            let before = chars.as_str();
            match chars.next() {
                Some('\\') => said.push(chars.next()?),
                Some('\'') if quoted => break,
                None if quoted => return None,
                None => break,
                Some(c) if c.is_whitespace() && !quoted => {
                    chars = before.chars();
                    break;
                }
                Some(c) => said.push(c),
            }
        }
        rest = chars.as_str().trim_start();
        if key.trim_end() == name {
            found.push((start..text.len() - rest.len(), said));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modes of libpq's documentation, section 32.1.2.
    #[test]
    fn the_connection_strings_sslmode_counts() {
        for (dsn, sslmode) in [
            ("postgresql://u:p@h/d", None),
            ("postgresql://u:p@h/d?sslmode=require", Some(TlsMode::Require)),
            ("postgres://h?application_name=x&sslmode=disable&connect_timeout=3", Some(TlsMode::Disable)),
            ("postgresql://u:p?sslmode=disable@h/d", None),
            ("postgresql://u:p?sslmode=disable@h/d?sslmode=verify-full", Some(TlsMode::VerifyFull)),
            ("postgresql://h/d?sslmode=disable&sslmode=require", Some(TlsMode::Require)),
            ("host=h sslmode=require user=u", Some(TlsMode::Require)),
            ("host=h sslmode = 'verify-full'", Some(TlsMode::VerifyFull)),
            ("sslmode=prefer host=h", Some(TlsMode::Prefer)),
            ("host=h password='x sslmode=disable \\' y' sslmode=require", Some(TlsMode::Require)),
            ("host=h password=sslmode=disable", None),
            ("host=h password=a\\ sslmode=b", None),
        ] {
            let read = Dsn::parse(dsn).unwrap_or_else(|fault| panic!("{dsn}: {fault}"));
            assert_eq!(read.sslmode, sslmode, "{dsn}");
            assert_eq!(read.config.get_hosts(), [tokio_postgres::config::Host::Tcp("h".into())], "{dsn}");
        }
        let read = Dsn::parse("host=h password='x sslmode=disable \\' y' sslmode=require").unwrap();
        assert_eq!(read.config.get_password(), Some(&b"x sslmode=disable ' y"[..]));
        let read = Dsn::parse("postgres://h?application_name=x&sslmode=disable&connect_timeout=3").unwrap();
        assert_eq!(read.config.get_application_name(), Some("x"));
        assert_eq!(read.config.get_connect_timeout(), Some(&std::time::Duration::from_secs(3)));
        for dsn in ["host=h sslmode=verify-ca", "postgresql://h/d?sslmode=s3cret", "host=h sslmode="] {
            let fault = Dsn::parse(dsn).err().unwrap();
            assert!(fault.contains("verify-full") && !fault.contains("s3cret"), "{fault}");
        }
        for dsn in ["host=h port=s3cret", "s3cret", "host='s3cret", "host=h sslrootcert=s3cret"] {
            let fault = Dsn::parse(dsn).err().unwrap();
            assert!(fault.starts_with("not a connection string") && !fault.contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn the_stricter_of_tls_and_sslmode_counts() {
        let modes = [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyFull];
        let names = ["disable", "prefer", "require", "verify-full"];
        for (i, tls) in modes.into_iter().enumerate() {
            for (j, name) in names.into_iter().enumerate() {
                let dsn = Dsn::parse(&format!("host=h sslmode={name}")).unwrap();
                assert_eq!(dsn.tls(Some(tls)), modes[i.max(j)]);
                assert_eq!(dsn.tls(None), modes[j]);
            }
            assert_eq!(Dsn::parse("host=h").unwrap().tls(Some(tls)), tls);
        }
        assert_eq!(Dsn::parse("host=h").unwrap().tls(None), TlsMode::Prefer);
    }
}
