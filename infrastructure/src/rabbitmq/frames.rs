//! Makes what the broker sends readable for the AMQP client: one strange message must not end the connection.
//!
//! lapin takes text that is not UTF-8 for a broken frame, and follows nested headers with its call stack: the first would
//! halt the program, the second abort it, again with each redelivery. RabbitMQ passes both on as they were published. So
//! the few frames with text from publishers are held until they are complete and changed in place, before lapin reads
//! them; none becomes longer or shorter, and bodies pass untouched.
//!
//! Each byte that is no UTF-8 becomes [`SUBSTITUTE`]. It is a control character, which no name and no id may hold, so that
//! two texts that look the same afterwards are refused instead of being taken for one. A table or array nested deeper than
//! [`DEPTH_MAX`] becomes a string of its bytes.

use std::io;

/// What stands for a byte that is not UTF-8.
pub(super) const SUBSTITUTE: u8 = 0x1a;
/// How deep headers may be nested; nobody nests them deeper on purpose.
const DEPTH_MAX: usize = 16;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// Type, channel and size come before the payload of a frame, one byte after it (AMQP 0-9-1, section 4.2.3).
const BEFORE: usize = 7;
const AROUND: usize = BEFORE + 1;

/// The stream of frames on its way to the client.
#[derive(Debug)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Up to here they were given out.
    given: usize,
    /// Up to here they may be.
    ready: usize,
    /// So many of those to come may be, too.
    pass: usize,
    frame_bytes_max: usize,
}

impl Frames {
    /// Takes no frame with text of more than so many bytes.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), given: 0, ready: 0, pass: 0, frame_bytes_max }
    }

    /// Takes bytes as they come from the broker.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.drain(..self.given);
        self.ready -= self.given;
        self.given = 0;
        self.bytes.extend_from_slice(bytes);
        loop {
            let passed = self.pass.min(self.bytes.len() - self.ready);
            self.ready += passed;
            self.pass -= passed;
            let Some((before, rest)) = self.bytes[self.ready..].split_first_chunk_mut::<BEFORE>() else {
                return Ok(());
            };
            let [kind, _, _, size @ ..] = *before;
            let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
            let length = size.saturating_add(AROUND);
            if matches!(kind, METHOD | HEADER) {
                if length > self.frame_bytes_max {
                    let error = format!("the broker sent a frame of {length} bytes");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                if rest.len() <= size {
                    return Ok(());
                }
                // One that cannot be followed goes on as it is: the client says what is wrong with it.
                let _ = if kind == METHOD {
                    mend_method(&mut rest[..size])
                } else {
                    mend_header(&mut rest[..size])
                };
            }
            self.pass = length;
        }
    }

    /// Gives out what is ready, as much as there is room for.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let length = buffer.len().min(self.ready - self.given);
        buffer[..length].copy_from_slice(&self.bytes[self.given..self.given + length]);
        self.given += length;
        length
    }
}

/// Replaces what is not UTF-8.
pub(super) fn mend_text(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let rest = &mut text[error.valid_up_to()..];
        let wrong = error.error_len().unwrap_or(rest.len());
        rest[..wrong].fill(SUBSTITUTE);
        text = &mut rest[wrong..];
    }
}

/// The methods with text that is not this program's own: exchange and routing key of a delivery, and the last words of a
/// broker, which it cuts at 255 bytes, if need be in the middle of a character.
fn mend_method(payload: &mut [u8]) -> Option<()> {
    const CONNECTION_CLOSE: [u8; 4] = [0, 10, 0, 50];
    const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
    const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
    let (method, arguments) = payload.split_first_chunk_mut::<4>()?;
    let mut arguments = Fields(arguments);
    match *method {
        CONNECTION_CLOSE | CHANNEL_CLOSE => {
            arguments.skip(2)?;
            arguments.text()
        }
        BASIC_DELIVER => {
            arguments.text()?;
            // Delivery tag, and whether it comes again.
            arguments.skip(9)?;
            arguments.text()?;
            arguments.text()
        }
        _ => Some(()),
    }
}

/// The properties of a message (AMQP 0-9-1, sections 4.2.6.1 and 1.8.3).
fn mend_header(payload: &mut [u8]) -> Option<()> {
    /// In their order, from the highest bit of the flags: `s` a short string, `F` the headers, else a number of bytes.
    const PROPERTIES: &[u8; 14] = b"ssF11ssss8ssss";
    let mut fields = Fields(payload);
    // Class, weight, size of the body.
    fields.skip(12)?;
    let flags = u16::from_be_bytes(*fields.take(2)?.first_chunk()?);
    for (bit, kind) in (0..16).rev().zip(PROPERTIES) {
        if flags & (1 << bit) != 0 {
            match kind {
                b's' => fields.text()?,
                b'F' => mend_table(fields.long()?, 1)?,
                digit => fields.skip(usize::from(digit - b'0'))?,
            }
        }
    }
    Some(())
}

fn mend_table(table: &mut [u8], depth: usize) -> Option<()> {
    let mut fields = Fields(table);
    while !fields.0.is_empty() {
        fields.text()?;
        mend_value(&mut fields, depth)?;
    }
    Some(())
}

fn mend_array(array: &mut [u8], depth: usize) -> Option<()> {
    let mut fields = Fields(array);
    while !fields.0.is_empty() {
        mend_value(&mut fields, depth)?;
    }
    Some(())
}

