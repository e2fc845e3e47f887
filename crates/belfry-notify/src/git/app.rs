//! GitHub Apps: a token signed with the App's key buys one for an installation, which is kept until shortly before its
//! end and shared by all Providers with the same App, installation, key and server.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_http::{HeaderValue, Method, Request, Response, StatusCode, Url, header};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{get, github, verdict, with_json};
use crate::{
    Misconfigured, Reason,
    line::{Line, Stop},
    protocol::Verdict,
    settings::{Resolved, secret_header},
    text,
};

/// How long before its end a token is renewed.
const MARGIN: Duration = Duration::from_secs(300);
/// How long a token is kept that doesn't say when it ends.
const UNDATED: Duration = Duration::from_secs(600);
/// Installations whose tokens are kept.
const KEPT: usize = 256;
/// What concurrent attempts wait for.
const WAITING: &str = "another attempt was still getting a token for the GitHub App";

/// An App that is installed for the repository.
pub(crate) struct App {
    id: String,
    installation: Installation,
    key: RsaKeyPair,
    /// The API's address, without a slash at the end.
    api: String,
    kept: Arc<tokio::sync::Mutex<Kept>>,
}

/// Which installation.
enum Installation {
    /// By its number.
    Id(u64),
    /// By the organisation or user that has it.
    Owner(String),
}

/// What is known of an installation.
#[derive(Default)]
struct Kept {
    installation: Option<u64>,
    token: Option<(HeaderValue, SystemTime)>,
    slug: Option<String>,
}

type Entry = ([u8; 32], Arc<tokio::sync::Mutex<Kept>>);

/// The tokens of this process, by what they were bought with; the one that was used longest ago goes first.
static TOKENS: LazyLock<Mutex<VecDeque<Entry>>> = LazyLock::new(Mutex::default);

fn shared(key: [u8; 32]) -> Arc<tokio::sync::Mutex<Kept>> {
    let mut all = TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = all.iter().position(|(known, _)| *known == key);
    let kept = at.and_then(|at| all.remove(at)).map_or_else(Arc::default, |(_, kept)| kept);
    all.push_back((key, kept.clone()));
    if all.len() > KEPT {
        all.pop_front();
    }
    kept
}

impl App {
    /// The App of the Secret, if that has one. `api` is the API that belongs to the Provider's address.
    pub(crate) fn of(resolved: &Resolved<'_>, api: &str) -> Result<Option<Self>, Misconfigured> {
        let key = |key| Ok(resolved.secret_text(key)?.map(str::trim).filter(|value| !value.is_empty()));
        let (id, pem) = match (key("githubAppID")?, key("githubAppPrivateKey")?) {
            (None, None) => return Ok(None),
            (Some(id), Some(pem)) => (id, pem),
            (None, _) => return Err(missing(resolved, "githubAppID")),
            (_, None) => return Err(missing(resolved, "githubAppPrivateKey")),
        };
        let bad = |text: String| Misconfigured::new(Reason::Credentials, text);
        let installation = match (key("githubAppInstallationID")?, key("githubAppInstallationOwner")?) {
            (Some(id), None) => {
                let place = resolved.place_of("githubAppInstallationID");
                Installation::Id(id.parse().map_err(|_| bad(format!("{place} is not a number")))?)
            }
            (None, Some(owner)) => Installation::Owner(owner.to_owned()),
            (None, None) => return Err(missing(resolved, "githubAppInstallationID")),
            (Some(_), Some(_)) => {
                let text = "the Secret has both 'githubAppInstallationID' and 'githubAppInstallationOwner': remove one";
                return Err(bad(text.into()));
            }
        };
        let api = match key("githubAppBaseURL")? {
            Some(base) => {
                let place = resolved.place_of("githubAppBaseURL");
                let url: Option<Url> = base.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
                url.ok_or_else(|| bad(format!("{place} is not an http or https URL")))?;
                base.trim_end_matches('/')
            }
            None => api,
        };
        let place = resolved.place_of("githubAppPrivateKey");
        let signing = signing_key(pem).ok_or_else(|| bad(format!("{place} is not an RSA private key in PEM")))?;
        let wanted = match &installation {
            Installation::Id(id) => id.to_string(),
            Installation::Owner(owner) => format!("owner {owner}"),
        };
        let kept = shared(fingerprint(&[id, &wanted, api, pem]));
        Ok(Some(Self { id: id.to_owned(), installation, key: signing, api: api.to_owned(), kept }))
    }

