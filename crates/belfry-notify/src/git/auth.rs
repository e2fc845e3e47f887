//! What requests to a git host prove themselves with.

use belfry_http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};

use super::app::App;
use crate::{
    Misconfigured, Reason,
    line::{Line, Stop},
    settings::{Resolved, secret_header},
};

/// A way to authenticate.
pub(crate) enum Auth {
    /// The same header with every request.
    Header(HeaderName, HeaderValue),
    /// The token of a GitHub App's installation, which lives for an hour.
    App(Box<App>),
}

impl Auth {
    /// `Authorization: <scheme> <token>`; the password stands in for a token that isn't there.
    pub(crate) fn token(resolved: &Resolved<'_>, scheme: &str) -> Result<Self, Misconfigured> {
        let token = token_or_password(resolved)?.ok_or_else(|| resolved.missing_token())?;
        Ok(Self::Header(header::AUTHORIZATION, resolved.authorization(scheme, token)?))
    }

    /// A header of the host's own with nothing but the token, or the password.
    pub(crate) fn private(resolved: &Resolved<'_>, name: HeaderName) -> Result<Self, Misconfigured> {
        let token = token_or_password(resolved)?.ok_or_else(|| resolved.missing_token())?;
        Ok(Self::Header(name, resolved.authorization("", token)?))
    }

    /// `Authorization: Basic …`.
    pub(crate) fn basic(username: &str, password: &str) -> Result<Self, Misconfigured> {
        let value = secret_header(&crate::settings::basic(username, password));
        let value =
            value.ok_or_else(|| Misconfigured::new(Reason::Credentials, "the credentials fit into no header"))?;
        Ok(Self::Header(header::AUTHORIZATION, value))
    }

    /// Sends a request with it.
    pub(crate) async fn send(&self, mut request: Request, line: &Line<'_>) -> Result<Response, Stop> {
        match self {
            Self::Header(name, value) => {
                request.headers.insert(name.clone(), value.clone());
                line.send(&request).await
            }
            Self::App(app) => {
                request.headers.insert(header::AUTHORIZATION, app.token(line).await?);
                let answer = line.send(&request).await?;
                if answer.status == StatusCode::UNAUTHORIZED {
                    // Taken back before its time: the next attempt gets another one.
                    app.forget(line).await?;
                }
                Ok(answer)
            }
        }
    }
}

/// The token, or the password where there is none.
pub(crate) fn token_or_password<'a>(resolved: &Resolved<'a>) -> Result<Option<&'a str>, Misconfigured> {
    let password = resolved.password.map(|password| password.trim_end_matches(['\r', '\n']));
    Ok(resolved.token()?.or(password).filter(|token| !token.is_empty()))
}
