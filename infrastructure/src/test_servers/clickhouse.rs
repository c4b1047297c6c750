//! The ClickHouse engine for tests, behind a small HTTP interface of our own: `clickhouse.py` says what it is not.

use super::{ServerProcess, free_port, wait_for_port};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};
use tempfile::TempDir;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/clickhouse/bin/python");
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/test_servers/clickhouse.py");
const READY_LIMIT: Duration = Duration::from_mins(1);

/// An engine with its data in a folder of its own.
#[derive(Debug)]
pub struct ClickhouseServer {
    process: Option<ServerProcess>,
    port: u16,
    folder: TempDir,
}

impl ClickhouseServer {
    /// Starts one.
    ///
    /// # Panics
    /// Where the engine is not installed, with the command that does it, or it does not become ready.
    #[must_use]
    pub fn start() -> Self {
        assert!(
            Path::new(PYTHON).exists(),
            "the ClickHouse engine is missing: run `scripts/install-test-servers` (`make test-servers`)"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { process: None, port: free_port(), folder };
        server.restart();
        server
    }

    /// Where clients connect: its database is `pulse`, which the first of them makes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/pulse", self.port)
    }

    /// `kill -9`; does nothing where it is dead.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same data and port, killing it first where it runs.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn restart(&mut self) {
        self.kill();
        let (port, data) = (self.port.to_string(), self.folder.path().join("data"));
        self.process = Some(ServerProcess::start(None, PYTHON, |command| {
            command.arg(PROGRAM).arg(port).arg(data);
        }));
        wait_for_port(self.port, READY_LIMIT);
    }

    /// The answer to a query in the database `pulse`, tabs between columns, without the last line end. It shares no code
    /// with the adapter.
    ///
    /// # Panics
    /// Where the query fails.
    #[expect(clippy::must_use_candidate, reason = "some queries are made for their effect")]
    pub fn query(&self, query: &str) -> String {
        self.query_in("pulse", query)
    }

    /// As [`Self::query`], in another database.
    ///
    /// # Panics
    /// Where the query fails.
    #[must_use]
    pub fn query_in(&self, database: &str, query: &str) -> String {
        let (head, body) = self.ask(database, query).expect("the server answers");
        assert!(head.starts_with("HTTP/1.1 200"), "{query}: {body}");
        body.trim_end_matches('\n').to_owned()
    }

    fn ask(&self, database: &str, query: &str) -> std::io::Result<(String, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "POST /?database={database} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{query}",
            query.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok((head.to_owned(), body.to_owned()))
    }
}
