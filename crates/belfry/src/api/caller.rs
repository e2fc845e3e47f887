//! Who asks the API, and what they may see of it.

use std::collections::HashMap;

use belfry_core::{ConfigKey, ObjectKey};
use futures::{StreamExt as _, TryStreamExt as _};

use super::Problem;
use crate::access::{Holder, Person};

/// Objects of a list that are asked about at a time.
const AT_A_TIME: usize = 16;

/// Who sent a request, once that is established; handlers find it among the request's extensions. What may be read is
/// asked anew each time, so who streams for hours asks now and then.
#[derive(Clone, Debug)]
pub enum Caller {
    /// This machine itself, or who has the API's own token: sees and may do everything.
    Everything,
    /// A user of the Kubernetes API, who may what its rules allow.
    Kubernetes(Box<Person>),
    /// Who has a credential of `--api-access`.
    Scoped(Holder),
}

impl Caller {
    /// Whether what is known of an object may be read.
    ///
    /// # Errors
    /// When the credential is no longer good, or that can't be known now.
    pub async fn may_read(&self, object: &ObjectKey) -> Result<bool, Problem> {
        match self {
            Self::Everything => Ok(true),
            Self::Kubernetes(person) => Ok(person.may_read(object).await?),
            Self::Scoped(holder) => Ok(holder.may_read(object)?),
        }
    }

    /// Whether a delivery that this Alert, CommitStatus or Receiver caused may be put in line again.
    ///
    /// # Errors
    /// When the credential is no longer good, or that can't be known now.
    pub async fn may_redeliver(&self, route: &ConfigKey) -> Result<bool, Problem> {
        match self {
            Self::Everything => Ok(true),
            Self::Kubernetes(person) => Ok(person.may_redeliver(route).await?),
            Self::Scoped(holder) => Ok(holder.may_redeliver(route)?),
        }
    }

    /// Those of the items that may be read, in their order.
    ///
    /// # Errors
    /// When the credential is no longer good, or that can't be known now.
    pub async fn readable<T>(&self, mut items: Vec<T>, object: impl Fn(&T) -> &ObjectKey) -> Result<Vec<T>, Problem> {
        if matches!(self, Self::Everything) {
            return Ok(items);
        }
        let distinct: HashMap<ObjectKey, ()> = items.iter().map(|item| (object(item).clone(), ())).collect();
        let asked = futures::stream::iter(distinct.into_keys().map(|object| async move {
            let may = self.may_read(&object).await?;
            Ok::<_, Problem>((object, may))
        }));
        let known: HashMap<ObjectKey, bool> = asked.buffer_unordered(AT_A_TIME).try_collect().await?;
        items.retain(|item| known.get(object(item)).copied().unwrap_or_default());
        Ok(items)
    }
}
