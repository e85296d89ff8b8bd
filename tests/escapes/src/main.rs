//! Tries to get out of a cage: one named case after the other, each really trying, each telling what came of it.
//!
//! Turns case names into one line of JSON each: `{"case", "reached", "attempts": [{"name", "outcome", "said"}]}`. It
//! decides nothing about what is right: the tests expect `held` inside a cage and `reached` outside of one, which shows
//! that an attempt can succeed at all. `untried` means that a preparation failed, and is never a success.
//! A newcomer gets wrong: the program has three sides. `prepare` makes the folders as a person would have them, `host`
//! plays the rest of the machine (sockets, shared memory, a process with a secret), and only `try` runs inside.

mod attempt;
mod crowd;
mod devices;
mod facts;
mod files;
mod host;
mod kernel;
mod links;
mod prepare;
mod processes;
mod programs;
mod repositories;
mod sealed;
mod sockets;
mod sys;

use std::process::ExitCode;

use attempt::Tries;
use facts::Facts;

/// One case: its id of the list of escapes, and what tries it.
type Case = (&'static str, fn(&Facts, &mut Tries));

/// Every case that can be tried from inside.
const CASES: &[Case] = &[
    ("F1", links::through_links),
    ("F2", links::through_proc),
    ("F3", links::through_planted_mount_points),
    ("F4", links::the_folder_is_not_the_secret_one),
    ("F5", repositories::nested),
    ("F6", repositories::fresh),
    ("F7", repositories::renamed_parent),
    ("F8", sealed::renamed_onto),
    ("F9", sealed::linked),
    ("F10", sealed::first_agent_settings),
    ("F11", repositories::redirected_hooks),
    ("F12", repositories::worktree),
    ("F13", repositories::configuration),
    ("F14", sealed::planted_by_name),
    ("F15", files::prefix),
    ("F16", sealed::spelled_otherwise),
    ("F17", sealed::second_name),
    ("F18", files::denied_and_granted_again),
    ("F19", files::long_and_many),
    ("F20", sealed::made_again),
    ("F21", sealed::changed_while_looked_at),
    ("F22", sealed::other_calls),
    ("F23", sealed::other_writes),
    ("F24", sealed::after_launch),
    ("F25", devices::devices),
    ("F26", sealed::unresolvable),
    ("P1", programs::renamed_process),
    ("P2", programs::copied),
    ("P3", programs::mapped),
    ("P4", programs::from_memory),
    ("P5", programs::one_liners),
    ("P6", kernel::foreign_calls),
    ("P7", kernel::io_uring),
    ("P8", kernel::namespaces),
    ("P9", processes::looked_into),
    ("P10", kernel::surface),
    ("P11", processes::inherited),
    ("P12", processes::environment),
    ("P13", processes::shared_memory),
    ("P14", processes::terminal),
    ("P15", crowd::exhausted),
    ("P16", crowd::supervisor_stopped),
    ("P17", crowd::callers_that_die),
    ("P18", processes::notify_descriptor),
    ("P19", programs::compound),
    ("P20", programs::replaced),
    ("P21", programs::unlinked),
    ("P23", processes::own_settings),
    ("P24", processes::nested),
    ("P25", processes::other_sandbox),
    ("U1", sockets::container_engines),
    ("U2", sockets::secret_service),
    ("U3", sockets::virtual_files),
    ("U4", sockets::service_manager),
    ("U5", sockets::abstract_names),
    ("U6", sockets::datagrams),
    ("U7", sockets::passed_descriptors),
    ("U8", sockets::agents_and_screens),
    ("U9", sockets::engine_request),
    ("U10", sockets::families),
    ("U11", sockets::control),
    ("S1", repositories::made_inside),
    ("N13", sockets::host_loopback),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["prepare", home, workspace] => prepare::all(home, workspace),
        ["host", home, workspace, sockets @ ..] => host::play(home, workspace, sockets),
        ["probe", name, rest @ ..] => return processes::probe(name, rest),
        ["try", facts, cases @ ..] => Facts::read(facts).map(|facts| {
            for name in cases {
                match CASES.iter().find(|(id, _)| id == name) {
                    Some((id, run)) => {
                        let mut tries = Tries::new(id);
                        run(&facts, &mut tries);
                        tries.print();
                    }
                    None => println!("{{\"case\": \"{name}\", \"error\": \"no such case\"}}"),
                }
            }
        }),
        _ => Err(std::io::Error::other(
            "usage: creel-escape prepare HOME WORKSPACE | host HOME WORKSPACE SOCKET… | try FACTS CASE…",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("creel-escape: {error}");
            ExitCode::FAILURE
        }
    }
}
