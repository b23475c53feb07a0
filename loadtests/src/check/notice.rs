//! What is noticed beside the history: the replicas' counters, the beacon's word of outages, and how long the
//! driver itself had to wait for the processor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::history::Noticed;
use super::log;

/// How often the counters and the beacon are looked at.
const EVERY: Duration = Duration::from_millis(250);
/// How often the driver looks at its own clock.
const TICK: Duration = Duration::from_millis(20);

/// What is counted, by the name it gets here: the metric, and the label that it must have.
const COUNTERS: [(&str, &str, &str); 8] = [
    ("granted", "license_seat_decisions_total", "decision=\"granted\""),
    ("renewed", "license_seat_decisions_total", "decision=\"renewed\""),
    ("denied", "license_seat_decisions_total", "decision=\"denied\""),
    ("released", "license_seat_decisions_total", "decision=\"released\""),
    ("expired", "license_seat_decisions_total", "decision=\"expired\""),
    ("revoked", "license_seat_decisions_total", "decision=\"revoked\""),
    ("conflicts", "license_append_conflicts_total", ""),
    ("repairs", "license_mirror_repairs_total", ""),
];

/// Looks until it is asked what it saw.
pub(crate) struct Notice {
    noticed: Arc<Mutex<Noticed>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Notice {
    pub fn start(metrics: &[String], database_url: Option<String>) -> Self {
        let noticed = Arc::new(Mutex::new(Noticed::default()));
        let mut tasks = vec![tokio::spawn(watch_clock(noticed.clone()))];
        if !metrics.is_empty() {
            lock(&noticed).counted = Some(BTreeMap::new());
        }
        for url in metrics {
            tasks.push(tokio::spawn(watch_counters(url.clone(), noticed.clone())));
        }
        if let Some(url) = database_url {
            tasks.push(tokio::spawn(watch_beacon(url, noticed.clone())));
        }
        Self { noticed, tasks }
    }

    /// What it saw; it looks a last time first.
    pub async fn finish(self) -> Noticed {
        tokio::time::sleep(EVERY * 2).await;
        for task in &self.tasks {
            task.abort();
        }
        lock(&self.noticed).clone()
    }
}

async fn watch_clock(noticed: Arc<Mutex<Noticed>>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        let late = last.elapsed().saturating_sub(TICK);
        last = Instant::now();
        let mut noticed = lock(&noticed);
        noticed.longest_stall = noticed.longest_stall.max(late);
    }
}

async fn watch_counters(url: String, noticed: Arc<Mutex<Noticed>>) {
    let url = if url.contains("/metrics") { url } else { format!("{}/metrics", url.trim_end_matches('/')) };
    let Ok(client) = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build() else {
        return;
    };
    let mut before: Option<BTreeMap<&str, f64>> = None;
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // A replica that is down counts nothing.
        let Ok(answer) = client.get(&url).send().await else { continue };
        let Ok(text) = answer.text().await else { continue };
        let now = counters(&text);
        if let (Some(before), Some(counted)) = (&before, &mut lock(&noticed).counted) {
            for (name, value) in &now {
                *counted.entry((*name).to_owned()).or_default() +=
                    increase(before.get(name).copied(), *value);
            }
        }
        before = Some(now);
    }
}

/// What came on top. A counter that has gone back belongs to a process that was started again.
fn increase(before: Option<f64>, now: f64) -> f64 {
    match before {
        Some(before) if now >= before => now - before,
        _ => now,
    }
}

/// Our counters out of Prometheus's text.
fn counters(text: &str) -> BTreeMap<&'static str, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let metric = series.split('{').next().unwrap_or_default();
        for (name, wanted, label) in COUNTERS {
            if metric == wanted && series.contains(label) {
                *found.entry(name).or_default() += value;
            }
        }
    }
    found
}

async fn watch_beacon(url: String, noticed: Arc<Mutex<Noticed>>) {
    let mut client = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if client.is_none() {
            client = log::connect(&url).await.ok();
        }
        let Some(connected) = &client else { continue };
        match tokio::time::timeout(Duration::from_secs(2), log::recovered_ms(connected)).await {
            Ok(Ok(recovered_ms)) => {
                lock(&noticed).recoveries_ms.insert(recovered_ms);
            }
            // Postgres may be the one that is broken on purpose.
            _ => client = None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_up_over_restarts() {
        let text = "# HELP x\nlicense_seat_decisions_total{decision=\"granted\"} 7\n\
                    license_append_conflicts_total 3\nlicense_append_conflicts_totally 9\n";
        assert_eq!(counters(text), BTreeMap::from([("granted", 7.0), ("conflicts", 3.0)]));
        assert!((increase(Some(5.0), 7.0) - 2.0).abs() < 1e-9);
        assert!((increase(Some(5.0), 2.0) - 2.0).abs() < 1e-9, "a new process began at 0");
        assert!((increase(None, 2.0) - 2.0).abs() < 1e-9, "a series that was not there before");
    }
}
