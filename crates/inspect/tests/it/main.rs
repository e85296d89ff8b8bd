//! Proves from outside that commands are understood.
