//! The embedded twin: accumulator and ledger in one SQLite file.
