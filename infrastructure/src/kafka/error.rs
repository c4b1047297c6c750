//! What can go wrong with Kafka, and whether it may pass.

use application::ports::PortError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// As the error of a port. What is not known to pass is permanent.
pub(super) fn during(operation: &'static str, error: KafkaError) -> PortError {
    let passes = error.rdkafka_error_code().is_some_and(is_passing);
    if passes { PortError::transient(operation, error) } else { PortError::permanent(operation, error) }
}

fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::Resolve
            | Code::QueueFull
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::AssignmentLost
            | Code::PollExceeded
            | Code::Retry
            | Code::State
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::RebalanceInProgress
            | Code::OffsetNotAvailable
            | Code::KafkaStorageError
    ) || is_replaced(code)
}

/// Whether the group has gone on without this member: others read its partitions from where they were committed.
pub(super) fn is_replaced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId)
}

/// Whether it only tells of a connection that the client makes again by itself. While it has no broker at all it says
/// [`RDKafkaErrorCode::AllBrokersDown`] as well, which is not one of these.
pub(super) fn mends_itself(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    // What is fatal has another form: after it the client does nothing by itself.
    let KafkaError::MessageConsumption(code) = error else { return false };
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::NetworkException
            | Code::BrokerNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_mends_by_itself_is_left_to_it() {
        use RDKafkaErrorCode as Code;
        for code in [Code::BrokerTransportFailure, Code::Resolve, Code::OperationTimedOut] {
            assert!(mends_itself(&KafkaError::MessageConsumption(code)), "{code:?}");
            assert!(!mends_itself(&KafkaError::MessageConsumptionFatal(code)), "{code:?}");
        }
        for code in [
            Code::AllBrokersDown,
            Code::Authentication,
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::PollExceeded,
            Code::AutoOffsetReset,
        ] {
            assert!(!mends_itself(&KafkaError::MessageConsumption(code)), "{code:?}");
        }
    }

    #[test]
    fn what_may_pass_is_transient_and_all_else_stops() {
        use RDKafkaErrorCode as Code;
        for code in [Code::AllBrokersDown, Code::RequestTimedOut, Code::UnknownMemberId, Code::NotCoordinator]
        {
            assert!(during("test", KafkaError::MessageConsumption(code)).is_transient(), "{code:?}");
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::AutoOffsetReset,
            Code::OffsetOutOfRange,
            Code::MessageSizeTooLarge,
        ] {
            assert!(!during("test", KafkaError::MessageConsumption(code)).is_transient(), "{code:?}");
        }
    }
}
