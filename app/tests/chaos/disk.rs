//! A small disk in memory that can be filled up.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

const PREFIX: &str = "pulse-chaos-disk-";

/// Mounted while it lives.
pub(crate) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None` where it cannot be mounted, which only root may do.
    pub(crate) fn mount(megabytes: u32) -> Option<Self> {
        remove_leftovers();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder).ok()?;
        let options = format!("size={megabytes}m,mode=1777");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if mounted {
            return Some(Self { folder });
        }
        let _ = fs::remove_dir(&folder);
        None
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves not a byte free.
    pub(crate) fn fill(&self) {
        let Ok(mut filler) = File::options().create(true).append(true).open(self.filler()) else { return };
        let block = vec![0; 64 * 1024];
        for size in [block.len(), 4_096, 1] {
            while filler.write_all(&block[..size]).is_ok() {}
        }
    }

    pub(crate) fn make_room(&self) {
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(folder).output();
    let _ = fs::remove_dir(folder);
}

/// Of runs that were killed themselves.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX);
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            unmount(&entry.path());
        }
    }
}