/// The types are those of RabbitMQ, which differ from the specification's.
fn mend_value(fields: &mut Fields<'_>, depth: usize) -> Option<()> {
    let kind = fields.take(1)?.first_mut()?;
    match kind {
        b'V' => Some(()),
        b't' | b'b' | b'B' => fields.skip(1),
        b's' | b'u' | b'U' => fields.skip(2),
        b'I' | b'i' | b'f' => fields.skip(4),
        b'D' => fields.skip(5),
        b'l' | b'L' | b'd' | b'T' => fields.skip(8),
        b'S' | b'x' => fields.long().map(drop),
        b'F' | b'A' if depth == DEPTH_MAX => {
            *kind = b'x';
            fields.long().map(drop)
        }
        b'F' => mend_table(fields.long()?, depth + 1),
        b'A' => mend_array(fields.long()?, depth + 1),
        _ => None,
    }
}

/// What is left of a sequence of fields.
struct Fields<'a>(&'a mut [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a mut [u8]> {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(drop)
    }

    /// The bytes of a table, an array or a string with a length of four bytes.
    fn long(&mut self) -> Option<&'a mut [u8]> {
        let length = u32::from_be_bytes(*self.take(4)?.first_chunk()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length).map(mend_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xce]].concat()
    }

    fn short(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [&[kind], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    /// A message with every property, `text` in each place where there is text.
    fn header(text: &[u8], value: &[u8]) -> Vec<u8> {
        let (text, name) = (short(text), short(text));
        let headers = long(b'F', &[&name, value, &name, b"V"].concat()).split_off(1);
        let parts: [&[u8]; 15] = [
            &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xfc],
            &text,
            &text,
            &headers,
            &[2],
            &[0],
            &text,
            &text,
            &text,
            &text,
            &[0xff; 8],
            &text,
            &text,
            &text,
            &text,
        ];
        frame(HEADER, &parts.concat())
    }

    fn deliver(text: &[u8]) -> Vec<u8> {
        let text = short(text);
        frame(METHOD, &[&[0, 60, 0, 60], &text[..], &[0xff; 9], &text, &text].concat())
    }

    fn through(bytes: &[u8], chunk: usize, room: usize) -> Vec<u8> {
        let mut frames = Frames::new(1 << 20);
        let (mut out, mut buffer) = (Vec::new(), vec![0; room]);
        for chunk in bytes.chunks(chunk) {
            frames.put(chunk).unwrap();
            loop {
                match frames.take(&mut buffer) {
                    0 => break,
                    taken => out.extend_from_slice(&buffer[..taken]),
                }
            }
        }
        out
    }

    #[test]
    fn text_that_is_not_utf8_is_replaced_wherever_it_stands_and_however_the_bytes_arrive() {
        let wrong = b"\xc3\xb6 \xff\xe2\x82";
        let mended = "\u{f6} \u{1a}\u{1a}\u{1a}".as_bytes();
        let last_words =
            |text: &[u8]| frame(METHOD, &[&[0, 20, 0, 40, 1, 0x94], &short(text)[..], &[0; 4]].concat());
        let stream = |text: &[u8]| {
            let value = long(b'A', &long(b'F', &[&short(text)[..], b"t\x01"].concat()));
            [
                deliver(text),
                header(text, &value),
                frame(3, b"\xff\xfe body"),
                header(text, &long(b'S', b"\xff")),
                frame(8, b""),
                last_words(text),
            ]
            .concat()
        };
        for (chunk, room) in [(1, 1), (7, 100), (100, 7), (10_000, 10_000)] {
            assert_eq!(through(&stream(wrong), chunk, room), stream(mended), "{chunk} {room}");
            assert_eq!(through(&stream(b"plain"), chunk, room), stream(b"plain"), "{chunk} {room}");
        }
    }

    #[test]
    fn what_is_nested_deeper_than_anybody_needs_becomes_bytes() {
        let nested = |depth: usize, innermost: &[u8]| {
            (1..depth).fold(innermost.to_vec(), |inner, level| match level % 2 {
                0 => long(b'A', &inner),
                _ => long(b'F', &[&short(b"k"), &inner[..]].concat()),
            })
        };
        let deepest = nested(DEPTH_MAX, b"t\x01");
        assert_eq!(through(&header(b"k", &deepest), 50, 50), header(b"k", &deepest));
        let too_deep = nested(DEPTH_MAX, &long(b'A', b"V"));
        assert_eq!(
            through(&header(b"k", &too_deep), 50, 50),
            header(b"k", &nested(DEPTH_MAX, &long(b'x', b"V")))
        );
        let far_too_deep = nested(10_000, b"V");
        assert_eq!(
            through(&header(b"k", &far_too_deep), 5_000, 5_000).len(),
            header(b"k", &far_too_deep).len()
        );
    }

    #[test]
    fn a_frame_that_is_too_large_is_an_error_before_it_is_held() {
        let mut frames = Frames::new(100);
        frames.put(&frame(3, &[0; 1_000])).unwrap();
        let error = frames.put(&frame(HEADER, &[0; 93])[..BEFORE]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_added_or_a_panic(
            payloads in prop::collection::vec((1_u8..4, prop::collection::vec(any::<u8>(), 0..60)), 0..5),
            cut in 0_usize..60,
            chunk in 1_usize..40,
        ) {
            let mut bytes = Vec::new();
            for (kind, mut payload) in payloads {
                if kind == HEADER {
                    payload.splice(0..0, *b"\0\x3c\0\0\0\0\0\0\0\0\0\x09\xff\xfc");
                }
                bytes.extend(frame(kind, &payload));
            }
            prop_assert_eq!(through(&bytes, chunk, 16).len(), bytes.len());
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert!(through(&bytes, chunk, 16).len() <= bytes.len());
        }
    }
}
