//! What a cage holds, tried from inside by an unprivileged account, with the real programs and the real agents.
//!
//! `bare` shows that each attempt can succeed at all; the others that none does in a cage: `battery` in one run with
//! the profile for any program, `places` in workspaces that were laid as traps, `profiles` with what a profile says.

mod bare;

/// The project that most tests work in.
const WORKSPACE: &str = "/home/dana/project";

/// Variables that carry secrets, or that make an ordinary program load or start something.
const VARIABLES: &[&str] = &[
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "LD_LIBRARY_PATH",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PERL5OPT",
    "RUBYOPT",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_COUNT",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_ASKPASS",
];
