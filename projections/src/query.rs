//! Questions to the read models: one handle, pages with opaque cursors, errors that say whose fault it is.

use events::{EventLog, LogError};

/// Most rows of a page.
pub(crate) const MAX_PAGE: usize = 1_000;

/// Answers from the read models. Cheap to clone.
///
/// Everything here is as of the projections' cursors, which follow the log by well under a second;
/// [`ReadModels::caught_up`] waits for what was written before it was called.
#[derive(Clone)]
pub struct ReadModels {
    pub(crate) log: EventLog,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// Hand it back as `after` to go on; `None`: that was all.
    pub next: Option<String>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The question itself is wrong: the caller's fault, with the parameter that is at fault.
    #[error("{field}: {why}")]
    Invalid {
        /// The parameter, as the API calls it.
        field: &'static str,
        /// For the client.
        why: String,
    },
    /// The database failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Log(error.into())
    }
}

impl QueryError {
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    /// What is said of an `after` that nobody handed out.
    pub(crate) fn bad_cursor() -> Self {
        Self::invalid("after", "is not a cursor that this service handed out")
    }
}

impl ReadModels {
    /// Asks this log's database.
    #[must_use]
    pub fn new(log: EventLog) -> Self {
        Self { log }
    }
}

/// What to ask for to get a page of `limit` rows and learn whether there are more.
pub(crate) fn one_more(limit: usize) -> Result<i64, QueryError> {
    if (1..=MAX_PAGE).contains(&limit) {
        Ok(i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1)
    } else {
        Err(QueryError::invalid("limit", "must be 1 to 1000"))
    }
}

impl<T> Page<T> {
    /// Out of the rows that [`one_more`] asked for.
    pub(crate) fn cut(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(cursor) } else { None };
        Self { items: rows, next }
    }
}

/// A cursor that is an id.
pub(crate) fn id_cursor<T: std::str::FromStr>(after: Option<&str>) -> Result<Option<T>, QueryError> {
    after.map(|text| text.parse().map_err(|_| QueryError::bad_cursor())).transpose()
}
