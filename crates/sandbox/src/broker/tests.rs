//! Real commands behind the real filter, served by a real broker, in a folder that stands for the workspace.
//!
//! Each script runs in a process of its own (this test program again, with one test), because a broker changes its mask
//! and its folder; if the tests run as root, that process is an unprivileged account. In it what the walk finds is bound
//! read-only in a mount namespace, as in a cage.

mod git;
mod inside;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::{env, fs};

use creel_model::cage::{CageEvent, Seal};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};

use super::*;
use crate::filter::FilterSpec;
use crate::seal::Root;

/// What a script did.
struct Ran {
    output: Output,
    events: Vec<CageEvent>,
    folder: tempfile::TempDir,
}

impl Ran {
    fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.output.stdout), String::from_utf8_lossy(&self.output.stderr))
    }

    /// The script ended well.
    #[track_caller]
    fn well(&self) -> &Self {
        assert!(self.output.status.success(), "{}\n{:#?}", self.text(), self.refused());
        self
    }

    fn refused(&self) -> Vec<String> {
        let refused = self.events.iter().filter(|event| event.kind == CageEventKind::Refused);
        refused.map(|event| format!("{} {}", event.call, event.object)).collect()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join("w").join(path)).unwrap()
    }
}

/// Runs `outside` bare, then `inside` in the cage; both in `w`, beside which `p` is private to the cage.
fn run(outside: &str, inside: &str) -> Ran {
    run_with(outside, inside, false)
}

