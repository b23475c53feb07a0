//! What can go wrong while evidence is made or checked. What the evidence shows is no error (see [`crate::Finding`]).

use events::LogError;

/// A failure: nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The database cannot be asked, or refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no signature.
    #[error("the signer: {0}")]
    Signer(String),
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// Its name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// What was given or stored cannot be read as what it should be.
    #[error("{0}")]
    Unreadable(String),
    /// What was asked for cannot be done as things are; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// What was asked for is not there (yet).
    #[error("{0}")]
    NotSealed(String),
}

impl From<tokio_postgres::Error> for AuditError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Log(error.into())
    }
}

impl AuditError {
    /// Something that cannot be read.
    pub(crate) fn unreadable(what: impl std::fmt::Display) -> Self {
        Self::Unreadable(what.to_string())
    }

    /// A file that failed.
    pub(crate) fn file(file: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let file = file.display().to_string();
        move |source| Self::File { file, source }
    }
}
