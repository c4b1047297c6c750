//! Wall and CPU time of what runs, ours and the servers'.

use std::{fs, time::Instant};

/// What one run came to.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Pulses, rows or requests.
    pub(crate) work: f64,
    /// Seconds.
    pub(crate) wall: f64,
    /// CPU seconds of each process.
    pub(crate) cpu: Vec<(&'static str, f64)>,
}

impl Figure {
    pub(crate) fn per_second(&self) -> f64 {
        self.work / self.wall
    }
}

/// Runs from the start of a piece of work.
pub(crate) struct Clock {
    start: Instant,
    before: Vec<(&'static str, u32, f64)>,
}

impl Clock {
    /// Begins; the processes and those that they started are watched.
    pub(crate) fn start(processes: &[(&'static str, u32)]) -> Self {
        let before = processes.iter().map(|&(name, pid)| (name, pid, cpu_seconds(pid))).collect();
        Self { start: Instant::now(), before }
    }

    /// What it took, for so many pieces of work.
    pub(crate) fn stop(&self, work: f64) -> Figure {
        let wall = self.start.elapsed().as_secs_f64();
        let cpu = self.before.iter().map(|&(name, pid, before)| (name, cpu_seconds(pid) - before));
        Figure { work, wall, cpu: cpu.collect() }
    }
}

/// User and system time of a process and of its children, those that it has waited for included.
fn cpu_seconds(pid: u32) -> f64 {
    /// `sysconf(_SC_CLK_TCK)` on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let own = times(pid).unwrap_or_default();
    let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let child = times(entry.file_name().to_str()?.parse().ok()?)?;
        (child.parent == pid).then_some(child.running)
    });
    // The children of this process are measured each for itself.
    let children = if pid == std::process::id() { 0 } else { children.sum() };
    let ticks = own.running + own.ended + children;
    f64::from(u32::try_from(ticks).unwrap()) / TICKS_PER_SECOND
}

#[derive(Default)]
struct Times {
    parent: u32,
    running: u64,
    ended: u64,
}

fn times(pid: u32) -> Option<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // What follows the name of the program, which may hold anything: the state, the parent, and so on.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Times {
        parent: number(1)?.try_into().ok()?,
        running: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

/// A line of the kernel's account of the memory of a process, in KiB: `VmRSS`, or `VmHWM` for its peak.
pub(crate) fn memory(pid: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    value.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

/// The middle one; the lower of two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50)
}

/// The smallest value that so many percent are not above.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let place = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(place).copied().unwrap_or(f64::NAN)
}
