//! One long-running service a file: an operating-system lock on a file beside it, freed whatever ends the process.

use application::ports::PortError;
use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

const OPERATION: &str = "take the service lock of the embedded file";
/// Enough for any process id.
const TEXT_BYTES_MAX: u64 = 32;

/// The right to be the one service on a file. Freed when dropped, and by the system when the process ends.
#[derive(Debug)]
pub struct ServiceLock {
    file: File,
}

impl ServiceLock {
    pub(super) fn take(database: &Path) -> Result<Self, PortError> {
        let path = lock_path(database);
        let failed =
            |error: std::io::Error| PortError::permanent(OPERATION, format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(database, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        // The file stays: removing it would let two processes lock two files of one name.
        let _ = self.file.set_len(0);
    }
}

/// Beside the file itself, so that two names of one file (a link) meet in one lock.
fn lock_path(database: &Path) -> PathBuf {
    let database = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let mut name: OsString = database.into_os_string();
    name.push(".lock");
    name.into()
}

fn held(database: &Path, file: &mut File) -> PortError {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(TEXT_BYTES_MAX).read_to_string(&mut text));
    let holder = match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    PortError::permanent(
        OPERATION,
        format!(
            "{} is in use by {holder}: stop that service, or choose another file with PULSE_DB (`app ingest`, \
             `app usage` and `app flush` may run beside it)",
            database.display()
        ),
    )
}
