//! Notifiers by Provider, built from the Provider and the Secrets of the moment and kept until one of them changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_core::{
    ConfigKey,
    config::ProviderRule,
    notification::{Failure, Outcome},
    secret::SecretData,
};
use belfry_http::Clients;
use belfry_notify::{NoRepository, Notifier, Repository, Settings, StatusNotifier};

use crate::environment::Environment;

/// Builds notifiers, and keeps them.
pub struct Notifiers {
    clients: Arc<Clients>,
    environment: Arc<dyn Environment>,
    workload_identity: bool,
    cluster: String,
    built: Mutex<HashMap<ConfigKey, Built>>,
}

#[derive(Clone)]
struct Built {
    rule: Arc<ProviderRule>,
    secrets: Secrets,
    /// Made when it is first asked for.
    notifier: Option<Result<Arc<Notifier>, Failure>>,
}

/// The Secrets that a Provider names, as far as they exist.
#[derive(Clone, Default)]
struct Secrets {
    auth: Option<Arc<SecretData>>,
    proxy: Option<Arc<SecretData>>,
    certificates: Option<Arc<SecretData>>,
    /// The first that doesn't.
    missing: Option<String>,
}

impl Secrets {
    fn each(&self) -> [&Option<Arc<SecretData>>; 3] {
        [&self.auth, &self.proxy, &self.certificates]
    }

    fn same(&self, other: &Self) -> bool {
        self.each().iter().zip(other.each()).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.fingerprint() == b.fingerprint(),
            (None, None) => true,
            _ => false,
        })
    }
}

impl Notifiers {
    /// No notifiers yet. `workload_identity` is the feature gate `ObjectLevelWorkloadIdentity`, `cluster` the name that
    /// this cluster goes by.
    pub fn new(
        clients: Arc<Clients>,
        environment: Arc<dyn Environment>,
        workload_identity: bool,
        cluster: String,
    ) -> Self {
        Self { clients, environment, workload_identity, cluster, built: Mutex::default() }
    }

    /// The notifier of a Provider as it and its Secrets are now. `fresh` reads the Secrets past every cache.
    ///
    /// # Errors
    /// The outcome that every attempt has as long as nothing changes: misconfigured, or retry where the Secrets can't be
    /// read now.
    pub async fn get(&self, rule: &Arc<ProviderRule>, fresh: bool) -> Result<Arc<Notifier>, Outcome> {
        let built = self.now(rule, fresh).await?;
        if let Some(notifier) = built.notifier {
            return notifier.map_err(Outcome::Misconfigured);
        }
        let notifier = self.settings(rule, &built.secrets).and_then(|settings| {
            belfry_notify::build(&settings, &self.clients).map_err(|error| Failure::new(error.to_string()))
        });
        let notifier = notifier.map(Arc::new);
        self.lock().insert((*rule.key).clone(), Built { notifier: Some(notifier.clone()), ..built });
        notifier.map_err(Outcome::Misconfigured)
    }

    /// What posts commit statuses for a Provider, and the repository that they go to: its own, or the one at `source_url`
    /// if that is at its host and among `allowed`. Cheap enough to be built each time.
    ///
    /// # Errors
    /// As [`Self::get`]; and when there is no such repository.
    pub async fn statuses(
        &self,
        rule: &Arc<ProviderRule>,
        fresh: bool,
        source_url: &str,
        allowed: &[String],
    ) -> Result<(StatusNotifier, Repository), Outcome> {
        let built = self.now(rule, fresh).await?;
        let misconfigured = |error: String| Outcome::Misconfigured(Failure::new(error));
        let settings = self.settings(rule, &built.secrets).map_err(Outcome::Misconfigured)?;
        let notifier =
            StatusNotifier::new(&settings, &self.clients).map_err(|error| misconfigured(error.to_string()))?;
        let repository = Repository::from_source(&settings, source_url, allowed).map_err(|error| match error {
            // The sources of others are not this Provider's to mend: waiting for it would hold up what can be posted.
            NoRepository::Provider(error) => misconfigured(error.to_string()),
            other => Outcome::Rejected(Failure::new(other.to_string())),
        })?;
        Ok((notifier, repository))
    }

