//! `--api-access FILE`, read and checked: which credentials there are, and what each is good for. Of tokens only their
//! hashes are kept.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use belfry_core::config::{self, Document, ReceiverRule, Snapshot};
use belfry_receive::KeySource;
use secrecy::{ExposeSecret as _, SecretSlice};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::{
    Hash,
    file::{self, File},
    grant::{Grant, Names, Role},
    hash,
    rights::LOCAL,
    signature::{Signature, digest},
};

/// Characters of a token, and bytes of a key, at least.
const LEAST: usize = 16;

/// What is in force.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) tokens: Vec<Token>,
    pub(super) issuers: Vec<Issuer>,
    pub(super) senders: Vec<Sender>,
}

/// A static token.
pub(super) struct Token {
    hash: Hash,
    pub(super) grant: Arc<Grant>,
}

/// Whose tokens are taken.
pub(super) struct Issuer {
    /// A Receiver that would take the same tokens.
    pub(super) rule: Arc<ReceiverRule>,
    pub(super) source: KeySource,
    pub(super) grant: Arc<Grant>,
}

/// A cluster that posts its events.
pub(super) struct Sender {
    /// Its name in the file.
    pub(super) name: String,
    /// Belfry's own name for it.
    pub(super) cluster: Arc<str>,
    keys: Vec<SecretSlice<u8>>,
    tokens: Vec<Hash>,
}

impl Sender {
    /// Whether it has this token.
    fn has(&self, token: &Hash) -> bool {
        self.tokens.iter().any(|known| known.ct_eq(token).into())
    }

    /// Whether one of its keys made the signature.
    fn signed(&self, signature: &Signature, body: &[u8]) -> bool {
        self.keys.iter().any(|key| signature.is_by(key.expose_secret(), body))
    }
}

impl Rules {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.issuers.is_empty() && self.senders.is_empty()
    }

    /// What a static token is good for.
    pub(super) fn of_token(&self, token: &Hash) -> Option<&Arc<Grant>> {
        self.tokens.iter().find(|known| known.hash.ct_eq(token).into()).map(|known| &known.grant)
    }

    /// The cluster that has this token.
    pub(super) fn sender(&self, token: &Hash) -> Option<&Sender> {
        self.senders.iter().find(|sender| sender.has(token))
    }

    /// The cluster that made a signature. `only`: no other than the one that is named so.
    pub(super) fn signer(&self, signature: &Signature, body: &[u8], only: Option<&str>) -> Option<&Sender> {
        let mut senders = self.senders.iter().filter(|sender| only.is_none_or(|only| sender.name == only));
        senders.find(|sender| sender.signed(signature, body))
    }

    /// Takes the place of earlier rules: what stayed as it was goes on, and what is under way by other credentials ends.
    pub(super) fn replace(&mut self, earlier: &Self) {
        let mut known: HashMap<Hash, &Arc<Grant>> = earlier.grants().map(|grant| (grant.fingerprint, grant)).collect();
        let own = self.tokens.iter_mut().map(|token| &mut token.grant);
        for grant in own.chain(self.issuers.iter_mut().map(|issuer| &mut issuer.grant)) {
            if let Some(same) = known.remove(&grant.fingerprint) {
                *grant = same.clone();
            }
        }
        known.into_values().for_each(|gone| gone.withdraw());
    }

    fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.tokens.iter().map(|token| &token.grant).chain(self.issuers.iter().map(|issuer| &issuer.grant))
    }

    /// Reads the file and those that it names, which go into `files`. `local` is the name of the local cluster.
    ///
    /// # Errors
    /// What is wrong, behind the field that it is wrong with.
    pub(super) fn load(path: &Path, local: &str, files: &mut Vec<PathBuf>) -> Result<Self, String> {
        files.push(path.to_owned());
        let file = file::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut loader = Loader { folder, local, files, hashes: HashMap::new() };
        loader.list(&file);
        loader.rules(file)
    }
}

struct Loader<'l> {
    folder: PathBuf,
    local: &'l str,
    files: &'l mut Vec<PathBuf>,
    /// Tokens and keys, and the fields that they stand in.
    hashes: HashMap<Hash, String>,
}

