//! Processes: reads `/proc`, raises the limit of open files, and ends a child.

use std::{fs, process::Child, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::Result;

/// Sum of the user and system time that these processes have used.
pub fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let ticks: u64 = pids.iter().map(|&pid| cpu_ticks(pid)).sum::<Result<u64>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Lists a process and its children: PostgreSQL has one process per connection.
pub fn tree(root: u32) -> Result<Vec<u32>> {
    let mut pids = vec![root];
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while we look.
        if stat(pid).is_ok_and(|fields| fields.get(1).is_some_and(|parent| *parent == root.to_string())) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

fn cpu_ticks(pid: u32) -> Result<u64> {
    let fields = stat(pid)?;
    // proc(5): fields 14 to 17 are utime and stime, then cutime and cstime of reaped children.
    let field = |number: usize| fields.get(number - 3).map_or(Ok(0), |field| field.parse::<u64>());
    Ok(field(14)? + field(15)? + field(16)? + field(17)?)
}

/// Reads the fields of `/proc/PID/stat` from the third on, after the name, which may contain spaces.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").ok_or("/proc/PID/stat has no name")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Resident memory in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc/PID/status has no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Raises our limit of open files as far as allowed. Servers that we start inherit it.
pub fn raise_file_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: maximum, maximum };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Ends a child by its ID with `signal`, and with SIGKILL if that takes more than ten seconds.
pub fn end(child: &mut Child, signal: Signal) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    kill_process(Pid::from_child(child), signal)?;
    for _ in 0..1000 {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Err("a process did not end within ten seconds and was killed".into())
}
