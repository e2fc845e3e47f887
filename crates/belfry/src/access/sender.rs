//! Who posts an event to the API, which alone says of which cluster it is.

use std::{sync::Arc, time::Instant};

use belfry_core::passed::{self, Passed};

use super::{
    Access, Denied, bearer, hash, peer,
    rules::Rules,
    signature::{EVENT_ID, PASSED, Signature, Vouches},
};
use crate::{api::Caller, dispatcher::now, server::WholeRequest};

/// Who posted an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Belfry's name for the cluster that the event is of.
    pub cluster: Arc<str>,
    /// How much of the request is sure to be theirs.
    pub vouches: Vouches,
}

impl Sender {
    /// Someone whose token came with the whole request.
    fn of(cluster: &Arc<str>) -> Self {
        Self { cluster: cluster.clone(), vouches: Vouches::All }
    }

    /// The number of the event's id, and what else they say of it.
    ///
    /// # Errors
    /// What is wrong with which header.
    pub fn says(&self, request: &WholeRequest) -> Result<(Option<u64>, Passed), String> {
        let header = |name: &str, from: Vouches| {
            let value = request.headers().get(name).filter(|_| self.vouches >= from)?;
            Some(value.to_str().unwrap_or("\u{fffd}"))
        };
        let identity = header(EVENT_ID, Vouches::Id).map(|id| {
            passed::identity(&self.cluster, id).ok_or("Belfry-Event-Id is not 1 to 128 visible characters".to_owned())
        });
        let passed = header(PASSED, Vouches::All).map(Passed::parse).transpose();
        let passed = passed.map_err(|error| format!("Belfry-Passed: {error}"))?.unwrap_or_default();
        Ok((identity.transpose()?, passed))
    }
}

impl Access {
    /// Who posted an event.
    ///
    /// # Errors
    /// When the sender shows no credential for posting events.
    pub async fn sender(&self, request: &WholeRequest) -> Result<Sender, Denied> {
        let peer = peer(request);
        let headers = request.headers();
        let token = bearer(headers);
        let only = named(request);
        let rules = self.rules.load_full();
        if let Some(sender) = token.and_then(|token| rules.sender(&hash(token.as_bytes()))) {
            return match only {
                Some(only) if only != sender.name => {
                    Err(Denied::Forbidden("this credential is another cluster's".to_owned()))
                }
                _ => Ok(Sender::of(&sender.cluster)),
            };
        }
        match (Signature::read(headers, now()), token) {
            (Ok(Some(signature)), _) => self.signer(request, rules, signature, only).await,
            (Err(why), _) => Err(self.refuse(peer, why, why)),
            (Ok(None), Some(token)) if self.knows_tokens() => match self.by_token(token, peer).await? {
                Caller::Everything => Ok(Sender::of(&self.local)),
                Caller::Kubernetes(person) if person.may_post().await? => Ok(Sender::of(&self.local)),
                Caller::Kubernetes(_) => Err(Denied::Forbidden(
                    "posting events takes the right to create clusters.belfry.dev of this cluster's name".to_owned(),
                )),
                Caller::Scoped(_) => Err(Denied::Forbidden("this credential reads, and posts no events".to_owned())),
            },
            _ => self.unnamed(request, peer).map(|_| Sender::of(&self.local)),
        }
    }

    /// The cluster that signed a request: all keys are tried, unless the sender says whose it is.
    async fn signer(
        &self,
        request: &WholeRequest,
        rules: Arc<Rules>,
        signature: Signature,
        only: Option<String>,
    ) -> Result<Sender, Denied> {
        // Trying all keys costs as much as there are clusters. Who names one is never held back.
        if only.is_none()
            && let Some(wait) = self.strangers.over(peer(request), Instant::now())
        {
            return Err(Denied::TooMany(wait));
        }
        let _turn = self.verifiers.acquire().await;
        let body = request.body().clone();
        let vouches = signature.vouches();
        let found = tokio::task::spawn_blocking(move || {
            rules.signer(&signature, &body, only.as_deref()).map(|sender| sender.cluster.clone())
        });
        match found.await {
            Ok(Some(cluster)) => Ok(Sender { cluster, vouches }),
            Ok(None) => Err(self.refuse(peer(request), "the signature is of no key here", "a wrong signature")),
            Err(error) => {
                tracing::error!(%error, "verifying a signature ended unexpectedly");
                Err(Denied::Unavailable("verifying the signature ended unexpectedly".to_owned()))
            }
        }
    }
}

/// The cluster that a request says it comes from: only a hint which credentials to try.
fn named(request: &WholeRequest) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "cluster")
        .map(|(_, value)| value.into_owned())
}
