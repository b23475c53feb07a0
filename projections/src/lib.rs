//! What is shown: read models folded from the log. This crate knows the log, and never sees an actor.
//!
//! Delivery: a projection writes its rows and its cursor in one transaction, which only succeeds from the cursor that
//! the page was read after. So every event is folded exactly once, whoever tries and however often.

mod analysts;
mod cursor;
mod denials;
mod licenses;
mod page;
mod projection;
mod query;
mod rebuild;
mod runner;
mod sessions;
mod tenants;
mod trail;
mod usage;
mod users;
mod what_if;

pub use analysts::{AnalystLogin, NewLogin, create_login, drop_login, list_logins, rotate_login};
pub use denials::{Denial, DenialFilter};
pub use licenses::LicenseRow;
pub use query::{Page, QueryError, ReadModels};
pub use rebuild::{READ_MODELS, Rebuilt, rebuild};
pub use runner::{fold_all, run};
pub use sessions::{SessionFilter, SessionRow, SessionState};
pub use tenants::{TenantList, TenantRow};
pub use trail::TrailEntry;
pub use usage::{Bucket, Usage, UsageItem, UsageRange};
pub use users::UserRow;
pub use what_if::{Outcome, Waiter, WhatIf, WhatIfQuestion};
