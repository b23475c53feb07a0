//! `loadtests bench`, `loadtests load` and `loadtests check`: see `loadtests --help`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use loadtests::check::check;
use loadtests::{Cli, Command, bench, load};
use tokio::signal::unix::{SignalKind, signal};

/// One thread: it drives more requests than any server on the same machine answers, and a second one would
/// only take the server's cores.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    match until_interrupted(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whichever way this ends, what was started is dropped here, and ends when it is dropped.
async fn until_interrupted(command: Command) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = run(command) => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Bench(arguments) => Box::pin(bench(arguments.into_options())).await,
        Command::Load(arguments) => Box::pin(load(arguments.into_options()?)).await,
        Command::Check(arguments) => Box::pin(check(arguments.into_options()?)).await,
    }
}
