//! The webhook types: one line each.

use crate::{
    webhook::Webhook,
    webhooks::{
        acr, bitbucket, cdevents, dockerhub, gcr, generic, generic_hmac, generic_oidc, github, gitlab, harbor, nexus,
        quay,
    },
};

/// Every type, in the order of the CRD.
pub(crate) const WEBHOOKS: &[Webhook] = &[
    generic::WEBHOOK,
    generic_hmac::WEBHOOK,
    generic_oidc::WEBHOOK,
    github::WEBHOOK,
    gitlab::WEBHOOK,
    bitbucket::WEBHOOK,
    harbor::WEBHOOK,
    dockerhub::WEBHOOK,
    quay::WEBHOOK,
    gcr::WEBHOOK,
    nexus::WEBHOOK,
    acr::WEBHOOK,
    cdevents::WEBHOOK,
];

/// The type of that name.
pub(crate) fn webhook(name: &str) -> Option<&'static Webhook> {
    WEBHOOKS.iter().find(|webhook| webhook.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_types_of_the_crd() {
        let names: Vec<&str> = WEBHOOKS.iter().map(|webhook| webhook.name).collect();
        assert_eq!(names, belfry_api::RECEIVER_TYPES);
        assert!(webhook("forgejo").is_none());
    }
}
