//! What a pool's limit may have been at any time, as far as its admins can know.
//!
//! A change takes effect somewhere between the request and its answer. One whose outcome is unknown may take effect
//! any time later, but not after a later change was carried out: each names the version that it changes.

use std::collections::BTreeMap;

use super::super::history::{Act, History, Moment};

/// A value that a limit may have had, from when until when at most.
struct Possible {
    seats: u32,
    from: Moment,
    until: Moment,
}

/// The limits of all pools, by tenant and product.
pub(super) struct Limits {
    pools: BTreeMap<(String, String), Vec<Possible>>,
}

impl Limits {
    pub fn of(history: &History) -> Self {
        let mut pools = BTreeMap::new();
        for tenant in &history.tenants {
            for pool in &tenant.pools {
                let seats = pool.seats.or_else(|| most_ever_told(history, &tenant.id, &pool.product));
                let first = seats.map(|seats| Possible { seats, from: Moment(0), until: Moment(u64::MAX) });
                let mut all: Vec<_> = first.into_iter().collect();
                for call in history.calls.iter().filter(|call| call.tenant == tenant.id) {
                    let Act::SetSeats { license, seats } = &call.act else { continue };
                    if Some(license) != pool.license_id.as_ref() || call.refused().is_some() {
                        continue;
                    }
                    if call.ok().is_some() {
                        for earlier in &mut all {
                            earlier.until = earlier.until.min(call.done);
                        }
                    }
                    all.push(Possible { seats: *seats, from: call.sent, until: Moment(u64::MAX) });
                }
                pools.insert((tenant.id.clone(), pool.product.clone()), all);
            }
        }
        Self { pools }
    }

    /// The highest that a pool's limit may have been at any time from `from` to `to`; none if nothing is known.
    pub fn most(&self, pool: &(String, String), from: Moment, to: Moment) -> Option<u32> {
        let possible = self.pools.get(pool)?.iter().filter(|p| p.from <= to && p.until >= from);
        possible.map(|p| p.seats).max()
    }
}

/// Where nobody says what the limit is: the highest that an answer named.
fn most_ever_told(history: &History, tenant: &str, product: &str) -> Option<u32> {
    let of_pool = |act: &Act| matches!(act, Act::Acquire { product: asked, .. } if asked == product);
    let calls = history.calls.iter().filter(|call| call.tenant == tenant && of_pool(&call.act));
    calls.filter_map(|call| u32::try_from(call.ok()?["seats"]["total"].as_u64()?).ok()).max()
}