impl Loader<'_> {
    /// All files first: whichever of them is mended, the rules are read again.
    fn list(&mut self, file: &File) {
        let tokens = file.tokens.iter().filter_map(|token| token.token_file.as_ref());
        let clusters =
            file.clusters.iter().flat_map(|cluster| cluster.hmac_key_files.iter().chain(&cluster.token_files));
        let named = tokens.chain(clusters).map(|named| self.folder.join(named));
        self.files.extend(named);
    }

    fn rules(&mut self, file: File) -> Result<Rules, String> {
        let mut rules = Rules::default();
        let mut names = BTreeSet::new();
        for (index, entry) in file.tokens.into_iter().enumerate() {
            let at = format!("tokens[{index}]");
            if !names.insert(entry.name.clone()) {
                return Err(format!("{at}.name: {:?} is there twice", entry.name));
            }
            rules.tokens.push(self.token(&at, entry)?);
        }
        for (index, entry) in file.issuers.into_iter().enumerate() {
            rules.issuers.push(self.issuer(&format!("issuers[{index}]"), entry)?);
        }
        let mut names = BTreeSet::new();
        for (index, entry) in file.clusters.into_iter().enumerate() {
            let at = format!("clusters[{index}]");
            let sender = self.sender(&at, entry)?;
            if !names.insert(sender.cluster.clone()) {
                return Err(format!("{at}.name: {:?} is there twice", sender.name));
            }
            rules.senders.push(sender);
        }
        Ok(rules)
    }

    fn token(&mut self, at: &str, entry: file::Token) -> Result<Token, String> {
        if entry.name.is_empty() {
            return Err(format!("{at}.name: is empty"));
        }
        let hash = match (&entry.token_file, &entry.token_sha256) {
            (Some(path), None) => self.token_file(format!("{at}.tokenFile"), path)?,
            (None, Some(digits)) => {
                let field = format!("{at}.tokenSha256");
                let hash = digest(digits).ok_or_else(|| format!("{field}: must be 64 hex digits"))?;
                self.once(hash, field)?;
                hash
            }
            _ => return Err(format!("{at}: needs one of tokenFile and tokenSha256")),
        };
        let (name, reached) = (entry.name, Reached { namespaces: entry.namespaces, clusters: entry.clusters });
        let grant = self.grant(at, name, reached, entry.role, hash)?;
        Ok(Token { hash, grant })
    }

    fn issuer(&mut self, at: &str, entry: file::Issuer) -> Result<Issuer, String> {
        let provider = entry.provider();
        if !provider.issuer_url.starts_with("https://") {
            return Err(format!("{at}.issuerURL: must start with https://"));
        }
        if provider.audience.as_ref().is_some_and(String::is_empty) {
            return Err(format!("{at}.audience: is empty"));
        }
        let identity = serde_json::to_vec(&provider).unwrap_or_default();
        let name = format!("{} ({at})", provider.issuer_url);
        let source = KeySource::Issuer(provider.issuer_url.clone());
        let rule = receiver(at, &provider)?;
        let reached = Reached { namespaces: entry.namespaces, clusters: entry.clusters };
        let grant = self.grant(at, name, reached, entry.role, hash(&identity))?;
        Ok(Issuer { rule, source, grant })
    }

    fn sender(&mut self, at: &str, entry: file::Cluster) -> Result<Sender, String> {
        if entry.name.is_empty() {
            return Err(format!("{at}.name: is empty; the local cluster is called {LOCAL:?}"));
        }
        if entry.hmac_key_files.is_empty() && entry.token_files.is_empty() {
            return Err(format!("{at}: needs hmacKeyFiles or tokenFiles"));
        }
        let mut keys = Vec::new();
        for (index, path) in entry.hmac_key_files.iter().enumerate() {
            keys.extend(self.key_file(format!("{at}.hmacKeyFiles[{index}]"), path)?);
        }
        let mut tokens = Vec::new();
        for (index, path) in entry.token_files.iter().enumerate() {
            tokens.push(self.token_file(format!("{at}.tokenFiles[{index}]"), path)?);
        }
        Ok(Sender { cluster: self.cluster(&entry.name).into(), name: entry.name, keys, tokens })
    }

    /// What a credential reaches. What identifies it is part of the fingerprint, as is all that it may do.
    fn grant(
        &self,
        at: &str,
        name: String,
        reached: Reached,
        role: Role,
        identity: Hash,
    ) -> Result<Arc<Grant>, String> {
        let whole = format!("{name:?} {:?} {:?} {role:?} {identity:?}", reached.namespaces, reached.clusters);
        let namespaces = list(&format!("{at}.namespaces"), reached.namespaces, str::to_owned)?;
        let clusters = list(&format!("{at}.clusters"), reached.clusters, |name| self.cluster(name))?;
        Ok(Grant::new(name, namespaces, clusters, role, hash(whole.as_bytes())))
    }

    /// Belfry's own name of a cluster: the local one may have none, and is called so whatever it has.
    fn cluster(&self, name: &str) -> String {
        if name == LOCAL { self.local.to_owned() } else { name.to_owned() }
    }

    fn token_file(&mut self, field: String, path: &Path) -> Result<Hash, String> {
        let bytes = file::secret(&self.folder.join(path)).map_err(|why| format!("{field}: {why}"))?;
        let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if token.len() < LEAST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{field}: the token is not {LEAST} or more visible characters"));
        }
        let hash = hash(token.as_bytes());
        self.once(hash, field)?;
        Ok(hash)
    }

    /// The key in a file: its bytes, as Flux takes those of a Secret, and the same without a line end, which an editor
    /// may have put there on one side only.
    fn key_file(&mut self, field: String, path: &Path) -> Result<Vec<SecretSlice<u8>>, String> {
        let bytes = file::secret(&self.folder.join(path)).map_err(|why| format!("{field}: {why}"))?;
        let bare = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare).to_vec();
        if bare.len() < LEAST {
            return Err(format!("{field}: the key has fewer than {LEAST} bytes"));
        }
        self.once(hash(&bare), field)?;
        let same = bare == bytes;
        let keys = std::iter::once(bare).chain((!same).then_some(bytes));
        Ok(keys.map(SecretSlice::from).collect())
    }

    /// A credential that stands in two places says two things of its owner.
    fn once(&mut self, hash: Hash, field: String) -> Result<(), String> {
        match self.hashes.get(&hash) {
            Some(other) => Err(format!("{field}: is the same as {other}")),
            None => {
                self.hashes.insert(hash, field);
                Ok(())
            }
        }
    }
}

