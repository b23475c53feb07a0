//! Three masters of a Redis Cluster, and slots that move from one to another while clients play.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engines::{Redis, RedisOptions, Scratch};
use faults::{RedisClient, Trial};

use crate::{MILLIS, SECOND};

const SLOTS: u32 = 16_384;

/// Three masters, each with a third of the slots.
struct Cluster {
    nodes: Vec<Redis>,
    ports: Vec<u16>,
    ids: Vec<String>,
    _dir: Scratch,
}

impl Cluster {
    async fn start() -> Result<Self> {
        let dir = Scratch::new()?;
        let (mut nodes, mut ports, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..3 {
            let (port, bus) = (faults::port()?, faults::port()?);
            let place = dir.path().join(format!("node-{n}"));
            std::fs::create_dir_all(&place)?;
            let options = RedisOptions::new(place)
                .port(port)
                .setting("cluster-enabled", "yes")
                .setting("cluster-port", bus.to_string())
                .setting("cluster-config-file", "nodes.conf");
            nodes.push(Redis::start(options).await?);
            ports.push(port);
            let client = RedisClient::port(port);
            ids.push(client.run(&["CLUSTER", "MYID"]).await?);
            let (first, last) = (SLOTS * n / 3, SLOTS * (n + 1) / 3 - 1);
            client.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await?;
            if n > 0 {
                let to = RedisClient::port(ports[0]);
                let (port, bus) = (port.to_string(), bus.to_string());
                to.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
            }
        }
        let cluster = Self { nodes, ports, ids, _dir: dir };
        for _ in 0..200 {
            if cluster.is_whole().await? {
                return Ok(cluster);
            }
            tokio::time::sleep(50 * MILLIS).await;
        }
        anyhow::bail!("the cluster does not come together")
    }

    async fn is_whole(&self) -> Result<bool> {
        for n in 0..3 {
            let info = self.client(n).run(&["CLUSTER", "INFO"]).await?;
            if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:3") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn client(&self, n: usize) -> RedisClient {
        RedisClient::port(self.ports[n])
    }

    fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.ports[0])
    }

    /// Moves one slot from a master to the next, slowly: for a while it is on the way, some keys here, some there.
    async fn move_slot(&self, slot: &str, from: usize, to: usize, on_the_way: Duration) -> Result<usize> {
        let (old, new) = (self.client(from), self.client(to));
        new.run(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.ids[from]]).await?;
        old.run(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.ids[to]]).await?;
        tokio::time::sleep(on_the_way).await;
        let keys = old.run(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]).await?;
        let port = self.ports[to].to_string();
        let mut moved = 0;
        for key in keys.lines().filter(|key| !key.is_empty()) {
            old.run(&["MIGRATE", "127.0.0.1", &port, key, "0", "2000", "REPLACE"]).await?;
            moved += 1;
            tokio::time::sleep(on_the_way).await;
        }
        for client in [&new, &old, &self.client((0..3).find(|n| *n != from && *n != to).unwrap_or(0))] {
            client.run(&["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[to]]).await?;
        }
        Ok(moved)
    }

    /// Which master has this key's slot, and the slot.
    async fn place(&self, key: &str) -> Result<(usize, String)> {
        let slot = self.client(0).run(&["CLUSTER", "KEYSLOT", key]).await?;
        let number: u32 = slot.parse()?;
        let mut from = None;
        for n in 0..3 {
            let nodes = self.client(n).run(&["CLUSTER", "NODES"]).await?;
            let own = nodes.lines().find(|line| line.contains("myself")).context("no such node")?;
            let has = own.split_whitespace().skip(8).filter(|word| !word.starts_with('[')).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let bounds = (first.parse::<u32>(), last.parse::<u32>());
                matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
            });
            if has {
                from = Some(n);
            }
        }
        Ok((from.context("nobody has the slot")?, slot))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_cluster_moves_slots() -> Result<()> {
    let fault = "Redis Cluster of three masters: the pools' slots move from one to another, twice";
    let cluster = Cluster::start().await?;
    let seen = Trial::new("redis_cluster_moves_slots", fault, 18 * SECOND)
        .stand(|stand| stand.redis_url = Some(cluster.url()))
        .run(async |_, _| {
            let (mut slots, mut keys) = (0, 0);
            for _ in 0..2 {
                let mut pools = Vec::new();
                for n in 0..3 {
                    pools.extend(cluster.client(n).keys().await?);
                }
                pools.retain(|key| key.ends_with(":meta"));
                for key in &pools {
                    let (from, slot) = cluster.place(key).await?;
                    keys += cluster.move_slot(&slot, from, (from + 1) % 3, 150 * MILLIS).await?;
                    slots += 1;
                }
            }
            ensure!(slots >= 4 && keys >= 8, "{slots} slots with {keys} keys were moved");
            Ok(format!("{slots} slots with {keys} keys moved, {} masters", cluster.nodes.len()))
        })
        .await?;
    seen.passed("")
}
