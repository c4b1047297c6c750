//! The byte stream below the AMQP client: it can be cut from outside, it overhears who the server is, and what it hands on
//! went through [`Frames`].
//!
//! lapin runs every connection on a thread of its own that only ends when the socket does, and it keeps the server's
//! properties to itself. Both are had here, so that a server that accepts and then says nothing leaves no thread behind,
//! a close is bounded, and the topology can be declared as the version of the server allows.

use super::frames::Frames;
use async_rs::{
    Runtime, Tokio,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_util::{AsyncRead, AsyncWrite, Stream, task::AtomicWaker};
use lapin::{
    AsyncTcpStream, Error,
    tcp::{AMQPUriTcpExt, OwnedTLSConfig},
    uri::AMQPUri,
};
use std::{
    future::{self, Future},
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

type TokioStream = <Tokio as Reactor>::TcpStream;

/// The first frame of a server is about 500 bytes; one that is longer than this is not looked at.
const GREETING_BYTES_MAX: usize = 16_384;
/// How much is read at once.
const CHUNK_BYTES: usize = 65_536;

/// What this program knows of a connection's byte stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<WireState>);

#[derive(Debug, Default)]
struct WireState {
    cut: AtomicBool,
    reader: AtomicWaker,
    greeting: OnceLock<Greeting>,
}

/// What a server says of itself, as far as it does.
#[derive(Debug, Default)]
struct Greeting {
    /// Of RabbitMQ.
    major_version: Option<u32>,
    cluster_name: Option<String>,
}

impl Wire {
    /// Opens the stream, TLS included, within the limit.
    pub(super) async fn open(
        &self,
        uri: &AMQPUri,
        limit: Duration,
    ) -> Result<AsyncTcpStream<WireStream>, Error> {
        let runtime = Runtime::tokio_current();
        let tls = OwnedTLSConfig::default();
        let connect = uri.connect_with_config_async(tls.as_ref(), &runtime);
        let stream = match tokio::time::timeout(limit, connect).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::Error::from(ErrorKind::TimedOut).into()),
        };
        let frame_max = uri.query.frame_max.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        Ok(AsyncTcpStream::Plain(WireStream {
            stream,
            wire: self.clone(),
            greeting: Some(Vec::new()),
            chunk: vec![0; CHUNK_BYTES].into(),
            frames: Frames::new(frame_max.max(GREETING_BYTES_MAX)),
        }))
    }

    /// Ends the stream: what the client still waits for fails, its thread ends, the socket is closed.
    pub(super) fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// The major version of RabbitMQ, where the server is one and says so.
    pub(super) fn major_version(&self) -> Option<u32> {
        self.0.greeting.get()?.major_version
    }

    /// What the cluster is called, where the server says so.
    pub(super) fn cluster_name(&self) -> Option<&str> {
        self.0.greeting.get()?.cluster_name.as_deref()
    }

    fn check(&self) -> io::Result<()> {
        if self.0.cut.load(Ordering::Acquire) { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// A TCP or TLS stream with a [`Wire`] to it.
pub(super) struct WireStream {
    stream: AsyncTcpStream<TokioStream>,
    wire: Wire,
    /// The bytes read so far, until the first frame is complete.
    greeting: Option<Vec<u8>>,
    chunk: Box<[u8]>,
    frames: Frames,
}

impl WireStream {
    fn overhear(&mut self, length: usize) {
        let Some(mut greeting) = self.greeting.take() else { return };
        greeting.extend_from_slice(&self.chunk[..length]);
        if first_frame_is_complete(&greeting) || greeting.len() > GREETING_BYTES_MAX {
            let _ = self.wire.0.greeting.set(Greeting {
                major_version: major_version(&greeting),
                cluster_name: cluster_name(&greeting),
            });
        } else {
            self.greeting = Some(greeting);
        }
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.check()?;
        let this = &mut *self;
        loop {
            let taken = this.frames.take(buffer);
            if taken > 0 || buffer.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            match Pin::new(&mut this.stream).poll_read(context, &mut this.chunk) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(length)) => {
                    this.overhear(length);
                    this.frames.put(&this.chunk[..length])?;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.wire.0.reader.register(context.waker());
                    this.wire.check()?;
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Tokio as lapin wants it, with [`WireStream`] as its TCP stream.
#[derive(Clone, Debug)]
pub(super) struct WireKit(Tokio);

impl WireKit {
    /// The runtime of the caller.
    pub(super) fn runtime() -> Runtime<Self> {
        Runtime::new(Self(Tokio::current()))
    }
}

impl RuntimeKit for WireKit {}

impl Executor for WireKit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for WireKit {
    type TcpStream = WireStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Never called: the streams are made by [`Wire::open`].
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<TokioStream, _>(ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// Never called: the streams are made by [`Wire::open`].
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        future::ready(Err(ErrorKind::Unsupported.into()))
    }
}

/// Type, channel and size come before the payload of a frame, one byte after it (AMQP 0-9-1, section 4.2.3).
fn first_frame_is_complete(bytes: &[u8]) -> bool {
    let size = bytes.get(3..7).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
    size.and_then(|size| usize::try_from(size).ok()).is_some_and(|size| bytes.len() >= size.saturating_add(8))
}

/// The major version in the server properties of `connection.start`.
///
/// Entries are looked for as they are encoded, a short string and a long string, instead of decoding a table of which
/// nothing else is wanted.
fn major_version(greeting: &[u8]) -> Option<u32> {
    if entry(greeting, b"\x07productS")? != b"RabbitMQ" {
        return None;
    }
    let version = std::str::from_utf8(entry(greeting, b"\x07versionS")?).ok()?;
    version.split('.').next()?.parse().ok()
}

fn cluster_name(greeting: &[u8]) -> Option<String> {
    let name = entry(greeting, b"\x0ccluster_nameS")?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}

fn entry<'a>(bytes: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let start = bytes.windows(key.len()).position(|window| window == key)? + key.len();
    let (length, rest) = bytes[start..].split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(product: &str, version: &str) -> Vec<u8> {
        const CLUSTER: &str = "rabbit@one";
        let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
        for (key, value) in
            [("\x07product", product), ("\x07version", version), ("\x0ccluster_name", CLUSTER)]
        {
            payload.extend_from_slice(key.as_bytes());
            payload.push(b'S');
            payload.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            payload.extend_from_slice(value.as_bytes());
        }
        let mut frame = vec![1, 0, 0];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&payload);
        frame.push(0xce);
        frame
    }

    #[test]
    fn the_major_version_is_read_from_the_greeting_of_rabbitmq_only() {
        assert_eq!(major_version(&greeting("RabbitMQ", "3.10.8")), Some(3));
        assert_eq!(major_version(&greeting("RabbitMQ", "4.1.0-rc.1")), Some(4));
        assert_eq!(major_version(&greeting("LavinMQ", "4.0.0")), None);
        assert_eq!(major_version(&greeting("RabbitMQ", "next")), None);
    }

    #[test]
    fn the_name_of_the_cluster_is_read_from_the_greeting() {
        assert_eq!(cluster_name(&greeting("RabbitMQ", "3.10.8")).as_deref(), Some("rabbit@one"));
        assert_eq!(cluster_name(&greeting("RabbitMQ", "3.10.8")[..60]), None);
    }

    #[test]
    fn a_greeting_that_ends_anywhere_is_incomplete_and_never_a_panic() {
        let greeting = greeting("RabbitMQ", "3.10.8");
        for end in 0..greeting.len() {
            assert!(!first_frame_is_complete(&greeting[..end]));
            let _ = major_version(&greeting[..end]);
        }
        assert!(first_frame_is_complete(&greeting));
        assert_eq!(major_version(b"\x07productS\xff\xff\xff\xffRabbitMQ"), None);
    }
}
