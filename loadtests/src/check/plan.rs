//! What one client is going to do, drawn from the seed alone: the same seed, the same plan, whatever the
//! service answers.

use std::time::Duration;

use super::workload::{Mix, Workload};

/// Machines of one client: few, so that it comes back to one whose session still lives.
const MACHINES: u32 = 3;

/// Most heartbeats of a session.
const MAX_BEATS: u32 = 6;

/// Which of a session's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Acquire,
    Heartbeat,
    Release,
}

/// One session from its acquire to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Episode {
    /// Before it begins.
    pub pause: Duration,
    /// Which of the client's machines.
    pub machine: u32,
    /// The acquire carries an Idempotency-Key.
    pub keyed: bool,
    /// The first replica that is asked; after an unknown outcome the next one.
    pub replica: usize,
    /// Which of the tenant's pools.
    pub pool: usize,
    /// Pauses before each heartbeat.
    pub gaps: Vec<Duration>,
    /// In place of this heartbeat, by its place, the client acquires again.
    pub renews_at: Option<usize>,
    /// Ends without a release.
    pub crashes: bool,
    /// Sent twice at the same time.
    pub duplicate: Option<Which>,
    /// Sent again long after.
    pub late: Option<(Which, Duration)>,
}

/// The episodes of one client.
pub(crate) struct Plan {
    rng: fastrand::Rng,
    mix: Mix,
    ttl: Duration,
}

impl Plan {
    pub fn of(workload: &Workload, client: usize) -> Self {
        Self { rng: rng(workload.seed, client as u64), mix: workload.mix, ttl: workload.ttl }
    }

    /// Draws the same number of times whatever comes out, so that one choice does not shift the next.
    pub fn next_episode(&mut self) -> Episode {
        let pause = self.part_of_ttl(0.0, 0.4);
        let (machine, replica, pool) = (self.rng.u32(..MACHINES), self.rng.usize(..64), self.rng.usize(..64));
        let (keyed, crashes) = (self.percent(self.mix.keyed_percent), self.percent(self.mix.crash_percent));
        let beats = self.rng.usize(..=MAX_BEATS as usize);
        let gaps: Vec<_> = (0..MAX_BEATS).map(|_| self.part_of_ttl(0.1, 0.45)).collect();
        let renews_at = Some(self.rng.usize(..MAX_BEATS as usize * 2)).filter(|at| *at < beats);
        let (twice, which) = (self.percent(self.mix.duplicate_percent), self.which());
        let (again, later, after) =
            (self.percent(self.mix.late_percent), self.which(), self.part_of_ttl(0.3, 2.0));
        Episode {
            pause,
            machine,
            keyed,
            replica,
            pool,
            gaps: gaps.into_iter().take(beats).collect(),
            renews_at,
            crashes,
            duplicate: twice.then_some(which),
            late: again.then_some((later, after)),
        }
    }

    fn percent(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    fn part_of_ttl(&mut self, from: f64, to: f64) -> Duration {
        self.ttl.mul_f64(from + (to - from) * self.rng.f64())
    }

    fn which(&mut self) -> Which {
        match self.rng.u8(..3) {
            0 => Which::Acquire,
            1 => Which::Heartbeat,
            _ => Which::Release,
        }
    }
}

/// A generator for one part of the play.
pub(crate) fn rng(seed: u64, part: u64) -> fastrand::Rng {
    // Neighbouring seeds and parts must not run alike: one round through the generator first.
    let mut mixed = fastrand::Rng::with_seed(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    fastrand::Rng::with_seed(mixed.u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episodes(seed: u64, client: usize) -> Vec<Episode> {
        let mut plan = Plan::of(&Workload::seeded(seed), client);
        (0..50).map(|_| plan.next_episode()).collect()
    }

    #[test]
    fn the_same_seed_plans_the_same_acts_and_no_other_does() {
        assert_eq!(episodes(7, 3), episodes(7, 3));
        assert_ne!(episodes(7, 3), episodes(8, 3));
        assert_ne!(episodes(7, 3), episodes(7, 4));
    }

    #[test]
    fn a_plan_contains_what_its_mix_asks_for() {
        let all: Vec<_> = (0..40).flat_map(|client| episodes(1, client)).collect();
        let share = |wanted: fn(&Episode) -> bool| all.iter().filter(|e| wanted(e)).count() * 100 / all.len();
        assert!((40..60).contains(&share(|e| e.keyed)));
        assert!((10..30).contains(&share(|e| e.crashes)));
        assert!(share(|e| e.duplicate.is_some()) > 10 && share(|e| e.late.is_some()) > 10);
        assert!(share(|e| e.renews_at.is_some()) > 10 && share(|e| e.gaps.is_empty()) > 5);
    }
}
