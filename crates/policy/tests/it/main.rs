//! The crate from outside: the pinned semantics, faults of bundles, layers, and the starter bundle.

mod starter;
