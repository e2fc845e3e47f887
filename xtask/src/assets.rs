//! `cargo xtask assets`: the real etcd and kube-apiserver of the tests, built from their published Go modules.
//!
//! They are built into `.assets`, and again only when what they are built from has changed. A folder named by
//! `KUBEBUILDER_ASSETS` that holds both is taken as it is.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash as _, Hasher as _},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

const VARIABLE: &str = "KUBEBUILDER_ASSETS";
const BINARIES: [&str; 2] = ["etcd", "kube-apiserver"];
const WITHOUT_GO: &str = "install Go >= 1.26 or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver";

/// Makes sure that both binaries are there, prints their folder and gives it.
///
/// # Errors
/// When they must be built and can't be.
pub fn run() -> Result<PathBuf> {
    let folder = match env::var_os(VARIABLE).map(PathBuf::from) {
        Some(folder) if complete(&folder) => folder,
        named => {
            if let Some(folder) = named {
                eprintln!("{VARIABLE} names {}, which does not hold both of {BINARIES:?}", folder.display());
            }
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in no workspace")?;
            let folder = workspace.join(".assets");
            build(&workspace.join("assets"), &folder)?;
            folder
        }
    };
    writeln!(std::io::stdout(), "{}", folder.display())?;
    Ok(folder)
}

fn complete(folder: &Path) -> bool {
    BINARIES.iter().all(|binary| folder.join(binary).is_file())
}

/// Builds the Go module `module` into `folder`, unless that was built from the same.
fn build(module: &Path, folder: &Path) -> Result<()> {
    let flags = flags(&fs::read_to_string(module.join("go.mod"))?)?;
    let stamp = stamp(module, &flags)?;
    let stamped = folder.join("stamp");
    if complete(folder) && fs::read_to_string(&stamped).is_ok_and(|text| text == stamp) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    for binary in BINARIES {
        eprintln!("building {binary} (the first time takes minutes)");
        // Renamed into place: a cluster may run from the old one.
        let fresh = folder.join(format!("{binary}.new"));
        go_build(module, &flags, binary, &fresh)?;
        fs::rename(&fresh, folder.join(binary))?;
    }
    fs::write(stamped, stamp).context("the stamp")
}

fn go_build(module: &Path, flags: &[String], binary: &str, output: &Path) -> Result<()> {
    let status = Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .arg("build")
        .args(flags)
        .arg("-o")
        .arg(output)
        .arg(format!("./cmd/{binary}"))
        .status();
    match status {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no go: {WITHOUT_GO}"),
        status => ensure!(status?.success(), "go build of {binary} failed; it needs Go >= 1.26: {WITHOUT_GO}"),
    }
    Ok(())
}

/// Kubernetes learns its version from the linker, in two packages; without it `/version` is odd.
fn flags(go_mod: &str) -> Result<Vec<String>> {
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .context("assets/go.mod requires no k8s.io/kubernetes")?;
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else { bail!("{version} is no version") };
    let mut linker = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            linker.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    Ok(vec!["-trimpath".to_owned(), "-ldflags".to_owned(), linker])
}

/// A hash of all that the binaries are built from.
fn stamp(module: &Path, flags: &[String]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    flags.hash(&mut hasher);
    let mains = BINARIES.map(|binary| format!("cmd/{binary}/main.go"));
    for file in ["go.mod", "go.sum"].into_iter().chain(mains.iter().map(String::as_str)) {
        let path = module.join(file);
        fs::read(&path).with_context(|| path.display().to_string())?.hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_module() {
        let flags = flags("require (\n\tk8s.io/kubernetes v1.36.3\n)\n").unwrap();
        assert_eq!(flags[..2], ["-trimpath", "-ldflags"]);
        assert!(flags[2].contains("-X k8s.io/client-go/pkg/version.gitVersion=v1.36.3 "), "{}", flags[2]);
        assert!(flags[2].ends_with("-X k8s.io/client-go/pkg/version.gitMinor=36"), "{}", flags[2]);
        assert!(super::flags("require k8s.io/api v0.36.3\n").is_err());
    }

    #[test]
    fn the_stamp_changes_with_each_source() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            ["go.mod", "go.sum", "cmd/etcd/main.go", "cmd/kube-apiserver/main.go"].map(|f| folder.path().join(f));
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "one").unwrap();
        }
        let mut stamps = vec![stamp(folder.path(), &[]).unwrap(), stamp(folder.path(), &["-race".to_owned()]).unwrap()];
        for file in &files {
            fs::write(file, "two").unwrap();
            stamps.push(stamp(folder.path(), &[]).unwrap());
        }
        let all = stamps.len();
        stamps.sort();
        stamps.dedup();
        assert_eq!(stamps.len(), all);
    }
}
