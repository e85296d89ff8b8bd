//! What a caged agent wrote, kept apart from the real files until a person has looked at it.
//!
//! A workspace becomes the lower half of an overlay; everything the run writes lands in a layer of its own under the
//! account's state folder. Afterwards, outside any cage, the layer is *read*: [`compare`] turns it into a list of
//! differences, [`commit`] carries chosen ones over, [`discard`] removes it. Nothing here decides what may be reached.
//! The one fact a newcomer gets wrong: the layer was written by the agent, so it is hostile input like any other. No link
//! in it is followed, no device in it is made, no mode bit beyond `rwx` is taken over, no name in it is printed raw.

mod apply;
mod commit;
pub(crate) mod compare;
pub(crate) mod fd;
mod folder;
mod layer;
mod name;
mod sealed;
#[cfg(test)]
pub(crate) mod test;
mod text;
#[cfg(test)]
mod trials;
mod underneath;
mod undo;

pub use apply::StepError;
pub use commit::{CommitError, Committed, Review, Why, Wish, commit, discard, look};
pub use compare::{Change, Comparison, DIFFERENCES_MAX, Difference, Kind, Side, compare};
pub use folder::{Folder, FolderError, RunFacts, runs};
pub use layer::{Layer, LayerError};
pub(crate) use name::is_plain;
pub use name::{Relative, shown, shown_path};
pub use text::{Hunk, Text, text};
pub use undo::{Restored, undo};
