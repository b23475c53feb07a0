//! The gate: one typed function per Lua script, and the only place that knows the Redis client.
//!
//! `None` means that Redis had no answer: the caller goes on without the gate (protocol, rule 1). Traps of the client
//! met here: no command timeout, no reconnect policy and an unlimited buffer by default; commands of a client that is
//! not connected wait unless it fails fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use events::{HardwareId, LicenseId, Seats, SessionId, UserId};
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, UnresponsiveConfig};
use fred::types::scripts::Script;

use crate::fail_point;

/// Longest time a script call may take before the gate is skipped.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(250);

/// How often Redis is asked whether it is back.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// Attempts of a command in a cluster: each redirection takes one, and the client follows five. Out of attempts in the
/// middle of a redirection the client gives up all its connections (fred 10.1, `send_asking_with_policy`).
const CLUSTER_ATTEMPTS: u32 = 8;

/// Pause before a client that gave up its connections is told to connect again.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// Most sessions that one `sync_pool` call writes: a script blocks Redis while it runs.
const SYNC_CHUNK: usize = 2_000;

/// The gate's answer to one acquire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pass {
    /// A seat is reserved.
    Granted,
    /// The holder has this live session.
    Held(SessionId),
    /// No seat is free.
    Full,
}

/// The gate's answer to a batch of acquires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passes {
    /// The mirror has nothing of this pool.
    UnknownPool,
    /// One answer a request, and sessions whose deadline has passed by Redis's clock.
    Known { passes: Vec<Pass>, lapsed: Vec<SessionId> },
}

/// A session as the mirror keeps it.
#[derive(Debug, Clone)]
pub(crate) struct MirrorSeat {
    pub session_id: SessionId,
    pub holder: String,
    pub remaining: Duration,
}

/// Who holds a seat, as one text: no hardware id contains a space.
pub(crate) fn holder(user_id: &UserId, hardware_id: &HardwareId) -> String {
    format!("{hardware_id} {user_id}")
}

struct Scripts {
    acquire_seat: Script,
    extend_ttl: Script,
    release_seat: Script,
    sync_pool: Script,
}

/// A connection to the mirrors of all pools. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    client: Client,
    scripts: Arc<Scripts>,
    up: Arc<AtomicBool>,
    generation: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

