//! The sheet of figures: as JSON, and as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::tally::{Summary, median};

use super::BenchOptions;
use super::session::{Cores, Reading};
use super::signing::Signing;
use super::work::{Measurement, Shape, Work};

/// Everything measured.
#[derive(Debug, Serialize)]
pub struct Sheet {
    cores: usize,
    connections: usize,
    tenants: usize,
    runs: usize,
    measured_seconds: f64,
    signing: Signing,
    #[serde(skip)]
    signings: Vec<Signing>,
    lines: Vec<Line>,
    /// The first answer of each unexpected status.
    samples: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Line {
    server: &'static str,
    #[serde(flatten)]
    measurement: Measurement,
    median: Reading,
    runs: Vec<Reading>,
}

impl Sheet {
    /// Nothing measured yet.
    pub fn new(options: &BenchOptions) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            connections: options.connections,
            tenants: options.tenants,
            runs: options.runs,
            measured_seconds: options.measured.as_secs_f64(),
            signing: Signing::default(),
            signings: Vec::new(),
            lines: Vec::new(),
            samples: BTreeMap::new(),
        }
    }

    /// What the cores could sign in this run.
    pub fn add_signing(&mut self, signing: Signing) {
        self.signings.push(signing);
        let of = |figure: fn(&Signing) -> f64| median(self.signings.iter().map(figure).collect());
        self.signing = Signing { per_second: of(|s| s.per_second), alone_p50_ms: of(|s| s.alone_p50_ms) };
    }

    /// Says what is measured from now on.
    pub fn announce(&self, server: &str, measurement: Measurement) {
        eprintln!("  measuring {server} {} {}", measurement.work, place(measurement, self.tenants));
    }

    /// One more run of a measurement.
    pub fn add(
        &mut self,
        server: &'static str,
        measurement: Measurement,
        reading: Reading,
        samples: BTreeMap<String, String>,
    ) {
        let rate = reading.summary.rate_per_second;
        eprintln!(
            "  {server} {} {}: {rate:.0}/s, p99 {:.1} ms",
            measurement.work,
            place(measurement, self.tenants),
            reading.summary.p99_ms
        );
        for (code, text) in samples {
            self.samples.entry(format!("{server} {code}")).or_insert(text);
        }
        match self.lines.iter_mut().find(|line| line.server == server && line.measurement == measurement) {
            Some(line) => {
                line.runs.push(reading);
                line.median = median_of(&line.runs);
            }
            None => {
                self.lines.push(Line { server, measurement, median: reading.clone(), runs: vec![reading] })
            }
        }
    }

    /// The medians, as text.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{} cores, {} connections, median of {} runs of {} s; all on one machine, fsync on",
            self.cores, self.connections, self.runs, self.measured_seconds
        )?;
        if let Some(ceiling) = self.ceiling() {
            let alone = self.signing.alone_p50_ms;
            writeln!(
                out,
                "RSA-4096, cores doing nothing else: {ceiling:.0} signatures/s; one alone: {alone:.2} ms"
            )?;
        }
        for server in ["service", "baseline"] {
            self.write_server(out, server)?;
        }
        for (code, text) in &self.samples {
            writeln!(out, "unexpected, {code}: {}", text.chars().take(300).collect::<String>())?;
        }
        Ok(())
    }

    fn write_server(&self, out: &mut String, server: &str) -> std::fmt::Result {
        let mut lines = self.lines.iter().filter(|line| line.server == server).peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        let head = "work       tenants        rate/s    p50 ms    p90 ms    p99 ms    max ms  cores: all server  load  errors";
        writeln!(out, "\n{server}\n{head}")?;
        for line in lines {
            let Reading { summary: s, cores: c } = &line.median;
            writeln!(
                out,
                "{:<10} {:<11} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.1}  {:>10.2} {:>6.2} {:>5.2}  {}{}",
                line.measurement.work,
                place(line.measurement, self.tenants),
                s.rate_per_second,
                s.p50_ms,
                s.p90_ms,
                s.p99_ms,
                s.max_ms,
                c.all,
                c.server,
                c.generator,
                errors(s),
                self.ratios(line),
            )?;
        }
        Ok(())
    }

    /// What the figures mean beside the others of the same run.
    fn ratios(&self, line: &Line) -> String {
        let mut text = String::new();
        let mine = &line.median.summary;
        let works = |m: Measurement| m.work == Work::Acquire && m.shape != Shape::Alone;
        if let Some(ceiling) = self.ceiling().filter(|_| works(line.measurement)) {
            text += &format!("  {:.0} % of the signing ceiling", 100.0 * mine.rate_per_second / ceiling);
        }
        let same = |other: &&Line| other.server == "baseline" && other.measurement == line.measurement;
        if line.server == "service"
            && let Some(other) = self.lines.iter().find(same).map(|other| &other.median.summary)
        {
            let rate = mine.rate_per_second / other.rate_per_second;
            let (p50, p99) = (mine.p50_ms / other.p50_ms, mine.p99_ms / other.p99_ms);
            text += &format!("  {rate:.1} x the baseline's rate, {p50:.3} x its p50, {p99:.3} x its p99");
        }
        text
    }

    fn ceiling(&self) -> Option<f64> {
        Some(self.signing.per_second).filter(|rate| *rate > 0.0)
    }
}

fn place(measurement: Measurement, tenants: usize) -> String {
    match measurement.shape {
        Shape::Spread => tenants.to_string(),
        Shape::Hot => "1 (hot)".to_owned(),
        Shape::Alone => format!("{tenants}, alone"),
    }
}

fn errors(summary: &Summary) -> String {
    if summary.errors.is_empty() {
        return "none".to_owned();
    }
    summary.errors.iter().map(|(code, count)| format!("{code}: {count}")).collect::<Vec<_>>().join(", ")
}

fn median_of(runs: &[Reading]) -> Reading {
    let summaries: Vec<_> = runs.iter().map(|run| run.summary.clone()).collect();
    let of = |figure: fn(&Cores) -> f64| median(runs.iter().map(|run| figure(&run.cores)).collect());
    let cores = Cores { all: of(|c| c.all), server: of(|c| c.server), generator: of(|c| c.generator) };
    Reading { summary: Summary::median(&summaries), cores }
}
