//! Tallies: merging loses nothing, errors are counted by code, medians are medians.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use loadtests::{Outcome, Summary, Tally};

#[test]
fn merged_tallies_equal_one_that_saw_everything() {
    let (mut left, mut right, mut whole) =
        (Tally::new().unwrap(), Tally::new().unwrap(), Tally::new().unwrap());
    for i in 1..=1_000u64 {
        let outcome = if i % 100 == 0 { Outcome::Status(503) } else { Outcome::Expected };
        let half = if i % 3 == 0 { &mut left } else { &mut right };
        half.record(Duration::from_micros(i * 37), outcome);
        whole.record(Duration::from_micros(i * 37), outcome);
    }
    left.merge(&right).unwrap();
    let elapsed = Duration::from_secs(2);
    let (merged, whole) = (left.summary(elapsed), whole.summary(elapsed));
    assert_eq!(format!("{merged:?}"), format!("{whole:?}"));
    assert_eq!(merged.count, 1_000);
    assert_eq!(merged.errors["503"], 10);
    assert_eq!(merged.rate_per_second, 495.0);
    assert!((merged.p50_ms - 18.5).abs() < 0.05, "{}", merged.p50_ms);
    assert!((merged.error_rate() - 0.01).abs() < 1e-9);
}

#[test]
fn a_latency_beyond_the_scale_is_kept_at_its_end() {
    let mut tally = Tally::new().unwrap();
    tally.record(Duration::from_secs(3_600), Outcome::Lost);
    let summary = tally.summary(Duration::from_secs(1));
    assert_eq!(summary.count, 1);
    assert!(summary.max_ms >= 120_000.0);
    assert_eq!(summary.errors["no answer"], 1);
}

#[test]
fn the_median_of_runs_is_taken_figure_by_figure() {
    let run = |rate, p99| Summary { rate_per_second: rate, p99_ms: p99, count: 1, ..Summary::default() };
    let median = Summary::median(&[run(10.0, 3.0), run(30.0, 1.0), run(20.0, 2.0)]);
    assert_eq!((median.rate_per_second, median.p99_ms, median.count), (20.0, 2.0, 3));
    assert_eq!(Summary::median(&[run(1.0, 1.0), run(2.0, 1.0)]).rate_per_second, 1.5);
}