impl Gate {
    /// Begins to connect; Redis may be absent.
    ///
    /// # Errors
    /// When the URL is not one of the client's.
    pub fn connect(url: &str) -> Result<Self, String> {
        // What other clients call `unix://` this one calls `redis+unix://`.
        let url =
            url.strip_prefix("unix://").map_or_else(|| url.to_owned(), |path| format!("redis+unix://{path}"));
        let mut config = Config::from_url(&url).map_err(|error| error.details().to_owned())?;
        config.fail_fast = false;
        let performance =
            PerformanceConfig { default_command_timeout: COMMAND_TIMEOUT, ..Default::default() };
        let connection = ConnectionConfig {
            connection_timeout: Duration::from_secs(1),
            internal_command_timeout: Duration::from_secs(1),
            max_command_attempts: if config.server.is_clustered() { CLUSTER_ATTEMPTS } else { 1 },
            max_command_buffer_len: 10_000,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(Duration::from_millis(500)),
                interval: Duration::from_millis(100),
            },
            ..Default::default()
        };
        // Without end; 50 ms, doubling to 1 s.
        let policy = ReconnectPolicy::new_exponential(0, 50, 1_000, 2);
        let client = Client::new(config, Some(performance), Some(connection), Some(policy));
        let gate = Self {
            client,
            scripts: Arc::new(Scripts {
                acquire_seat: Script::from_lua(include_str!("../../lua/acquire_seat.lua")),
                extend_ttl: Script::from_lua(include_str!("../../lua/extend_ttl.lua")),
                release_seat: Script::from_lua(include_str!("../../lua/release_seat.lua")),
                sync_pool: Script::from_lua(include_str!("../../lua/sync_pool.lua")),
            }),
            up: Arc::new(AtomicBool::new(false)),
            generation: Arc::new(AtomicU64::new(0)),
            closed: Arc::new(AtomicBool::new(false)),
        };
        tokio::spawn(gate.clone().keep_connected());
        tokio::spawn(gate.clone().probe());
        Ok(gate)
    }

    /// Whether Redis answered last time.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Waits until Redis has answered, at most for a time.
    pub async fn wait(&self, patience: Duration) {
        let begun = Instant::now();
        while !self.is_up() && begun.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Counts up each time Redis comes back: what was mirrored before may have been missed since.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The client reconnects by itself, without end; should it end all the same, it is told to begin again.
    async fn keep_connected(self) {
        while !self.is_closed() {
            let ended = self.client.connect().await;
            if !self.is_closed() {
                tracing::warn!(?ended, "the Redis client gave up: connecting again");
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
        }
    }

    /// Asks Redis every now and then, so that nobody has to wait for it to find out.
    async fn probe(self) {
        let _ = tokio::time::timeout(COMMAND_TIMEOUT * 4, self.client.wait_for_connect()).await;
        while !self.is_closed() {
            let answer = self.client.ping::<String>(None).await;
            self.set_up(answer.is_ok());
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn set_up(&self, up: bool) {
        if self.is_closed() {
            return;
        }
        metrics::gauge!("license_redis_up").set(if up { 1.0 } else { 0.0 });
        if self.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        if up {
            self.generation.fetch_add(1, Ordering::Relaxed);
            tracing::info!("Redis answers");
        } else {
            tracing::warn!("Redis does not answer: deciding without the gate");
        }
    }

    /// Ends the connection; from here on a silent Redis is nobody's news.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = self.client.quit().await;
    }

    pub(crate) async fn acquire(
        &self,
        license_id: LicenseId,
        ttl: Duration,
        requests: &[(SessionId, String)],
    ) -> Option<Passes> {
        let mut arguments = vec![ttl.as_millis().to_string()];
        for (session_id, holder) in requests {
            arguments.push(session_id.to_string());
            arguments.push(holder.clone());
        }
        let words = self
            .call("acquire_seat", &self.scripts.acquire_seat, keys(license_id).to_vec(), arguments)
            .await?;
        parse_passes(&words, requests.len())
    }

    /// Answers the sessions that the mirror has forgotten.
    pub(crate) async fn extend(
        &self,
        license_id: LicenseId,
        ttl: Duration,
        sessions: &[SessionId],
    ) -> Option<Vec<SessionId>> {
        let mut arguments = vec![ttl.as_millis().to_string()];
        arguments.extend(sessions.iter().map(ToString::to_string));
        let [_, seats, _] = keys(license_id);
        let words = self.call("extend_ttl", &self.scripts.extend_ttl, vec![seats], arguments).await?;
        Some(
            sessions
                .iter()
                .zip(words)
                .filter(|(_, word)| word == "unknown")
                .map(|(session, _)| *session)
                .collect(),
        )
    }

    pub(crate) async fn release(&self, license_id: LicenseId, seats: &[(SessionId, String)]) -> Option<()> {
        let arguments =
            seats.iter().flat_map(|(session, holder)| [session.to_string(), holder.clone()]).collect();
        let [_, seats, holders] = keys(license_id);
        self.call("release_seat", &self.scripts.release_seat, vec![seats, holders], arguments)
            .await
            .map(|_| ())
    }

    /// Adds sessions that the mirror has forgotten.
    pub(crate) async fn restore(
        &self,
        license_id: LicenseId,
        version: i64,
        limit: Seats,
        seats: &[MirrorSeat],
    ) -> Option<()> {
        self.sync_call(license_id, "add", version, limit, seats).await?.then_some(())
    }

    /// Replaces the mirror of a pool. `Some(false)`: it claims a later version, and `force` was not set.
    pub(crate) async fn sync(
        &self,
        license_id: LicenseId,
        version: i64,
        limit: Seats,
        seats: &[MirrorSeat],
        force: bool,
    ) -> Option<bool> {
        let first = seats.len().min(SYNC_CHUNK);
        let mode = if force { "force" } else { "replace" };
        if !self.sync_call(license_id, mode, version, limit, &seats[..first]).await? {
            return Some(false);
        }
        fail_point::pass("in_repair").await.ok()?;
        for chunk in seats[first..].chunks(SYNC_CHUNK) {
            self.sync_call(license_id, "add", version, limit, chunk).await?.then_some(())?;
        }
        metrics::counter!("license_mirror_repairs_total").increment(1);
        Some(true)
    }

    async fn sync_call(
        &self,
        license_id: LicenseId,
        mode: &str,
        version: i64,
        limit: Seats,
        seats: &[MirrorSeat],
    ) -> Option<bool> {
        let mut arguments = vec![mode.to_owned(), version.to_string(), limit.get().to_string()];
        for seat in seats {
            arguments.push(seat.session_id.to_string());
            arguments.push(seat.holder.clone());
            arguments.push(seat.remaining.as_millis().to_string());
        }
        let words =
            self.call("sync_pool", &self.scripts.sync_pool, keys(license_id).to_vec(), arguments).await?;
        Some(words.first().is_some_and(|word| word == "synced"))
    }

    /// One script call. EVALSHA, and on NOSCRIPT the script is loaded and called again.
    #[tracing::instrument(name = "gate", skip(self, script, keys, arguments))]
    async fn call(
        &self,
        name: &'static str,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Option<Vec<String>> {
        if !self.is_up() {
            return None;
        }
        let begun = Instant::now();
        let answer = script.evalsha_with_reload::<Vec<String>, _, _>(&self.client, keys, arguments).await;
        metrics::histogram!("license_redis_call_duration_seconds", "script" => name)
            .record(begun.elapsed().as_secs_f64());
        match answer {
            Ok(words) => Some(words),
            Err(error) => {
                tracing::warn!(script = name, %error, "the gate did not answer");
                use fred::error::ErrorKind::{Backpressure, Canceled, IO, Timeout};
                if matches!(error.kind(), IO | Timeout | Canceled | Backpressure) {
                    self.set_up(false);
                } else {
                    // It answers, but refused (out of memory, a slot on the move): mirrors may have missed something.
                    self.generation.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        }
    }
}

/// All keys of a pool share one hash tag, so that a cluster keeps them together.
fn keys(license_id: LicenseId) -> [String; 3] {
    ["meta", "seats", "holders"].map(|part| format!("coditect:{{{license_id}}}:{part}"))
}

fn parse_passes(words: &[String], requests: usize) -> Option<Passes> {
    if words.first().is_some_and(|word| word == "unknown_pool") {
        return Some(Passes::UnknownPool);
    }
    let (answers, lapsed) = words.split_at_checked(requests)?;
    let passes = answers
        .iter()
        .map(|word| match word.split_once(' ') {
            Some(("held", session)) => session.parse().ok().map(Pass::Held),
            None if word == "granted" => Some(Pass::Granted),
            None if word == "full" => Some(Pass::Full),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let lapsed = lapsed.iter().filter_map(|word| word.strip_prefix("lapsed ")?.parse().ok()).collect();
    Some(Passes::Known { passes, lapsed })
}

#[cfg(test)]
mod tests {
    use super::{Pass, Passes, parse_passes};
    use events::SessionId;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn reads_the_words_of_the_script_and_nothing_else() {
        let (held, lapsed) = (SessionId::mint(), SessionId::mint());
        let answer = words(&["granted", &format!("held {held}"), "full", &format!("lapsed {lapsed}")]);
        assert_eq!(
            parse_passes(&answer, 3),
            Some(Passes::Known {
                passes: vec![Pass::Granted, Pass::Held(held), Pass::Full],
                lapsed: vec![lapsed]
            })
        );
        assert_eq!(parse_passes(&words(&["unknown_pool"]), 2), Some(Passes::UnknownPool));
        assert_eq!(parse_passes(&words(&["granted"]), 2), None, "an answer is missing");
        assert_eq!(parse_passes(&words(&["perhaps"]), 1), None);
        assert_eq!(parse_passes(&words(&["held nobody"]), 1), None);
    }
}
