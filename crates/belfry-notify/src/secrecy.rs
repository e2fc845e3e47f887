//! What a Provider knows that nobody else may read, and how it is kept out of errors.

use base64::{Engine, prelude::BASE64_STANDARD};
use belfry_core::{go_json, limits, secret::Mask};
use belfry_http::Url;

use crate::{settings::Resolved, text};

/// Parts of a path shorter than this are words, not keys; only longer ones are masked by themselves.
const KEY_IN_PATH: usize = 16;
/// The same for values in a query and words in a header.
const KEY_IN_QUERY: usize = 8;

/// Masks one Provider's secrets.
pub(crate) struct Secrecy {
    mask: Mask,
    values: Vec<String>,
}

impl Secrecy {
    pub(crate) fn of(resolved: &Resolved<'_>) -> Self {
        let mut found = Vec::new();
        address(resolved.address, &mut found);
        if let Some(token) = resolved.raw_token() {
            let token = String::from_utf8_lossy(token).into_owned();
            // Azure DevOps takes it as a password without a user, Bitbucket as user and password in one.
            found.push(BASE64_STANDARD.encode(format!(":{}", token.trim())));
            found.push(BASE64_STANDARD.encode(token.trim()));
            found.extend(token.split_once(':').map(|(_, password)| password.to_owned()));
            found.push(token);
        }
        if let Some(key) = resolved.hmac_key() {
            found.push(String::from_utf8_lossy(key).into_owned());
        }
        if let Some(key) = resolved.raw_app_key() {
            let pem = String::from_utf8_lossy(key);
            found.extend(pem.split_whitespace().filter(|line| line.len() >= KEY_IN_PATH).map(str::to_owned));
            found.push(pem.into_owned());
        }
        if let Some(password) = resolved.password {
            credentials(resolved.username, password, &mut found);
        }
        for value in resolved.headers.values() {
            found.extend(value.split_whitespace().filter(|word| word.len() >= KEY_IN_QUERY).map(str::to_owned));
            found.push(value.clone());
        }
        if let Some(proxy) = &resolved.proxy {
            address(proxy.url, &mut found);
            if let Some((username, password)) = proxy.credentials {
                credentials(username, password, &mut found);
            }
        }
        if resolved.spec().type_ == "pagerduty" {
            // Its channel is the key that lets anyone open incidents.
            found.push(resolved.channel.to_owned());
        }
        Self::new(found)
    }

    /// These secrets too.
    pub(crate) fn and(&self, more: Vec<String>) -> Self {
        Self::new(self.values.iter().cloned().chain(more).collect())
    }

    fn new(found: Vec<String>) -> Self {
        let mut values: Vec<String> =
            found.iter().map(|value| value.trim()).filter(|value| !value.is_empty()).flat_map(spellings).collect();
        values.sort();
        values.dedup();
        Self { mask: Mask::new(values.iter().map(String::as_str)), values }
    }

    /// The text without secrets.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.mask.apply(text)
    }

    /// What is kept of what a destination said: masked first and then cut, on one line.
    pub(crate) fn excerpt(&self, said: &str) -> String {
        let masked = self.mask(self.without_torn(said));
        let line: String = masked.split(char::is_control).map(str::trim).filter(|s| !s.is_empty()).fold(
            String::new(),
            |mut line, part| {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(part);
                line
            },
        );
        text::cut_bytes(&line, limits::ANSWER_KEPT).into_owned()
    }

    /// The text without the beginning of a secret at its very end, where the answer was cut off.
    fn without_torn<'t>(&self, text: &'t str) -> &'t str {
        let torn =
            |value: &String| (4..value.len()).rev().find(|&n| value.is_char_boundary(n) && text.ends_with(&value[..n]));
        let longest = self.values.iter().filter_map(torn).max().unwrap_or(0);
        &text[..text.len() - longest]
    }
}

/// A value in the spellings in which it may come back.
fn spellings(value: &str) -> Vec<String> {
    let json = String::from_utf8_lossy(&go_json::to_vec(value)).trim_matches('"').to_owned();
    let plain = serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned();
    let mut spellings = vec![value.to_owned(), json, plain, text::query_escape(value)];
    if let Ok(mut url) = "http://host/".parse::<Url>() {
        url.set_path(value);
        spellings.push(url.path().trim_start_matches('/').to_owned());
        url.set_query(Some(value));
        spellings.extend(url.query().map(str::to_owned));
    }
    spellings
}

fn credentials(username: &str, password: &str, found: &mut Vec<String>) {
    let pair = format!("{username}:{password}");
    found.push(BASE64_STANDARD.encode(&pair));
    found.push(pair);
    found.push(password.to_owned());
}

/// An address whole, and those of its parts that may be keys.
fn address(address: &str, found: &mut Vec<String>) {
    found.push(address.to_owned());
    let Ok(url) = address.parse::<Url>() else { return };
    found.push(url.to_string());
    if url.path().len() > 1 {
        found.push(url.path().to_owned());
    }
    if let Some(query) = url.query() {
        found.push(format!("{}?{query}", url.path()));
        found.push(query.to_owned());
    }
    found.extend(url.path().split('/').filter(|part| part.len() >= KEY_IN_PATH).map(str::to_owned));
    for (_, value) in url.query_pairs().filter(|(_, value)| value.len() >= KEY_IN_QUERY) {
        found.push(value.into_owned());
    }
    if let Some(password) = url.password() {
        let decode = |text: &str| text::percent_decode(text);
        credentials(&decode(url.username()), &decode(password), found);
        found.push(format!("{}:{password}", url.username()));
        found.push(password.to_owned());
    } else if !url.username().is_empty() {
        found.push(url.username().to_owned());
        found.push(text::percent_decode(url.username()));
    }
}
