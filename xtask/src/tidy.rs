//! Repository rules that no compiler keeps.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Lines of a source file: what can be read in one sitting.
const LINES: usize = 520;

/// What belfry-core must not depend on: it holds values only.
const FORBIDDEN_IN_CORE: [&str; 8] = ["tokio", "hyper", "reqwest", "rustls", "kube", "rusqlite", "axum", "rand"];

/// Checks every rule and names every place where one is broken.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for file in sources(root)? {
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display();
        if !text.starts_with("//!") {
            broken.push(format!("{name}: begins without a //! line that says what it is"));
        }
        if text.lines().count() > LINES {
            broken.push(format!("{name}: {} lines; split it along its ideas", text.lines().count()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.ends_with(' ') || line.contains('\t') {
                broken.push(format!("{name}:{}: trailing white space, or a tab", number + 1));
            }
        }
    }
    broken.extend(unmerged(root)?);
    broken.extend(run_command(root)?);
    broken.extend(core_dependencies(root)?);
    if broken.is_empty() {
        return Ok(());
    }
    bail!("the repository is not tidy:\n  {}", broken.join("\n  "))
}

/// Documents in which a merge left both sides.
fn unmerged(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "md")
                && fs::read_to_string(&file)?.lines().any(|line| line.starts_with("<<<<<<< "))
            {
                broken.push(format!("{}: a merge left both sides", file.strip_prefix(root).unwrap_or(&file).display()));
            }
        }
    }
    Ok(broken)
}

/// The README's `cargo run` must know which binary that is.
fn run_command(root: &Path) -> anyhow::Result<Option<String>> {
    let output = cargo(root, &["metadata", "--locked", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&output).context("cargo metadata isn't JSON")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let run: Vec<&str> = packages.iter().filter_map(|package| package["default_run"].as_str()).collect();
    Ok((run != ["belfry"]).then(|| format!("`cargo run` is for {run:?}: exactly belfry must have default-run")))
}

fn core_dependencies(root: &Path) -> anyhow::Result<Vec<String>> {
    let tree = cargo(
        root,
        &["tree", "--locked", "--package", "belfry-core", "--edges", "normal", "--prefix", "none", "--format", "{p}"],
    )?;
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut broken: Vec<String> = names
        .filter(|name| FORBIDDEN_IN_CORE.contains(name))
        .map(|name| format!("belfry-core depends on {name}: it must stay free of runtimes, I/O and chance"))
        .collect();
    broken.dedup();
    Ok(broken)
}

/// What cargo says.
fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        bail!("cargo {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["crates", "testkit", "xtask"].map(|folder| root.join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
