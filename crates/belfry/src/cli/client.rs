//! The HTTP client of the commands that ask a running server.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use http::Method;
use serde::{Deserialize, de::DeserializeOwned};

/// Which server to ask.
#[derive(Debug, Args)]
pub struct Remote {
    /// The server's API
    #[arg(long, env = "BELFRY_SERVER", default_value = "http://127.0.0.1:9393", value_name = "URL")]
    server: String,
    /// File with the bearer token
    #[arg(long, env = "BELFRY_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Remote {
    /// Sends a request without a body and reads the answer as JSON.
    ///
    /// # Errors
    /// When the server can't be reached, refuses (with what it says), or answers something else.
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.server.trim_end_matches('/'));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        let mut request = client.request(method, &url);
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
            request = request.bearer_auth(token.trim());
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("can't reach {} (is `belfry serve` running there? see --server)", self.server))?;
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("{url}: the answer ended early"))?;
        if !status.is_success() {
            #[derive(Deserialize)]
            struct Problem {
                detail: String,
            }
            match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => bail!("{}", problem.detail),
                Err(_) => bail!("{url} answered {status}: is that Belfry's API?"),
            }
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} answered something that is not expected"))
    }
}
