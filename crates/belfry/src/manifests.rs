//! Folders of manifests: the configuration of a Belfry without a cluster. The same YAML that `kubectl apply` takes is
//! read here into documents for [`belfry_core::config::compile`], Secrets, and Flux objects for the object index. What
//! the documents mean is not decided here.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use belfry_core::{config::Document, index::IndexedObject, limits, secret::SecretData};

mod folder;
mod parse;
mod secret;

pub use folder::fingerprint;

/// What folders hold.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Objects of `notification.toolkit.fluxcd.io`, in the order of their files.
    pub documents: Vec<Document>,
    /// Secrets by namespace and name.
    pub secrets: HashMap<(String, String), SecretData>,
    /// Flux objects.
    pub objects: Vec<IndexedObject>,
    /// What could not be read.
    pub problems: Vec<FileProblem>,
    /// What every file held when it could be read last.
    files: BTreeMap<PathBuf, Arc<Contents>>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file or folder.
    pub file: String,
    /// The document in it, from 1; documents that hold nothing don't count.
    pub document: Option<usize>,
    /// The line in the file, from 1.
    pub line: Option<u64>,
    /// The field, where the trouble is with one; empty otherwise.
    pub field: String,
    /// What is wrong. Never holds a Secret's value.
    pub reason: String,
}

impl FileProblem {
    fn of_file(file: &Path, reason: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            document: None,
            line: None,
            field: String::new(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for FileProblem {
    /// `secrets.yaml, document 2, line 14: data.token: is not base64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&origin(&self.file, self.document, self.line))?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

fn origin(file: &str, document: Option<usize>, line: Option<u64>) -> String {
    let document = document.map(|number| format!(", document {number}")).unwrap_or_default();
    let line = line.map(|number| format!(", line {number}")).unwrap_or_default();
    format!("{file}{document}{line}")
}

/// What one file holds.
#[derive(Clone, Debug, Default)]
struct Contents {
    documents: Vec<Document>,
    secrets: Vec<(SecretKey, SecretData)>,
    objects: Vec<IndexedObject>,
    /// Secrets that could not be read: their last good version stays.
    bad_secrets: Vec<SecretKey>,
}

type SecretKey = (String, String);

/// Reads every manifest in the folders, at any depth. A file or folder that cannot be read counts with what it held in
/// `previous`, as does a Secret with a value that cannot be decoded.
pub fn load(dirs: &[PathBuf], previous: &Loaded) -> Loaded {
    let found = folder::list(dirs);
    let mut loaded = Loaded { problems: found.problems, ..Loaded::default() };
    for path in found.files {
        let kept = previous.files.get(&path).cloned();
        match read(&path) {
            Err(problem) => {
                loaded.problems.push(problem);
                loaded.files.extend(kept.map(|kept| (path, kept)));
            }
            Ok(None) => {}
            Ok(Some(text)) => {
                let mut problems = Vec::new();
                match parse::file(&path, &text, &mut problems) {
                    Ok(contents) => {
                        loaded.files.insert(path, Arc::new(contents));
                    }
                    Err(problem) => {
                        problems = vec![problem];
                        loaded.files.extend(kept.map(|kept| (path, kept)));
                    }
                }
                loaded.problems.extend(problems);
            }
        }
    }
    for (path, kept) in &previous.files {
        if found.unreadable.iter().any(|folder| path.starts_with(folder)) {
            loaded.files.entry(path.clone()).or_insert_with(|| kept.clone());
        }
    }
    loaded.flatten(previous);
    loaded
}

impl Loaded {
    fn flatten(&mut self, previous: &Self) {
        let mut places: HashMap<SecretKey, &Path> = HashMap::new();
        for (path, contents) in &self.files {
            self.documents.extend(contents.documents.iter().cloned());
            self.objects.extend(contents.objects.iter().cloned());
            for (key, data) in &contents.secrets {
                if let Some(first) = places.get(key) {
                    let reason = format!(
                        "the Secret '{}' in the namespace '{}' is in {} already, and that one counts",
                        key.1,
                        key.0,
                        first.display()
                    );
                    self.problems.push(FileProblem::of_file(path, reason));
                    continue;
                }
                places.insert(key.clone(), path);
                self.secrets.insert(key.clone(), data.clone());
            }
        }
        for key in self.files.values().flat_map(|contents| &contents.bad_secrets) {
            if let (false, Some(kept)) = (self.secrets.contains_key(key), previous.secrets.get(key)) {
                self.secrets.insert(key.clone(), kept.clone());
            }
        }
    }
}

/// The text of a file; `None` when it is gone since the folder was listed.
fn read(path: &Path) -> Result<Option<String>, FileProblem> {
    use io::Read;

    let failed = |error: io::Error| FileProblem::of_file(path, format!("cannot be read: {error}"));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limits::MANIFEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits::MANIFEST {
        let reason = format!("is larger than {} bytes; split it into several files", limits::MANIFEST);
        return Err(FileProblem::of_file(path, reason));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|b| *b == b'\n').count();
            let problem = FileProblem::of_file(path, "is not UTF-8 text");
            Err(FileProblem { line: u64::try_from(line).ok(), ..problem })
        }
    }
}

#[cfg(test)]
mod tests;
