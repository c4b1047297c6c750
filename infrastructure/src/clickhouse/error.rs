//! Which faults of ClickHouse may pass.

use application::ports::PortError;
use clickhouse::error::Error;

/// The codes of ClickHouse's own errors that another try may not meet: it is overloaded, full, over a quota, starting,
/// stopping, or its keeper or its disks are away.
const PASSING: [u32; 28] = [
    75, 76, 159, 160, 173, 201, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 279, 285, 286, 319, 335,
    364, 394, 425, 439, 499, 745, 999,
];

/// How the answers begin of what stands before ClickHouse, where the request or the address is wrong. The client tells the
/// status only where there is no other text.
const WRONG: [&str; 4] = ["400", "401", "403", "404"];

pub(super) fn port_error(operation: &'static str, error: Error) -> PortError {
    if may_pass(&error) {
        PortError::transient(operation, error)
    } else {
        PortError::permanent(operation, error)
    }
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Network(_) | Error::TimedOut => true,
        Error::BadResponse(answer) => match code(answer) {
            Some(code) => PASSING.contains(&code),
            // Not ClickHouse itself: something in between.
            None => !WRONG.iter().any(|status| answer.starts_with(status)),
        },
        _ => false,
    }
}

fn code(answer: &str) -> Option<u32> {
    let (_, rest) = answer.split_once("Code: ")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_answers_is_transient_only_where_it_may_pass() {
        let passes = |answer: &str| may_pass(&Error::BadResponse(answer.to_owned()));
        assert!(passes("Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)"));
        assert!(passes("Code: 241. DB::Exception: Memory limit (total) exceeded"));
        assert!(passes("Code: 745. DB::Exception: CPU is overloaded (SERVER_OVERLOADED)"));
        assert!(passes("503 Service Unavailable"));
        assert!(passes("<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<center>nginx</center>"));
        assert!(passes("no healthy upstream"));
        assert!(!passes("Code: 516. DB::Exception: default: Authentication failed (AUTHENTICATION_FAILED)"));
        assert!(!passes("Code: 60. DB::Exception: Table pulse.events does not exist (UNKNOWN_TABLE)"));
        assert!(!passes("404 Not Found"));
        assert!(may_pass(&Error::TimedOut));
        assert!(!may_pass(&Error::SchemaMismatch("a column".into())));
    }
}
