//! Which store a command is about.

use std::{fs, path::PathBuf};

use anyhow::bail;
use belfry_store::{Database, transfer::Site};
use clap::Args;

use crate::cli::flags::DatabaseUrl;

/// Bytes of a file in which a URL may stand.
const URL: u64 = 64 << 10;

/// The flags of `belfry serve` that say where its store is.
#[derive(Debug, Args)]
pub(super) struct SiteFlags {
    /// Folder of the store [default: belfry-data]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["database_url", "database_url_file"])]
    data: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseUrl,
}

impl SiteFlags {
    pub(super) fn site(&self) -> Site {
        let folder = || Site::Folder(self.data.clone().unwrap_or_else(|| "belfry-data".into()));
        self.database.database().map_or_else(folder, Site::Database)
    }
}

/// A store by what people have at hand: its folder, its URL, or a file with its URL. What may be a URL is never repeated: it may
/// hold a password.
pub(super) fn site(flag: &str, text: &str) -> anyhow::Result<Site> {
    if is_url(text) {
        return Ok(Site::Database(Database::at(text)));
    }
    if text.contains("://") {
        bail!("{flag}: a URL of a database begins with postgres://");
    }
    let path = PathBuf::from(text);
    if !path.is_file() {
        return Ok(Site::Folder(path));
    }
    let small = path.metadata().is_ok_and(|found| found.len() <= URL);
    if small && fs::read_to_string(&path).is_ok_and(|text| is_url(text.trim())) {
        return Ok(Site::Database(Database::in_file(path)));
    }
    bail!(
        "{flag}: {text} is neither a folder nor a file with a postgres:// URL; of an SQLite database the folder is needed that it is in"
    )
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_told_by_what_they_look_like() {
        let folder = tempfile::tempdir().unwrap();
        let [url, other] = ["url", "belfry.db"].map(|name| folder.path().join(name));
        fs::write(&url, "postgres://u:secret@h/d\n").unwrap();
        fs::write(&other, "SQLite format 3").unwrap();
        let of = |text: &str| match site("--to", text) {
            Ok(Site::Folder(folder)) => format!("folder {}", folder.display()),
            Ok(Site::Database(_)) => "database".into(),
            Err(error) => error.to_string(),
        };
        assert_eq!(of("belfry-data"), "folder belfry-data");
        assert_eq!(of("postgresql://u:secret@h/d"), "database");
        assert_eq!(of(url.to_str().unwrap()), "database");
        assert_eq!(of("postgress://u:secret@h/d"), "--to: a URL of a database begins with postgres://");
        assert!(of(other.to_str().unwrap()).contains("the folder is needed"));
    }
}
