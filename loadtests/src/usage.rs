//! What processes of this machine use, read from `/proc`.

use std::fs;
use std::time::Duration;

/// `/proc` counts in hundredths of a second on Linux, whatever the kernel's own tick.
const MILLISECONDS_PER_TICK: u64 = 10;

/// What a process of this machine uses.
pub struct Usage {
    /// Resident memory.
    pub memory_bytes: u64,
    /// Processor time since its start.
    pub processor: Duration,
}

/// Reads `/proc`; nothing if there is no such process.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; the numbers begin after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let memory_bytes = number(21)? * rustix::param::page_size() as u64;
    Some(Usage { memory_bytes, processor: Duration::from_millis(ticks * MILLISECONDS_PER_TICK) })
}

/// Time that all cores together have worked since the machine's start.
pub fn machine_busy() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, …
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum();
    Some(Duration::from_millis(busy * MILLISECONDS_PER_TICK))
}
