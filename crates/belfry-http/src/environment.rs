//! The proxy that the process's environment names, with the peer's rules: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` in
//! either case, and never for this machine itself.

use reqwest::{NoProxy, Url};

/// What never goes through the environment's proxy.
const LOCAL: &str = "localhost,127.0.0.0/8,::1";

/// Proxies from the environment. Not printable: a proxy's address may hold a password.
#[derive(Clone, Default)]
pub struct Environment {
    /// `HTTP_PROXY`: the proxy for `http` addresses.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: the proxy for `https` addresses.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains and networks that are reached directly.
    pub no: Option<String>,
}

impl Environment {
    /// Reads the process's environment; the upper-case spelling goes first.
    pub fn read() -> Self {
        let get = |upper: &str| {
            [upper.to_owned(), upper.to_lowercase()]
                .into_iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Self { http: get("HTTP_PROXY"), https: get("HTTPS_PROXY"), no: get("NO_PROXY") }
    }

    pub(crate) fn proxies(&self) -> Vec<reqwest::Proxy> {
        let no = format!("{},{LOCAL}", self.no.as_deref().unwrap_or_default());
        let http = self.http.as_deref().and_then(|value| proxy("HTTP_PROXY", value, reqwest::Proxy::http));
        let https = self.https.as_deref().and_then(|value| proxy("HTTPS_PROXY", value, reqwest::Proxy::https));
        http.into_iter().chain(https).map(|proxy| proxy.no_proxy(NoProxy::from_string(&no))).collect()
    }
}

fn proxy(name: &str, value: &str, make: fn(Url) -> reqwest::Result<reqwest::Proxy>) -> Option<reqwest::Proxy> {
    let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let proxy = resolving_there(&with_scheme).parse().ok().and_then(|url| make(url).ok());
    if proxy.is_none() {
        tracing::warn!("{name} is not the URL of a proxy and is ignored");
    }
    proxy
}

/// With `socks5` it is the proxy that resolves names, as in Go; this client calls that `socks5h`.
pub(crate) fn resolving_there(proxy: &str) -> String {
    match proxy.split_at_checked("socks5://".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("socks5://") => format!("socks5h://{rest}"),
        _ => proxy.to_owned(),
    }
}
