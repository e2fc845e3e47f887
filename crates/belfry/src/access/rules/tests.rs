//! What may stand in the file, and what is said of what may not.

use std::fs;

use belfry_core::ObjectKey;
use tempfile::TempDir;

use super::*;
use crate::access::grant::Holder;

const ALL: &str = "namespaces: ['*'], clusters: ['*']";

/// A folder with tokens and keys.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("one", "token-number-one\n"),
        ("two", "token-number-two"),
        ("three", "token-number-three"),
        ("short", "token"),
        ("spaced", "token with blanks in it"),
        ("key", "key-number-one-0000\n"),
        ("key-again", "key-number-one-0000"),
        ("key-two", "key-number-two-0000"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &TempDir, local: &str, text: &str) -> Result<Rules, String> {
    let path = folder.path().join("access.yaml");
    fs::write(&path, text).unwrap();
    Rules::load(&path, local, &mut Vec::new())
}

fn issuer(fields: &str) -> String {
    format!("issuers: [{{issuerURL: 'https://ci', {ALL}, {fields}}}]")
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    let folder = folder();
    let validations = "validations: [{expression: 'claims.repository == \"acme/app\"', message: nope}]";
    for (text, expected) in [
        ("tokens: {", "is not valid YAML (line 1)"),
        ("a: 1", "a: unknown field `a`, expected one of `tokens`, `issuers`, `clusters`"),
        ("tokens: 5", "tokens: must be a sequence"),
        ("[]", "must have the fields "),
        ("tokens: [{name: a, tokenFile: one}]", "tokens[0]: missing field `namespaces`"),
        ("tokens: [{tokenFile: one, namespaces: [a]}]", "tokens[0]: missing field `name`"),
        (
            "tokens: [{name: a, tokenFile: one, namespaces: s3cret-by-mistake}]",
            "tokens[0].namespaces: must be a sequence",
        ),
        ("tokens: [{name: a, token: s3cret, namespaces: [a]}]", "tokens[0].token: unknown field `token`"),
        ("tokens: [{name: a, tokenFile: one, namespaces: [a], role: root}]", "tokens[0].role: unknown variant `root`"),
        ("tokens: [{name: a, tokenFile: one, namespaces: []}]", "tokens[0].namespaces: is empty; [\"*\"] are all"),
        (
            "tokens: [{name: a, tokenFile: one, namespaces: [a, '*']}]",
            "tokens[0].namespaces: must be [\"*\"] or a list",
        ),
        ("tokens: [{name: a, tokenFile: one, namespaces: [a], clusters: ['']}]", "tokens[0].clusters: must be [\"*\"]"),
        ("tokens: [{name: '', tokenFile: one, namespaces: [a]}]", "tokens[0].name: is empty"),
        ("tokens: [{name: a, namespaces: [a]}]", "tokens[0]: needs one of tokenFile and tokenSha256"),
        ("tokens: [{name: a, tokenFile: none, namespaces: [a]}]", "tokens[0].tokenFile: can't read "),
        ("tokens: [{name: a, tokenFile: short, namespaces: [a]}]", "tokens[0].tokenFile: the token is not 16 or more"),
        ("tokens: [{name: a, tokenFile: spaced, namespaces: [a]}]", "tokens[0].tokenFile: the token is not 16 or more"),
        ("tokens: [{name: a, tokenSha256: abc, namespaces: [a]}]", "tokens[0].tokenSha256: must be 64 hex digits"),
        (
            "tokens: [{name: a, tokenFile: one, namespaces: [a]}, {name: a, tokenFile: two, namespaces: [a]}]",
            "tokens[1].name: \"a\" is there twice",
        ),
        (
            "{tokens: [{name: a, tokenFile: one, namespaces: [a]}], clusters: [{name: eu, tokenFiles: [two, one]}]}",
            "clusters[0].tokenFiles[1]: is the same as tokens[0].tokenFile",
        ),
        ("clusters: [{name: eu}]", "clusters[0]: needs hmacKeyFiles or tokenFiles"),
        (
            "clusters: [{name: '', tokenFiles: [one]}]",
            "clusters[0].name: is empty; the local cluster is called \"local\"",
        ),
        (
            "clusters: [{name: eu, hmacKeyFiles: [short]}]",
            "clusters[0].hmacKeyFiles[0]: the key has fewer than 16 bytes",
        ),
        (
            "clusters: [{name: eu, hmacKeyFiles: [key]}, {name: us, hmacKeyFiles: [key-again]}]",
            "clusters[1].hmacKeyFiles[0]: is the same as clusters[0].hmacKeyFiles[0]",
        ),
        (
            "clusters: [{name: eu, tokenFiles: [one]}, {name: eu, tokenFiles: [two]}]",
            "clusters[1].name: \"eu\" is there twice",
        ),
        // The local cluster has a name here.
        (
            "clusters: [{name: here, tokenFiles: [one]}, {name: local, tokenFiles: [two]}]",
            "clusters[1].name: \"local\" is there twice",
        ),
        (&issuer(""), "issuers[0]: missing field `validations`"),
        (&issuer("validations: []"), "issuers[0].validations: at least one validation is required"),
        (&issuer("validations: [{expression: 'true'}]"), "issuers[0].validations[0]: missing field `message`"),
        (&issuer("validations: [{expression: 'claims.', message: nope}]"), "issuers[0].validations[0].expression: "),
        (&issuer("validations: [{expression: '1', message: nope}]"), "issuers[0].validations[0].expression: "),
        (
            &issuer(&format!("{validations}, variables: [{{name: '', expression: '1'}}]")),
            "issuers[0].variables[0].name: ",
        ),
        (&issuer(&format!("{validations}, audience: ''")), "issuers[0].audience: is empty"),
        (&issuer(validations).replace("https:", "http:"), "issuers[0].issuerURL: must start with https://"),
    ] {
        let error = load(&folder, "here", text).map(drop).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n  {error}\n  {expected}");
        assert!(!error.contains("s3cret") && !error.contains("oidcProviders"), "{error}");
    }
    assert!(load(&folder, "", "").unwrap().is_empty());
    assert!(!load(&folder, "", &issuer(validations)).unwrap().is_empty());
}

