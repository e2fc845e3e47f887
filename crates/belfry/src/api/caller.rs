//! Who asks the API, and what they may see of it.

use belfry_core::{ConfigKey, ObjectKey};

use super::Problem;

/// Who sent a request, once that is established; handlers find it among the request's extensions.
#[derive(Clone, Debug)]
pub enum Caller {
    /// This machine itself, or who has the API's own token: sees and may do everything.
    Everything,
}

impl Caller {
    /// Whether what is known of an object may be read.
    pub async fn may_read(&self, _object: &ObjectKey) -> Result<bool, Problem> {
        match self {
            Self::Everything => Ok(true),
        }
    }

    /// Whether a delivery that this Alert, CommitStatus or Receiver caused may be put in line again.
    pub async fn may_redeliver(&self, _route: &ConfigKey) -> Result<bool, Problem> {
        match self {
            Self::Everything => Ok(true),
        }
    }

    /// Those of the items that may be read.
    pub async fn readable<T>(&self, items: Vec<T>, object: impl Fn(&T) -> &ObjectKey) -> Result<Vec<T>, Problem> {
        let mut readable = Vec::with_capacity(items.len());
        for item in items {
            if self.may_read(object(&item)).await? {
                readable.push(item);
            }
        }
        Ok(readable)
    }
}
