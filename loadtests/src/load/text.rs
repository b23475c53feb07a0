//! The report for people: a table, the distribution of latencies, and how the run went over time.

use std::fmt::Write;

use crate::plot::{bar_of, sparkline};
use crate::tally::Summary;

use super::report::{Point, Report};

impl Report {
    /// Plain text, also good in a Markdown block.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        self.head(out)?;
        self.table(out)?;
        self.distribution(out)?;
        self.over_time(out)?;
        self.verdict(out)
    }

    fn head(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nscenario {}: {} clients of {} tenants, {} connections, {:.1} requests/s for {:.0} s; latency counts from the due time\n",
            self.scenario,
            self.clients,
            self.tenants,
            self.connections,
            self.offered_per_second,
            self.elapsed_seconds
        )
    }

    fn table(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "              count    ok/s    p50 ms    p90 ms    p95 ms    p99 ms  p99.9 ms    max ms  errors"
        )?;
        for (kind, summary) in &self.kinds {
            line(out, kind, summary)?;
        }
        line(out, "all", &self.all)?;
        line(out, "(sent late)", &self.generator_lateness)
    }

    fn distribution(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nlatency of all requests")?;
        let slowest = self.quantiles_ms.last().map_or(0.0, |(_, ms)| *ms);
        for (quantile, ms) in &self.quantiles_ms {
            writeln!(out, "  {:>5.1} % {:>10.2} ms  {}", quantile * 100.0, ms, bar_of(*ms, slowest))?;
        }
        Ok(())
    }

    fn over_time(&self, out: &mut String) -> std::fmt::Result {
        let length = self.timeline.get(1).map_or(self.elapsed_seconds, |point| point.at_seconds);
        writeln!(out, "\nover time, {length:.0} s a step")?;
        let mut plot = |name: &str, unit: &str, figure: &dyn Fn(&Point) -> Option<f64>| {
            let values: Vec<_> = self.timeline.iter().map(figure).collect();
            let Some(top) = values.iter().flatten().copied().reduce(f64::max) else { return Ok(()) };
            writeln!(out, "  {name:<8} {} up to {top:.1}{unit}", sparkline(&values))
        };
        plot("ok/s", "", &|point| Some(point.rate_per_second))?;
        plot("p50", " ms", &|point| Some(point.p50_ms))?;
        plot("p99", " ms", &|point| Some(point.p99_ms))?;
        plot("errors", "", &|point| Some(point.errors as f64))?;
        plot("memory", " MiB", &|point| point.server_memory_bytes.map(|bytes| bytes as f64 / 1_048_576.0))
    }

    fn verdict(&self, out: &mut String) -> std::fmt::Result {
        let (goal, errors) = (self.goal, self.all.error_rate() * 100.0);
        let verdict = if self.goal_met() { "met" } else { "missed" };
        writeln!(
            out,
            "\ngoal p99 < {} ms and errors < {} %: {verdict} (p99 {:.2} ms, errors {errors:.3} %)",
            goal.p99_ms,
            goal.error_rate * 100.0,
            self.all.p99_ms
        )?;
        writeln!(
            out,
            "sessions held at once by one tenant: at most {} of {} seats",
            self.most_held, self.seats
        )?;
        for (code, text) in &self.samples {
            writeln!(out, "unexpected, {code}: {}", text.chars().take(300).collect::<String>())?;
        }
        Ok(())
    }
}

fn line(out: &mut String, name: &str, s: &Summary) -> std::fmt::Result {
    let errors: Vec<_> = s.errors.iter().map(|(code, count)| format!("{code}: {count}")).collect();
    let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
    writeln!(
        out,
        "{name:<11} {:>7} {:>7.1} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  {errors}",
        s.count, s.rate_per_second, s.p50_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.p999_ms, s.max_ms
    )
}