/// What an entry of the file says that it reaches.
struct Reached {
    namespaces: Vec<String>,
    clusters: Vec<String>,
}

fn list(field: &str, names: Vec<String>, named: impl Fn(&str) -> String) -> Result<Names, String> {
    match names.as_slice() {
        [] => Err(format!("{field}: is empty; [\"*\"] are all")),
        [all] if all == "*" => Ok(Names::All),
        names if names.iter().any(|name| name == "*" || name.is_empty()) => {
            Err(format!("{field}: must be [\"*\"] or a list of names"))
        }
        names => Ok(Names::These(names.iter().map(|name| named(name)).collect())),
    }
}

/// The Receiver of type `generic-oidc` that takes the tokens of one issuer: its checks and its CEL are the ones.
fn receiver(at: &str, provider: &belfry_api::OidcProvider) -> Result<Arc<ReceiverRule>, String> {
    let value = json!({
        "apiVersion": format!("{}/v1", belfry_api::GROUP), "kind": "Receiver",
        "metadata": { "name": "issuer", "namespace": "api-access" },
        "spec": { "type": belfry_api::OIDC_RECEIVER, "resources": [], "oidcProviders": [provider] },
    });
    let document = Document { origin: String::new(), value };
    let (snapshot, _) = config::compile(&[document], &Snapshot::default(), &config::Options::default());
    let rule = snapshot.receivers().next().ok_or_else(|| format!("{at}: can't be used"))?;
    match &rule.flaw {
        None => Ok(rule.clone()),
        Some(flaw) => {
            let field = flaw.field.replace("spec.oidcProviders[0]", at);
            let whose = format!("oidcProviders[0] (issuerURL={:?}): ", provider.issuer_url);
            Err(format!("{field}: {}", flaw.message.strip_prefix(&whose).unwrap_or(&flaw.message)))
        }
    }
}

#[cfg(test)]
mod tests;
