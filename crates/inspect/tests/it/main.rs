//! Proves from outside that commands are understood.

mod effects;
mod fuzz;
mod hostile;
mod wrappers;

use std::collections::BTreeMap;

use creel_inspect::{Place, Shell, Understood, command};

/// Understands a text as on a developer's machine.
fn understand(text: &str) -> Understood {
    let variables = BTreeMap::new();
    let place = Place { cwd: "/home/user/project", home: "/home/user", user: "user", variables: &variables };
    command(text, Shell::Posix, &place)
}
