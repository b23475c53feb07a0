//! I4: the versions of every stream are 1 to n, in the order in which they were written.

use std::collections::BTreeMap;

use super::super::log::Reading;
use super::super::report::{Verdict, Violation};

/// Judges I4.
pub(crate) fn gapless(reading: &Reading) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    let mut rows: Vec<_> = reading.rows.iter().collect();
    rows.sort_by_key(|row| row.position);
    let mut latest: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for row in rows {
        let Some(version) = row.version else { continue };
        checked += 1;
        let (before, last_ms) = latest.get(row.stream.as_str()).copied().unwrap_or((0, i64::MIN));
        if version != before + 1 {
            violations.push(
                Violation::new(format!("version {version} follows version {before}"))
                    .with("stream", &row.stream)
                    .with("cursor", row.cursor())
                    .with("event", &row.event),
            );
        }
        if row.at_ms < last_ms {
            violations.push(
                Violation::new("a decision is older than the one before it")
                    .with("stream", &row.stream)
                    .with("cursor", row.cursor()),
            );
        }
        latest.insert(&row.stream, (version, row.at_ms));
    }
    for stream in &reading.streams {
        let found = latest.get(stream.stream.as_str()).map_or(0, |(version, _)| *version);
        if found != stream.version {
            violations.push(
                Violation::new(format!("the log ends at version {found}, its stream at {}", stream.version))
                    .with("stream", &stream.stream),
            );
        }
    }
    Verdict::of(checked, violations, Vec::new())
}
