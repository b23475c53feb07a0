//! Plots of one line, readable in any terminal and in a Markdown block.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const WIDTH: usize = 60;

/// A series as bars, scaled to its own largest value; longer series are cut into 60 groups, each shown by
/// its largest member, so that no spike is lost. A gap in the series is a blank.
pub fn sparkline(values: &[Option<f64>]) -> String {
    let groups: Vec<Option<f64>> = values.chunks(values.len().div_ceil(WIDTH).max(1)).map(largest).collect();
    let top = largest(&groups).unwrap_or(0.0).max(f64::MIN_POSITIVE);
    groups.iter().map(|value| value.map_or(' ', |value| bar(value / top))).collect()
}

/// A bar of at most 40 characters for a part of a whole.
pub fn bar_of(part: f64, whole: f64) -> String {
    let length = (part / whole.max(f64::MIN_POSITIVE) * 40.0).clamp(0.0, 40.0);
    "█".repeat(length.round() as usize)
}

fn largest(values: &[Option<f64>]) -> Option<f64> {
    values.iter().flatten().copied().reduce(f64::max)
}

fn bar(part: f64) -> char {
    let highest = BARS.len() - 1;
    BARS[((part * highest as f64).round() as usize).min(highest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_survives_and_a_gap_shows() {
        assert_eq!(sparkline(&[Some(0.0), None, Some(7.0)]), "▁ █");
        let mut long = vec![Some(0.0); 600];
        long[333] = Some(5.0);
        let line = sparkline(&long);
        assert_eq!(line.chars().count(), 60);
        assert_eq!(line.chars().filter(|c| *c == '█').count(), 1);
        assert_eq!(sparkline(&[]), "");
    }
}