fn run_with(outside: &str, inside: &str, learn: bool) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    fs::set_permissions(top, fs::Permissions::from_mode(0o777)).unwrap();
    let program = top.join("test-program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let mut arguments = vec![];
    if rustix::process::geteuid().is_root() {
        arguments.extend(["setpriv", "--reuid", "61000", "--regid", "61000", "--clear-groups"]);
    }
    arguments.extend(["unshare", "--user", "--mount", "--map-current-user", "--keep-caps"]);
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]).arg(&program);
    let output = command
        .args(["--exact", "broker::tests::driver", "--ignored", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        .env("CREEL_TEST_OUTSIDE", outside)
        .env("CREEL_TEST_INSIDE", inside)
        .env("CREEL_TEST_FOLDER", top)
        .env("CREEL_TEST_LEARN", if learn { "1" } else { "" })
        .output()
        .unwrap();
    let events = fs::read_to_string(top.join("events")).unwrap_or_default();
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let status = fs::read_to_string(top.join("status"));
    assert!(status.is_ok(), "the driver did not come to its end: {output:?}");
    let mut output = output;
    output.status = std::os::unix::process::ExitStatusExt::from_raw(status.unwrap().parse().unwrap());
    Ran { output, events, folder }
}

fn seals() -> Vec<Seal> {
    let seal = |components: &[&str], kind| Seal {
        components: components.iter().map(|component| (*component).to_owned()).collect(),
        kind,
        rule: "write-exec-bearing".to_owned(),
        below: None,
    };
    vec![
        seal(&[".git", "hooks"], SealKind::Directory),
        seal(&[".git", "config"], SealKind::GitConfig),
        seal(&[".husky"], SealKind::Directory),
        seal(&[".vscode"], SealKind::Directory),
        seal(&[".claude"], SealKind::Directory),
        seal(&[".codex"], SealKind::Directory),
        seal(&[".github", "workflows"], SealKind::Directory),
        seal(&[".github", "hooks"], SealKind::Directory),
        seal(&[".envrc"], SealKind::File),
        seal(&[".mcp.json"], SealKind::File),
    ]
}

#[test]
#[ignore = "the other tests run it in a process of its own"]
fn driver() {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(top) = env::var_os("CREEL_TEST_FOLDER") else { return };
    let top = fs::canonicalize(top).unwrap();
    let workspace = top.join("w");
    for name in ["w", "p", "home", "empty"] {
        fs::create_dir_all(top.join(name)).unwrap();
    }
    let shell = |script: String| {
        let mut command = Command::new("bash");
        command.args(["-ec", &script]).current_dir(&workspace).env_clear();
        command.env("PATH", env::var_os("PATH").unwrap()).env("HOME", top.join("home")).env("P", top.join("p"));
        command.env("GIT_TEMPLATE_DIR", top.join("empty")).env("GIT_CONFIG_NOSYSTEM", "1").env("W", &workspace);
        command.env("SELF", top.join("test-program"));
        command.env("GIT_CONFIG_COUNT", "3").env("GIT_CONFIG_KEY_0", "protocol.file.allow");
        command.env("GIT_CONFIG_VALUE_0", "always").env("GIT_CONFIG_KEY_1", "init.defaultBranch");
        command.env("GIT_CONFIG_VALUE_1", "main").env("GIT_CONFIG_KEY_2", "user.email");
        command.env("GIT_CONFIG_VALUE_2", "a@b").env("GIT_AUTHOR_NAME", "a").env("GIT_COMMITTER_NAME", "a");
        command.env("GIT_EDITOR", "true");
        command
    };
    assert!(shell(env::var("CREEL_TEST_OUTSIDE").unwrap()).status().unwrap().success(), "the preparation failed");
    let mut seals = SealSet::new(&seals());
    let descriptor = fs::File::open(&workspace).unwrap();
    let scanned = seals.scan(&[Root { descriptor: descriptor.as_fd(), path: &workspace }]).unwrap();
    bind(&scanned);
    // Servers of the host, one of them granted.
    let foreign = std::os::unix::net::UnixListener::bind(workspace.join("foreign.sock")).unwrap();
    let granted = std::os::unix::net::UnixListener::bind(top.join("p/granted.sock")).unwrap();
    let learn = env::var("CREEL_TEST_LEARN").unwrap() == "1";
    let (events, from_broker) = pair();
    let (to, from_child) = pair();
    let mut command = shell(env::var("CREEL_TEST_INSIDE").unwrap());
    let running = std::thread::spawn(move || {
        let mut child = seccomp::spawn(&mut command, FilterSpec { learn }, to)?;
        child.wait()
    });
    let setup = BrokerSetup {
        seals,
        scanned,
        roots: vec![workspace.clone()],
        replaceable: vec![workspace.join("replaceable")],
        sockets: vec![top.join("p/granted.sock")],
        events: from_broker,
        learn,
    };
    let mut broker = Broker::new(setup).unwrap();
    broker.add_listener(receive(&from_child)).unwrap();
    let mut lines = String::new();
    loop {
        serve(&mut broker);
        while let Some(line) = event(&events) {
            lines.push_str(&line);
            lines.push('\n');
        }
        if running.is_finished() {
            break;
        }
    }
    let status = running.join().unwrap().unwrap();
    drop((foreign, granted));
    fs::write(top.join("events"), lines).unwrap();
    fs::write(top.join("status"), status.into_raw().to_string()).unwrap();
}

/// One round of the loop that a cage's broker process has.
fn serve(broker: &mut Broker) {
    let ready: Vec<(usize, PollFlags)> = {
        let descriptors: Vec<_> = broker.descriptors().collect();
        let mut polled: Vec<_> = descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
        let wait = broker.timeout().unwrap_or(Duration::from_millis(20)).min(Duration::from_millis(20));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos().try_into().unwrap() };
        poll(&mut polled, Some(&wait)).unwrap();
        polled.iter().map(|one| one.revents()).enumerate().filter(|(_, seen)| !seen.is_empty()).collect()
    };
    for (at, seen) in ready.into_iter().rev() {
        broker.serve(at, seen).unwrap();
    }
    broker.tick().unwrap();
}

fn pair() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn event(events: &OwnedFd) -> Option<String> {
    let mut buffer = vec![0; 65536];
    let (length, _) = rustix::net::recv(events, &mut buffer, RecvFlags::DONTWAIT).ok()?;
    buffer.truncate(length);
    Some(String::from_utf8(buffer).unwrap())
}

fn receive(from: &OwnedFd) -> OwnedFd {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, flags).unwrap();
    let received = message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.unwrap()
}

/// Binds what was found read-only onto itself, in the mount namespace that [`run_with`] made.
fn bind(scanned: &Scanned) {
    for found in &scanned.found {
        rustix::mount::mount_bind_recursive(&found.path, &found.path).unwrap();
        let flags = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
        let kept = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        if rustix::mount::mount_remount(&found.path, flags, c"").is_err() {
            rustix::mount::mount_remount(&found.path, flags | kept, c"").unwrap();
        }
    }
}

const REPOSITORY: &str = "git init -q .; echo a > a; git add a; git commit -qm a; mkdir -p .git/hooks;";

