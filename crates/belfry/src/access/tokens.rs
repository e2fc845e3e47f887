//! Bearer tokens: what is cheap to compare first, then what a signature proves, then what the API server is asked.

use std::{net::IpAddr, sync::Arc, time::Instant};

use belfry_receive::{Given, Inbound, KeySource, Keys, Reason, Refused, Verdict};
use http::{HeaderMap, HeaderValue, header};

use super::{
    Access, Denied, Hash,
    grant::Holder,
    hash,
    person::{Person, unasked},
    rules::{Issuer, Rules},
};
use crate::{api::Caller, dispatcher::now};

const REFUSED: &str = "the bearer token is not accepted";

impl Access {
    /// Whose token this is.
    pub(super) async fn by_token(&self, token: &str, peer: IpAddr) -> Result<Caller, Denied> {
        let hashed = hash(token.as_bytes());
        if self.is_own(&hashed) {
            return Ok(Caller::Everything);
        }
        let rules = self.rules.load_full();
        if let Some(grant) = rules.of_token(&hashed) {
            return Ok(Caller::Scoped(Holder::of_token(grant.clone(), self.local.clone())));
        }
        if rules.sender(&hashed).is_some() {
            return Err(Denied::Forbidden("this credential posts events, and reads nothing".to_owned()));
        }
        if let Some(said) = self.by_issuer(&rules, token).await {
            return said.map_err(|refused| match refused.reason {
                Reason::KeysMissing => Denied::Unavailable("the keys of the token's issuer can't be had".to_owned()),
                _ => self.refuse(peer, REFUSED, &refused.why),
            });
        }
        self.by_cluster(token, hashed, peer).await.map(|person| Caller::Kubernetes(Box::new(person)))
    }

    /// Someone whom the cluster knows.
    async fn by_cluster(&self, token: &str, hashed: Hash, peer: IpAddr) -> Result<Person, Denied> {
        let Some(cluster) = &self.cluster else { return Err(self.refuse(peer, REFUSED, "an unknown token")) };
        if let Some(wait) = self.strangers.wait(peer, &hashed, Instant::now()) {
            return Err(Denied::TooMany(wait));
        }
        let user = cluster.review_token(token).await.map_err(|error| unasked(&error))?;
        self.strangers.learn(hashed, user.is_some(), Instant::now());
        match user {
            Some(_) => Ok(Person::new(cluster.clone(), token, self.local.clone())),
            None => Err(self.refuse(peer, REFUSED, "the API server knows no such token for the audience belfry")),
        }
    }

    /// Someone with a token of one of the issuers; `None` when it says that it is of none of them. Of several entries with
    /// the same issuer the first counts that takes it.
    async fn by_issuer(&self, rules: &Arc<Rules>, token: &str) -> Option<Result<Caller, Refused>> {
        let value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let mut refusals: Vec<Refused> = Vec::new();
        for index in 0..rules.issuers.len() {
            let issuer = &rules.issuers[index];
            let inbound = Inbound { headers: &headers, body: &[] };
            // What is refused here isn't a token of this issuer.
            if belfry_receive::keys(&issuer.rule.spec, &inbound).is_err() {
                continue;
            }
            match self.verify(rules, index, &headers).await {
                Ok(()) => {
                    let holder = Holder::of_issuer(issuer.grant.clone(), self.local.clone(), Instant::now());
                    return Some(Ok(Caller::Scoped(holder)));
                }
                Err(refused) => refusals.push(refused),
            }
        }
        let why = refusals.iter().map(|refused| refused.why.as_str()).collect::<Vec<_>>().join("; ");
        // One that could not be asked might have said yes.
        let reasons = || refusals.iter().map(|refused| refused.reason);
        let reason = reasons().find(|reason| *reason == Reason::KeysMissing).or(reasons().next())?;
        Some(Err(Refused { reason, why }))
    }

    async fn verify(&self, rules: &Arc<Rules>, index: usize, headers: &HeaderMap) -> Result<(), Refused> {
        let source: &KeySource = &rules.issuers[index].source;
        let keys = self.keys.get(source).await?;
        match self.check(rules, index, headers, keys.clone()).await {
            Err(refused) if refused.reason == Reason::UnknownKey => match self.keys.newer(source, &keys).await {
                Some(newer) => self.check(rules, index, headers, newer).await,
                None => Err(refused),
            },
            checked => checked,
        }
    }

    /// Verifies a token and evaluates its claims, away from what must not wait.
    async fn check(
        &self,
        rules: &Arc<Rules>,
        index: usize,
        headers: &HeaderMap,
        keys: Arc<Keys>,
    ) -> Result<(), Refused> {
        let _turn = self.verifiers.acquire().await;
        let (rules, headers) = (rules.clone(), headers.clone());
        let checked = tokio::task::spawn_blocking(move || accepts(&rules.issuers[index], &headers, &keys));
        checked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "verifying a token ended unexpectedly");
            Err(Refused { reason: Reason::KeysMissing, why: "verifying it ended unexpectedly".to_owned() })
        })
    }
}

fn accepts(issuer: &Issuer, headers: &HeaderMap, keys: &Keys) -> Result<(), Refused> {
    let claims = |provider: usize, claims: &belfry_receive::Object| issuer.rule.check_claims(provider, claims);
    let given = Given { secret: None, keys: Some(keys), claims: &claims, now: now() };
    match belfry_receive::verify(&issuer.rule.spec, &Inbound { headers, body: &[] }, &given) {
        Verdict::Accepted(_) => Ok(()),
        Verdict::Refused(refused) => Err(refused),
        Verdict::CdEvents(_) | Verdict::Ignored(_) => {
            Err(Refused { reason: Reason::NotReady, why: "the issuer's rule takes no tokens".to_owned() })
        }
    }
}
