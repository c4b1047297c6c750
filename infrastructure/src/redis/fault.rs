//! What can go wrong with Redis, and whether it may pass.

use application::ports::{PortError, PortErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A failed call, before it is known what it was for.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Fault {
    /// What Redis or the way to it says.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Redis could lose what it confirms.
    #[error("{0}")]
    Unsafe(String),
    /// The storage is not the one that this program has seen: lost, rolled back, foreign or damaged.
    #[error("{0}")]
    Storage(String),
    /// What is asked makes no sense.
    #[error("{0}")]
    Refused(String),
    /// Something that is over soon.
    #[error("{0}")]
    Passing(&'static str),
}

impl Fault {
    /// As the error of a port.
    pub(super) fn during(self, operation: &'static str) -> PortError {
        match self.kind() {
            PortErrorKind::Transient => PortError::transient(operation, self),
            PortErrorKind::Permanent => PortError::permanent(operation, self),
        }
    }

    fn kind(&self) -> PortErrorKind {
        match self {
            Self::Redis(error) if is_passing(error) => PortErrorKind::Transient,
            Self::Passing(_) => PortErrorKind::Transient,
            Self::Redis(_) | Self::Unsafe(_) | Self::Storage(_) | Self::Refused(_) => {
                PortErrorKind::Permanent
            }
        }
    }

    pub(super) fn is_transient(&self) -> bool {
        self.kind() == PortErrorKind::Transient
    }

    /// Whether another connection may do better: this one is gone, does not answer, or leads to a server that was
    /// made a replica.
    pub(super) fn spoils_the_connection(&self) -> bool {
        let Self::Redis(error) = self else { return false };
        matches!(
            error.kind(),
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::Server(ServerErrorKind::ReadOnly)
        )
    }

    /// Whether another server of the cluster has the slot for good.
    pub(super) fn is_moved(&self) -> bool {
        self.is_answer(ServerErrorKind::Moved)
    }

    /// Whether the slot is on its way to another server of the cluster.
    pub(super) fn is_ask(&self) -> bool {
        self.is_answer(ServerErrorKind::Ask)
    }

    /// Whether Redis does not have the script, as after a restart.
    pub(super) fn is_no_script(&self) -> bool {
        self.is_answer(ServerErrorKind::NoScript)
    }

    fn is_answer(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Redis(error) if error.kind() == ErrorKind::Server(kind))
    }
}

fn is_passing(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io => true,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => true,
            // Redis gives this fault no code of its own.
            ServerErrorKind::ResponseError => {
                error.detail().is_some_and(|detail| detail.starts_with("max number of clients reached"))
            }
            _ => false,
        },
        // Full, unable to write its disk, busy with a slow script, or short of the replicas it must have.
        ErrorKind::Extension => matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, detail: &str) -> PortErrorKind {
        let line = format!("-{code} {detail}\r\n");
        let error = redis::parse_redis_value(line.as_bytes()).unwrap().extract_error().unwrap_err();
        Fault::from(error).kind()
    }

    #[test]
    fn only_faults_that_are_known_to_pass_are_transient() {
        for code in [
            "LOADING",
            "BUSY",
            "OOM",
            "MISCONF",
            "READONLY",
            "MASTERDOWN",
            "TRYAGAIN",
            "CLUSTERDOWN",
            "NOREPLICAS",
        ] {
            assert_eq!(answered(code, "says Redis"), PortErrorKind::Transient, "{code}");
        }
        for code in ["NOAUTH", "WRONGPASS", "NOPERM", "ERR", "WRONGTYPE", "MOVED", "NOSCRIPT", "NEVERHEARD"] {
            assert_eq!(answered(code, "says Redis"), PortErrorKind::Permanent, "{code}");
        }
        assert_eq!(answered("ERR", "max number of clients reached"), PortErrorKind::Transient);
    }

    #[test]
    fn a_lost_connection_and_a_timeout_are_transient_and_ask_for_another_connection() {
        for kind in [std::io::ErrorKind::TimedOut, std::io::ErrorKind::ConnectionReset] {
            let fault = Fault::from(RedisError::from(std::io::Error::from(kind)));
            assert_eq!(fault.kind(), PortErrorKind::Transient);
            assert!(fault.spoils_the_connection());
        }
    }

    #[test]
    fn what_a_person_must_look_at_is_permanent() {
        assert_eq!(Fault::Storage("gone".into()).kind(), PortErrorKind::Permanent);
        assert_eq!(Fault::Unsafe("everysec".into()).kind(), PortErrorKind::Permanent);
    }
}
