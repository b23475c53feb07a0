//! The read model `usage`: how many seats were held when, by how many users, and what happened. A scope is one license,
//! or a tenant as a whole.
//!
//! What the words mean. Events are ordered by (time, position in the log); a seat is held from its `seat_acquired` to
//! the event that ends it, so a state *at* a time includes what happened in that millisecond. `peak` is the most seats
//! held after any event of a bucket, or when it began: a seat taken and given back within one millisecond counts, and
//! a seat given back in a bucket's very first millisecond does not count for that bucket. `average` is weighted by time.
//! `unique_users` held a seat at some time of the bucket, taken before it or in it.

mod facts;
mod series;
mod store;
mod tally;

use events::LogError;

use crate::page::Fold;

pub use series::{Bucket, Usage, UsageItem, UsageRange};

/// Folds a page; needs its sessions and denials folded.
///
/// Pages go by (transaction, position), scopes by time: two transactions may have been given their times in the other
/// order. A scope whose page begins before where its fold stands is told again from the beginning of that day.
pub(crate) async fn fold(fold: &Fold<'_>) -> Result<(), LogError> {
    let facts = facts::of_page(fold).await?;
    let mut tally = store::load(fold, &facts).await?;
    for fact in &facts {
        tally.add(fact);
    }
    let late = tally.take_late();
    store::save(fold, &tally).await?;
    for scope in late {
        store::retell(fold, scope).await?;
    }
    Ok(())
}
