//! What an error of SQLite means: whether it may pass, or a person must look at it.

use application::ports::PortError;
use sqlx::{Error, migrate::MigrateError};

/// The primary result codes that we know something about (sqlite.org/rescode.html).
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const NOTADB: i32 = 26;
    /// Extended: a checksum of the VFS does not match, and the file system says that it is damaged.
    pub(super) const IOERR_DATA: i32 = 8_202;
    pub(super) const IOERR_CORRUPTFS: i32 = 8_458;
}

/// As a port's error, with the remedy where one is known.
pub(super) fn fault(operation: &'static str) -> impl Fn(Error) -> PortError {
    move |error| {
        if may_pass(&error) {
            return PortError::transient(operation, error);
        }
        match remedy(&error) {
            Some(remedy) => PortError::permanent(operation, format!("{error}: {remedy}")),
            None => PortError::permanent(operation, error),
        }
    }
}

/// As [`fault`], of the migrations.
pub(super) fn migration_fault(operation: &'static str) -> impl Fn(MigrateError) -> PortError {
    move |error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault(operation)(error),
        MigrateError::VersionMissing(_) => {
            PortError::permanent(operation, "a newer version of this program wrote the file: use that one")
        }
        error => PortError::permanent(operation, error),
    }
}

/// A fault of our own making or of the books: nothing that passes.
pub(super) fn refusal<E>(operation: &'static str) -> impl Fn(E) -> PortError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |reason| PortError::permanent(operation, reason)
}

/// Whether SQLite says that somebody else has the file right now.
pub(super) fn is_busy(error: &Error) -> bool {
    result_code(error).is_some_and(|code| [code::BUSY, code::LOCKED].contains(&primary(code)))
}

/// Whether the connection itself is gone.
pub(super) fn is_dead(error: &Error) -> bool {
    matches!(error, Error::WorkerCrashed | Error::PoolClosed)
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::WorkerCrashed => true,
        Error::Database(_) => result_code(error).is_some_and(code_may_pass),
        _ => false,
    }
}

fn code_may_pass(extended: i32) -> bool {
    const PASSING: [i32; 7] =
        [code::BUSY, code::LOCKED, code::NOMEM, code::INTERRUPT, code::IOERR, code::FULL, code::PROTOCOL];
    PASSING.contains(&primary(extended)) && ![code::IOERR_DATA, code::IOERR_CORRUPTFS].contains(&extended)
}

fn remedy(error: &Error) -> Option<&'static str> {
    match primary(result_code(error)?) {
        code::READONLY => Some("the file or its folder may not be written: see who owns them"),
        code::CANTOPEN => Some(
            "the file cannot be opened: see that its folder is there and may be written, and that the limit of open \
             files is not reached",
        ),
        code::CORRUPT => Some(
            "the file is damaged: stop the program, keep a copy of the file with its -wal, and restore a backup, or save \
             what can be read with `sqlite3 FILE .recover`",
        ),
        code::NOTADB => Some("the file is no SQLite database: name another one, it is left as it is"),
        _ => None,
    }
}

fn result_code(error: &Error) -> Option<i32> {
    let Error::Database(error) = error else { return None };
    error.code()?.parse().ok()
}

fn primary(extended: i32) -> i32 {
    extended & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_worth_repeating() {
        for extended in [5, 261, 517, 6, 262, 7, 10, 266, 1_034, 13, 15] {
            assert!(code_may_pass(extended), "{extended}");
        }
        for extended in [1, 8, 1_032, 11, 267, 14, 19, 2_067, 20, 26, 8_202, 8_458, 0, 255] {
            assert!(!code_may_pass(extended), "{extended}");
        }
    }

    #[test]
    fn a_crashed_connection_passes_and_an_unknown_answer_does_not() {
        assert!(fault("test")(Error::WorkerCrashed).is_transient());
        assert!(!fault("test")(Error::RowNotFound).is_transient());
        let newer = migration_fault("test")(MigrateError::VersionMissing(9));
        assert!(!newer.is_transient() && newer.to_string().contains("newer version"), "{newer}");
    }
}
