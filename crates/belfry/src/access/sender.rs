//! Who posts an event to the API, which alone says of which cluster it is.

use std::{sync::Arc, time::Instant};

use super::{Access, Denied, bearer, hash, peer, rules::Rules, signature::Signature};
use crate::{api::Caller, dispatcher::now, server::WholeRequest};

impl Access {
    /// Belfry's name for the cluster that a posted event is from.
    ///
    /// # Errors
    /// When the sender shows no credential for posting events.
    pub async fn sender(&self, request: &WholeRequest) -> Result<Arc<str>, Denied> {
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
                _ => Ok(sender.cluster.clone()),
            };
        }
        match (Signature::read(headers, now()), token) {
            (Ok(Some(signature)), _) => self.signer(request, rules, signature, only).await,
            (Err(why), _) => Err(self.refuse(peer, why, why)),
            (Ok(None), Some(token)) if self.knows_tokens() => match self.by_token(token, peer).await? {
                Caller::Everything => Ok(self.local.clone()),
                Caller::Kubernetes(person) if person.may_post().await? => Ok(self.local.clone()),
                Caller::Kubernetes(_) => Err(Denied::Forbidden(
                    "posting events takes the right to create clusters.belfry.dev of this cluster's name".to_owned(),
                )),
                Caller::Scoped(_) => Err(Denied::Forbidden("this credential reads, and posts no events".to_owned())),
            },
            _ => self.unnamed(request, peer).map(|_| self.local.clone()),
        }
    }

    /// The cluster that signed a request: all keys are tried, unless the sender says whose it is.
    async fn signer(
        &self,
        request: &WholeRequest,
        rules: Arc<Rules>,
        signature: Signature,
        only: Option<String>,
    ) -> Result<Arc<str>, Denied> {
        // Trying all keys costs as much as there are clusters. Who names one is never held back.
        if only.is_none()
            && let Some(wait) = self.strangers.over(peer(request), Instant::now())
        {
            return Err(Denied::TooMany(wait));
        }
        let _turn = self.verifiers.acquire().await;
        let body = request.body().clone();
        let found = tokio::task::spawn_blocking(move || {
            rules.signer(&signature, &body, only.as_deref()).map(|sender| sender.cluster.clone())
        });
        match found.await {
            Ok(Some(cluster)) => Ok(cluster),
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
