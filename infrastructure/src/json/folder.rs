//! The folder: its lock, and files that are replaced whole.

use super::{rendering::rendered, state::State};
use application::{crash_point, ports::PortError};
use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// The state file.
pub(super) const STATE: &str = ".pulse-ledger.json";
const LOCK: &str = ".pulse-ledger.lock";
/// Exists only where the file system takes upper and lower case for the same.
const LOCK_IN_UPPER_CASE: &str = ".PULSE-LEDGER.LOCK";
/// One name for all: only the holder of the lock writes, and a leftover is overwritten.
const TEMPORARY: &str = ".pulse-ledger.tmp";
/// How long a step waits for another one before it fails as transient.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// A folder of books, by its absolute path.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// A folder that nobody else writes to until this is dropped, or the process ends.
pub(super) struct Locked<'a> {
    folder: &'a Folder,
    operation: &'static str,
    _lock: File,
}

impl Folder {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn has_state(&self) -> bool {
        self.path.join(STATE).exists()
    }

    /// The state as of one moment; `None` before the first one.
    pub(super) fn read(&self, operation: &'static str) -> Result<Option<State>, PortError> {
        let path = self.path.join(STATE);
        match fs::read(&path) {
            Ok(bytes) => {
                let damaged = |error| PortError::permanent(operation, format!("{}: {error}", path.display()));
                State::from_bytes(&bytes).map(Some).map_err(damaged)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(operation, &path, &error)),
        }
    }

    /// Waits for the lock; makes the folder where it is missing.
    pub(super) fn lock(&self, operation: &'static str) -> Result<Locked<'_>, PortError> {
        fs::create_dir_all(&self.path).map_err(|error| fault(operation, &self.path, &error))?;
        let path = self.path.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| fault(operation, &path, &error))?;
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => {
                    let held = format!("{} is held by another process", path.display());
                    return Err(PortError::transient(operation, held));
                }
                Err(TryLockError::Error(error)) => return Err(fault(operation, &path, &error)),
            }
        }
        if self.path.join(LOCK_IN_UPPER_CASE).exists() {
            return Err(self.refused(
                operation,
                "lies on a file system that takes upper and lower case for the same, so that files of two products could \
                 be one: choose another",
            ));
        }
        Ok(Locked { folder: self, operation, _lock: lock })
    }

    fn refused(&self, operation: &'static str, why: impl fmt::Display) -> PortError {
        PortError::permanent(operation, format!("the folder {} {why}", self.path.display()))
    }
}

impl Locked<'_> {
    /// The state; `None` before the first one, in a folder that is fit for it.
    pub(super) fn load(&self) -> Result<Option<State>, PortError> {
        let state = self.folder.read(self.operation)?;
        if state.is_none() {
            self.check_new()?;
        }
        Ok(state)
    }

    /// Totals without the state that they were made from would start from nothing again; foreign files would be
    /// overwritten.
    fn check_new(&self) -> Result<(), PortError> {
        let Folder { path } = self.folder;
        let failed = |error: io::Error| fault(self.operation, path, &error);
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with('.') && name.ends_with(".json") {
                let why = format!(
                    "holds {name} but no {STATE}: restore that, where it was lost; otherwise give the ledger a folder of its \
                     own (LEDGER_URL=json:DIR)"
                );
                return Err(self.folder.refused(self.operation, why));
            }
        }
        Ok(())
    }

    /// Puts the state in the place of the one before; it is on the disk afterwards.
    pub(super) fn store(&self, state: &State, is_first: bool) -> Result<(), PortError> {
        let bytes = state.to_bytes().map_err(|error| PortError::permanent(self.operation, error))?;
        self.replace(Path::new(STATE), &bytes)?;
        crash_point::hit("state_file_written");
        self.sync()?;
        if is_first {
            // The folder itself may be as new as the file. Folders further up may be closed to us; they are not new then.
            for ancestor in self.folder.path.ancestors().skip(1) {
                match File::open(ancestor).and_then(|folder| folder.sync_all()) {
                    Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                        return Err(fault(self.operation, ancestor, &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes what was put into place stay there.
    pub(super) fn sync(&self) -> Result<(), PortError> {
        let Folder { path } = self.folder;
        let synced = File::open(path).and_then(|folder| folder.sync_all());
        synced.map_err(|error| fault(self.operation, path, &error))
    }

    /// Replaces the files of the products that are not as the state has it.
    pub(super) fn render(&self, state: &State) -> Result<(), PortError> {
        for (name, bytes) in rendered(state).map_err(|error| PortError::permanent(self.operation, error))? {
            let path = self.folder.path.join(&name);
            if fs::read(&path).is_ok_and(|found| found == bytes) {
                continue;
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|error| fault(self.operation, folder, &error))?;
            }
            self.replace(&name, &bytes)?;
        }
        Ok(())
    }

    /// A reader finds the file before or the file after, never a part of one.
    fn replace(&self, name: &Path, bytes: &[u8]) -> Result<(), PortError> {
        let (temporary, path) = (self.folder.path.join(TEMPORARY), self.folder.path.join(name));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| fault(self.operation, &path, &error))
    }
}

/// What may pass: a full disk, a loaded machine, a device that answers again. Everything else somebody must look at.
fn fault(operation: &'static str, path: &Path, error: &io::Error) -> PortError {
    const PASSING: [ErrorKind; 8] = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::Interrupted,
        ErrorKind::WouldBlock,
        ErrorKind::TimedOut,
        ErrorKind::ResourceBusy,
        ErrorKind::StaleNetworkFileHandle,
        ErrorKind::OutOfMemory,
    ];
    /// An input or output error of the device, and too many open files, in the system and in the process.
    const PASSING_CODES: [i32; 3] = [5, 23, 24];
    let passes = PASSING.contains(&error.kind())
        || error.raw_os_error().is_some_and(|code| PASSING_CODES.contains(&code));
    let told = format!("{}: {error}", path.display());
    if passes { PortError::transient(operation, told) } else { PortError::permanent(operation, told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_worth_repeating() {
        let kind_of = |error: io::Error| fault("test", Path::new("x"), &error).is_transient();
        for code in [5, 11, 12, 16, 23, 24, 28, 122] {
            assert!(kind_of(io::Error::from_raw_os_error(code)), "{code}");
        }
        for code in [1, 2, 13, 17, 20, 21, 30, 36, 40] {
            assert!(!kind_of(io::Error::from_raw_os_error(code)), "{code}");
        }
    }
}
