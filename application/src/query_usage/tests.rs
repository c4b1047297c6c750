//! Pages and sums beside what is pending.
