//! One lane of the writer: a connection of its own, one statement at a time, each sent until its outcome is known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use events::{Appended, Batch, EventLog, LogError, Refused};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::{Queued, Shared, Work, gap};
use crate::fail_point;

/// Longest silence of a statement before its outcome counts as unknown. Longer than the database's own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// Wait before the same is sent again: doubles from the first to the last.
const RESEND: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));

/// How often a rolled back statement (a deadlock, say) is sent again before its jobs fail.
const MAX_ROLLBACKS: u32 = 40;

/// Takes what `dispatch` fills, until the writer stops.
pub(super) async fn run(shared: Shared, free: mpsc::Sender<mpsc::Sender<Work>>) {
    let (mine, mut given) = mpsc::channel(1);
    let mut connection = None;
    while free.send(mine.clone()).await.is_ok() {
        match given.recv().await {
            Some(Work::Write(group)) => write(&shared, &mut connection, group).await,
            Some(Work::Tick(done)) => {
                tick(&shared, &mut connection).await;
                let _ = done.send(());
            }
            None => return,
        }
    }
}

/// Writes a group and hands each job its part of the answer.
async fn write(shared: &Shared, connection: &mut Option<deadpool_postgres::Object>, group: Vec<Queued>) {
    let mut batch = batch_of(shared.ttl, &group);
    if fail_point::is_on("skip_standing") {
        batch.streams.iter_mut().for_each(|stream| stream.standing = None);
    }
    metrics::histogram!("license_event_append_batch_size").record(
        (batch.streams.iter().map(|one| one.events.len()).sum::<usize>() + batch.heartbeats.len()) as f64,
    );
    let span = span_of(&group);
    let mut result = send_until_known(shared, connection, &mut batch).instrument(span).await;
    while fail_point::is_on("skip_compare_and_set") && expect_what_is_there(&mut batch, &result) {
        result = send_until_known(shared, connection, &mut batch).await;
    }
    match result {
        Ok(appended) => {
            count_events(&batch, &appended.refused);
            hand_out(group, &appended);
        }
        Err(error) if group.len() > 1 && matches!(error, LogError::Rejected(_)) => {
            // One job that the database rejects must not take the others with it.
            tracing::error!(%error, jobs = group.len(), "a group was rejected: each of its jobs goes alone");
            for one in group {
                let mut batch = batch_of(shared.ttl, std::slice::from_ref(&one));
                let result = send_until_known(shared, connection, &mut batch).await;
                if let Ok(appended) = &result {
                    count_events(&batch, &appended.refused);
                }
                let _ = one.reply.send(result);
            }
        }
        Err(error) => {
            tracing::warn!(%error, jobs = group.len(), "an append failed");
            for one in group {
                let _ = one.reply.send(Err(again(&error)));
            }
        }
    }
}

/// Rule 2 broken on purpose: the batch follows the versions that the log has, and no longer the state that it was
/// decided on. What else the statement wrote is recognised when it is sent again. Whether that changed anything.
fn expect_what_is_there(batch: &mut Batch, result: &Result<Appended, LogError>) -> bool {
    let Ok(appended) = result else { return false };
    let mut conflicts = 0;
    batch.resend = true;
    for refused in &appended.refused {
        let Refused::Conflict { stream, version, .. } = refused else { continue };
        for one in batch.streams.iter_mut().filter(|one| one.stream_id == *stream) {
            (one.expected, one.standing) = (*version, None);
            conflicts += 1;
        }
    }
    conflicts > 0
}

/// The span of a statement: a child of its first job's append, linked to the others'.
fn span_of(group: &[Queued]) -> tracing::Span {
    let first = group.first().map_or_else(tracing::Span::none, |first| first.span.clone());
    let span = tracing::info_span!(parent: &first, "statement", jobs = group.len());
    for other in group.iter().skip(1) {
        other.span.follows_from(&span);
    }
    span
}

