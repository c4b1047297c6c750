//! Many clients of one HTTP server, each with a connection that it keeps.

use crate::measure::{Clock, Figure};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

/// A connection to a server.
pub(crate) struct Client {
    stream: BufStream<TcpStream>,
    head: String,
}

impl Client {
    pub(crate) async fn connect(address: &str, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "host: bench\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: "
        );
        Self { stream: BufStream::new(stream), head }
    }

    /// The status and the body of the answer.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!("{method} {path} HTTP/1.1\r\n{}{}\r\n\r\n", self.head, body.len());
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.stream.write_all(body).await.unwrap();
        self.stream.flush().await.unwrap();
        let (mut line, mut status, mut length) = (String::new(), None, 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            if line.trim_end().is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).map(|word| word.parse().unwrap());
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (status.expect("an answer has a status"), body)
    }
}

/// Whoever posts pulses for a while.
pub(crate) struct Posters<'a> {
    pub(crate) address: &'a str,
    pub(crate) token: &'a str,
    pub(crate) clients: u32,
    pub(crate) time: Duration,
    /// How many pulses a request holds.
    pub(crate) items: u32,
}

impl Posters<'_> {
    /// Posts until the time is over; each client waits for its answer. The work is counted in pulses.
    pub(crate) async fn run(
        &self,
        watched: &[(&'static str, u32)],
        body: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Figure {
        let (body, next) = (Arc::new(body), Arc::new(AtomicU32::new(0)));
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(Client::connect(self.address, self.token).await);
        }
        let clock = Clock::start(watched);
        let end = Instant::now() + self.time;
        let mut posting = JoinSet::new();
        for mut client in clients {
            let (body, next) = (Arc::clone(&body), Arc::clone(&next));
            posting.spawn(async move {
                let mut posted = 0_u32;
                while Instant::now() < end {
                    let body = body(next.fetch_add(1, Ordering::Relaxed));
                    let (status, answer) = client.call("POST", "/api/v1/pulses", &body).await;
                    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
                    posted += 1;
                }
                posted
            });
        }
        let posted: u32 = posting.join_all().await.into_iter().sum();
        clock.stop(f64::from(posted) * f64::from(self.items))
    }
}
