//! Who posts an event to the API, which alone says of which cluster it is.

use std::sync::Arc;

use super::{Access, Denied, bearer, hash, peer, signature::Signature};
use crate::{dispatcher::now, server::WholeRequest};

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
        let hashed = token.map(|token| hash(token.as_bytes()));
        if let Some(hashed) = &hashed {
            if self.is_own(hashed) {
                return Ok(self.local.clone());
            }
            let rules = self.rules.load();
            if let Some(sender) = rules.sender(hashed, only.as_deref()) {
                return Ok(sender.cluster.clone());
            }
            if rules.of_token(hashed).is_some() {
                return Err(Denied::Forbidden("this credential reads, and posts no events".to_owned()));
            }
        }
        match Signature::read(headers, now()) {
            Ok(Some(signature)) => return self.signer(request, signature, only).await,
            Ok(None) => {}
            Err(why) => return Err(self.refuse(peer, why, why)),
        }
        match (token, hashed) {
            (Some(token), Some(hashed)) if self.cluster.is_some() => {
                let person = self.by_cluster(token, hashed, peer).await?;
                match person.may_post().await? {
                    true => Ok(self.local.clone()),
                    false => Err(Denied::Forbidden(
                        "posting events for this cluster takes create on its clusters.belfry.dev".to_owned(),
                    )),
                }
            }
            (Some(_), _) if self.knows_tokens() => {
                Err(self.refuse(peer, "the bearer token is not accepted", "an unknown token for posting events"))
            }
            _ => self.unnamed(request, peer).map(|_| self.local.clone()),
        }
    }

    /// The cluster that signed a request: all keys are tried, unless the sender says whose it is.
    async fn signer(
        &self,
        request: &WholeRequest,
        signature: Signature,
        only: Option<String>,
    ) -> Result<Arc<str>, Denied> {
        let _turn = self.verifiers.acquire().await;
        let (rules, body) = (self.rules.load_full(), request.body().clone());
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
