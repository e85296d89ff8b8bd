//! Written by its first slice.
