//! Where the database is, and how the way there is secured: a URL as libpq reads it.

use std::{fmt, fs, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use super::tls::{Check, Tls};

/// Patience for one server to take a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long unanswered data may be under way before a connection counts as lost.
const UNANSWERED: Duration = Duration::from_secs(15);
/// Connections that are needed beside those for queries: two that write, one that claims, one that listens.
const FIXED: usize = 4;

/// A PostgreSQL database, and how it is used.
#[derive(Clone)]
pub struct Database {
    url: Url,
    connections: usize,
    pub(super) lease: Duration,
}

#[derive(Clone)]
enum Url {
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("connections", &self.connections)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// The one at a URL: `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=/ca.pem`.
    pub fn at(url: &str) -> Self {
        Self::of(Url::Text(url.to_owned()))
    }

    /// The one at the URL in a file, which is read anew for each connection: what is in it may be rotated.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self::of(Url::File(path.into()))
    }

    /// Connections that one store opens at most; four are needed.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// How long the lanes of a replica stay its own after it was last heard of. No attempt is begun in the last two thirds of it.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    fn of(url: Url) -> Self {
        Self { url, connections: 8, lease: Duration::from_secs(30) }
    }

    /// Connections for queries.
    pub(super) fn readers(&self) -> usize {
        self.connections.saturating_sub(FIXED).max(1)
    }

    /// What a connection is made of, as it is now. An error says nothing of what is secret.
    pub(super) fn target(&self) -> Result<(Config, Tls), String> {
        match &self.url {
            Url::Text(url) => parse(url),
            Url::File(path) => {
                let url = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                parse(url.trim())
            }
        }
    }
}

fn parse(url: &str) -> Result<(Config, Tls), String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("a URL of a database begins with postgres://".into());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut tls = Tls::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => {
                tls.check = Check::parse(&decoded).ok_or_else(|| format!("there is no sslmode {decoded:?}"))?;
            }
            "sslrootcert" => tls.roots = Some(decoded),
            "sslcert" => tls.certificate = Some(decoded.into()),
            "sslkey" => tls.key = Some(decoded.into()),
            _ => rest.push(pair),
        }
    }
    let mut plain = base.to_owned();
    if !rest.is_empty() {
        plain = format!("{base}?{}", rest.join("&"));
    }
    let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| reason(&error))?;
    let remote =
        config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_))) || !config.get_hostaddrs().is_empty();
    config.ssl_mode(match tls.check {
        // As with libpq: a Unix socket has no need of it.
        _ if !remote => SslMode::Disable,
        Check::Disable => SslMode::Disable,
        Check::Prefer => SslMode::Prefer,
        Check::Require | Check::Authority | Check::Full => SslMode::Require,
    });
    if remote {
        tls.validate()?;
    }
    // A standby is no use; with several hosts, the one that takes writes is found.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    config.tcp_user_timeout(UNANSWERED).keepalives_idle(Duration::from_secs(10)).keepalives_interval(CONNECT);
    if config.get_application_name().is_none() {
        config.application_name("belfry");
    }
    Ok((config, tls))
}

fn reason(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let (config, tls) = parse(
            "postgres://u:p%40ss@db.example:6432/belfry?sslmode=verify-full&sslrootcert=%2Fca.pem&application_name=x",
        )
        .unwrap();
        assert_eq!(config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!((config.get_dbname(), config.get_ports()), (Some("belfry"), &[6432][..]));
        assert_eq!((config.get_ssl_mode(), config.get_application_name()), (SslMode::Require, Some("x")));
        assert_eq!((tls.check, tls.roots.as_deref()), (Check::Full, Some("/ca.pem")));
        let (config, _) = parse("postgresql://u@/d?host=/run/postgresql&sslmode=require").unwrap();
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
        let (config, _) = parse("postgres://a:1,b:2/d").unwrap();
        assert_eq!(config.get_hosts().len(), 2);
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        for (url, expected) in [
            ("host=a password=secret", "begins with postgres://"),
            ("postgres://u:secret@a/d?sslmode=verify", "sslmode \"verify\""),
            ("postgres://u:secret@a/d?sslmode=verify-full", "sslrootcert"),
            ("postgres://u:secret@a/d?sslcert=/c.pem", "sslkey"),
            ("postgres://u:secret@a:none/d", "port"),
            ("postgres://u:secret@a/d?surprise=1", "surprise"),
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(error.contains(expected) && !error.contains("secret"), "{url}: {error}");
        }
        let file = Database::in_file("/nowhere/url");
        assert!(file.target().is_err_and(|error| error.contains("/nowhere/url")));
        assert!(!format!("{:?}", Database::at("postgres://u:secret@a/d")).contains("secret"));
    }
}
