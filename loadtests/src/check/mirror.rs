//! What Redis holds of each pool, read with plain commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy};
use fred::types::{ClusterHash, CustomCommand};

const PATIENCE: Duration = Duration::from_secs(5);
/// Keeps keys from vanishing; no session is called so.
const SENTINEL: &str = "sentinel";

/// One pool's mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub limit: Option<i64>,
    /// Sessions whose time has not run out by Redis's own clock, and what is left of it.
    pub live: BTreeMap<String, i64>,
    /// `hardware_id user_id` to session, of those that live.
    pub holders: BTreeMap<String, String>,
}

/// A connection to Redis.
pub(crate) struct Mirrors {
    client: Client,
}

impl Mirrors {
    pub async fn connect(url: &str) -> Result<Self> {
        let url =
            url.strip_prefix("unix://").map_or_else(|| url.to_owned(), |path| format!("redis+unix://{path}"));
        let config = Config::from_url(&url).context("the URL of Redis")?;
        let performance = PerformanceConfig { default_command_timeout: PATIENCE, ..Default::default() };
        let connection = ConnectionConfig { connection_timeout: PATIENCE, ..Default::default() };
        let policy = ReconnectPolicy::new_constant(5, 200);
        let client = Client::new(config, Some(performance), Some(connection), Some(policy));
        client.connect();
        tokio::time::timeout(PATIENCE, client.wait_for_connect()).await.context("connect to Redis")??;
        Ok(Self { client })
    }

    /// The mirrors of these pools.
    pub async fn read(&self, pools: impl Iterator<Item = &str>) -> Result<BTreeMap<String, Mirror>> {
        let mut mirrors = BTreeMap::new();
        for pool in pools {
            mirrors.insert(pool.to_owned(), self.pool(pool).await?);
        }
        Ok(mirrors)
    }

    async fn pool(&self, pool: &str) -> Result<Mirror> {
        let key = |part: &str| format!("coditect:{{{pool}}}:{part}");
        let limit: Option<String> = self.ask("HGET", vec![key("meta"), "limit".into()]).await?;
        let scores: Vec<String> =
            self.ask("ZRANGE", vec![key("seats"), "0".into(), "-1".into(), "WITHSCORES".into()]).await?;
        let holders: Vec<String> = self.ask("HGETALL", vec![key("holders")]).await?;
        let time: Vec<String> = self.ask("TIME", vec![]).await?;
        let number = |n: usize| time.get(n).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
        let now_ms = number(0) * 1_000 + number(1) / 1_000;
        let live: BTreeMap<_, _> = scores
            .chunks_exact(2)
            .filter(|pair| pair[0] != SENTINEL)
            .filter_map(|pair| Some((pair[0].clone(), pair[1].parse::<f64>().ok()? as i64 - now_ms)))
            .filter(|(_, left_ms)| *left_ms > 0)
            .collect();
        let holders = holders
            .chunks_exact(2)
            .filter(|pair| live.contains_key(&pair[1]))
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect();
        Ok(Mirror { limit: limit.and_then(|limit| limit.parse().ok()), live, holders })
    }

    async fn ask<T: fred::types::FromValue>(
        &self,
        command: &'static str,
        arguments: Vec<String>,
    ) -> Result<T> {
        let hash = if arguments.is_empty() { ClusterHash::Random } else { ClusterHash::FirstKey };
        let command = CustomCommand::new_static(command, hash, false);
        Ok(self.client.custom(command, arguments).await?)
    }
}

impl Mirror {
    /// The sessions in it.
    pub fn sessions(&self) -> BTreeSet<&str> {
        self.live.keys().map(String::as_str).collect()
    }
}
