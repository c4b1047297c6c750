//! [`PulseSource`] over files, one delivery a line.

use super::lines::{Line, Lines, unpacked};
use application::ports::{Delivery, Envelope, PartitionId, PortError, PulseSource, Received, Watermark};
use async_trait::async_trait;
use domain::Timestamp;
use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, Read},
    mem,
    path::PathBuf,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Mutex, Notify, mpsc};

/// The header that names the file of a line.
pub const HEADER_FILE: &str = "file";
/// The header that holds the number of a line, from 1.
pub const HEADER_LINE: &str = "line";

/// Lines that are handed over together.
const CHUNK_LINES: usize = 256;
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;
/// What may be given without being settled: this source's prefetch.
const UNSETTLED_LINES_MAX: usize = 16_384;
const UNSETTLED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many places of lines that are too long are remembered; the rest is only counted.
const TOO_LONG_KEPT_MAX: usize = 1_000;

/// An input of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input, known by a name.
    Stdin {
        /// Two streams of one name that start with the same lines are taken for repetitions of each other.
        name: String,
    },
    /// A file, known by its absolute path without symbolic links.
    File(PathBuf),
}

/// A place in an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// The input as the user named it.
    pub file: String,
    /// The number of the line, from 1.
    pub line: u64,
}

impl fmt::Display for FileLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// How far the reading is.
#[derive(Debug, Default)]
pub struct FileProgress {
    bytes_total: Option<u64>,
    bytes: AtomicU64,
    lines: AtomicU64,
    too_long: StdMutex<(u64, Vec<FileLine>)>,
}

impl FileProgress {
    /// The size of all inputs as they lie on disk, in bytes; `None` where one has no size, like a pipe.
    #[must_use]
    pub fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// How many of these bytes were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many lines were read; empty ones and those that are too long are not among them.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// How many lines were left out because they are longer than [`super::LINE_BYTES_MAX`], and where the first 1,000 stand.
    ///
    /// # Panics
    /// Never: no holder of its lock can panic.
    #[must_use]
    pub fn too_long(&self) -> (u64, Vec<FileLine>) {
        self.too_long.lock().expect("no holder of this lock can panic").clone()
    }

    fn skip(&self, line: FileLine) {
        let mut too_long = self.too_long.lock().expect("no holder of this lock can panic");
        too_long.0 += 1;
        if too_long.1.len() < TOO_LONG_KEPT_MAX {
            too_long.1.push(line);
        }
    }
}

/// Gives each line that is not empty as a delivery, in order: the partition is the place of the input in the list from
/// 1, the sequence the number of the line.
///
/// A file remembers nothing, so a program that was killed reads it again from its start. That is safe because each line
/// brings an identity as its message id: a hash chained over the name of the input and every line up to and including
/// this one. The chain, and not only the line, because equal lines of a file, or of two files, are two pulses; the
/// name, because two files may start alike; nothing else, so that the same file read again is recognised and a file
/// that has grown adds only its new lines.
pub struct FileSource {
    chunks: Mutex<mpsc::Receiver<Result<Vec<Delivery>, PortError>>>,
    unsettled: StdMutex<VecDeque<Unsettled>>,
    settled: Notify,
    ended: AtomicBool,
    progress: Arc<FileProgress>,
}

struct Unsettled {
    last: Watermark,
    lines: usize,
    bytes: usize,
}

impl FileSource {
    /// Opens the inputs and starts to read ahead.
    ///
    /// # Errors
    /// Permanent, where one of them cannot be opened; then nothing was read.
    pub fn open(inputs: Vec<Input>) -> Result<Self, PortError> {
        let inputs: Vec<Opened> = inputs.into_iter().map(Opened::new).collect::<Result<_, _>>()?;
        let bytes_total = inputs.iter().map(|input| input.bytes).sum();
        let progress = Arc::new(FileProgress { bytes_total, ..FileProgress::default() });
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let reading = Arc::clone(&progress);
        // A thread of its own that nobody joins: reading standard input cannot be interrupted, and it must not hold up
        // the end of the program. It ends with the input, or at the first chunk that nobody takes.
        thread::Builder::new()
            .name("file-reader".to_owned())
            .spawn(move || {
                if let Err(error) = read(inputs, &reading, &sender) {
                    let _ = sender.blocking_send(Err(error));
                }
            })
            .map_err(|error| PortError::permanent("start the file reader", error))?;
        Ok(Self {
            chunks: Mutex::new(chunks),
            unsettled: StdMutex::default(),
            settled: Notify::new(),
            ended: AtomicBool::new(false),
            progress,
        })
    }

