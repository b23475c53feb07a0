//! `faults`: prints what the last run of the suite came to, one line a fault. `faults --forget` forgets it.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().any(|word| word == "--forget") {
        faults::forget()?;
        return Ok(ExitCode::SUCCESS);
    }
    let all_held = faults::print()?;
    Ok(if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
