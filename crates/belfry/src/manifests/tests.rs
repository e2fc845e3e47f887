//! Folders in, what they hold and what is wrong with them out.

use std::{fs, os::unix::fs::symlink};

use belfry_core::config::{Options, Snapshot, compile};
use tempfile::TempDir;

use super::*;

const PROVIDER: &str = "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata:\n  name: chat\nspec:\n  type: slack\n";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn loaded(folder: &TempDir, previous: &Loaded) -> Loaded {
    load(&[folder.path().to_owned()], previous)
}

/// Origins of documents, and problems, without the folder's own path.
fn shown(folder: &TempDir, loaded: &Loaded) -> (Vec<String>, Vec<String>) {
    let short = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    (
        loaded.documents.iter().map(|document| short(document.origin.clone())).collect(),
        loaded.problems.iter().map(|problem| short(problem.to_string())).collect(),
    )
}

fn problems(text: &str) -> Vec<String> {
    let folder = folder(&[("a.yaml", text)]);
    shown(&folder, &loaded(&folder, &Loaded::default())).1
}

#[test]
fn every_manifest_is_found_once_and_in_order() {
    let two = format!("# comment\n---\n{PROVIDER}\n---\n# nothing here\n---\n{PROVIDER}---\n");
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: notification.toolkit.fluxcd.io/v1beta3\n  kind: Alert\n";
    let json =
        r#"{"apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver"} {"apiVersion": "v1", "kind": "X"}"#;
    let folder = folder(&[
        ("b/two.yml", &two),
        ("b/list.yaml", list),
        ("a.json", json),
        ("empty.yaml", "\n# only a comment\n"),
        ("windows.yaml", &format!("\u{feff}{}", PROVIDER.replace('\n', "\r\n"))),
        ("notes.txt", "not: [a manifest"),
        (".hidden/a.yaml", "not: [a manifest"),
        (".a.yaml.swp.yaml", "not: [a manifest"),
        ("kustomization.yaml", "resources: [b]\n"),
        ("k.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"),
        ("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n"),
    ]);
    symlink(folder.path().join("b"), folder.path().join("c")).unwrap();
    symlink(folder.path(), folder.path().join("b/loop")).unwrap();
    let (documents, problems) = shown(&folder, &loaded(&folder, &Loaded::default()));
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        documents,
        [
            "a.json, document 1",
            "b/list.yaml, document 1, line 1, items[0]",
            "b/two.yml, document 1, line 3",
            "b/two.yml, document 2, line 13",
            "windows.yaml, document 1, line 1",
        ]
    );
}