    /// How far the reading is, for whoever wants to look.
    #[must_use]
    pub fn progress(&self) -> Arc<FileProgress> {
        Arc::clone(&self.progress)
    }

    /// Whether every line was given.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        let unsettled = self.unsettled.lock().expect("no holder of this lock can panic");
        let (lines, bytes) =
            unsettled.iter().fold((0, 0), |(lines, bytes), chunk| (lines + chunk.lines, bytes + chunk.bytes));
        lines < UNSETTLED_LINES_MAX && bytes < UNSETTLED_BYTES_MAX
    }
}

#[async_trait]
impl PulseSource for FileSource {
    async fn receive(&self) -> Result<Received, PortError> {
        while !self.has_room() {
            self.settled.notified().await;
        }
        let Some(chunk) = self.chunks.lock().await.recv().await else {
            self.ended.store(true, Ordering::Relaxed);
            return Ok(Received::End);
        };
        let deliveries = chunk?;
        if let Some(last) = deliveries.last() {
            self.unsettled.lock().expect("no holder of this lock can panic").push_back(Unsettled {
                last: Watermark { partition: last.partition, sequence: last.sequence },
                lines: deliveries.len(),
                bytes: deliveries.iter().map(|delivery| delivery.body.len()).sum(),
            });
        }
        Ok(Received::Deliveries(deliveries))
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        self.unsettled.lock().expect("no holder of this lock can panic").retain(|chunk| {
            chunk.last.partition != watermark.partition || chunk.last.sequence > watermark.sequence
        });
        self.settled.notify_one();
        Ok(())
    }

    async fn close(&self) -> Result<(), PortError> {
        self.chunks.lock().await.close();
        Ok(())
    }
}

/// An input that could be opened when the program started.
struct Opened {
    /// What the user calls it.
    shown: String,
    /// What its lines are known by.
    identity: Vec<u8>,
    /// Its size on disk, where it has one.
    bytes: Option<u64>,
    kind: OpenedKind,
}

enum OpenedKind {
    Stdin,
    /// A regular file: opened again in its turn, so that any number of them can be given.
    Regular(PathBuf),
    /// A pipe, which can be opened only once.
    Other(File),
}

impl Opened {
    fn new(input: Input) -> Result<Self, PortError> {
        let path = match input {
            Input::Stdin { name } => {
                let identity = [b"stdin ", name.as_bytes()].concat();
                return Ok(Self { shown: "-".to_owned(), identity, bytes: None, kind: OpenedKind::Stdin });
            }
            Input::File(path) => path,
        };
        let failed =
            |error: io::Error| PortError::permanent("open a file", format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let absolute = path.canonicalize().map_err(failed)?;
        Ok(Self {
            shown: path.display().to_string(),
            identity: absolute.into_os_string().into_encoded_bytes(),
            bytes: metadata.is_file().then_some(metadata.len()),
            kind: if metadata.is_file() { OpenedKind::Regular(path) } else { OpenedKind::Other(file) },
        })
    }

    fn reader(kind: OpenedKind) -> io::Result<Box<dyn Read + Send>> {
        Ok(match kind {
            OpenedKind::Stdin => Box::new(io::stdin()),
            OpenedKind::Regular(path) => Box::new(File::open(path)?),
            OpenedKind::Other(file) => Box::new(file),
        })
    }
}

/// Reads all inputs in order, until the end or until nobody takes the chunks.
fn read(inputs: Vec<Opened>, progress: &Arc<FileProgress>, out: &Sender) -> Result<(), PortError> {
    for (partition, Opened { shown, identity, kind, .. }) in (1..).zip(inputs) {
        let failed = |error: io::Error| PortError::permanent("read a file", format!("{shown}: {error}"));
        let raw = Opened::reader(kind).map_err(failed)?;
        let counted = Counted { inner: raw, progress: Arc::clone(progress) };
        let mut lines = Lines::new(unpacked(counted).map_err(failed)?, &identity);
        let mut chunk = Chunk { partition: PartitionId(partition), file: shown.clone(), ..Chunk::default() };
        loop {
            // The lines before a fault are handed on, so that the message does not hide what was counted.
            let line = lines.next();
            if !chunk.is_empty() && (chunk.is_full() || !matches!(line, Ok(Some(_)))) && !chunk.send(out) {
                return Ok(());
            }
            match line.map_err(failed)? {
                None => break,
                Some(Line { number, text: None, .. }) => {
                    progress.skip(FileLine { file: shown.clone(), line: number });
                }
                Some(Line { number, text: Some(text), identity }) => {
                    progress.lines.fetch_add(1, Ordering::Relaxed);
                    chunk.push(number, text, identity);
                }
            }
        }
    }
    Ok(())
}

type Sender = mpsc::Sender<Result<Vec<Delivery>, PortError>>;

/// Deliveries of one input on their way out.
struct Chunk {
    partition: PartitionId,
    file: String,
    bytes: usize,
    deliveries: Vec<Delivery>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { partition: PartitionId(0), file: String::new(), bytes: 0, deliveries: Vec::new() }
    }
}

