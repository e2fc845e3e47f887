//! From a Provider and its Secrets to what a protocol needs, by the peer's rules of precedence.
//!
//! Where this is kinder than the peer: a trailing newline of a token used as a credential is cut off (the peer sends it
//! and its own HTTP library refuses); a Secret with only one of `username` and `password` keeps its token (the peer drops
//! everything without a word); proxy and certificates work for every type over HTTP.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use belfry_api::ProviderSpec;
use belfry_core::{ConfigKey, duration, secret::SecretData};
use belfry_http::{BadRoute, Client, Clients, HeaderMap, HeaderName, HeaderValue, Proxy, Route, Url};

use crate::{Misconfigured, Reason, registry};

/// The longest address, as in the CRD.
const ADDRESS: usize = 2048;
/// The time for one attempt when the Provider says nothing.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Where certificates stand in a Secret, today's names and the old ones.
const CERTIFICATE_KEYS: [&str; 6] = ["ca.crt", "caFile", "tls.crt", "certFile", "tls.key", "keyFile"];
/// Headers that belong to the connection: what a Secret says about them has no effect, as with the peer.
const NOT_OURS: [&str; 5] = ["connection", "content-length", "host", "trailer", "transfer-encoding"];

/// A Provider with the Secrets that it names.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The Provider's key.
    pub provider: &'a ConfigKey,
    /// Its specification.
    pub spec: &'a ProviderSpec,
    /// What `secretRef` names.
    pub secret: Option<&'a SecretData>,
    /// What `proxySecretRef` names.
    pub proxy_secret: Option<&'a SecretData>,
    /// What `certSecretRef` names.
    pub cert_secret: Option<&'a SecretData>,
    /// Name of the cluster that this process serves; empty when it has none.
    pub cluster: &'a str,
}

/// Settings in which Provider and Secrets have become one.
pub(crate) struct Resolved<'a> {
    settings: Settings<'a>,
    /// The address, the Secret's before the Provider's.
    pub(crate) address: &'a str,
    /// `spec.channel`.
    pub(crate) channel: &'a str,
    /// The name to post under or to authenticate with, the Secret's (when it has a password too) before the Provider's.
    pub(crate) username: &'a str,
    pub(crate) password: Option<&'a str>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) proxy: Option<Proxy<'a>>,
}

impl<'a> Resolved<'a> {
    pub(crate) fn new(settings: &Settings<'a>) -> Result<Self, Misconfigured> {
        let spec = settings.spec;
        for (reference, secret, field) in [
            (&spec.secret_ref, settings.secret, "secretRef"),
            (&spec.proxy_secret_ref, settings.proxy_secret, "proxySecretRef"),
            (&spec.cert_secret_ref, settings.cert_secret, "certSecretRef"),
        ] {
            if let (Some(reference), None) = (reference, secret) {
                let text = format!("the Secret '{}' that {field} names does not exist: create it", reference.name);
                return Err(Misconfigured::new(Reason::Secret, text));
            }
        }
        let mut resolved = Self {
            settings: *settings,
            address: spec.address.as_deref().unwrap_or_default(),
            channel: spec.channel.as_deref().unwrap_or_default(),
            username: spec.username.as_deref().unwrap_or_default(),
            password: None,
            headers: BTreeMap::new(),
            proxy: None,
        };
        if let Some(address) = resolved.secret_text("address")? {
            resolved.address = address.trim();
        }
        if resolved.address.len() > ADDRESS {
            let text = format!("{} is longer than {ADDRESS} bytes", resolved.place_of("address"));
            return Err(Misconfigured::new(Reason::Address, text));
        }
        resolved.password = resolved.secret_text("password")?;
        if let (Some(username), Some(_)) = (resolved.secret_text("username")?, resolved.password) {
            resolved.username = username;
        }
        resolved.headers = resolved.read_headers()?;
        resolved.proxy = resolved.read_proxy()?;
        Ok(resolved)
    }

