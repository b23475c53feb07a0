//! The projections: which events each one folds, in which read models, in which order.

use events::LogError;

use crate::page::Fold;
use crate::{denials, licenses, sessions, tenants, usage};

/// Read models that share a cursor, so that they always agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    /// `tenants` and `licenses`.
    Directory,
    /// `sessions`, `denials` and `usage`.
    Activity,
}

impl Projection {
    pub const ALL: [Self; 2] = [Self::Directory, Self::Activity];

    /// In its cursor and its metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Activity => "activity",
        }
    }

    /// Where its events are. Neither reads a heartbeat: what one moves is kept in `seats`.
    pub fn source(self) -> &'static str {
        match self {
            Self::Directory => {
                "events_decision where type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated')"
            }
            Self::Activity => "events where class in ('decision', 'denial')",
        }
    }

    /// Folds a page into all read models. A page folded from the same cursor twice would count twice: the cursor
    /// moves in the same transaction.
    pub async fn fold(self, page: &Fold<'_>) -> Result<(), LogError> {
        match self {
            Self::Directory => {
                tenants::fold(page).await?;
                licenses::fold(page).await
            }
            Self::Activity => {
                sessions::fold(page).await?;
                denials::fold(page).await?;
                usage::fold(page).await
            }
        }
    }
}
