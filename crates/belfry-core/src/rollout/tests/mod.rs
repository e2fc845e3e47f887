//! Tests of the state machine: tables in `scenarios`, a recorded stream, properties.

mod properties;
mod recorded;
mod script;

use std::{fs, path::PathBuf};

/// Every file in `scenarios`: what was said, and behind `->` what happened. Run with `BLESS=1` to write down what does.
#[test]
fn scenarios() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/rollout/tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let played = script::play(&written);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &played).unwrap();
        } else if written != played {
            let pairs = written.lines().zip(played.lines()).filter(|(expected, got)| expected != got);
            wrong.extend(pairs.map(|(expected, got)| format!("{}\n  not: {expected}\n  but: {got}", file.display())));
            wrong.push(format!("{} as it plays:\n{played}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
