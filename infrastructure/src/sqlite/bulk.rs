//! Statements over many rows: a few texts a statement, so that each is prepared once and kept.

use std::ops::Range;

/// How many rows the texts hold, largest first.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// One statement in the texts for each of [`SIZES`].
pub(super) struct Bulk {
    texts: [String; SIZES.len()],
}

impl Bulk {
    /// The statement: `head`, then `row` as often as there are rows, then `tail`.
    pub(super) fn new(head: &str, row: &str, tail: &str) -> Self {
        Self { texts: SIZES.map(|rows| format!("{head} {} {tail}", vec![row; rows].join(", "))) }
    }

    /// The texts to run for this many rows, each with the rows that it takes.
    pub(super) fn runs(&self, rows: usize) -> impl Iterator<Item = (&str, Range<usize>)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let left = rows - start;
            let index = SIZES.iter().position(|size| *size <= left)?;
            let range = start..start + SIZES[index];
            start = range.end;
            Some((self.texts[index].as_str(), range))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_run_and_the_text_has_its_rows() {
        let bulk = Bulk::new("v", "x", ";");
        for rows in [0, 1, 3, 4, 337, 4_000] {
            let mut next = 0;
            for (text, range) in bulk.runs(rows) {
                assert_eq!((range.start, text.matches('x').count()), (next, range.len()));
                next = range.end;
            }
            assert_eq!(next, rows);
        }
    }
}
