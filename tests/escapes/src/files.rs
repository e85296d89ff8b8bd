//! Reading and planting files, and the cases about which file a grant means.
//!
//! `read_secret` and `plant` are what most cases end in: one file that nobody inside may read, and files that nobody
//! inside may make.

use std::fs;
use std::io::Error;
use std::os::unix::fs::MetadataExt;

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::sys::{self, MARK};

/// Reads a file and looks for the host's secret in it.
pub(crate) fn read_secret(path: &str, secret: &str) -> Tried {
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    if !secret.is_empty() && text.contains(secret) {
        Ok(format!("read {path}"))
    } else {
        held(format!("{path} holds something else"))
    }
}

/// Makes (or overwrites) a file with the mark, executable, and looks whether it is there.
pub(crate) fn plant(path: &str) -> Tried {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    let file = sys::open(path, flags, 0o755)?;
    sys::write_once(&file, MARK.as_bytes())?;
    planted(path)
}

/// Plants a file and looks whether it lies on the host's disk and not in a private folder of the cage.
pub(crate) fn on_the_host(facts: &Facts, path: &str) -> Tried {
    let said = plant_deep(path)?;
    let device = fs::metadata(path)?.dev();
    if device == facts.number("home_device") { Ok(said) } else { held("written to a private folder") }
}

/// The same with the folders that lead there.
pub(crate) fn plant_deep(path: &str) -> Tried {
    if let Some((folder, _)) = path.rsplit_once('/') {
        fs::create_dir_all(folder)?;
    }
    plant(path)
}

/// Whether a file holds the mark.
pub(crate) fn planted(path: &str) -> Tried {
    if fs::read_to_string(path)?.contains(MARK) {
        Ok(format!("planted {path}"))
    } else {
        held(format!("{path} is as it was"))
    }
}

/// Makes an ordinary file that has to succeed.
pub(crate) fn ordinary(path: &str) -> Result<(), Stop> {
    fs::write(path, MARK).ready(path)?;
    let name = sys::path(path);
    // SAFETY: the name lives over the call.
    sys::done(unsafe { libc::chmod(name.as_ptr(), 0o755) }).ready(path)
}

/// Makes an ordinary folder with its parents, that has to succeed.
pub(crate) fn ordinary_folder(path: &str) -> Result<(), Stop> {
    fs::create_dir_all(path).ready(path)
}

pub(crate) fn prefix(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    let sibling = format!("{}foo/note", facts.text("workspace"));
    tries.attempt("a folder whose name begins as the workspace's", || read_secret(&sibling, &secret));
    tries.attempt("write there", || plant(&format!("{}foo/f15", facts.text("workspace"))));
    tries.attempt("a folder whose name begins as the secret one's", || {
        read_secret(&format!("{}/.sshfoo/note", facts.text("home")), &secret)
    });
}

/// Needs the profile with `inside/denied` denied below the workspace, `inside/denied/again` granted again.
pub(crate) fn denied_and_granted_again(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    tries.attempt("read what is denied below a grant", || read_secret(&facts.at("denied/note"), &secret));
    tries.attempt("write there", || on_the_host(facts, &facts.at("denied/f18")));
    tries.attempt("move it away and look", || {
        sys::rename(&facts.at("denied"), &facts.at("f18-moved"), 0)?;
        read_secret(&facts.at("f18-moved/note"), &secret)
    });
    tries.attempt("a denied file", || read_secret(&facts.at("denied.txt"), &secret));
    tries.attempt("through the folder's descriptor", || {
        let here = sys::folder(&facts.text("workspace")).ready("workspace")?;
        use std::os::fd::AsRawFd as _;
        let file = sys::open_at(here.as_raw_fd(), "denied/note", libc::O_RDONLY, 0)?;
        let bytes = sys::read_once(file.as_raw_fd())?;
        if String::from_utf8_lossy(&bytes).contains(&secret) {
            Ok("read it".to_owned())
        } else {
            held("something else")
        }
    });
}

/// Needs the profile with more than 300 denied files, one of them with a very long path.
pub(crate) fn long_and_many(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    for number in [0, 255, 256, 257, 299] {
        tries.attempt(&format!("denied file {number}"), || {
            read_secret(&facts.at(&format!("many/file-{number}.txt")), &secret)
        });
    }
    let long = facts.text("long_path");
    tries.attempt("denied file with a path of more than 255 bytes", || {
        if long.is_empty() {
            return Err(Stop::Untried("the host says no long path".to_owned()));
        }
        read_secret(&long, &secret)
    });
}

/// The error that the kernel left behind.
pub(crate) fn last() -> Stop {
    Stop::from(Error::last_os_error())
}