    /// The installation's token as a header.
    pub(crate) async fn token(&self, line: &Line<'_>) -> Result<HeaderValue, Stop> {
        // One buys, the others wait for it.
        let mut kept = line.wait(WAITING, self.kept.lock()).await?;
        if let Some((token, renew)) = &kept.token
            && line.now() < *renew
        {
            learn(line, token);
            return Ok(token.clone());
        }
        let installation = match kept.installation {
            Some(id) => id,
            None => self.look_up(line).await?,
        };
        kept.installation = Some(installation);
        let url = format!("{}/app/installations/{installation}/access_tokens", self.api);
        let request = with_json(Method::POST, &url, &github::headers(), &serde_json::Map::new())?;
        let answer = self.send(request, line).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // Installed anew under another number, perhaps.
            kept.installation = None;
        }
        let answer = self.taken(answer, "can't get a token for the installation", line)?;
        let (token, renew) = bought(&answer, line.now()).ok_or_else(|| {
            Stop::Answered(answer.into(), Verdict::Retry("the answer holds no token for the GitHub App".into()), None)
        })?;
        learn(line, &token);
        kept.token = Some((token.clone(), renew));
        Ok(token)
    }

    /// Forgets the token: the host refuses it.
    pub(crate) async fn forget(&self, line: &Line<'_>) -> Result<(), Stop> {
        line.wait(WAITING, self.kept.lock()).await?.token = None;
        Ok(())
    }

    /// The name under which the App writes: `<slug>[bot]`.
    pub(crate) async fn login(&self, line: &Line<'_>) -> Result<String, Stop> {
        #[derive(Deserialize)]
        struct About {
            slug: String,
        }
        let mut kept = line.wait(WAITING, self.kept.lock()).await?;
        if let Some(slug) = &kept.slug {
            return Ok(format!("{slug}[bot]"));
        }
        let request = get(&format!("{}/app", self.api), &github::headers())?;
        let answer = self.taken(self.send(request, line).await?, "can't read the App's name", line)?;
        let about: About = serde_json::from_slice(&answer.body).map_err(|_| {
            Stop::Answered(answer.into(), Verdict::Retry("the answer holds no name of the GitHub App".into()), None)
        })?;
        kept.slug = Some(about.slug.clone());
        Ok(format!("{}[bot]", about.slug))
    }

    /// The number of the owner's installation: an organisation's, or a user's.
    async fn look_up(&self, line: &Line<'_>) -> Result<u64, Stop> {
        #[derive(Deserialize)]
        struct Found {
            id: u64,
        }
        let owner = match &self.installation {
            Installation::Id(id) => return Ok(*id),
            Installation::Owner(owner) => text::path_escape(owner),
        };
        let ask = async |kind: &str| {
            let request = get(&format!("{}/{kind}/{owner}/installation", self.api), &github::headers())?;
            self.send(request, line).await
        };
        let mut answer = ask("orgs").await?;
        if answer.status == StatusCode::NOT_FOUND {
            answer = ask("users").await?;
        }
        let answer = self.taken(answer, "can't find the installation of githubAppInstallationOwner", line)?;
        let found: Found = serde_json::from_slice(&answer.body).map_err(|_| {
            Stop::Answered(
                answer.into(),
                Verdict::Retry("the answer holds no installation of the GitHub App".into()),
                None,
            )
        })?;
        Ok(found.id)
    }

    /// Sends a request as the App itself.
    async fn send(&self, mut request: Request, line: &Line<'_>) -> Result<Response, Stop> {
        let proof =
            self.sign(line.now()).ok_or_else(|| Stop::Misconfigured("the GitHub App's key can't sign".into()))?;
        line.learned(&proof);
        let header = secret_header(&format!("Bearer {proof}"));
        let header = header.ok_or_else(|| Stop::Misconfigured("githubAppID holds odd characters".into()))?;
        request.headers.insert(header::AUTHORIZATION, header);
        line.send(&request).await
    }

    fn taken(&self, answer: Response, what: &str, line: &Line<'_>) -> Result<Response, Stop> {
        let told = |said: String| format!("GitHub App {}: {what}: {said}", self.id);
        let verdict = match verdict::judge(&answer) {
            Verdict::Taken => Verdict::Taken,
            Verdict::Retry(said) => Verdict::Retry(told(said)),
            Verdict::Misconfigured(said) | Verdict::Rejected(said) | Verdict::Full(said) => {
                Verdict::Misconfigured(told(said))
            }
        };
        verdict::taken(answer, verdict, line.now())
    }

    /// A JSON Web Token of the App, good for two minutes, and begun a little early for clocks that are behind.
    fn sign(&self, now: SystemTime) -> Option<String> {
        let issued = now.duration_since(UNIX_EPOCH).ok()?.as_secs().checked_sub(30)?;
        let claims = serde_json::json!({ "iat": issued, "exp": issued + 120, "iss": self.id });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
        Some(format!("{text}.{}", encode(&signature)))
    }
}