impl Chunk {
    fn push(&mut self, number: u64, body: Vec<u8>, identity: [u8; 16]) {
        self.bytes += body.len();
        let message_id = format!("{:032x}", u128::from_be_bytes(identity));
        self.deliveries.push(Delivery {
            partition: self.partition,
            sequence: number,
            body,
            envelope: Envelope {
                message_id: Some(message_id),
                headers: vec![
                    (HEADER_FILE.to_owned(), self.file.clone()),
                    (HEADER_LINE.to_owned(), number.to_string()),
                ],
                ..Envelope::default()
            },
            received_at: now(),
            log: None,
            returns: 0,
        });
    }

    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    fn is_full(&self) -> bool {
        self.deliveries.len() >= CHUNK_LINES || self.bytes >= CHUNK_BYTES
    }

    /// Waits where the reader is ahead; says whether anybody wants more.
    fn send(&mut self, out: &Sender) -> bool {
        self.bytes = 0;
        out.blocking_send(Ok(mem::take(&mut self.deliveries))).is_ok()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the arrival of a line is read off the clock here, at the edge"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    progress: Arc<FileProgress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::NamedTempFile;

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn open(files: &[&NamedTempFile]) -> FileSource {
        FileSource::open(files.iter().map(|file| Input::File(file.path().to_owned())).collect()).unwrap()
    }

    async fn next(source: &FileSource) -> Option<Vec<Delivery>> {
        match source.receive().await.unwrap() {
            Received::Deliveries(deliveries) => Some(deliveries),
            Received::End => None,
        }
    }

    async fn all(source: &FileSource) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(deliveries) = next(source).await {
            let last = deliveries.last().unwrap();
            source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await.unwrap();
            all.extend(deliveries);
        }
        all
    }

    #[tokio::test]
    async fn files_are_read_in_order_and_each_line_knows_its_place() {
        let (first, second) = (file("a\n\nb\n"), file("c"));
        let source = open(&[&first, &second]);
        let read: Vec<_> =
            all(&source).await.into_iter().map(|it| (it.partition.0, it.sequence, it.body)).collect();
        assert_eq!(read, [(1, 1, b"a".to_vec()), (1, 3, b"b".to_vec()), (2, 1, b"c".to_vec())]);
        assert_eq!(source.progress().lines(), 3);
        assert_eq!((source.progress().bytes(), source.progress().bytes_total()), (6, Some(6)));
    }

    #[tokio::test]
    async fn a_file_that_is_read_again_brings_the_same_message_ids() {
        let lines = file(&"x\n".repeat(1_000));
        let ids = |deliveries: Vec<Delivery>| -> Vec<_> {
            deliveries.into_iter().map(|delivery| delivery.envelope.message_id.unwrap()).collect()
        };
        let first = ids(all(&open(&[&lines])).await);
        assert_eq!(first, ids(all(&open(&[&lines])).await));
        let mut unique = first.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 1_000);
    }

    #[tokio::test]
    async fn what_is_given_and_not_settled_is_bounded() {
        let lines = file(&"x\n".repeat(UNSETTLED_LINES_MAX * 3));
        let source = open(&[&lines]);
        let mut given = Vec::new();
        while source.has_room() {
            given.extend(next(&source).await.unwrap());
        }
        assert!(given.len() <= UNSETTLED_LINES_MAX + CHUNK_LINES, "{}", given.len());
        let last = given.last().unwrap();
        source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await.unwrap();
        assert!(source.has_room());
        assert_eq!(next(&source).await.unwrap()[0].sequence, last.sequence + 1);
    }

    #[tokio::test]
    async fn lines_that_are_too_long_are_reported_with_their_place() {
        let long = file(&format!("a\n{}\nb\n", "x".repeat(super::super::LINE_BYTES_MAX + 1)));
        let source = open(&[&long]);
        assert_eq!(all(&source).await.len(), 2);
        let place = FileLine { file: long.path().display().to_string(), line: 2 };
        assert_eq!(source.progress().too_long(), (1, vec![place]));
    }

    #[test]
    fn a_missing_file_is_said_before_anything_is_read() {
        let error = FileSource::open(vec![Input::File("/nowhere/x".into())]).err().unwrap();
        assert!(error.to_string().contains("/nowhere/x"), "{error}");
        assert!(FileSource::open(vec![Input::File("/".into())]).is_err());
    }
}