#[test]
fn a_mounted_config_map_is_read_once() {
    let folder = folder(&[("..2026_11_21/a.yaml", PROVIDER)]);
    symlink("..2026_11_21", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let before = fingerprint(&[folder.path().to_owned()]);
    let (documents, problems) = shown(&folder, &loaded(&folder, &Loaded::default()));
    assert_eq!((documents, problems), (vec!["a.yaml, document 1, line 1".to_owned()], vec![]));

    fs::create_dir(folder.path().join("..2026_11_22")).unwrap();
    fs::write(folder.path().join("..2026_11_22/a.yaml"), PROVIDER).unwrap();
    fs::remove_file(folder.path().join("..data")).unwrap();
    symlink("..2026_11_22", folder.path().join("..data")).unwrap();
    assert_ne!(fingerprint(&[folder.path().to_owned()]), before);
}

#[test]
fn every_change_shows_in_the_fingerprint() {
    let folder = folder(&[("a.yaml", "a"), ("b/c.yaml", "c")]);
    let dirs = [folder.path().to_owned()];
    let mut seen = vec![fingerprint(&dirs)];
    assert_eq!(fingerprint(&dirs), seen[0]);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.yaml"), "ab").unwrap();
    seen.push(fingerprint(&dirs));
    fs::rename(path("a.yaml"), path("d.yaml")).unwrap();
    seen.push(fingerprint(&dirs));
    fs::write(path("e.yaml"), "").unwrap();
    seen.push(fingerprint(&dirs));
    fs::remove_dir_all(path("b")).unwrap();
    seen.push(fingerprint(&dirs));
    fs::remove_dir_all(folder.path()).unwrap();
    seen.push(fingerprint(&dirs));
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}

#[test]
fn an_unparsable_file_keeps_what_it_held() {
    let folder = folder(&[("a.yaml", PROVIDER), ("b.yaml", &PROVIDER.replace("chat", "other"))]);
    let before = loaded(&folder, &Loaded::default());
    let path = folder.path().join("a.yaml");
    fs::write(&path, format!("{PROVIDER}---\nkind: [unclosed\nspec: x\n")).unwrap();
    let broken = loaded(&folder, &before);
    let (documents, problems) = shown(&folder, &broken);
    assert_eq!(documents, ["a.yaml, document 1, line 1", "b.yaml, document 1, line 1"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("a.yaml, document 2, line "), "{problems:?}");
    // Mended, it counts again; gone, it is gone, and so is a folder that still can be listed.
    fs::write(&path, "").unwrap();
    assert_eq!(shown(&folder, &loaded(&folder, &broken)), (vec!["b.yaml, document 1, line 1".into()], vec![]));
    fs::remove_file(&path).unwrap();
    assert_eq!(loaded(&folder, &broken).documents.len(), 1);
    fs::remove_dir_all(folder.path()).unwrap();
    let unmounted = loaded(&folder, &broken);
    assert_eq!((unmounted.documents.len(), unmounted.problems.len()), (2, 1));
    assert_eq!(loaded(&folder, &unmounted).documents.len(), 2);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("kind: Provider\n", "a.yaml, document 1, line 1: apiVersion: is required"),
        ("{}\n---\na: b\n---\napiVersion: v1\n", "a.yaml, document 3, line 5: kind: is required"),
        ("just text\n", "a.yaml, document 1, line 1: apiVersion: is required"),
        ("a: 1\na: 2\n", "a.yaml, document 1, line 2: is not valid YAML: "),
        ("a: *nowhere\n", "a.yaml, document 1, line 1: is not valid YAML: "),
        ("a: b: c\n", "a.yaml, document 1, line 1: is not valid YAML: "),
        ("a:\n\t- b\n", "a.yaml, document 1, line 2: is not valid YAML: "),
        (&format!("a: {}", "[".repeat(200)), "a.yaml, document 1, line 1: is not valid YAML: "),
    ] {
        let found = problems(text);
        assert!(found.last().unwrap().starts_with(expected), "{text:?}: {found:?}");
        assert!(!found.last().unwrap().contains('\n'), "{found:?}");
    }
    let folder = folder(&[("a.json", "{\"a\":\n}"), ("big.yaml", &"#".repeat(limits::MANIFEST as usize + 1))]);
    fs::write(folder.path().join("latin1.yaml"), b"a: b\nc: \xe9\n").unwrap();
    assert_eq!(
        shown(&folder, &loaded(&folder, &Loaded::default())).1,
        [
            "a.json, document 1, line 2: is not valid JSON: expected value at line 2 column 1",
            "big.yaml: is larger than 4194304 bytes; split it into several files",
            "latin1.yaml, line 2: is not UTF-8 text",
        ]
    );
    let missing = load(&[folder.path().join("nowhere")], &Loaded::default());
    assert!(missing.problems[0].reason.starts_with("cannot be read: No such file"), "{:?}", missing.problems);
}

#[test]
fn a_file_that_grows_is_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let found = problems(&bomb);
    assert!(found[0].contains("is not valid YAML: "), "{found:?}");
}

