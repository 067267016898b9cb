//! One look at the host, and what two looks say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use procfs::{FromRead, FromReadSI, KernelStats, LoadAverage, Meminfo, net::InterfaceDeviceStatus, process::MountInfos};

use super::config::Config;

/// What was read at one moment. What could not be read is missing, and says why.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    /// When, on the monotonic clock.
    pub(crate) at: Duration,
    /// Ticks spent working, and all ticks.
    cpu: Option<(u64, u64)>,
    /// Bytes used, and all bytes.
    memory: Option<(u64, u64)>,
    load: Option<[f32; 3]>,
    disks: Vec<Disk>,
    /// Bytes received and sent, per interface.
    network: BTreeMap<String, (u64, u64)>,
    /// What could not be read.
    pub(crate) missing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    mount: String,
    used: u64,
    /// What someone who is not root can still use.
    free: u64,
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) label: Option<(&'static str, String)>,
}

/// The most mounts and interfaces that are told of.
const MOST: usize = 64;

/// File systems on devices of their own, or as good as; those of a network could keep a look from ending.
const DISKS: [&str; 12] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "exfat", "ntfs3", "bcachefs", "overlay"];

impl Reading {
    /// Looks at the host whose `/proc` is at `proc`.
    pub(crate) fn take(proc: &Path, config: &Config, at: Duration) -> Reading {
        let mut reading = Reading { at, ..Reading::default() };
        match KernelStats::from_file(proc.join("stat"), procfs::current_system_info()) {
            Ok(stats) => {
                let time = stats.total;
                let idle = time.idle.saturating_add(time.iowait.unwrap_or(0));
                let others = [time.irq, time.softirq, time.steal].into_iter().flatten();
                let busy = others.fold(time.user.saturating_add(time.nice).saturating_add(time.system), u64::saturating_add);
                reading.cpu = Some((busy, busy.saturating_add(idle)));
            }
            Err(error) => reading.misses("cpu", &error),
        }
        match Meminfo::from_file(proc.join("meminfo")) {
            Ok(memory) => {
                let available = memory.mem_available.unwrap_or(memory.mem_free);
                reading.memory = Some((memory.mem_total.saturating_sub(available), memory.mem_total));
            }
            Err(error) => reading.misses("memory", &error),
        }
        match LoadAverage::from_file(proc.join("loadavg")) {
            Ok(load) => reading.load = Some([load.one, load.five, load.fifteen]),
            Err(error) => reading.misses("load", &error),
        }
        match InterfaceDeviceStatus::from_file(proc.join("self/net/dev")) {
            Ok(interfaces) => {
                let told = interfaces.0.into_iter().filter(|(name, _)| !config.ignore_interfaces.contains(name));
                reading.network = told.map(|(name, status)| (name, (status.recv_bytes, status.sent_bytes))).collect();
                while reading.network.len() > MOST {
                    reading.network.pop_last();
                }
            }
            Err(error) => reading.misses("network", &error),
        }
        match MountInfos::from_file(proc.join("self/mountinfo")) {
            Ok(mounts) => reading.look_at_disks(&mounts, config),
            Err(error) => reading.misses("disk", &error),
        }
        reading
    }

    fn misses(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.missing.push(format!("{what}: {}", why.to_string().to_lowercase()));
    }

    fn look_at_disks(&mut self, mounts: &MountInfos, config: &Config) {
        let ignored = |mount: &Path| config.ignore_mounts.iter().any(|ignored| mount.starts_with(ignored));
        let mut real: Vec<_> =
            mounts.iter().filter(|mount| DISKS.contains(&mount.fs_type.as_str()) && !ignored(&mount.mount_point)).collect();
        // A device that is mounted in several places counts once, where its path is shortest.
        real.sort_by_key(|mount| (mount.mount_point.as_os_str().len(), mount.mount_point.clone()));
        let mut devices = BTreeSet::new();
        for mount in real.into_iter().filter(|mount| devices.insert(mount.majmin.clone())).take(MOST) {
            match rustix::fs::statvfs(&mount.mount_point) {
                Ok(stat) if stat.f_blocks > 0 => self.disks.push(Disk {
                    mount: mount.mount_point.display().to_string(),
                    used: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
                    free: stat.f_bavail.saturating_mul(stat.f_frsize),
                }),
                Ok(_) => {}
                Err(errno) => self.misses(&format!("disk {}", mount.mount_point.display()), &std::io::Error::from(errno)),
            }
        }
    }

