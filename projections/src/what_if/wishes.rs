//! The wishes of a history: what was held, and what was refused.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::{LicenseId, TenantId, Time};

use super::{MAX_ROWS, RETRY_PAUSE_MS, WhatIfQuestion};
use crate::query::{QueryError, ReadModels};

/// The time for which somebody wants a seat. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub user_id: Arc<str>,
    pub from_ms: i64,
    /// Whoever has no seat by then gives up.
    pub patience_ms: i64,
    pub hold: Hold,
}

/// How long a seat is held once it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Until(i64),
    For(i64),
}

impl Wish {
    /// When a seat granted at a time is free again.
    pub fn end_of(&self, granted_ms: i64) -> i64 {
        match self.hold {
            Hold::Until(end) => end,
            Hold::For(length) => granted_ms.saturating_add(length),
        }
    }
}

/// A license's history, as far as the question goes.
pub(super) struct Past {
    from_ms: i64,
    to_ms: i64,
    sessions: Vec<Session>,
    denials: Vec<(Arc<str>, i64)>,
    limits: Vec<(i64, i64)>,
}

#[derive(Debug, Clone)]
struct Session {
    user_id: Arc<str>,
    started_ms: i64,
    ended_ms: i64,
    /// Of one that expired: its last sign of life.
    silent_since_ms: Option<i64>,
    ended: bool,
}

impl Past {
    pub async fn read(
        from: &ReadModels,
        tenant_id: TenantId,
        license_id: LicenseId,
        question: &WhatIfQuestion,
    ) -> Result<Self, QueryError> {
        let (begin, end) = (question.from.as_datetime(), question.to.as_datetime());
        let mut client = from.log.database().get().await?;
        let snapshot = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&tenant_id.0, &license_id.0, &begin, &end, &(MAX_ROWS + 1)];
        let rows = snapshot.query(include_str!("../sql/what_if_sessions.sql"), &arguments).await?;
        let refused = snapshot.query(include_str!("../sql/what_if_denials.sql"), &arguments).await?;
        if i64::try_from(rows.len() + refused.len()).unwrap_or(i64::MAX) > MAX_ROWS {
            return Err(QueryError::invalid(
                "to",
                format!("the range has more than {MAX_ROWS} sessions and denials: choose a shorter one"),
            ));
        }
        let limits = snapshot
            .query(
                "select since, seats_total from license_limits where tenant_id = $1 and license_id = $2 order by version",
                &[&tenant_id.0, &license_id.0],
            )
            .await?;
        snapshot.commit().await?;
        let millis = |at: DateTime<Utc>| Time::from(at).millis();
        let name = |row: &tokio_postgres::Row| Arc::from(row.get::<_, &str>(0));
        Ok(Self {
            from_ms: question.from.millis(),
            to_ms: question.to.millis(),
            sessions: rows
                .iter()
                .map(|row| Session {
                    user_id: name(row),
                    started_ms: millis(row.get(1)),
                    ended_ms: row.get::<_, Option<_>>(2).map_or(i64::MAX, millis),
                    silent_since_ms: row.get::<_, Option<_>>(3).map(millis),
                    ended: row.get::<_, Option<DateTime<Utc>>>(2).is_some(),
                })
                .collect(),
            denials: refused.iter().map(|row| (name(row), millis(row.get(1)))).collect(),
            limits: limits.iter().map(|row| (millis(row.get(0)), row.get(1))).collect(),
        })
    }

    /// (From when on, seats), in order.
    pub fn limits(&self) -> &[(i64, i64)] {
        &self.limits
    }

    /// The wishes with the TTL that there was, or with another, ordered by when they begin.
    pub fn wishes(&self, ttl_ms: Option<i64>) -> Vec<Wish> {
        let typical = self.typical_ms();
        let mut denials: HashMap<&str, std::collections::VecDeque<i64>> = HashMap::new();
        for (user, at) in &self.denials {
            denials.entry(user).or_default().push_back(*at);
        }
        let mut wishes = Vec::new();
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|one| one.started_ms);
        for session in sessions {
            let begun = session.started_ms.max(self.from_ms);
            let mut asked = begun;
            // The refusals on the way to this session; those before a longer pause stand for themselves.
            if let Some(before) = denials.get_mut(&*session.user_id) {
                let mut runs = take_runs(before, session.started_ms);
                if let Some(last) = runs.pop() {
                    if session.started_ms - last.1 <= RETRY_PAUSE_MS {
                        asked = last.0;
                    } else {
                        runs.push(last);
                    }
                }
                wishes.extend(runs.into_iter().map(|run| unmet(&session.user_id, run, typical)));
            }
            let end = self.end(session, ttl_ms);
            if end > asked {
                let user_id = session.user_id.clone();
                wishes.push(Wish { user_id, from_ms: asked, patience_ms: end, hold: Hold::Until(end) });
            }
        }
        for (user, mut left) in denials {
            let user: Arc<str> = Arc::from(user);
            wishes.extend(take_runs(&mut left, i64::MAX).into_iter().map(|run| unmet(&user, run, typical)));
        }
        wishes.sort_by(|a, b| (a.from_ms, &a.user_id).cmp(&(b.from_ms, &b.user_id)));
        wishes
    }

    fn end(&self, session: &Session, ttl_ms: Option<i64>) -> i64 {
        let end = match (session.silent_since_ms, ttl_ms) {
            (Some(silent), Some(ttl)) => silent + ttl,
            _ => session.ended_ms,
        };
        end.min(self.to_ms)
    }

    /// The median of the sessions that ended.
    fn typical_ms(&self) -> i64 {
        let mut lengths: Vec<_> =
            self.sessions.iter().filter(|one| one.ended).map(|one| one.ended_ms - one.started_ms).collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).copied().unwrap_or(0)
    }
}

/// Runs of refusals before a time, as (first, last).
fn take_runs(denials: &mut std::collections::VecDeque<i64>, before: i64) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    while let Some(at) = denials.front().copied().filter(|at| *at <= before) {
        denials.pop_front();
        match runs.last_mut() {
            Some(run) if at - run.1 <= RETRY_PAUSE_MS => run.1 = at,
            _ => runs.push((at, at)),
        }
    }
    runs
}

/// Refusals that led to nothing. Even a single one is a wish: whoever has a seat at that instant gets it.
fn unmet(user_id: &Arc<str>, run: (i64, i64), typical_ms: i64) -> Wish {
    let hold = Hold::For(typical_ms.max(1));
    Wish { user_id: user_id.clone(), from_ms: run.0, patience_ms: run.1.max(run.0 + 1), hold }
}
