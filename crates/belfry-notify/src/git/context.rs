//! What statuses of one commit are told apart by: their contexts, whole where the host allows it.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::hosts::Host;
use crate::text;

/// Stands between what was kept of a long context and the hash of the whole.
const MARK: char = '~';
/// Hex digits of the hash: 128 bits, so that nobody finds two contexts with the same.
const DIGITS: usize = 32;
/// Hex digits of a key that is nothing but a hash.
const KEY: usize = 40;

/// The context of one object: `<prefix>/<kind in lower case>/<namespace>/<name>`, with the name of its cluster behind the
/// prefix unless that is empty. The prefix alone is the context of what speaks for many objects.
///
/// Two objects never have the same: a slash inside a part, which Kubernetes allows in none, is escaped.
pub fn context(prefix: &str, cluster: &str, kind: &str, namespace: &str, name: &str) -> String {
    let [cluster, kind, namespace, name] = [cluster, &kind.to_lowercase(), namespace, name].map(text::path_escape);
    let before = [prefix, &cluster].into_iter().filter(|part| !part.is_empty());
    before.chain([&*kind, &namespace, &name]).collect::<Vec<_>>().join("/")
}

/// The context as this host takes it: itself, or when it is too long, or holds what hosts cut off or change, its
/// beginning and a hash of the whole. Two contexts never become one. On Bitbucket Cloud it is always a hash: there it
/// becomes part of a path, in which a slash doesn't survive, and the context is shown as the status's name.
///
/// GitHub alone doesn't tell capitals from small letters: there two contexts must not differ in that only.
pub fn fit(context: &str, host: Host) -> Cow<'_, str> {
    if host == Host::Bitbucket {
        return Cow::Owned(hash(context, KEY));
    }
    let limit = host.limits().context;
    let clean = one_line(context);
    if clean == context && context.chars().count() <= limit && !ends_in_hash(context) {
        return Cow::Borrowed(context);
    }
    let start: String = clean.chars().take(limit.saturating_sub(DIGITS + MARK.len_utf8())).collect();
    Cow::Owned(format!("{}{MARK}{}", start.trim_end(), hash(context, DIGITS)))
}

/// The first digits of SHA-256.
fn hash(context: &str, digits: usize) -> String {
    Sha256::digest(context).iter().take(digits / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it could be taken for what `fit` makes of another one.
fn ends_in_hash(context: &str) -> bool {
    let hash = context.rsplit_once(MARK).map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The text on one line, without white space around it or more of it than one between words.
pub(super) fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).fold(
        String::with_capacity(text.len()),
        |mut line, word| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            line
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contexts_are_readable() {
        assert_eq!(
            context("flux/prod", "", "Kustomization", "apps", "podinfo"),
            "flux/prod/kustomization/apps/podinfo"
        );
        assert_eq!(context("", "", "HelmRelease", "apps", "a.b-c"), "helmrelease/apps/a.b-c");
        assert_eq!(context("p", "", "Kustomization", "", "app"), "p/kustomization//app");
        assert_eq!(context("p", "", "Kustomization", "a/b", "c"), "p/kustomization/a%2Fb/c");
        assert_eq!(context("p", "eu/1", "Kustomization", "apps", "web"), "p/eu%2F1/kustomization/apps/web");
    }

    #[test]
    fn what_fits_stays() {
        let long = context("flux", "", "Kustomization", &"n".repeat(63), &"x".repeat(253));
        for host in Host::ALL.into_iter().filter(|host| *host != Host::Bitbucket) {
            assert_eq!(fit("flux/kustomization/apps/podinfo", host), "flux/kustomization/apps/podinfo", "{host:?}");
            let fitted = fit(&long, host);
            assert_eq!(fitted.chars().count(), host.limits().context, "{host:?}");
            assert!(fitted.starts_with("flux/ku"), "{fitted}");
        }
        let key = fit("flux/prod/kustomization/flux-system/flux-system", Host::Bitbucket);
        assert_eq!(key, "7bf9fc3246fa8c3b3b2dbc985fab03985d1cc5dd");
    }

    #[test]
    fn nothing_passes_for_what_was_shortened() {
        let long = "x".repeat(300);
        for host in Host::ALL {
            let fitted = fit(&long, host).into_owned();
            let again = fit(&fitted, host);
            assert_ne!(again, fitted);
            assert!(again.chars().count() <= host.limits().context);
        }
        // Gitea trims, others may.
        assert_ne!(fit(" a", Host::Gitea), fit("a", Host::Gitea));
        assert_ne!(fit("a\nb", Host::GitHub), fit("a b", Host::GitHub));
    }

    /// A part of a name as Kubernetes allows it, and as an event without authentication may hold it.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", 1 => "[a-z/%~ \\n]{0,6}", 1 => "[a-z]{230,253}"]
    }

    proptest! {
        #[test]
        fn two_objects_never_share_a_context(
            one in ("[a-z]{0,3}(/[a-z]{1,2})?", part(), part(), part()),
            other in ("[a-z]{0,3}(/[a-z]{1,2})?", part(), part(), part()),
        ) {
            let of = |(prefix, kind, namespace, name): &(String, String, String, String)| {
                context(prefix, "", kind, namespace, name)
            };
            let (first, second) = (of(&one), of(&other));
            prop_assert_eq!(one == other, first == second);
            for host in Host::ALL {
                let (one, other) = (fit(&first, host), fit(&second, host));
                prop_assert!(one.chars().count() <= host.limits().context);
                prop_assert_eq!(first == second, one == other, "{:?}", host);
            }
        }

        #[test]
        fn nor_do_two_of_several_clusters(one in (part(), part(), part(), part()), other in (part(), part(), part(), part())) {
            let of = |(cluster, kind, namespace, name): &(String, String, String, String)| {
                context("flux", cluster, kind, namespace, name)
            };
            prop_assert_eq!(one == other, of(&one) == of(&other));
        }

        #[test]
        fn no_two_texts_become_one_context(one in "[a ~\\n]{0,6}(~[0-9a-f]{32})?", other in "[a ~\\n]{0,6}(~[0-9a-f]{32})?") {
            for host in Host::ALL {
                prop_assert_eq!(one == other, fit(&one, host) == fit(&other, host));
                let fitted = fit(&one, host).into_owned();
                prop_assert!(fitted == one || fit(&fitted, host) != fitted);
                // Nothing is left that a host would cut off or change.
                prop_assert_eq!(one_line(&fitted), fitted);
            }
        }
    }
}
