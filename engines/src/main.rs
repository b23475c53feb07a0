//! `engines run [--fast] -- command …` runs a command beside a private Postgres and Redis; `engines check` says what is installed.

mod run;

use std::process::ExitCode;

use engines::{find_postgres, find_redis};

const USAGE: &str = "usage: engines run [--fast] -- command [argument…]
       engines check

run    starts a private Postgres and Redis, sets TEST_POSTGRES_DIR and TEST_REDIS_URL, runs the command,
       ends both and exits as the command did; --fast: Postgres does not wait for the disk (fsync=off)
check  says which Postgres and Redis were found, or what to install";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => Ok(check()),
        ["run", "--fast", "--", command @ ..] if !command.is_empty() => run::run(command, true),
        ["run", "--", command @ ..] if !command.is_empty() => run::run(command, false),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("engines: {error:#}");
        ExitCode::FAILURE
    })
}

/// One line for each engine.
fn check() -> ExitCode {
    let mut all = true;
    for (name, found) in [("postgres", find_postgres(None)), ("redis", find_redis())] {
        match found {
            Ok(found) => println!("{name}: {} in {}", found.version, found.path.display()),
            Err(error) => {
                println!("{name}: {error:#}");
                all = false;
            }
        }
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
