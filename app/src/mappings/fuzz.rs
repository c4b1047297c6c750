//! Mappings that nobody meant, made from samples.
//!
//! Nothing may panic; every fault names a line that there is; what reads, reads the same with a comment behind it, and
//! makes something of any message. As `application/tests/fuzz`: `FUZZ_CASES`, `FUZZ_SEED`.

#[path = "../../../application/tests/fuzz/edits.rs"]
mod edits;

use super::{SHIPPED, parse};
use application::{
    decode::{Decoder, Format, mapping::Mapping},
    ports::{Delivery, Envelope, PartitionId},
};
use domain::Timestamp;
use std::{path::Path, sync::Arc};

const CASES: u32 = 2_000;
const WORDS: [&[u8]; 26] = [
    b"[pulse]\n",
    b"[columns]\n",
    b"[[checks]]\n",
    b"{ pointer = \"/a\" }",
    b"{ template = \"{\" }",
    b"{ template = \"{pointer:/a}{routing_key:-9}\" }",
    b"{ constant = \"1\" }",
    b"one_of = []",
    b"optional = true",
    b"format = \"unix\"",
    b"message = \"cloudevents\"\n",
    b"used_amount = 1\n",
    b"tenant.pointer = \"\"\n",
    b"\"\"\"",
    b"'''",
    b"\\u0000",
    b"\xff",
    b"\r",
    b"\n",
    b"=",
    b".",
    b"[[[[[[[[",
    b"{a={a={a={a={a=",
    b"99999999999999999999",
    b"1979-05-27T07:32:00Z",
    b"#",
];

/// One message of any shape, as a mapping reads it.
fn read_by(mapping: Mapping) {
    let bodies: [&[u8]; 3] = [b"{\"a\":{\"b\":[1,\"x\",null]},\"id\":7}", b"[{},{}]", b"not json"];
    let decoder = Decoder { format: Format::Mapping(Arc::new(mapping)), ..Decoder::default() };
    for body in bodies {
        let delivery = Delivery {
            partition: PartitionId(1),
            sequence: 1,
            body: body.to_vec(),
            envelope: Envelope { routing_key: Some("a.b.\u{e9}".to_owned()), ..Envelope::default() },
            received_at: Timestamp::new(1_768_048_200, 0),
            log: None,
            returns: 0,
        };
        decoder.decode(&delivery, &mut Vec::new());
        decoder.decode_events(&delivery, &mut Vec::new());
    }
}

fn check(bytes: &[u8]) -> Result<(), String> {
    // A file that is no text is refused before.
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    let commented = format!("{text}\n# a comment");
    match parse::mapping("fuzz.toml", "fuzz", text) {
        Ok((mapping, description)) => {
            if parse::mapping("fuzz.toml", "fuzz", &commented).ok() != Some((mapping.clone(), description)) {
                return Err("it reads otherwise with a comment".to_owned());
            }
            read_by(mapping);
            Ok(())
        }
        Err(faults) => {
            let lines = text.matches('\n').count() + 1;
            let line = |fault: &String| {
                let rest = fault.strip_prefix("fuzz.toml, line ")?;
                rest.split_once(": ")?.0.parse::<usize>().ok()
            };
            let named: Option<Vec<usize>> = faults.iter().map(line).collect();
            match named {
                Some(named)
                    if !named.is_empty()
                        && named.is_sorted()
                        && named[0] > 0
                        && named[named.len() - 1] <= lines =>
                {
                    Ok(())
                }
                _ => Err(format!("of {lines} lines: {faults:?}")),
            }
        }
    }
}

#[test]
fn no_text_makes_the_reader_of_mappings_panic_and_every_fault_has_a_line() {
    let mut corpus = edits::corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mappings/corpus"));
    corpus.extend(SHIPPED.map(|(_, text)| text.as_bytes().to_vec()));
    for sample in &corpus {
        check(sample).unwrap();
    }
    edits::run(CASES, &edits::edited(corpus, &WORDS), |bytes| check(&bytes));
}
