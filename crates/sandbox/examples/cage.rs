//! Runs a command in a cage by the plan in a file: `cage PLAN.json COMMAND…`; with `CAGE_SHOW` set it prints what was
//! found out about the cage first. The example of the library, and what its tests start.

use std::process::ExitCode;

use creel_sandbox::{End, Happening, Launch, LaunchError, Probes};

fn main() -> ExitCode {
    match run() {
        Ok(end) => end.repeat(),
        Err(error) => {
            say(&format!("cage: {error}"));
            ExitCode::from(125)
        }
    }
}

fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn run() -> Result<End, LaunchError> {
    let mut arguments = std::env::args_os().skip(1);
    let plan = arguments.next().ok_or_else(|| LaunchError::Form("usage: cage PLAN.json COMMAND…".to_owned()))?;
    let plan = serde_json::from_slice(&std::fs::read(plan)?).map_err(std::io::Error::from)?;
    let show = std::env::var_os("CAGE_SHOW").is_some();
    let launch = Launch {
        plan,
        command: arguments.collect(),
        folder: std::env::current_dir()?.into_os_string(),
        environment: std::env::vars_os().collect(),
        home: std::env::var("HOME").unwrap_or_default(),
        hook: None,
        layer: None,
        probes: if show { Probes::All } else { Probes::Cheap },
    };
    let prepared = launch.prepare()?;
    if show {
        for control in prepared.controls() {
            say(&format!("{:10} {:22} {}", control.standing.as_str(), control.id, control.evidence));
        }
    }
    let mut cage = prepared.go()?;
    loop {
        for happening in cage.turn(&[], None)? {
            match happening {
                Happening::Ended(end) => return Ok(end),
                Happening::TimeOver => cage.stop(),
                Happening::Event(event) if show => say(&format!("{event:?}")),
                _ => {}
            }
        }
    }
}