#[test]
fn ordinary_files_are_made_as_without_a_broker() {
    run(
        "",
        "umask 027; mkdir -p a/b/c; echo one > a/b/c/f; echo two >> a/b/c/f; [ \"$(cat a/b/c/f)\" = $'one\\ntwo' ]
        [ \"$(stat -c %a a/b/c/f)\" = 640 ]; [ \"$(stat -c %a a)\" = 750 ]
        umask 077; echo x > g; [ \"$(stat -c %a g)\" = 600 ]; ( umask 0; echo x > h ); [ \"$(stat -c %a h)\" = 666 ]
        ln -s a/b link; echo three > link/c/g; [ \"$(cat a/b/c/g)\" = three ]
        ln -s \"$PWD/a/b/c/new\" dangling; echo four > dangling; [ \"$(cat a/b/c/new)\" = four ]
        ln a/b/c/f hard; [ \"$(stat -c %h hard)\" = 2 ]; mv a/b moved; [ -f moved/c/f ]; rm -r moved
        set -C; if echo x > g; then exit 1; fi; set +C
        ln -s loop loop; if echo x > loop; then exit 1; fi
        if echo x > missing/y; then exit 1; fi; if mkdir g/x; then exit 1; fi; if mkdir a; then exit 1; fi
        truncate -s 3 g; [ \"$(stat -c %s g)\" = 3 ]; cp g g2; mv g2 g3; cp -a a a2; touch g4; mkfifo pipe
        cd a; echo up > ../up; [ \"$(cat ../up)\" = up ]; cd ..; tar cf x.tar a; mkdir t; tar xf x.tar -C t
        sed -i s/up/down/ up; [ \"$(cat up)\" = down ]
        mkdir gone; cd gone; rmdir ../gone; if (echo x > lost) 2> \"$P/noise\"; then exit 1; fi; [ ! -e /lost ]
        mkdir \"$W/gone (deleted)\"; if (echo x > /proc/self/cwd/lost) 2> \"$P/noise\"; then exit 1; fi",
    )
    .well();
}

#[test]
fn special_paths_are_the_callers() {
    run(
        "",
        "[ \"$(echo out > /dev/stdout)\" = out ]; [ \"$( (echo err > /dev/stderr) 2>&1)\" = err ]; echo null > /dev/null; exec 5> five; echo x > /dev/fd/5
        [ \"$(cat five)\" = x ]; echo y > /proc/self/fd/5; [ \"$(cat five)\" = y ]
        echo abc > /proc/self/comm; echo 500 > /proc/self/oom_score_adj
        cat <(echo subst) > got; [ \"$(cat got)\" = subst ]; echo piped | tee >(cat > teed) > /dev/null
        if echo x > /proc/1/comm; then exit 1; fi; if echo x > /proc/$PPID/oom_score_adj; then exit 1; fi
        if echo x > /proc/sys/kernel/core_pattern; then exit 1; fi
        if (echo x > /dev/tty) 2>/dev/null; then exit 1; fi
        mkdir d; cd d; echo here > /proc/self/cwd/here; [ \"$(cat here)\" = here ]
        echo two > /proc/thread-self/root$PWD/two; [ \"$(cat two)\" = two ]",
    )
    .well();
}

#[test]
fn pipes_wait_for_each_other_and_a_killed_caller_holds_nobody_up() {
    run(
        "",
        "mkfifo p q; (sleep 0.05; cat p > got) & echo through > p; wait; [ \"$(cat got)\" = through ]
        (echo late > q) & killed=$!; sleep 0.05; kill -9 $killed; wait $killed || true
        echo on > after; [ \"$(cat after)\" = on ]",
    )
    .well();
}

#[test]
fn sealed_names_are_refused_however_they_are_written() {
    let ran = run(
        &format!("{REPOSITORY} mkdir -p .vscode src real; echo '{{}}' > .mcp.json; ln .mcp.json other; echo x > plain"),
        "no() { if \"$@\" 2>/dev/null; then echo \"went through: $*\"; exit 1; fi; }
        put() { echo evil > \"$1\"; }
        no put .git/hooks/pre-commit; no put .vscode/tasks.json; no put .mcp.json; no put .envrc; no put src/.envrc
        no put other; no put .GIT/hooks/x; no put $'.en\\xe2\\x80\\x8bvrc'; no put .git/config; no put .git/config.worktree
        no put .git/info/attributes; no put \"/proc/self/cwd/.envrc\"; no put \"/proc/self/root$PWD/.envrc\"
        no mv plain .envrc; no ln plain .envrc; no ln -s plain .envrc; no mkfifo .envrc; no ln .mcp.json again
        no cp plain .git/hooks/x; no mv .git/hooks away; no rm -rf .git/hooks; no rm .mcp.json; no mv .mcp.json x
        mkdir -p .claude; no put .claude/settings.json; no put .claude/../.claude/x; rmdir .claude
        mkdir full; echo x > full/x; no mv full .claude; no ln -s full .claude; mkdir hollow; mv hollow .codex
        no put .codex/config.toml; mkdir -p gh/workflows; echo x > gh/workflows/ci.yml; no mv gh .github
        no ln -s gh .github; mkdir .github; no mv gh/workflows .github/workflows; echo x > .github/FUNDING.yml
        mkdir .github/workflows; no put .github/workflows/ci.yml
        exec 7> open; mv open src/open; ln -s src/.envrc lead; no put lead
        mkdir -p node_modules/p/.vscode; echo x > node_modules/p/.vscode/settings.json
        no mv node_modules/p p; mv node_modules/p node_modules/q; no truncate -s 0 .mcp.json
        mkdir u; mv u/ v; mv .git g2; no put g2/hooks/x; mkdir .git; mkdir .git/hooks; no put .git/hooks/x",
    );
    ran.well();
    assert!(ran.refused().iter().any(|refused| refused.starts_with("open ") && refused.ends_with("/w/.envrc")));
    assert!(ran.events.iter().any(|event| event.kind == CageEventKind::Sealed && event.object.ends_with("/.claude")));
    let event = ran.events.iter().find(|event| event.kind == CageEventKind::Refused).unwrap();
    assert!(!event.rule.is_empty() && !event.reason.is_empty() && !event.fix.is_empty() && !event.program.is_empty());
    assert_eq!(ran.read(".mcp.json"), "{}\n");
}

#[test]
fn a_folder_becomes_a_repository_only_if_nothing_in_it_executes() {
    run(
        "",
        "no() { if \"$@\" 2>/dev/null; then echo \"went through: $*\"; exit 1; fi; }
        mkdir -p x/objects x/hooks; echo evil > x/hooks/pre-commit; no mkdir x/refs; no ln -s /tmp x/refs
        mkdir -p y/objects; printf '[core]\\n\\tfsmonitor = evil\\n' > y/config; no mkdir y/refs
        printf '[core]\\n\\tbare = true\\n' > y/config; exec 8>> y/config; ln y/config held; mkdir y/refs
        echo '[alias] x = !evil' >&8; echo '[alias] x = !evil' >> held
        [ \"$(cat y/config)\" = $'[core]\\n\\tbare = true' ]
        if (echo x > y/config) 2>/dev/null; then exit 1; fi; mkdir -p z/hooks; echo evil > z/hooks/post-checkout
        no mv z .git; no touch z/commondir; mkdir -p k/info; echo '* filter=x' > k/info/attributes; no mv k .git
        mkdir h; ln -s ../z/hooks h/hooks; no mv h .git; mkdir ok; mv ok .git; mkdir .git/hooks
        if (echo evil > .git/hooks/pre-commit) 2>/dev/null; then exit 1; fi
        mkdir inf; echo x > inf/attributes; no mv inf .git/info; mkdir -p r/refs; mkdir r2; echo x > r2/x; no mv z/hooks .git/hooks
        rm -rf .git; mkdir -p q/p/t/hooks q/bare/objects q/full/objects q/full/refs shut/hooks; echo evil > q/p/t/hooks/update
        printf '[core]\\n\\tfsmonitor = evil\\n' > q/bare/config; echo evil > shut/hooks/update
        (cd q/p; chmod 0 \"$W/q\"; no mv t \"$W/.git\"); chmod 755 q; (cd q/bare; chmod 0 \"$W/q\"; no mkdir refs); chmod 755 q
        (cd q/full; chmod 0 \"$W/q\"; no touch config; no mkdir hooks/x); chmod 755 q; chmod 0 shut; no mv shut .git
        chmod 755 shut; chmod 0 shut/hooks; no mv shut .git; chmod 755 shut/hooks; no mv shut .git",
    )
    .well();
}

#[test]
fn git_configurations_change_only_where_nothing_executes() {
    let ran = run(
        &format!(
            "{REPOSITORY} git config alias.mine '!true'; git config core.hooksPath tools/hooks
            git config include.path ../team; printf '[pull]\n\trebase = true\n[include]\n\tpath = more\n' > team; touch more"
        ),
        "no() { if \"$@\" 2>/dev/null; then echo \"went through: $*\"; exit 1; fi; }
        git config user.name B; git remote add origin https://example.org/x; git config branch.main.rebase true
        git remote rename origin other; git remote remove other; git config --unset branch.main.rebase
        no git config core.fsmonitor evil; no git config core.sshCommand evil; no git config alias.x '!evil'
        no git config diff.x.textconv evil; no git config --unset alias.mine; no git config core.hooksPath /tmp
        for file in team more; do if (echo '[alias]' >> $file) 2>/dev/null; then exit 1; fi; no mv a $file; no rm $file; done
        no git config include.path evil; no git remote add e 'ext::sh -c evil'
        mkdir -p tools/hooks; if (echo evil > tools/hooks/pre-commit) 2>/dev/null; then exit 1; fi
        git init -q sub; git -C sub config user.name C; no git -C sub config alias.x '!evil'
        printf '[alias]\\n\\tx = !evil\\n' > c; no mv c sub/.git/config; no cp c sub/.git/config; rm -rf sub
        (unset GIT_TEMPLATE_DIR; git init -q full; no mv full/.git/hooks/pre-commit.sample full/.git/hooks/pre-commit
        no cp full/.git/hooks/pre-commit.sample full/.git/hooks/pre-commit; rm -rf full); git init -q --bare b.git; no git -C b.git config core.pager evil; git -C b.git config gc.auto 0; rm -rf b.git
        [ -z \"$(git config --get core.fsmonitor)\" ]; [ \"$(git config user.name)\" = B ]",
    );
    ran.well();
    assert!(ran.read(".git/config").contains("mine = !true"), "{}", ran.read(".git/config"));
    let reasons: Vec<&str> = ran.events.iter().map(|event| event.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("core.fsmonitor")), "{reasons:?}");
}

#[test]
fn the_terminal_is_the_callers() {
    run(
        "",
        "script -qec 'echo through > /dev/tty; echo also > /dev/stdout' seen > \"$P/shown\"
        grep -q through seen; grep -q also seen; script -qec 'setsid -w sh -c \"echo x > /dev/tty\"' none > \"$P/shown\" || true
        ! grep -qx x none",
    )
    .well();
}

#[test]
fn a_granted_file_is_replaced_by_its_content() {
    let ran = run(
        "echo old > replaceable; stat -c %i replaceable > inode",
        "echo new > n; mv n replaceable; [ ! -e n ]; [ \"$(stat -c %i replaceable)\" = \"$(cat inode)\" ]",
    );
    ran.well();
    assert_eq!(ran.read("replaceable"), "new\n");
}

#[test]
fn learning_takes_down_what_was_needed_and_seals_hold() {
    let ran = run_with(
        "echo x > there",
        "cat there > made; if (echo x > .envrc) 2>/dev/null; then exit 1; fi; cat missing 2>/dev/null || true",
        true,
    );
    ran.well();
    let needed: Vec<String> = ran
        .events
        .iter()
        .filter(|event| event.kind == CageEventKind::Needed)
        .map(|event| format!("{} {}", event.call, event.object.rsplit('/').next().unwrap()))
        .collect();
    for expected in ["read there", "write made", "execute cat"] {
        assert!(needed.iter().any(|needed| needed == expected), "{expected}: {needed:?}");
    }
    assert!(!needed.iter().any(|needed| needed.ends_with("missing")), "{needed:?}");
}

#[test]
fn callers_that_are_killed_in_the_middle_of_calls_leave_the_broker_working() {
    run(
        "",
        "for number in {1..60}; do
            (while :; do echo x > k$number; mv k$number m$number; mkdir -p d/$number; done) & killed=$!
            echo own > own; kill -9 $killed; wait $killed || true
        done 2> \"$P/noise\"
        [ \"$(cat own)\" = own ]; (ulimit -n 3; echo x > none) 2> \"$P/noise\" || true; echo on > after",
    )
    .well();
}
