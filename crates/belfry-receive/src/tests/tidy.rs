//! Rules for the sources of this crate: values of a Secret are only ever compared in constant time.

use std::{fs, path::Path};

/// The sources outside tests, by name.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("tests") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.push((name, code));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20);
    found
}

fn using(word: &str) -> Vec<String> {
    sources().into_iter().filter(|(_, code)| code.contains(word)).map(|(name, _)| name).collect()
}

#[test]
fn secrets_are_opened_in_one_file() {
    // `check.rs` asks only whether there is one, and never looks at it.
    assert_eq!(using(".bytes(key)"), ["check.rs", "credential.rs"]);
    for word in [".values()", "expose_secret", "secret.text(", "SecretString"] {
        assert_eq!(using(word), [""; 0], "{word}");
    }
    assert_eq!(using("hmac::sign("), ["credential.rs"]);
    assert_eq!(using("ct_eq"), ["credential.rs"]);
}

#[test]
fn a_credential_has_no_other_comparison() {
    let sources = sources();
    let (_, code) = sources.iter().find(|(name, _)| name == "credential.rs").unwrap();
    assert!(
        code.contains("#[derive(Clone, Copy)]\npub(crate) struct Credential<'a>(&'a [u8]);"),
        "nothing more derived"
    );
    assert!(!code.contains("==") && !code.contains("!="), "only ct_eq compares here");
    for word in ["Debug", "Display", "Deref", "AsRef"] {
        assert!(!code.contains(&format!("{word} for Credential")), "{word}");
    }
}

#[test]
fn what_is_presented_is_not_compared_with_an_operator() {
    for (name, code) in sources() {
        for line in code.lines().filter(|line| line.contains("==") || line.contains("!=")) {
            for word in ["token ==", "token !=", "presented ==", "presented !=", "signature ==", "tag ==", "digits =="]
            {
                assert!(!line.contains(word), "{name}: {line}");
            }
        }
    }
}
