//! Files of lines (NDJSON) as a source: plain or gzip, or standard input.

mod lines;
mod source;

pub use lines::LINE_BYTES_MAX;
pub use source::{FileLine, FileProgress, FileSource, HEADER_FILE, HEADER_LINE, Input};
