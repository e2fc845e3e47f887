//! What a credential of `--api-access` is good for, and for how long.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use belfry_core::{ConfigKey, ObjectKey};
use serde::Deserialize;

use super::{Denied, Hash};

/// For how long a request goes on that came with a token of an issuer. Such tokens live for minutes, waits for an hour.
const SESSION: Duration = Duration::from_secs(3600 + 300);

/// What its owner may do with what it reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Read.
    #[default]
    Read,
    /// Read, and put deliveries in line again.
    Admin,
}

/// A list of names, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    All,
    These(BTreeSet<String>),
}

impl Names {
    fn hold(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

/// What a credential is good for.
#[derive(Debug)]
pub(super) struct Grant {
    /// Whose it is, for people.
    pub(super) name: String,
    pub(super) namespaces: Names,
    /// Belfry's own names of clusters: the local one may have none.
    pub(super) clusters: Names,
    pub(super) role: Role,
    /// Tells a credential that stayed as it was from one that changed.
    pub(super) fingerprint: Hash,
    withdrawn: AtomicBool,
}

impl Grant {
    pub(super) fn new(name: String, namespaces: Names, clusters: Names, role: Role, fingerprint: Hash) -> Arc<Self> {
        Arc::new(Self { name, namespaces, clusters, role, fingerprint, withdrawn: AtomicBool::new(false) })
    }

    /// What is under way with it ends.
    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }
}

/// Someone with such a credential.
#[derive(Clone, Debug)]
pub struct Holder {
    grant: Arc<Grant>,
    /// The name of the local cluster.
    local: Arc<str>,
    until: Option<Instant>,
}

impl Holder {
    /// Of a token that is good while it stands in the file.
    pub(super) fn of_token(grant: Arc<Grant>, local: Arc<str>) -> Self {
        Self { grant, local, until: None }
    }

    /// Of a token that was good when it was shown.
    pub(super) fn of_issuer(grant: Arc<Grant>, local: Arc<str>, shown: Instant) -> Self {
        Self { grant, local, until: Some(shown + SESSION) }
    }

    /// Whether what is known of an object may be read.
    ///
    /// # Errors
    /// When the credential isn't good any more.
    pub fn may_read(&self, object: &ObjectKey) -> Result<bool, Denied> {
        self.still()?;
        // The unnamed object is in no namespace, so it is there for those who have them all.
        Ok(self.grant.clusters.hold(&object.cluster) && self.grant.namespaces.hold(&object.namespace))
    }

    /// Whether a delivery that this object caused may be put in line again.
    ///
    /// # Errors
    /// When the credential isn't good any more.
    pub fn may_redeliver(&self, route: &ConfigKey) -> Result<bool, Denied> {
        self.still()?;
        let Grant { namespaces, clusters, role, .. } = &*self.grant;
        Ok(*role == Role::Admin && clusters.hold(&self.local) && namespaces.hold(&route.namespace))
    }

    fn still(&self) -> Result<(), Denied> {
        let over = self.until.is_some_and(|until| until < Instant::now());
        if over || self.grant.withdrawn.load(Ordering::Relaxed) {
            return Err(Denied::Unauthorized(format!("the credential {:?} is no longer good", self.grant.name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(names: &[&str]) -> Names {
        Names::These(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn holder(namespaces: Names, clusters: Names, role: Role) -> Holder {
        Holder::of_token(Grant::new("ci".into(), namespaces, clusters, role, [0; 32]), "".into())
    }

    fn object(cluster: &str, namespace: &str) -> ObjectKey {
        let cluster = cluster.to_owned();
        let named = ObjectKey { kind: "Kustomization".into(), name: "a".into(), ..ObjectKey::default() };
        ObjectKey { cluster, namespace: namespace.to_owned(), ..named }
    }

    #[test]
    fn it_reaches_its_namespaces_in_its_clusters() {
        let both = || these(&["apps", "infra"]);
        for (namespaces, clusters, reached) in [
            (both(), these(&[""]), ["apps", "infra"].map(|namespace| ("", namespace)).to_vec()),
            (these(&["apps"]), these(&["", "eu"]), vec![("", "apps"), ("eu", "apps")]),
            (these(&["apps"]), these(&["eu"]), vec![("eu", "apps")]),
            (Names::All, these(&["eu"]), vec![("eu", "apps"), ("eu", "infra"), ("eu", "")]),
            (these(&["apps"]), Names::All, vec![("", "apps"), ("eu", "apps"), ("us", "apps")]),
            (these(&[]), Names::All, vec![]),
        ] {
            let holder = holder(namespaces, clusters, Role::Admin);
            for cluster in ["", "eu", "us"] {
                for namespace in ["apps", "infra", ""] {
                    let expected = reached.contains(&(cluster, namespace));
                    let may = holder.may_read(&object(cluster, namespace)).unwrap();
                    assert_eq!(may, expected, "{holder:?} {cluster}/{namespace}");
                }
            }
        }
    }

    #[test]
    fn only_an_admin_puts_in_line_again_and_only_here() {
        let alert = ConfigKey::alert("apps", "on-call");
        for (namespaces, clusters, role, expected) in [
            (these(&["apps"]), these(&[""]), Role::Admin, true),
            (these(&["apps"]), these(&[""]), Role::Read, false),
            (these(&["infra"]), these(&[""]), Role::Admin, false),
            (these(&["apps"]), these(&["eu"]), Role::Admin, false),
            (Names::All, Names::All, Role::Admin, true),
        ] {
            assert_eq!(holder(namespaces, clusters, role).may_redeliver(&alert).unwrap(), expected);
        }
    }

    #[test]
    fn it_ends_when_it_is_withdrawn_or_too_old() {
        let reads = |holder: &Holder| holder.may_read(&object("", "apps")).is_ok();
        let grant = Grant::new("ci".into(), Names::All, Names::All, Role::Read, [0; 32]);
        let token = Holder::of_token(grant.clone(), "".into());
        let issuer = |shown| Holder::of_issuer(grant.clone(), "".into(), shown);
        let now = Instant::now();
        assert!(reads(&token) && reads(&issuer(now)));
        let long_ago = now.checked_sub(SESSION + Duration::from_secs(1));
        assert!(long_ago.is_none_or(|shown| !reads(&issuer(shown))));
        grant.withdraw();
        assert!(!reads(&token) && !reads(&issuer(now)));
        assert!(token.may_redeliver(&ConfigKey::alert("apps", "a")).is_err());
    }
}
