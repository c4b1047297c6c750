//! Which of the client's errors may pass.

use application::ports::PortError;
use lapin::{
    Error, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use std::{future::Future, io, time::Duration};

/// The error of a port for one of the client.
pub(super) fn port_error(operation: &'static str, error: Error) -> PortError {
    if may_pass(&error) {
        PortError::transient(operation, error)
    } else {
        PortError::permanent(operation, error)
    }
}

/// The same of a channel that consumes. There the broker says "precondition failed" where deliveries were not acknowledged
/// for longer than its `consumer_timeout`, 30 minutes by default: as long as the store they go to was away.
pub(super) fn consumer_error(operation: &'static str, error: Error) -> PortError {
    match soft(&error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => PortError::transient(operation, error),
        _ => port_error(operation, error),
    }
}

/// Awaits a call to the broker for no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, PortError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| port_error(operation, error)),
        Err(_) => Err(PortError::transient(operation, format!("no answer within {limit:?}"))),
    }
}

/// Whether the call was refused because what is to be declared exists otherwise, or because of a missing permission.
pub(super) fn is_refused(error: &Error) -> bool {
    use AMQPSoftError::{ACCESSREFUSED, PRECONDITIONFAILED};
    matches!(soft(error), Some(ACCESSREFUSED | PRECONDITIONFAILED))
}

/// Whether the call was about something that is not there.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(soft(error), Some(AMQPSoftError::NOTFOUND))
}

/// Whether the queue is exclusively somebody else's.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(soft(error), Some(AMQPSoftError::RESOURCELOCKED))
}

fn soft(error: &Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(error) => Some(error),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

fn may_pass(error: &Error) -> bool {
    match error.kind() {
        // The connection ended under the call.
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_)
        | ErrorKind::MissingHeartbeatError => true,
        // The others are how the TLS library reports a certificate or a name that it does not accept.
        ErrorKind::IOError(error) => !matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other
        ),
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(error) => soft_may_pass(error),
            AMQPErrorKind::Hard(error) => hard_may_pass(error),
        },
        _ => false,
    }
}

fn soft_may_pass(error: &AMQPSoftError) -> bool {
    match error {
        // The queue was deleted, or its node is down: the next connection declares it again.
        AMQPSoftError::NOTFOUND | AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS => true,
        // Credentials, permissions, a message that is too large, a queue that is exclusively somebody else's.
        AMQPSoftError::ACCESSREFUSED
        | AMQPSoftError::CONTENTTOOLARGE
        | AMQPSoftError::PRECONDITIONFAILED
        | AMQPSoftError::RESOURCELOCKED => false,
    }
}

fn hard_may_pass(error: &AMQPHardError) -> bool {
    // A shutdown or an operator's word; out of memory or descriptors; a virtual host that is still starting. The virtual
    // host that does not exist is NOTALLOWED.
    matches!(
        error,
        AMQPHardError::CONNECTIONFORCED | AMQPHardError::RESOURCEERROR | AMQPHardError::INTERNALERROR
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::ports::PortErrorKind;
    use lapin::protocol::AMQPError;

    fn kind_of(error: ErrorKind) -> PortErrorKind {
        port_error("try", error.into()).kind()
    }

    fn answer(code: u16) -> ErrorKind {
        ErrorKind::ProtocolError(AMQPError::from_id(code, "said so".into()).expect("a known code"))
    }

    #[test]
    fn what_the_broker_answers_is_transient_only_where_it_may_pass() {
        for code in [312, 313, 320, 404, 506, 541] {
            assert_eq!(kind_of(answer(code)), PortErrorKind::Transient, "{code}");
        }
        for code in [311, 402, 403, 405, 406, 501, 502, 503, 504, 505, 530, 540] {
            assert_eq!(kind_of(answer(code)), PortErrorKind::Permanent, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_is_transient_and_an_untrusted_certificate_is_not() {
        let io = |kind: io::ErrorKind| ErrorKind::IOError(io::Error::from(kind).into());
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof]
        {
            assert_eq!(kind_of(io(kind)), PortErrorKind::Transient);
        }
        assert_eq!(kind_of(ErrorKind::MissingHeartbeatError), PortErrorKind::Transient);
        assert_eq!(kind_of(io(io::ErrorKind::InvalidData)), PortErrorKind::Permanent);
        assert_eq!(kind_of(ErrorKind::NoDefaultRuntime), PortErrorKind::Permanent);
    }
}
