//! Lines of bounded length, each with its number and a name that it alone has.

use domain::content_hash;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// The longest line that is read, in bytes without its end: 1 MiB.
pub const LINE_BYTES_MAX: usize = 1 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1; empty lines count, though they are not given.
    pub(super) number: u64,
    /// What it says, without its end; `None` where it is longer than [`LINE_BYTES_MAX`], of which nothing is kept.
    pub(super) text: Option<Vec<u8>>,
    /// The same for the same line at the same place after the same lines of the same input, and for no other.
    pub(super) identity: [u8; 16],
}

/// Reads an input line by line.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
    chain: [u8; 16],
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of an input that is known by this name.
    pub(super) fn new(input: R, name: &[u8]) -> Self {
        Self { input, number: 0, chain: content_hash(&[b"lines", name]) }
    }

    /// The next line that is not empty, `None` after the last. It may lack its line feed, and may end in CR LF.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut text = Vec::new();
            // One byte more for a CR and one for the LF: what fills the limit without an LF is too long.
            let limit = LINE_BYTES_MAX as u64 + 2;
            if self.input.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if text.pop_if(|last| *last == b'\n').is_some() {
                text.pop_if(|last| *last == b'\r');
            } else if text.len() > LINE_BYTES_MAX {
                let rest = self.input.skip_until(b'\n')?;
                return Ok(Some(self.too_long(&text, rest)));
            }
            if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
            }
            if text.len() > LINE_BYTES_MAX {
                return Ok(Some(self.too_long(&text, 0)));
            }
            self.chain = content_hash(&[&self.chain, &text]);
            if !text.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Line { number: self.number, text: Some(text), identity: self.chain }));
            }
        }
    }

    fn too_long(&mut self, start: &[u8], rest: usize) -> Line {
        self.chain = content_hash(&[&self.chain, start, &rest.to_le_bytes()]);
        Line { number: self.number, text: None, identity: self.chain }
    }
}

/// The input as it is, or unpacked where it starts as gzip does (several members are one input).
pub(super) fn unpacked(mut input: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    const BUFFER_BYTES: usize = 128 * 1024;
    let mut start = Vec::with_capacity(GZIP_MAGIC.len());
    input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start)?;
    let packed = start == GZIP_MAGIC;
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(input));
    Ok(if packed {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(whole)))
    } else {
        Box::new(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn read(name: &str, bytes: impl Into<Vec<u8>>) -> Vec<Line> {
        let input = unpacked(Cursor::new(bytes.into())).unwrap();
        let mut lines = Lines::new(input, name.as_bytes());
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn texts(bytes: impl Into<Vec<u8>>) -> Vec<(u64, Option<String>)> {
        let lines = read("x", bytes).into_iter();
        lines.map(|line| (line.number, line.text.map(|text| String::from_utf8(text).unwrap()))).collect()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_end_in_lf_or_crlf_or_with_the_file_and_empty_ones_only_count() {
        let expected: Vec<_> =
            [(1, "a"), (3, "b"), (6, "c")].map(|(n, text)| (n, Some(text.to_owned()))).to_vec();
        assert_eq!(texts("a\n\nb\r\n \t\n\r\nc"), expected);
        assert_eq!(texts("\u{feff}a\n\nb\r\n \t\n\r\nc\n"), expected);
        assert_eq!(texts(""), []);
        assert_eq!(texts("\n"), []);
        assert_eq!(texts("\u{1f}"), [(1, Some("\u{1f}".to_owned()))]);
    }

    #[test]
    fn gzip_is_recognised_by_its_first_bytes_and_may_have_members() {
        let members = [packed(b"a\nb"), packed(b"c\nd\n")].concat();
        let expected = [(1, "a"), (2, "bc"), (3, "d")].map(|(n, text)| (n, Some(text.to_owned())));
        assert_eq!(texts(members), expected);
    }

    #[test]
    fn a_gzip_file_that_was_cut_off_is_an_error_and_no_end() {
        let mut bytes = packed(&b"0123456789abcdef\n".repeat(1_000));
        bytes.truncate(bytes.len() - 9);
        let mut lines = Lines::new(unpacked(Cursor::new(bytes)).unwrap(), b"x");
        let end = std::iter::from_fn(|| lines.next().transpose()).find(Result::is_err);
        assert!(end.is_some());
    }

    #[test]
    fn a_line_beyond_the_limit_is_named_and_not_kept() {
        let longest = "x".repeat(LINE_BYTES_MAX);
        for end in ["\n", "\r\n"] {
            let text =
                format!("{longest}{end}{longest}y{end}{longest}{longest}{longest}{end}z{end}{longest}y");
            let expected =
                [(1, Some(longest.clone())), (2, None), (3, None), (4, Some("z".to_owned())), (5, None)];
            assert!(texts(text) == expected, "{end:?}");
        }
        assert!(texts(longest.clone()) == [(1, Some(longest))]);
    }

    #[test]
    fn a_line_is_known_by_its_input_and_everything_before_it() {
        let identities =
            |name, text: &str| -> Vec<_> { read(name, text).into_iter().map(|line| line.identity).collect() };
        let once = identities("a", "x\nx\ny\n");
        assert_eq!(once, identities("a", "x\nx\ny"), "the end of the file says nothing");
        assert_eq!(once, identities("a", "x\r\nx\r\ny\r\nz")[..3], "a file that has grown keeps its lines");
        let mut all = [once, identities("b", "x\nx\ny\n"), identities("a", "\nx\nx\ny\n")].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9, "equal lines at other places are other lines");
    }
}
