//! How much memory is left for this process and its workers: the machine's, cut down to the cgroup's.

use std::path::Path;

/// Bytes that could be taken without pushing others out, and all there are; none where the system tells neither.
#[must_use]
pub fn left_of_all() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let (left, all) = (kibibytes(&text, "MemAvailable")?, kibibytes(&text, "MemTotal")?);
    let Some((used, limit)) = bounded(Path::new("/sys/fs/cgroup")) else {
        return Some((left, all));
    };
    Some((left.min(limit.saturating_sub(used)), all.min(limit)))
}

/// Bytes in use and allowed in the cgroup mounted at `root`; none where there is no limit.
fn bounded(root: &Path) -> Option<(u64, u64)> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok()?.trim().parse().ok();
    let second = || Some((read("memory.current")?, read("memory.max")?));
    let first =
        || Some((read("memory/memory.usage_in_bytes")?, read("memory/memory.limit_in_bytes")?));
    second().or_else(first)
}

/// A line such as `MemTotal:  16306892 kB`, in bytes.
pub(super) fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_cgroup_versions_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(bounded(root.path()), None);
        std::fs::create_dir(root.path().join("memory")).unwrap();
        std::fs::write(root.path().join("memory/memory.usage_in_bytes"), "5\n").unwrap();
        std::fs::write(root.path().join("memory/memory.limit_in_bytes"), "9\n").unwrap();
        assert_eq!(bounded(root.path()), Some((5, 9)));
        std::fs::write(root.path().join("memory.current"), "7\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(bounded(root.path()), Some((5, 9)), "no limit of the second version");
        std::fs::write(root.path().join("memory.max"), "8\n").unwrap();
        assert_eq!(bounded(root.path()), Some((7, 8)));
    }

    #[test]
    fn this_machine_has_memory_left() {
        let (left, all) = left_of_all().unwrap();
        assert!(0 < left && left <= all, "{left} of {all}");
    }
}