/// A key in PKCS#1 (as GitHub hands it out) or PKCS#8.
fn signing_key(pem: &str) -> Option<RsaKeyPair> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()? {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

/// The token in an answer, and when to get the next one.
fn bought(answer: &Response, now: SystemTime) -> Option<(HeaderValue, SystemTime)> {
    #[derive(Deserialize)]
    struct Bought {
        token: String,
        #[serde(default)]
        expires_at: Option<jiff::Timestamp>,
    }
    let bought: Bought = serde_json::from_slice(&answer.body).ok()?;
    let life = match bought.expires_at {
        Some(end) => SystemTime::from(end).duration_since(now).unwrap_or_default(),
        None => UNDATED,
    };
    let renew = now + life - MARGIN.min(life / 2);
    Some((secret_header(&format!("Bearer {}", bought.token))?, renew))
}

fn learn(line: &Line<'_>, token: &HeaderValue) {
    let text = String::from_utf8_lossy(token.as_bytes());
    line.learned(text.trim_start_matches("Bearer "));
}

fn missing(resolved: &Resolved<'_>, key: &str) -> Misconfigured {
    let text = format!("the credentials of the GitHub App are not complete: {}", resolved.place_for(key));
    Misconfigured::new(Reason::Credentials, text)
}

fn fingerprint(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The credentials of a Provider of GitHub: the token, else the password, else the App.
pub(crate) fn auth(resolved: &Resolved<'_>, api: &str) -> Result<super::auth::Auth, Misconfigured> {
    use super::auth::{Auth, token_or_password};
    if token_or_password(resolved)?.is_none()
        && let Some(app) = App::of(resolved, api)?
    {
        return Ok(Auth::App(Box::new(app)));
    }
    Auth::token(resolved, "Bearer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::answer;

    #[test]
    fn tokens_are_renewed_before_they_end() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let lasts = |body: &str| {
            let (token, renew) = bought(&answer(201, body), now).unwrap();
            assert!(token.is_sensitive() && token == "Bearer t");
            renew.duration_since(now).unwrap().as_secs()
        };
        assert_eq!(lasts(r#"{"token":"t","expires_at":"2023-11-14T23:13:20Z"}"#), 3600 - 300);
        assert_eq!(lasts(r#"{"token":"t","expires_at":"2023-11-14T22:14:20Z"}"#), 30);
        assert_eq!(lasts(r#"{"token":"t","expires_at":"2023-11-14T22:00:00Z"}"#), 0);
        assert_eq!(lasts(r#"{"token":"t"}"#), 300);
        assert!(bought(&answer(201, "{}"), now).is_none());
    }

    #[test]
    fn tokens_are_shared_by_those_with_the_same_key_only() {
        let one = shared(fingerprint(&["12", "9", "https://api.example", "key"]));
        assert!(Arc::ptr_eq(&one, &shared(fingerprint(&["12", "9", "https://api.example", "key"]))));
        assert!(!Arc::ptr_eq(&one, &shared(fingerprint(&["12", "9", "https://api.example", "other"]))));
        assert!(!Arc::ptr_eq(&one, &shared(fingerprint(&["1", "29", "https://api.example", "key"]))));
    }
}