/// The same failure for another job of the group.
fn again(error: &LogError) -> LogError {
    match error {
        LogError::Rejected(text) => LogError::Rejected(text.clone()),
        other => LogError::Unavailable(other.to_string()),
    }
}

fn batch_of(ttl: Duration, group: &[Queued]) -> Batch {
    let mut batch = Batch { ttl, ..Batch::default() };
    for Queued { job, .. } in group {
        batch.whole |= job.whole;
        batch.streams.extend(job.streams.iter().cloned());
        batch.names.extend(job.names.iter().cloned());
        batch.heartbeats.extend(job.heartbeats.iter().cloned());
    }
    // Two replicas that move the same seats take them in the same order. Of one session the first does for all.
    batch.heartbeats.sort_by_key(|beat| beat.session_id);
    batch.heartbeats.dedup_by_key(|beat| beat.session_id);
    batch
}

fn hand_out(group: Vec<Queued>, appended: &Appended) {
    let mut by_stream: HashMap<_, Vec<&Refused>> = HashMap::new();
    let mut by_session = HashMap::new();
    for refused in &appended.refused {
        match (refused.stream(), refused.heartbeat()) {
            (Some(stream), _) => by_stream.entry(stream).or_default().push(refused),
            (None, Some((session, _))) => {
                by_session.insert(session, refused);
            }
            (None, None) => {}
        }
    }
    for Queued { job, reply, .. } in group {
        let of_streams =
            job.streams.iter().filter_map(|one| by_stream.get(&one.stream_id)).flatten().copied();
        let of_beats = job.heartbeats.iter().filter_map(|one| by_session.get(&one.session_id)).copied();
        let refused: Vec<_> = of_streams.chain(of_beats).cloned().collect();
        let _ = reply.send(Ok(Appended { at: appended.at, refused }));
    }
}

/// Counts what a statement wrote, and what was refused because somebody was faster.
fn count_events(batch: &Batch, refused: &[Refused]) {
    let conflicts = refused.iter().filter(|one| matches!(one, Refused::Conflict { .. })).count();
    metrics::counter!("license_append_conflicts_total").increment(conflicts as u64);
    for stream in &batch.streams {
        if refused.iter().any(|one| one.stream() == Some(stream.stream_id)) {
            continue;
        }
        for new in &stream.events {
            metrics::counter!("license_events_appended_total", "type" => new.event.name()).increment(1);
        }
    }
    let refused_beats = refused.iter().filter(|one| matches!(one.heartbeat(), Some((_, Err(_))))).count();
    let beats = batch.heartbeats.len() - refused_beats;
    if beats > 0 {
        metrics::counter!("license_events_appended_total", "type" => "seat_heartbeat")
            .increment(beats as u64);
    }
}

