//! How many cores this process may really use: affinity and cgroup quota, not what the machine has.

use std::path::Path;

/// Cores that may be used: the affinity mask, cut down to the cgroup's CPU quota, at least 1.
#[must_use]
pub fn available() -> usize {
    // The standard library reads the affinity mask and cgroup quotas, v1 and v2, for this process.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    quota(Path::new("/sys/fs/cgroup")).map_or(threads, |quota| threads.min(quota)).max(1)
}

/// The quota of the cgroup mounted at `root`, rounded up to whole cores; none where there is no limit.
#[must_use]
pub fn quota(root: &Path) -> Option<usize> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    if let Some(max) = read("cpu.max") {
        let (quota, period) = max.trim().split_once(' ')?;
        return cores(quota.parse().ok()?, period.parse().ok()?);
    }
    let quota: i64 = read("cpu/cpu.cfs_quota_us")?.trim().parse().ok()?;
    let period = read("cpu/cpu.cfs_period_us")?.trim().parse().ok()?;
    cores(u64::try_from(quota).ok()?, period)
}

fn cores(quota_us: u64, period_us: u64) -> Option<usize> {
    (period_us > 0)
        .then(|| usize::try_from(quota_us.div_ceil(period_us)).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_both_cgroup_versions_are_read() {
        let table = [
            ("cpu.max", "max 100000\n", "", None),
            ("cpu.max", "150000 100000\n", "", Some(2)),
            ("cpu.max", "20000 100000\n", "", Some(1)),
            ("cpu/cpu.cfs_quota_us", "-1\n", "100000\n", None),
            ("cpu/cpu.cfs_quota_us", "400000\n", "100000\n", Some(4)),
            ("cpu.max", "nonsense", "", None),
        ];
        for (file, text, period, expected) in table {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("cpu")).unwrap();
            std::fs::write(root.path().join(file), text).unwrap();
            std::fs::write(root.path().join("cpu/cpu.cfs_period_us"), period).unwrap();
            assert_eq!(quota(root.path()), expected, "{file}: {text}");
        }
    }
}
