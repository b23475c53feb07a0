//! The whole way, with a stub in the service's place: engines, issuer, server, tenants, measurements, files.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use loadtests::{Cli, Command, bench, load};
use serde_json::Value;

/// Examples are built beside the tests.
fn stub() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples/stub")
}

async fn run(line: &str) -> anyhow::Result<()> {
    let server = stub().display().to_string();
    let words = ["loadtests"].into_iter().chain(line.split_whitespace()).chain(["--server", &server]);
    match Cli::parse_from(words).command {
        Command::Bench(arguments) => Box::pin(bench(arguments.into_options())).await,
        Command::Load(arguments) => Box::pin(load(arguments.into_options()?)).await,
        Command::Check(_) => anyhow::bail!("a stub cannot be checked"),
    }
}

#[tokio::test]
async fn every_kind_of_work_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let small =
        "bench --seconds 1 --warm-up-seconds 0 --connections 4 --tenants 3 --users 6 --sessions 50 --runs 1";
    run(&format!("{small} --json {}", json.display())).await.unwrap();
    let sheet: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let lines = sheet["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 10);
    for line in lines {
        assert!(line["median"]["rate_per_second"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(line["median"]["errors"], Value::Object(serde_json::Map::new()), "{line}");
    }
    assert!(sheet["signing"]["per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_scenario_runs_on_a_private_installation() {
    let dir = tempfile::tempdir().unwrap();
    let (json, text) = (dir.path().join("load.json"), dir.path().join("load.txt"));
    let files = format!("--json {} --report {}", json.display(), text.display());
    run(&format!("load steady --clients 50 --rate 200 --duration-seconds 1 --tenants 5 {files}"))
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(report["kinds"]["heartbeat"]["count"], 200);
    assert_eq!(report["most_held"], 10);
    assert!(report["timeline"][0]["rate_per_second"].as_f64().unwrap() > 0.0);
    assert!(fs::read_to_string(text).unwrap().contains("scenario steady"));
}