/// Sends a batch until its outcome is known, the same each time.
async fn send_until_known(
    shared: &Shared,
    connection: &mut Option<deadpool_postgres::Object>,
    batch: &mut Batch,
) -> Result<Appended, LogError> {
    let mut rollbacks = 0;
    let mut pause = RESEND.0;
    loop {
        let sent = Instant::now();
        match send(shared, connection, batch).await {
            Ok(appended) => {
                shared.clock.observe(sent, appended.at);
                set_up(shared, true);
                metrics::histogram!("license_event_append_duration_seconds")
                    .record(sent.elapsed().as_secs_f64());
                return Ok(appended);
            }
            Err(LogError::RolledBack(_)) if rollbacks < MAX_ROLLBACKS => rollbacks += 1,
            Err(error @ LogError::Unknown(_)) => {
                tracing::warn!(%error, "the outcome of an append is unknown: sending it again");
                batch.resend = true;
                discard(connection);
                set_up(shared, false);
            }
            Err(error @ LogError::Unavailable(_)) => {
                discard(connection);
                set_up(shared, false);
                if !batch.resend {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESEND.1);
    }
}

async fn send(
    shared: &Shared,
    connection: &mut Option<deadpool_postgres::Object>,
    batch: &Batch,
) -> Result<Appended, LogError> {
    let client = open(shared, connection).await?;
    let append = async {
        if !batch.streams.is_empty() {
            fail_point::pass("before_append").await?;
        }
        let appended = EventLog::append_on(client, batch).await;
        if !batch.streams.is_empty() {
            fail_point::pass("after_commit").await?;
        }
        appended
    };
    tokio::time::timeout(ANSWER_TIMEOUT, append)
        .await
        .unwrap_or_else(|_| Err(LogError::Unknown("no answer in time".to_owned())))
}

/// Closes a connection that may still have a statement under way: the pool must not hand it to anybody.
fn discard(connection: &mut Option<deadpool_postgres::Object>) {
    if let Some(connection) = connection.take() {
        drop(deadpool_postgres::Object::take(connection));
    }
}

async fn open<'a>(
    shared: &Shared,
    connection: &'a mut Option<deadpool_postgres::Object>,
) -> Result<&'a deadpool_postgres::Object, LogError> {
    if connection.as_ref().is_none_or(|client| client.is_closed()) {
        let client = shared.log.database().get().await?;
        // The statements of `append` are the same each time. Planned anew for each call, as the server else prefers, they
        // cost a quarter of it. Each has an index for what it looks up: a table that was empty when its plan was made must
        // not be read whole ever after.
        client
            .batch_execute(
                "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off",
            )
            .await?;
        *connection = Some(client);
    }
    connection.as_ref().ok_or_else(|| LogError::Unavailable("no connection".to_owned()))
}

fn set_up(shared: &Shared, up: bool) {
    let changed = shared.up.send_if_modified(|was| std::mem::replace(was, up) != up);
    if changed {
        metrics::gauge!("license_postgres_up").set(if up { 1.0 } else { 0.0 });
        tracing::warn!(up, "Postgres");
    }
}

async fn tick(shared: &Shared, connection: &mut Option<deadpool_postgres::Object>) {
    let sent = Instant::now();
    let tick = async { EventLog::tick_beacon_on(open(shared, connection).await?, gap(shared.ttl)).await };
    match tokio::time::timeout(ANSWER_TIMEOUT, tick).await {
        Ok(Ok(at)) => {
            shared.clock.observe(sent, at);
            set_up(shared, true);
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the beacon was not ticked");
            discard(connection);
            set_up(shared, false);
        }
        Err(_) => {
            discard(connection);
            set_up(shared, false);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use events::{Appended, LicenseId, Refused, SessionId, Standing, Time, UserId};
    use tokio::sync::oneshot;

    use super::super::{Job, Queued};
    use super::{batch_of, hand_out};

    #[test]
    fn what_becomes_of_a_shared_heartbeat_becomes_of_all_who_share_it() {
        let (session, license_id, at) =
            (SessionId::mint(), LicenseId::mint(), Time::from_millis(1_790_000_000_000).unwrap());
        let before = Time::from_millis(1_780_000_000_000).unwrap();
        let refusals = [
            (None, Ok(at)),
            (Some(Refused::Missing { session }), Err(None)),
            (Some(Refused::LicenseExpired { session }), Err(Some(Standing::LicenseExpired))),
            (Some(Refused::Written { session, at: before }), Ok(before)),
        ];
        for (refused, judged) in refusals {
            let (mut group, mut answers) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                let job = Job::heartbeat(license_id, session, UserId::new("ada").unwrap(), None);
                let (reply, answer) = oneshot::channel();
                group.push(Queued { job, reply, span: tracing::Span::none() });
                answers.push(answer);
            }
            assert_eq!(batch_of(Duration::from_secs(1), &group).heartbeats.len(), 1);
            hand_out(group, &Appended { at, refused: refused.into_iter().collect() });
            for mut answer in answers {
                assert_eq!(answer.try_recv().unwrap().unwrap().heartbeat(session), judged);
            }
        }
    }
}