    /// What is known now. What happens per second needs an earlier look.
    pub(crate) fn points(&self, before: Option<&Reading>) -> Vec<Point> {
        let mut points = Vec::new();
        let mut tell = |name, unit, value: f64, label| {
            if value.is_finite() {
                points.push(Point { name, unit, value, label });
            }
        };
        if let Some(before) = before {
            if let (Some((busy, all)), Some((busy_before, all_before))) = (self.cpu, before.cpu)
                && all > all_before
            {
                tell("cpu_percent", "percent", share(busy.saturating_sub(busy_before), all - all_before), None);
            }
            let seconds = self.at.saturating_sub(before.at).as_secs_f64();
            for (interface, (received, sent)) in &self.network {
                // A counter that went back was begun again: no rate can be told.
                if let Some((received_before, sent_before)) = before.network.get(interface)
                    && seconds > 0.0
                    && received >= received_before
                    && sent >= sent_before
                {
                    let label = || Some(("interface", interface.clone()));
                    tell("network_rx_bytes_per_second", "bytes/s", float(received - received_before) / seconds, label());
                    tell("network_tx_bytes_per_second", "bytes/s", float(sent - sent_before) / seconds, label());
                }
            }
        }
        if let Some((used, all)) = self.memory {
            tell("memory_percent", "percent", share(used, all), None);
            tell("memory_used_bytes", "bytes", float(used), None);
        }
        if let Some(load) = self.load {
            for (name, value) in ["load_1m", "load_5m", "load_15m"].into_iter().zip(load) {
                tell(name, "", f64::from(value), None);
            }
        }
        for disk in &self.disks {
            let label = || Some(("mount", disk.mount.clone()));
            tell("disk_percent", "percent", share(disk.used, disk.used.saturating_add(disk.free)), label());
            tell("disk_free_bytes", "bytes", float(disk.free), label());
        }
        points
    }
}

fn share(part: u64, whole: u64) -> f64 {
    (100.0 * float(part) / float(whole)).clamp(0.0, 100.0)
}

/// The number as a float; beyond 2^53 the last bits are lost, which no measurement misses.
fn float(number: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX));
    half(number >> 32) * 4_294_967_296.0 + half(number)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(dir: &Path, cpu: &str, rx: u64) {
        fs::create_dir_all(dir.join("self/net")).unwrap();
        fs::write(dir.join("stat"), format!("cpu  {cpu} 0 0 0 0\ncpu0 {cpu} 0 0 0 0\nctxt 1\nbtime 1\nprocesses 1\n")).unwrap();
        fs::write(dir.join("loadavg"), "0.50 1.25 2.00 1/100 1234\n").unwrap();
        let dev = format!("a | b\nc | d\n    lo: 5 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\n  eth0: {rx} 0 0 0 0 0 0 0 1000 0 0 0 0 0 0 0\n");
        fs::write(dir.join("self/net/dev"), dev).unwrap();
        fs::copy("/proc/meminfo", dir.join("meminfo")).unwrap();
        let mounts =
            "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n26 25 8:1 /x /etc/hosts rw - ext4 /dev/sda1 rw\n27 25 0:5 / /proc rw - proc proc rw\n";
        fs::write(dir.join("self/mountinfo"), mounts).unwrap();
    }

    fn value(points: &[Point], name: &str) -> Option<f64> {
        points.iter().find(|point| point.name == name).map(|point| point.value)
    }

    #[test]
    fn rates_need_two_looks_and_levels_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        host(dir.path(), "100 0 100 800 0", 1000);
        let first = Reading::take(dir.path(), &config, Duration::from_secs(10));
        assert_eq!(first.missing, Vec::<String>::new());
        let points = first.points(None);
        assert_eq!((value(&points, "cpu_percent"), value(&points, "network_rx_bytes_per_second")), (None, None));
        assert_eq!((value(&points, "load_1m"), value(&points, "load_15m")), (Some(0.5), Some(2.0)));
        assert!(value(&points, "memory_percent").is_some_and(|percent| percent > 0.0 && percent <= 100.0));
        let disks: Vec<&Point> = points.iter().filter(|point| point.name == "disk_percent").collect();
        assert_eq!(disks.len(), 1, "one device, told once: {disks:?}");
        assert_eq!(disks[0].label, Some(("mount", "/".to_owned())));

        host(dir.path(), "150 0 125 825 0", 6000);
        let second = Reading::take(dir.path(), &config, Duration::from_secs(15));
        let points = second.points(Some(&first));
        assert_eq!(value(&points, "cpu_percent"), Some(75.0));
        assert_eq!(value(&points, "network_rx_bytes_per_second"), Some(1000.0));
        assert_eq!(value(&points, "network_tx_bytes_per_second"), Some(0.0));
        assert!(points.iter().all(|point| point.label != Some(("interface", "lo".to_owned()))));
        assert_eq!(value(&first.points(Some(&second)), "network_rx_bytes_per_second"), None, "a counter that went back");
    }

    #[test]
    fn what_is_missing_is_named_and_the_rest_is_told() {
        let dir = tempfile::tempdir().unwrap();
        host(dir.path(), "1 0 1 1 0", 0);
        fs::remove_file(dir.path().join("stat")).unwrap();
        fs::write(dir.path().join("meminfo"), "nonsense").unwrap();
        fs::write(dir.path().join("self/net/dev"), "a\nb\nnonsense\n").unwrap();
        let reading = Reading::take(dir.path(), &Config::default(), Duration::ZERO);
        assert!(reading.missing.iter().any(|missing| missing.starts_with("cpu: ")), "{:?}", reading.missing);
        assert!(value(&reading.points(None), "load_1m").is_some());
        let nothing = Reading::take(Path::new("/nowhere"), &Config::default(), Duration::ZERO);
        assert_eq!((nothing.missing.len(), nothing.points(Some(&reading)).len()), (5, 0));
    }

    #[test]
    fn this_very_machine_can_be_measured() {
        let config = Config::default();
        let first = Reading::take(Path::new("/proc"), &config, Duration::ZERO);
        let points = first.points(None);
        assert!(value(&points, "memory_used_bytes").is_some_and(|bytes| bytes > 1e6), "{first:?}");
        assert!(value(&points, "load_5m").is_some());
    }
}
