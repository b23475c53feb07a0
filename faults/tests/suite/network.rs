//! Between clients and replicas: what a client does not hear it asks again, and that changes nothing.

use anyhow::Result;
use faults::{Proxy, Trial};

use crate::redis::{cut, held, lost};
use crate::{MILLIS, SECOND};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn clients_cut_off() -> Result<()> {
    let fault = "the clients' connections are reset, and one replica cannot be reached";
    let seen = Trial::new("clients_cut_off", fault, 5 * SECOND)
        .run(async |stand, _| {
            for round in 0..8 {
                let way = &stand.client_ways[round % 2];
                way.cut();
                tokio::time::sleep(SECOND / 2).await;
                way.heal();
            }
            cut(&stand.client_ways)
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn clients_do_not_hear_that_they_were_granted() -> Result<()> {
    let fault = "acquires, heartbeats and releases take effect, and their answers are lost";
    let seen = Trial::new("clients_do_not_hear_that_they_were_granted", fault, 5 * SECOND)
        .run(async |stand, _| {
            for round in 0..12 {
                let what: &[u8] =
                    [&b"licenses/acquire"[..], b"licenses/heartbeat", b"licenses/release"][round % 3];
                stand.client_ways.iter().for_each(|way| way.lose_answers(what, 4));
                tokio::time::sleep(SECOND / 3).await;
            }
            stand.client_ways.iter().for_each(Proxy::heal);
            lost(&stand.client_ways)
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn clients_half_open() -> Result<()> {
    let fault = "the way to one replica is half-open: requests vanish, and arrive late when it heals";
    let seen = Trial::new("clients_half_open", fault, 5 * SECOND)
        .run(async |stand, _| {
            stand.client_ways[1].silence();
            tokio::time::sleep(4 * SECOND).await;
            stand.client_ways[1].heal();
            held(&stand.client_ways)
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn clients_far_away() -> Result<()> {
    let fault = "every piece between clients and replicas is 150 ms late, and some answers are swallowed";
    let seen = Trial::new("clients_far_away", fault, 6 * SECOND)
        .run(async |stand, _| {
            stand.client_ways.iter().for_each(|way| way.delay(150 * MILLIS));
            tokio::time::sleep(3 * SECOND).await;
            stand.client_ways[0].swallow_answers();
            tokio::time::sleep(SECOND).await;
            stand.client_ways.iter().for_each(Proxy::heal);
            // Whoever's answer was swallowed gives up after its own time.
            stand.client_ways.iter().for_each(Proxy::reset);
            Ok(format!("{}, {}", held(&stand.client_ways)?, lost(&stand.client_ways)?))
        })
        .await?;
    seen.passed("")
}
