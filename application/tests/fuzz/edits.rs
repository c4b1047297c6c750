//! Samples with changes, and the cases that are made of them: also for the tests of other crates.

use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_oneof},
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use std::{env, fs, path::Path};

/// A change of a sample.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Index),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, words: &[&[u8]]) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Set(index, byte) => {
                let place = place(index);
                if let Some(found) = bytes.get_mut(place) {
                    *found = *byte;
                }
            }
            Self::Insert(index, word) => {
                let place = place(index);
                bytes.splice(place..place, words[word.index(words.len())].iter().copied());
            }
            Self::Remove(index, count) => {
                let place = place(index);
                bytes.drain(place..bytes.len().min(place + count));
            }
            Self::Repeat(index, count) => {
                let place = place(index);
                let part = bytes[place..bytes.len().min(place + count)].to_vec();
                bytes.splice(place..place, part);
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Edit::Set(place, byte)),
        4 => (any::<Index>(), any::<Index>()).prop_map(|(place, word)| Edit::Insert(place, word)),
        2 => (any::<Index>(), 1..40_usize).prop_map(|(place, count)| Edit::Remove(place, count)),
        2 => (any::<Index>(), 1..80_usize).prop_map(|(place, count)| Edit::Repeat(place, count)),
    ]
}

/// One of the samples, with up to five changes. `words` are what makes trouble where it is put between other bytes.
pub(crate) fn edited(
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static [u8]],
) -> impl Strategy<Value = Vec<u8>> {
    (select(corpus), vec(edit(), 0..6)).prop_map(move |(mut bytes, edits)| {
        for edit in &edits {
            edit.apply(&mut bytes, words);
        }
        bytes
    })
}

/// The samples of a folder, in the order of their names.
pub(crate) fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a sample").path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| fs::read(path).expect("a sample")).collect()
}

/// Tries so many cases, or `FUZZ_CASES`, drawn from `FUZZ_SEED`.
pub(crate) fn run<S: Strategy>(cases: u32, case: &S, check: impl Fn(S::Value) -> Result<(), String>) {
    let (cases, seed) = (number("FUZZ_CASES", cases), number("FUZZ_SEED", 0));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(case, |case| check(case).map_err(TestCaseError::fail));
    result.unwrap_or_else(|failure| panic!("FUZZ_SEED={seed}: {failure}"));
}

fn number(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