    /// A value of the Secret that `secretRef` names.
    pub(crate) fn secret_text(&self, key: &str) -> Result<Option<&'a str>, Misconfigured> {
        self.settings.secret.map_or(Ok(None), |secret| text(secret, key, &self.settings.spec.secret_ref))
    }

    /// Where a setting comes from that Secret or Provider may hold, in words.
    pub(crate) fn place_of(&self, field: &str) -> String {
        match &self.settings.spec.secret_ref {
            Some(reference) if self.settings.secret.is_some_and(|secret| secret.bytes(field).is_some()) => {
                format!("the key '{field}' of Secret '{}'", reference.name)
            }
            _ => format!("spec.{field}"),
        }
    }

    /// Where a key belongs that is missing, in words.
    pub(crate) fn place_for(&self, key: &str) -> String {
        match &self.settings.spec.secret_ref {
            Some(reference) => format!("add the key '{key}' to Secret '{}'", reference.name),
            None => format!("name a Secret with the key '{key}' in spec.secretRef"),
        }
    }

    /// The address as the URL of an HTTP endpoint.
    pub(crate) fn url(&self) -> Result<Url, Misconfigured> {
        let place = self.place_of("address");
        let bad = |what: &str| Misconfigured::new(Reason::Address, format!("{place} {what}"));
        if self.address.is_empty() {
            let text = format!("an address is missing: set spec.address, or {}", self.place_for("address"));
            return Err(Misconfigured::new(Reason::Address, text));
        }
        if self.address.contains(char::is_control) {
            return Err(bad("holds control characters: write it on one line"));
        }
        let url: Url =
            self.address.parse().map_err(|_| bad("is not a valid URL: it must be like https://host/path"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("is not an http or https URL"));
        }
        Ok(url)
    }

    /// The token as a credential, without a newline at its end. `None` when absent or empty.
    pub(crate) fn token(&self) -> Result<Option<&'a str>, Misconfigured> {
        let token = self.secret_text("token")?.map(|token| token.trim_end_matches(['\r', '\n']));
        Ok(token.filter(|token| !token.is_empty()))
    }

    /// The token of a type that can't do without.
    pub(crate) fn required_token(&self) -> Result<&'a str, Misconfigured> {
        self.token()?.ok_or_else(|| self.missing_token())
    }

    /// The token's bytes exactly as stored, for signing.
    pub(crate) fn signing_key(&self) -> Result<&'a [u8], Misconfigured> {
        let key = self.settings.secret.and_then(|secret| secret.bytes("token"));
        key.filter(|key| !key.is_empty()).ok_or_else(|| self.missing_token())
    }

    /// The key that the type `belfry` signs with. A line end that an editor put behind it is no part of it.
    pub(crate) fn hmac_key(&self) -> Option<&'a [u8]> {
        let key = self.settings.secret?.bytes("hmacKey")?;
        let key = key.strip_suffix(b"\n").unwrap_or(key);
        Some(key.strip_suffix(b"\r").unwrap_or(key)).filter(|key| !key.is_empty())
    }

    pub(crate) fn missing_token(&self) -> Misconfigured {
        let text = format!("type '{}' needs a token: {}", self.settings.spec.type_, self.place_for("token"));
        Misconfigured::new(Reason::Token, text)
    }

    /// `<scheme> <token>` as the value of a header.
    pub(crate) fn authorization(&self, scheme: &str, token: &str) -> Result<HeaderValue, Misconfigured> {
        let text = format!("{scheme} {token}");
        secret_header(text.trim_start()).ok_or_else(|| {
            let text = format!("{} holds characters that no HTTP header can carry", self.place_of("token"));
            Misconfigured::new(Reason::Token, text)
        })
    }

    /// `Bearer <token>`, if there is a token.
    pub(crate) fn bearer(&self) -> Result<Option<HeaderValue>, Misconfigured> {
        self.token()?.map(|token| self.authorization("Bearer", token)).transpose()
    }

    /// User name and password, if there are any; the name may stand in the Provider alone.
    pub(crate) fn basic(&self) -> Result<Option<HeaderValue>, Misconfigured> {
        let password = self.password.filter(|password| !password.is_empty());
        match (self.username, password) {
            (_, None) => Ok(None),
            ("", Some(_)) => {
                let text = format!(
                    "there is a password but no user name: {}, or set spec.username",
                    self.place_for("username")
                );
                Err(Misconfigured::new(Reason::Credentials, text))
            }
            (username, Some(password)) => Ok(secret_header(&basic(username, password))),
        }
    }

    /// The Secret's additional headers.
    pub(crate) fn extra_headers(&self) -> Result<HeaderMap, Misconfigured> {
        let header = |(name, value): (&String, &String)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, secret_header(value)?))
        };
        let headers: Option<HeaderMap> = self
            .headers
            .iter()
            .filter(|(name, _)| !NOT_OURS.contains(&name.to_lowercase().as_str()))
            .map(header)
            .collect();
        headers.ok_or_else(|| {
            let text = format!("{} holds a name or a value that no HTTP header can have", self.place_of("headers"));
            Misconfigured::new(Reason::Headers, text)
        })
    }

    fn read_headers(&self) -> Result<BTreeMap<String, String>, Misconfigured> {
        let Some(yaml) = self.secret_text("headers")?.filter(|yaml| !yaml.trim().is_empty()) else {
            return Ok(BTreeMap::new());
        };
        // The parser's own words quote what it read.
        let headers: BTreeMap<String, Option<String>> = serde_saphyr::from_str(yaml).map_err(|_| {
            let text = format!(
                "{} is not a YAML map of header names to values, such as 'X-Scope: prod'",
                self.place_of("headers")
            );
            Misconfigured::new(Reason::Headers, text)
        })?;
        Ok(headers.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
    }

    fn read_proxy(&self) -> Result<Option<Proxy<'a>>, Misconfigured> {
        let spec = self.settings.spec;
        if let Some(secret) = self.settings.proxy_secret {
            let get = |key| text(secret, key, &spec.proxy_secret_ref);
            let url = get("address")?.map(str::trim).filter(|url| !url.is_empty()).ok_or_else(|| {
                Misconfigured::new(Reason::Proxy, "the Secret of proxySecretRef has no key 'address': add it")
            })?;
            if url.len() > ADDRESS {
                let text = format!("the key 'address' of the Secret of proxySecretRef is longer than {ADDRESS} bytes");
                return Err(Misconfigured::new(Reason::Proxy, text));
            }
            let credentials = match (get("username")?, get("password")?) {
                (None, None) => None,
                (username, password) => Some((username.unwrap_or_default(), password.unwrap_or_default())),
            };
            return Ok(Some(Proxy { url, credentials }));
        }
        let url = match self.secret_text("proxy")? {
            Some(proxy) => proxy.trim(),
            None => spec.proxy.as_deref().unwrap_or_default(),
        };
        Ok((!url.is_empty()).then_some(Proxy { url, credentials: None }))
    }

    /// Certificates from `certSecretRef`; those types that write commit statuses take them from `secretRef` too, as with
    /// the peer. Today's key names before the old ones.
    fn certificates(&self) -> Result<(Route<'a>, &'static str), Misconfigured> {
        let settings = &self.settings;
        let git = |secret: &&SecretData| {
            registry::is_git(&settings.spec.type_)
                && CERTIFICATE_KEYS.iter().any(|key| secret.bytes(key).is_some_and(|pem| !pem.is_empty()))
        };
        let (secret, place) = match (settings.cert_secret, settings.secret.filter(git)) {
            (Some(secret), _) => (secret, "the Secret of certSecretRef"),
            (None, Some(secret)) => (secret, "the Secret of secretRef"),
            (None, None) => return Ok((Route::default(), "")),
        };
        let get = |name, old| secret.bytes(name).or_else(|| secret.bytes(old)).filter(|pem| !pem.is_empty());
        let ca = get("ca.crt", "caFile");
        let identity = match (get("tls.crt", "certFile"), get("tls.key", "keyFile")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let text = format!("{place} has only one of 'tls.crt' and 'tls.key': add the other one");
                return Err(Misconfigured::new(Reason::Tls, text));
            }
        };
        if ca.is_none() && identity.is_none() {
            let text = format!("{place} has neither 'ca.crt' nor 'tls.crt' with 'tls.key'");
            return Err(Misconfigured::new(Reason::Tls, text));
        }
        Ok((Route { proxy: None, ca, identity }, place))
    }

    /// The client with this Provider's proxy and certificates.
    pub(crate) fn client(&self, http: &Arc<Clients>) -> Result<Client, Misconfigured> {
        let (route, place) = self.certificates()?;
        http.client(&Route { proxy: self.proxy, ..route }).map_err(|error| match error {
            BadRoute::Proxy(_) => Misconfigured::new(Reason::Proxy, error.to_string()),
            BadRoute::Ca => Misconfigured::new(Reason::Tls, format!("'ca.crt' in {place} holds no certificate in PEM")),
            BadRoute::Identity => Misconfigured::new(
                Reason::Tls,
                format!("'tls.crt' and 'tls.key' in {place} are not a matching pair in PEM"),
            ),
        })
    }

    /// The time for one attempt.
    pub(crate) fn timeout(&self) -> Result<Duration, Misconfigured> {
        self.settings.spec.timeout.as_deref().map_or(Ok(TIMEOUT), |text| {
            duration::parse(text).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
                Misconfigured::new(Reason::Timeout, "spec.timeout is not a duration: write it like '15s' or '1m30s'")
            })
        })
    }

    /// Name of the cluster; empty when it has none.
    pub(crate) fn cluster(&self) -> &'a str {
        self.settings.cluster
    }

    /// The Provider's specification.
    pub(crate) fn spec(&self) -> &'a ProviderSpec {
        self.settings.spec
    }

    /// What stands for the Provider where its UID can't.
    pub(crate) fn provider(&self) -> &'a ConfigKey {
        self.settings.provider
    }

    /// A GitHub App's key as stored, for masking.
    pub(crate) fn raw_app_key(&self) -> Option<&'a [u8]> {
        self.settings.secret.and_then(|secret| secret.bytes("githubAppPrivateKey"))
    }

    /// The Secret's token as stored, for masking.
    pub(crate) fn raw_token(&self) -> Option<&'a [u8]> {
        self.settings.secret.and_then(|secret| secret.bytes("token"))
    }
}

fn text<'a>(
    secret: &'a SecretData,
    key: &str,
    reference: &Option<belfry_api::LocalObjectReference>,
) -> Result<Option<&'a str>, Misconfigured> {
    secret.text(key).map_err(|_| {
        let name = reference.as_ref().map_or("", |reference| reference.name.as_str());
        Misconfigured::new(Reason::Secret, format!("the key '{key}' of Secret '{name}' is not UTF-8 text"))
    })
}

/// `Basic …`.
pub(crate) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// A header that doesn't print.
pub(crate) fn secret_header(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