    /// What is known of a Provider as it and its Secrets are now.
    async fn now(&self, rule: &Arc<ProviderRule>, fresh: bool) -> Result<Built, Outcome> {
        let secrets = self.secrets(rule, fresh).await?;
        let known = self.known(&rule.key);
        if let Some(built) = known.filter(|built| Arc::ptr_eq(&built.rule, rule) && built.secrets.same(&secrets)) {
            return Ok(built);
        }
        let built = Built { rule: rule.clone(), secrets, notifier: None };
        self.lock().insert((*rule.key).clone(), built.clone());
        Ok(built)
    }

    /// Whether a Provider that didn't work is worth another attempt at once: it or its Secrets are not those of the last
    /// attempt.
    pub async fn changed(&self, key: &ConfigKey, rule: Option<&Arc<ProviderRule>>) -> bool {
        match (self.known(key), rule) {
            (None, rule) => rule.is_some(),
            (Some(_), None) => false,
            (Some(built), Some(rule)) => {
                built.rule.spec != rule.spec
                    || self.secrets(rule, true).await.is_ok_and(|secrets| !secrets.same(&built.secrets))
            }
        }
    }

    /// Keeps in mind how a Provider is now, if nothing was sent to it yet; says whether that was so.
    pub async fn meet(&self, rule: Option<&Arc<ProviderRule>>) -> bool {
        let Some(rule) = rule.filter(|rule| self.known(&rule.key).is_none()) else { return false };
        // If its Secrets can't be read now, it is not known yet.
        let _ = self.now(rule, false).await;
        true
    }

    /// Forgets Providers that are gone.
    pub fn retain(&self, exists: impl Fn(&ConfigKey) -> bool) {
        self.lock().retain(|key, _| exists(key));
    }

    fn known(&self, key: &ConfigKey) -> Option<Built> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConfigKey, Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn secrets(&self, rule: &ProviderRule, fresh: bool) -> Result<Secrets, Outcome> {
        let spec = &rule.spec;
        let mut secrets = Secrets::default();
        let mut missing = None;
        for (reference, slot) in [
            (&spec.secret_ref, &mut secrets.auth),
            (&spec.proxy_secret_ref, &mut secrets.proxy),
            (&spec.cert_secret_ref, &mut secrets.certificates),
        ] {
            let Some(reference) = reference else { continue };
            let namespace = &rule.key.namespace;
            let name = &reference.name;
            match self.environment.secret(namespace, name, fresh).await {
                Ok(Some(secret)) => *slot = Some(secret),
                Ok(None) => {
                    missing.get_or_insert_with(|| name.clone());
                }
                Err(error) => {
                    let text = format!("can't read Secret {namespace}/{name}: {error}");
                    return Err(Outcome::Retry(Failure::new(text)));
                }
            }
        }
        secrets.missing = missing;
        Ok(secrets)
    }

    fn settings<'a>(&'a self, rule: &'a ProviderRule, secrets: &'a Secrets) -> Result<Settings<'a>, Failure> {
        if rule.spec.service_account_name.is_some() && !self.workload_identity {
            return Err(Failure::new(
                "spec.serviceAccountName is set, which needs the feature gate ObjectLevelWorkloadIdentity=true",
            ));
        }
        if let Some(name) = &secrets.missing {
            let namespace = &rule.key.namespace;
            let text = format!("Secret {namespace}/{name}, which {} names, doesn't exist", rule.key);
            return Err(Failure::new(text));
        }
        Ok(Settings {
            provider: &rule.key,
            spec: &rule.spec,
            secret: secrets.auth.as_deref(),
            proxy_secret: secrets.proxy.as_deref(),
            cert_secret: secrets.certificates.as_deref(),
            cluster: &self.cluster,
        })
    }
}
