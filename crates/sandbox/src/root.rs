//! A plan's files to the cage's root: what is put where ([`layout`]), and the putting ([`build`]).
//!
//! The layout is made outside, where owners of files are known; the building happens inside the new namespaces, where
//! mounting is allowed. The one fact a newcomer gets wrong: inside, everything that the account does not own looks as if
//! it belonged to nobody, so no question about owners can be answered there.

pub(crate) mod build;
pub(crate) mod layout;
pub(crate) mod resolve;
