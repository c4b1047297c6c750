//! What every ledger does: books, registry and reader.