#[test]
fn a_secret_is_read_and_never_told() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: token, namespace: apps}\ndata: {token: aHVudGVyMg==, both: Zm9v}\nstringData: {address: https://chat.example, both: bar}\n";
    let folder = folder(&[("a.yaml", text), ("b.yaml", text)]);
    let before = loaded(&folder, &Loaded::default());
    let secret = before.secrets.get(&("apps".into(), "token".into())).unwrap();
    assert_eq!(secret.text("token").unwrap(), Some("hunter2"));
    assert_eq!(secret.text("address").unwrap(), Some("https://chat.example"));
    assert_eq!(secret.text("both").unwrap(), Some("bar"));
    let (_, said) = shown(&folder, &before);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("b.yaml: the Secret 'token' in the namespace 'apps' is in "), "{said:?}");

    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    for (from, to, expected) in [
        ("aHVudGVyMg==", "hunter2!", "data.token: is not base64 (plain text goes under stringData)"),
        ("aHVudGVyMg==", "12345", "data.token: must be text (put it in quotes)"),
        ("{token: aHVudGVyMg==, both: Zm9v}", "hunter2", "data: must be a map"),
        ("bar}", "[hunter2]}", "stringData.both: must be text (put it in quotes)"),
        ("bar}", "hunter2: hunter2}", ""),
        ("bar}", "\"hunter2}", ""),
        ("bar}", "!!int hunter2}", ""),
        ("bar}", "!!binary hunter2}", ""),
        ("bar}", "*hunter2}", ""),
    ] {
        fs::write(folder.path().join("a.yaml"), text.replace(from, to)).unwrap();
        let after = loaded(&folder, &before);
        let kept = after.secrets.get(&("apps".into(), "token".into())).unwrap();
        assert_eq!(kept.text("token").unwrap(), Some("hunter2"), "the last good version stays");
        let said = shown(&folder, &after).1;
        assert!(said.iter().all(|said| said.contains(expected)), "{said:?}");
        assert!(!format!("{after:?}").contains("hunter2!"));
        if to != "*hunter2}" {
            assert!(!said.iter().any(|said| said.contains("hunter2")), "{to}: {said:?}");
        }
    }
}

#[test]
fn flux_objects_go_to_the_index_and_findings_name_the_place() {
    let text = format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: app, labels: {{a: b}}}}\nspec: {{suspend: true}}\n---\n{}",
        PROVIDER.replace("type: slack", "type: slack\n  adress: x")
    );
    let folder = folder(&[("a.yaml", &text)]);
    let loaded = loaded(&folder, &Loaded::default());
    assert_eq!(loaded.objects.len(), 1);
    assert!(loaded.objects[0].suspended && loaded.objects[0].labels["a"] == "b");
    let (_, findings) = compile(&loaded.documents, &Snapshot::default(), &Options::default());
    let said = findings[0].to_string().replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        said,
        "a.yaml, document 2, line 6: Provider/default/chat: spec.adress: is not a field of this kind, and is ignored"
    );
}

#[test]
fn yaml_means_what_kubectl_takes_it_for() {
    let text = "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Alert\nmetadata: {name: \"y\", labels: {bare: y}, annotations: }\nspec:\n  suspend: yes\n  summary: \"on\"\n  eventMetadata: {<<: &x {a: b}, c: no way, version: '1.10'}\n  inclusionList:\n  - |\n    ---\n  - >-\n    folded\n    text\n";
    let folder = folder(&[("a.yaml", text)]);
    let value = &loaded(&folder, &Loaded::default()).documents[0].value;
    assert_eq!(value["spec"]["suspend"], true);
    assert_eq!(value["metadata"]["name"], "y");
    assert_eq!(value["metadata"]["labels"]["bare"], true);
    assert_eq!(value["spec"]["summary"], "on");
    assert_eq!(value["spec"]["eventMetadata"], serde_json::json!({"a": "b", "c": "no way", "version": "1.10"}));
    assert_eq!(value["spec"]["inclusionList"], serde_json::json!(["---\n", "folded text"]));
}
