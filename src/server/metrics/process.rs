//! The kernel's metrics of this process, under the standard names of Prometheus clients ([names]).
//!
//! Read from `/proc/self` at each scrape. A value that cannot be read, as on a system other than Linux, is left out.
//!
//! [names]: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics

use std::fmt::Write;
use std::fs;

/// Clock ticks in a second as `/proc` counts them: `USER_HZ`, which Linux keeps at 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the process metrics in Prometheus' text format.
pub(super) fn append_to(text: &mut String) {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (stat, status, limits) = (read("stat"), read("status"), read("limits"));
    let boot_seconds = fs::read_to_string("/proc/stat").ok().and_then(|stat| after(&stat, "btime"));
    let started = boot_seconds.zip(ticks(&stat, START_TIME)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    let cpu =
        ticks(&stat, USER_TIME).zip(ticks(&stat, SYSTEM_TIME)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let kib = |name: &str| after(&status, name).map(|kib| kib * 1024.0);
    // The directory that is being listed is one of its own entries.
    let open_fds =
        fs::read_dir("/proc/self/fd").ok().and_then(|open| u32::try_from(open.count().saturating_sub(1)).ok());

    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    };
    add("process_cpu_seconds_total", "counter", "CPU time used, user and system.", cpu);
    add("process_resident_memory_bytes", "gauge", "Memory in RAM.", kib("VmRSS:"));
    add("process_virtual_memory_bytes", "gauge", "Address space.", kib("VmSize:"));
    add("process_open_fds", "gauge", "Open file descriptors.", open_fds.map(f64::from));
    add("process_max_fds", "gauge", "Most file descriptors allowed.", after(&limits, "Max open files"));
    add("process_threads", "gauge", "Threads.", after(&status, "Threads:"));
    add("process_start_time_seconds", "gauge", "When the process started, since the Unix epoch.", started);
}

/// The number after `name` at the start of a line.
fn after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/self/stat`, by their numbers in `proc_pid_stat(5)`.
const USER_TIME: usize = 14;
const SYSTEM_TIME: usize = 15;
const START_TIME: usize = 22;

fn ticks(stat: &str, field: usize) -> Option<f64> {
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let (_, third_on) = stat.rsplit_once(") ")?;
    third_on.split_whitespace().nth(field - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_moves_no_field() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194560 1 0 0 0 250 30 0 0 20 0 9 0 12345 1 1";
        assert_eq!(ticks(stat, USER_TIME), Some(250.0));
        assert_eq!(ticks(stat, SYSTEM_TIME), Some(30.0));
        assert_eq!(ticks(stat, START_TIME), Some(12345.0));
        assert_eq!(ticks("", START_TIME), None);
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        assert_eq!(after("VmSize:\t  20 kB\nVmRSS:\t  512 kB\n", "VmRSS:"), Some(512.0));
        assert_eq!(after("Max open files            unlimited            unlimited  files", "Max open files"), None);
        assert_eq!(after("", "VmRSS:"), None);
    }
}
