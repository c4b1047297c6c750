//! What an error of PostgreSQL means: whether the world may mend it, or a person must.

use application::ports::PortError;
use sqlx::{Error, migrate::MigrateError};
use std::io;

/// As a port's error, transient where [`may_pass`] says so.
pub(super) fn port_error(operation: &'static str, error: Error) -> PortError {
    if may_pass(&error) {
        PortError::transient(operation, error)
    } else {
        PortError::permanent(operation, error)
    }
}

/// As [`port_error`], of a new connection. One that ends while it is asked for TLS is an unknown answer to the client, a
/// byte 0, and passes like any other that ends.
pub(super) fn connect_error(operation: &'static str, error: Error) -> PortError {
    match error {
        Error::Protocol(_) => PortError::transient(operation, error),
        other => port_error(operation, other),
    }
}

/// As [`port_error`], of the commit: unless the server itself says that it failed, its outcome is unknown.
pub(super) fn commit_error(operation: &'static str, error: Error) -> PortError {
    match error {
        Error::Database(_) => port_error(operation, error),
        unknown => PortError::transient(operation, unknown),
    }
}

/// As [`port_error`], of the migrations.
pub(super) fn migration_error(operation: &'static str, error: MigrateError) -> PortError {
    match &error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) if may_pass(cause) => {
            PortError::transient(operation, error)
        }
        _ => PortError::permanent(operation, error),
    }
}

/// Whether the same call can succeed later by itself.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut => true,
        Error::Tls(cause) => cause.is::<io::Error>(),
        Error::Database(error) => error.code().is_some_and(|state| state_may_pass(&state)),
        _ => false,
    }
}

/// Whether an SQLSTATE (PostgreSQL manual, appendix A) stands for something that passes.
fn state_may_pass(state: &str) -> bool {
    // Connection lost; disk, memory or connections exhausted.
    const CLASSES: [&str; 2] = ["08", "53"];
    const STATES: [&str; 11] = [
        "25006", // read_only_sql_transaction: a standby that has not taken over yet
        "25P03", // idle_in_transaction_session_timeout
        "25P04", // transaction_timeout
        "40001", // serialization_failure
        "40003", // statement_completion_unknown
        "40P01", // deadlock_detected
        "55P03", // lock_not_available: our lock_timeout
        "57014", // query_canceled: our statement_timeout
        "57P01", // admin_shutdown
        "57P02", // crash_shutdown
        "57P03", // cannot_connect_now: starting up
    ];
    state.get(..2).is_some_and(|class| CLASSES.contains(&class)) || STATES.contains(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_worth_repeating() {
        for state in
            ["08006", "53100", "53300", "57P01", "57P03", "40001", "40P01", "55P03", "57014", "25006"]
        {
            assert!(state_may_pass(state), "{state}");
        }
        for state in
            ["28P01", "3D000", "42P01", "42501", "22003", "23505", "57P04", "58030", "XX000", "", "5"]
        {
            assert!(!state_may_pass(state), "{state}");
        }
    }

    #[test]
    fn a_lost_connection_passes_and_an_unknown_answer_does_not() {
        let lost = || Error::Io(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(port_error("test", lost()).is_transient());
        assert!(
            port_error("test", Error::Tls(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof))))
                .is_transient()
        );
        assert!(!port_error("test", Error::Protocol("odd".into())).is_transient());
        assert!(!port_error("test", Error::RowNotFound).is_transient());
        assert!(commit_error("test", Error::Protocol("odd".into())).is_transient());
        assert!(migration_error("test", MigrateError::Execute(lost())).is_transient());
        assert!(!migration_error("test", MigrateError::VersionMismatch(1)).is_transient());
    }
}
