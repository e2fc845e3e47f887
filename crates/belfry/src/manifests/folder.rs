//! The files of a folder, at any depth, and whether anything changed since the last look.

use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::FileProblem;

/// Folders within folders.
const DEPTH: usize = 32;

/// What was found in folders.
#[derive(Default)]
pub(super) struct Found {
    /// Manifest files, each once however many links lead to it, in order.
    pub(super) files: Vec<PathBuf>,
    /// Folders whose content isn't known.
    pub(super) unreadable: Vec<PathBuf>,
    /// Why it isn't.
    pub(super) problems: Vec<FileProblem>,
    /// Targets of paths already seen.
    seen: HashSet<PathBuf>,
    state: DefaultHasher,
}

/// Lists the manifests in folders, or the files themselves that are given. Links are followed, so that a mounted
/// ConfigMap works; names that begin with a dot are passed over, so that its `..data` doesn't count twice.
pub(super) fn list(dirs: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for dir in dirs {
        found.visit(dir, 0, true);
    }
    found
}

/// A number that changes when a file is added, removed, renamed or written. Reads names and metadata, no content: cheap
/// enough for every second.
pub fn fingerprint(dirs: &[PathBuf]) -> u64 {
    list(dirs).state.finish()
}

impl Found {
    fn visit(&mut self, path: &Path, depth: usize, given: bool) {
        if let Err(error) = self.try_visit(path, depth, given) {
            // A file that went away between two looks isn't a problem, a folder that was asked for is.
            if error.kind() == io::ErrorKind::NotFound && !given {
                return;
            }
            path.hash(&mut self.state);
            error.kind().hash(&mut self.state);
            self.unreadable.push(path.to_owned());
            self.problems.push(FileProblem::of_file(path, format!("cannot be read: {error}")));
        }
    }

    fn try_visit(&mut self, path: &Path, depth: usize, given: bool) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() && !(metadata.is_file() && (given || is_manifest(path))) {
            return Ok(());
        }
        if !self.seen.insert(path.canonicalize()?) {
            return Ok(());
        }
        if metadata.is_file() {
            path.hash(&mut self.state);
            (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut self.state);
            self.files.push(path.to_owned());
            return Ok(());
        }
        if depth > DEPTH {
            return Err(io::Error::other(format!("more than {DEPTH} folders deep")));
        }
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
        names.sort();
        for name in names {
            self.visit(&path.join(name), depth + 1, false);
        }
        Ok(())
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}
