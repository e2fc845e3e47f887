//! What stands in `--api-access FILE`, as it is written there.

use std::path::{Path, PathBuf};

use belfry_api::{OidcProvider, OidcValidation, OidcVariable};
use serde::Deserialize;
use serde_json::Value;

use super::grant::Role;

/// Bytes of the file.
const FILE: u64 = 1024 * 1024;
/// Bytes of a file with a token or a key.
const SECRET: u64 = 64 * 1024;

/// The whole file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) tokens: Vec<Token>,
    #[serde(default)]
    pub(super) issuers: Vec<Issuer>,
    #[serde(default)]
    pub(super) clusters: Vec<Cluster>,
}

/// A static token.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) token_file: Option<PathBuf>,
    pub(super) token_sha256: Option<String>,
    pub(super) namespaces: Vec<String>,
    #[serde(default = "local")]
    pub(super) clusters: Vec<String>,
    #[serde(default)]
    pub(super) role: Role,
}

/// Whose tokens are taken, and which of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Issuer {
    #[serde(rename = "issuerURL")]
    pub(super) issuer_url: String,
    pub(super) audience: Option<String>,
    /// As in `oidcProviders` of a Receiver, which is what they become.
    #[serde(default)]
    pub(super) variables: Vec<OidcVariable>,
    pub(super) validations: Vec<OidcValidation>,
    pub(super) namespaces: Vec<String>,
    #[serde(default = "local")]
    pub(super) clusters: Vec<String>,
    #[serde(default)]
    pub(super) role: Role,
}

/// What another cluster shows with the events that it posts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) name: String,
    #[serde(default)]
    pub(super) hmac_key_files: Vec<PathBuf>,
    #[serde(default)]
    pub(super) token_files: Vec<PathBuf>,
}

fn local() -> Vec<String> {
    vec![super::rights::LOCAL.to_owned()]
}

impl Issuer {
    pub(super) fn provider(&self) -> OidcProvider {
        OidcProvider {
            issuer_url: self.issuer_url.clone(),
            audience: Some(self.audience.clone().unwrap_or_else(|| belfry_cluster::AUDIENCE.to_owned())),
            variables: self.variables.clone(),
            validations: self.validations.clone(),
        }
    }
}

/// Reads the file. The error names the field, and quotes no value: somebody may have written a token where its file's
/// name belongs.
pub(super) fn read(path: &Path) -> Result<File, String> {
    let text = bytes(path, FILE)?;
    let text = String::from_utf8(text).map_err(|_| "is not UTF-8 text".to_owned())?;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    let value: Value = serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| format!("is not valid YAML{}", line(&error)))?;
    let value = match value {
        Value::Null => Value::Object(serde_json::Map::new()),
        Value::Object(_) => value,
        _ => return Err("must have the fields tokens, issuers and clusters".to_owned()),
    };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let what = error.inner().to_string();
        let what = match what.split_once(", expected ") {
            Some((unexpected, expected)) if unexpected.starts_with("invalid ") => format!("must be {expected}"),
            _ => what,
        };
        match error.path().iter().next() {
            Some(_) => format!("{}: {what}", error.path()),
            None => what,
        }
    })
}

fn line(error: &serde_saphyr::Error) -> String {
    error.location().map(|at| format!(" (line {})", at.line())).unwrap_or_default()
}

/// Reads a file with a token or a key.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>, String> {
    bytes(path, SECRET)
}

fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("{} has more than {most} bytes", path.display()));
    }
    Ok(bytes)
}
