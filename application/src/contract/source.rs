//! What every source and its dead letters do.