#[test]
fn a_credential_is_found_by_its_hash_and_bound_to_its_cluster() {
    let folder = folder();
    let text = "
tokens:
- {name: dashboards, tokenFile: one, namespaces: [apps]}
- {name: ops, tokenSha256: 'HASH', namespaces: ['*'], clusters: ['*'], role: admin}
clusters:
- {name: eu, hmacKeyFiles: [key, key-two], tokenFiles: [two]}
- {name: local, tokenFiles: [three]}
";
    let hex: String = hash(b"ops").iter().map(|byte| format!("{byte:02X}")).collect();
    let rules = load(&folder, "here", &text.replace("HASH", &hex)).unwrap();
    let named = |token: &[u8]| rules.of_token(&hash(token)).map(|grant| grant.name.clone());
    assert_eq!(named(b"token-number-one").as_deref(), Some("dashboards"), "a line end is no part of a token");
    assert_eq!(named(b"ops").as_deref(), Some("ops"));
    assert_eq!((named(b"token-number-two"), named(b"")), (None, None));
    assert_eq!(rules.of_token(&hash(b"token-number-one")).unwrap().clusters, Names::These(["here".to_owned()].into()));

    let sender = |token: &[u8]| rules.sender(&hash(token)).map(|sender| (sender.name.as_str(), &*sender.cluster));
    assert_eq!(sender(b"token-number-two"), Some(("eu", "eu")));
    assert_eq!(sender(b"token-number-three"), Some(("local", "here")));
    assert_eq!(sender(b"token-number-one"), None);
}

#[test]
fn both_keys_count_during_a_rotation_with_or_without_a_line_end() {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let folder = folder();
    let rules = load(&folder, "", "clusters: [{name: eu, hmacKeyFiles: [key, key-two]}]").unwrap();
    let signer = |key: &[u8], body: &[u8]| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
        mac.update(b"{}");
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = [(http::HeaderName::from_static("x-signature"), format!("sha256={digits}").parse().unwrap())];
        let signature = Signature::read(&headers.into_iter().collect(), belfry_core::Time(0)).unwrap().unwrap();
        let only = |name| rules.signer(&signature, body, name).map(|sender| &*sender.cluster);
        assert_eq!((only(Some("eu")), only(Some("us"))), (only(None), None));
        only(None)
    };
    for good in [&b"key-number-one-0000"[..], b"key-number-one-0000\n", b"key-number-two-0000"] {
        assert_eq!(signer(good, b"{}"), Some("eu"));
        assert_eq!(signer(good, b"{ }"), None);
    }
    assert_eq!(signer(b"key-number-two-0000\n", b"{}"), None);
    assert_eq!(signer(b"another-key-0000000", b"{}"), None);
}

#[test]
fn what_is_taken_out_ends_and_what_stays_goes_on() {
    let folder = folder();
    let entry = |name: &str, file: &str, namespace: &str| {
        format!("{{name: {name}, tokenFile: {file}, namespaces: [{namespace}]}}")
    };
    let list = |entries: &[String]| format!("tokens: [{}]", entries.join(", "));
    let before = [entry("stays", "one", "apps"), entry("narrowed", "two", "'*'"), entry("goes", "three", "apps")];
    let earlier = load(&folder, "", &list(&before)).unwrap();
    let holders: Vec<Holder> =
        earlier.tokens.iter().map(|token| Holder::of_token(token.grant.clone(), "".into())).collect();
    let reads = |holder: &Holder| holder.may_read(&ObjectKey { namespace: "apps".into(), ..ObjectKey::default() });
    assert!(holders.iter().all(|holder| reads(holder).unwrap()));
    let after = [entry("narrowed", "two", "infra"), entry("stays", "one", "apps")];
    let mut later = load(&folder, "", &list(&after)).unwrap();
    later.replace(&earlier);
    assert!(reads(&holders[0]).unwrap());
    assert!(reads(&holders[1]).is_err() && reads(&holders[2]).is_err());
    // And once more: who stayed is still the same.
    let mut last = load(&folder, "", &list(&after[..1])).unwrap();
    last.replace(&later);
    assert!(reads(&holders[0]).is_err());
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let docs = include_str!("../../../../../docs/access.md");
    let folder = folder();
    for (name, text) in [
        ("dashboards.token", "a-token-of-16-chars"),
        ("prod-eu.key", "a-key-of-16-bytes"),
        ("prod-eu.token", "another-token-here"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let blocks: Vec<&str> =
        docs.split("```yaml\n# access.yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let rules = load(&folder, "", block).unwrap();
        assert!(!rules.is_empty());
    }
}
