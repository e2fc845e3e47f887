//! What can go wrong between Belfry and the API server, said for whoever runs it.

use kube::{
    client::AuthError,
    config::{InClusterError, KubeconfigError},
};

/// Why the cluster could not be asked. Prints without its source; print the chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is missing, broken, or lacks the context.
    #[error("the kubeconfig {path} can't be used")]
    Kubeconfig {
        /// Which one.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// There is no kubeconfig, and this is no pod with a ServiceAccount.
    #[error("no cluster: not in a pod with a ServiceAccount's token, and no kubeconfig is given")]
    NoCluster(#[source] Box<InClusterError>),
    /// Certificates, the proxy or the credentials can't be used.
    #[error("the certificates, the proxy or the credentials for the API server can't be used")]
    Client(#[source] Box<kube::Error>),
    /// No answer: the API server, or what stands before it, is down, overloaded or too slow.
    #[error("{what}: the API server gives no answer")]
    Unavailable {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The role of Belfry's ServiceAccount lacks a rule, or its token is no longer accepted.
    #[error("{what}: the API server forbids it: {message}")]
    Forbidden {
        /// What was asked.
        what: String,
        /// HTTP status: 401 or 403.
        code: u16,
        /// The API server's words.
        message: String,
    },
    /// Any other refusal, or an answer that makes no sense.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status; 0 for an answer that can't be read.
        code: u16,
        /// The API server's words.
        message: String,
    },
}

impl Error {
    /// Whether asking again later may help without anybody doing anything.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The whole story in one line: this error and what caused it.
    pub fn explain(&self) -> String {
        chain(self)
    }

    /// Whether there is no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// What `error` means, met when `what` was asked. Nothing of an answer's body gets into it but the API server's own
    /// message, for the body may be a Secret.
    pub(crate) fn from_kube(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Self::Forbidden { what, code: status.code, message: status.message }
            }
            kube::Error::Api(status) if status.code == 429 || status.code >= 500 => {
                Self::Unavailable { what, source: format!("{} {}", status.code, status.message).into() }
            }
            kube::Error::Api(status) => Self::Refused { what, code: status.code, message: status.message },
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::Refused { what, code: 0, message: "the answer can't be read".to_owned() }
            }
            // A credential plugin, or a token file that is not there.
            kube::Error::Auth(error) => Self::Unavailable { what, source: Box::<AuthError>::new(error) },
            kube::Error::HyperError(error) => Self::Unavailable { what, source: error.into() },
            kube::Error::Service(error) => Self::Unavailable { what, source: error },
            other => Self::Unavailable { what, source: other.into() },
        }
    }
}

/// An error with all its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries print their source themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
