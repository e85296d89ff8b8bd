//! Calls that make and move names.
//!
//! The one fact a newcomer gets wrong: a directory that gets a new name brings all its names along. `mv x .github` is
//! asked about `.github/workflows`, and a folder that becomes a repository about its hooks and its configuration.

use std::os::fd::OwnedFd;

use creel_model::cage::{CageEventKind, SealKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::caller::Call;
use super::events::{event_of, words};
use super::judge::{Verdict, exists};
use super::path::{MOST_LINKS, Place, Step};
use super::{Broker, Done, Outcome, Why, join};
use crate::seal::name::{fits, fold};
use crate::seal::{Lead, SealSet, completes_repository};

/// Entries that are looked at when a directory gets another name.
const MOST_LOOKED_AT: usize = 20_000;

const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Broker {
    pub(super) fn make_folder(&mut self, call: &Call, base: i32, path: usize, mode: u32) -> Done {
        let path = call.path(path)?;
        let place = self.locate(call, base, &path)?;
        if place.name.is_empty() {
            return Err(Errno::EXIST);
        }
        let parent = self.real(&place.folder)?;
        let verdict = self.judge(&parent, &place.name);
        match &verdict {
            Verdict::Private | Verdict::Free | Verdict::Sealed(SealKind::Directory, _) => {}
            _ => {
                return Err(if self.is_there(&place) {
                    Errno::EXIST
                } else {
                    self.refuse_sealed(call, "mkdir", &join(&parent, &place.name), &verdict)
                });
            }
        }
        self.completing(call, &place, &parent)?;
        self.take_umask(call)?;
        rustix::fs::mkdirat(&place.folder, place.name.as_slice(), Mode::from_raw_mode(mode & 0o7777))?;
        if let Verdict::Sealed(_, rule) = &verdict {
            let mut event = event_of(CageEventKind::Sealed);
            event.pid = call.notification.thread;
            event.call = "mkdir".to_owned();
            event.object = words(&join(&parent, &place.name));
            event.rule.clone_from(rule);
            event.reason = "a sealed directory came to be; it stays empty".to_owned();
            self.events.push(event);
        }
        if self.learn {
            self.need("write", &join(&parent, &place.name));
        }
        Ok(Outcome::Value(0))
    }

    /// Files, pipes and sockets; no devices.
    pub(super) fn make_node(&mut self, call: &Call, base: i32, path: usize, mode: u32) -> Done {
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => FileType::RegularFile,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFDIR => return Err(Errno::PERM),
            libc::S_IFCHR | libc::S_IFBLK => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        };
        let place = self.new_name(call, "mknod", base, path)?;
        self.take_umask(call)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::mknodat(&place.folder, place.name.as_slice(), kind, mode, 0)?;
        Ok(Outcome::Value(0))
    }

    pub(super) fn make_symlink(&mut self, call: &Call, text: usize, base: i32, path: usize) -> Done {
        let text = call.path(text)?;
        if text.is_empty() {
            return Err(Errno::NOENT);
        }
        let place = self.new_name(call, "symlink", base, path)?;
        let parent = self.real(&place.folder)?;
        self.leads_nowhere(call, "symlink", &join(&parent, &place.name))?;
        rustix::fs::symlinkat(text.as_slice(), &place.folder, place.name.as_slice())?;
        Ok(Outcome::Value(0))
    }

    pub(super) fn make_link(&mut self, call: &Call, old: (i32, usize), new: (i32, usize), flags: u32) -> Done {
        const FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW.cast_unsigned();
        const EMPTY: u32 = libc::AT_EMPTY_PATH.cast_unsigned();
        if flags & !(FOLLOW | EMPTY) != 0 {
            return Err(Errno::INVAL);
        }
        let old_path = call.path(old.1)?;
        let object = if old_path.is_empty() && flags & EMPTY != 0 {
            self.descriptor(call, old.0, OFlags::PATH | OFlags::CLOEXEC)?
        } else {
            let place = self.locate(call, old.0, &old_path)?;
            self.hold(call, place, flags & FOLLOW != 0)?
        };
        let about = rustix::fs::fstat(&object)?;
        if about.st_nlink > 0 {
            let from = self.real(&object)?;
            let verdict = self.judge_path(&from);
            if verdict.rule().is_some() || self.linked.contains(&(about.st_dev, about.st_ino)) {
                return Err(self.refuse_sealed(call, "link", &from, &verdict));
            }
        }
        let place = self.new_name(call, "link", new.0, new.1)?;
        // Through the hold: the object that was judged gets the name.
        let number = DecInt::from_fd(&object);
        rustix::fs::linkat(&self.own, number, &place.folder, place.name.as_slice(), AtFlags::SYMLINK_FOLLOW)?;
        Ok(Outcome::Value(0))
    }

    /// The object at a place.
    pub(super) fn hold(&mut self, call: &Call, mut place: Place, follow: bool) -> Result<OwnedFd, Errno> {
        for links in 1..=MOST_LINKS {
            if place.name.is_empty() {
                return Ok(place.folder);
            }
            let object = rustix::fs::openat(&place.folder, place.name.as_slice(), HOLD, Mode::empty())?;
            let about = rustix::fs::fstat(&object)?;
            if FileType::from_raw_mode(about.st_mode) != FileType::Symlink || !(follow || place.slash) {
                return Ok(object);
            }
            match self.follow(call, place, &object, &about, links)? {
                Step::Place(next) => place = next,
                Step::Object(object) => return Ok(object),
            }
        }
        Err(Errno::LOOP)
    }

    /// The place of a name that is to be made, after asking the seals about it.
    pub(super) fn new_name(&mut self, call: &Call, what: &str, base: i32, path: usize) -> Result<Place, Errno> {
        let path = call.path(path)?;
        let place = self.locate(call, base, &path)?;
        if place.name.is_empty() {
            return Err(Errno::EXIST);
        }
        if place.slash {
            return Err(if self.is_there(&place) { Errno::EXIST } else { Errno::NOENT });
        }
        let parent = self.real(&place.folder)?;
        let verdict = self.judge(&parent, &place.name);
        if verdict.rule().is_some() {
            if self.is_there(&place) {
                return Err(Errno::EXIST);
            }
            return Err(self.refuse_sealed(call, what, &join(&parent, &place.name), &verdict));
        }
        self.completing(call, &place, &parent)?;
        if self.learn {
            self.need("write", &join(&parent, &place.name));
        }
        Ok(place)
    }

    /// Before a name is made: if it makes its folder a repository, the folder must be fit for one.
    fn completing(&mut self, call: &Call, place: &Place, parent: &[u8]) -> Result<(), Errno> {
        if completes_repository(&place.name) && !self.is_there(place) {
            self.complete(call, &place.folder, parent, &place.name)?;
        }
        Ok(())
    }

    fn is_there(&self, place: &Place) -> bool {
        rustix::fs::statat(&place.folder, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Refuses what could lead to a sealed name and is not a directory that can be looked into.
    fn leads_nowhere(&mut self, call: &Call, what: &str, path: &[u8]) -> Result<(), Errno> {
        let leads = self.leads(path);
        let Some(lead) = leads.first() else { return Ok(()) };
        let verdict = Verdict::Sealed(lead.kind, lead.rule.clone());
        Err(self.refuse_sealed(call, what, path, &verdict))
    }

    fn leads(&mut self, path: &[u8]) -> Vec<Lead> {
        let parent = crate::seal::above(path);
        let name = path.get(parent.len() + 1..).unwrap_or_default();
        // A name in a private place leads nowhere.
        if self.judge(parent, name) == Verdict::Private {
            return Vec::new();
        }
        self.seals.leads(self.root_path(path), path, &mut exists)
    }

    pub(super) fn rename(&mut self, call: &Call, old: (i32, usize), new: (i32, usize), flags: u32) -> Done {
        let flags = RenameFlags::from_bits_retain(flags);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if flags.intersects(!(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE))
            || flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE)
        {
            return Err(Errno::INVAL);
        }
        let (old_path, new_path) = (call.path(old.1)?, call.path(new.1)?);
        let from = self.locate(call, old.0, &old_path)?;
        let to = self.locate(call, new.0, &new_path)?;
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::BUSY);
        }
        let (from_parent, to_parent) = (self.real(&from.folder)?, self.real(&to.folder)?);
        let (from_real, to_real) = (join(&from_parent, &from.name), join(&to_parent, &to.name));
        let of_from = self.judge(&from_parent, &from.name);
        let of_to = self.judge(&to_parent, &to.name);
        if self.learn {
            self.need("write", &from_real);
            self.need("write", &to_real);
        }
        if flags.is_empty() && self.replaceable.contains(&to_real) {
            return self.replace_content(&from, &to);
        }
        if of_from == Verdict::Private && of_to == Verdict::Private {
            return rename_now(&from, &to, flags);
        }
        let object = rustix::fs::openat(&from.folder, from.name.as_slice(), HOLD, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&object)?.st_mode);
        if of_from.rule().is_some() {
            return Err(self.refuse_sealed(call, "rename", &from_real, &of_from));
        }
        match &of_to {
            Verdict::Private | Verdict::Free => {}
            Verdict::Sealed(SealKind::GitConfig, rule) if !exchange && kind == FileType::RegularFile => {
                let rule = rule.clone();
                return self.rename_config(call, (&from, &object), (&to, &to_real), flags, &rule);
            }
            Verdict::Sealed(SealKind::Directory, _) if !exchange && empty(&object) => {}
            _ => return Err(self.refuse_sealed(call, "rename", &to_real, &of_to)),
        }
        self.moves(call, &object, kind, &from_real, &to_real)?;
        self.completing(call, &to, &to_parent)?;
        if exchange {
            let other = rustix::fs::openat(&to.folder, to.name.as_slice(), HOLD, Mode::empty())?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&other)?.st_mode);
            self.moves(call, &other, kind, &to_real, &from_real)?;
        }
        rename_now(&from, &to, flags)
    }

    /// Asks about everything that an object brings along under its new name.
    fn moves(&mut self, call: &Call, object: &OwnedFd, kind: FileType, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        if kind == FileType::Symlink {
            return self.leads_nowhere(call, "rename", to);
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        let name = to.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if fold(name).as_ref() == b".git" {
            // What was a repository under its old name was watched as one.
            if !Self::is_repository(object, from)? {
                self.fit_for_repository(call, object, to)?;
            }
        } else {
            for lead in self.leads(to) {
                let mut budget = MOST_LOOKED_AT;
                if holds(object, &lead.rest, lead.kind, &mut budget)? {
                    let verdict = Verdict::Sealed(lead.kind, lead.rule);
                    return Err(self.refuse_sealed(call, "rename", to, &verdict));
                }
            }
        }
        if SealSet::unpacks(self.root_path(from), from, to) {
            let mut budget = MOST_LOOKED_AT;
            self.unpacked(call, object, to, &mut budget)?;
        }
        Ok(())
    }

    /// A directory leaves the folders of packages, in which the plan's seals do not count.
    fn unpacked(&mut self, call: &Call, folder: &OwnedFd, path: &[u8], budget: &mut usize) -> Result<(), Errno> {
        for (name, kind) in names(folder, budget)? {
            let inside = join(path, &name);
            let verdict = self.judge(path, &name);
            if verdict.rule().is_some() {
                return Err(self.refuse_sealed(call, "rename", &inside, &verdict));
            }
            if kind == FileType::Directory {
                let inner = rustix::fs::openat(folder, name.as_slice(), LIST, Mode::empty())?;
                self.unpacked(call, &inner, &inside, budget)?;
            }
        }
        Ok(())
    }

    /// Refuses because of what a repository would bring along.
    pub(super) fn refuse_repository(&mut self, call: &Call, path: &[u8], reason: &str) -> Errno {
        let rule = self.seals.git_rule().to_owned();
        let why = Why { rule: &rule, reason, fix: "let a person look at it and make this change outside of the cage" };
        self.refuse(call, "repository", path, &why, Errno::PERM)
    }
}

fn rename_now(from: &Place, to: &Place, flags: RenameFlags) -> Done {
    let named = |place: &Place| {
        let mut name = place.name.clone();
        if place.slash {
            name.push(b'/');
        }
        name
    };
    rustix::fs::renameat_with(&from.folder, named(from), &to.folder, named(to), flags)?;
    Ok(Outcome::Value(0))
}

/// The names in a directory, within what is left of `budget`; more are refused, because they cannot all be looked at.
pub(super) fn names(folder: &OwnedFd, budget: &mut usize) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let folder = rustix::fs::openat(folder, c".", LIST, Mode::empty())?;
    let mut buffer = Vec::with_capacity(32768);
    let mut entries = rustix::fs::RawDir::new(&folder, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        *budget = budget.checked_sub(1).ok_or(Errno::PERM)?;
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let about = rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            kind = FileType::from_raw_mode(about.st_mode);
        }
        names.push((name.to_vec(), kind));
    }
    Ok(names)
}

/// Whether an object is a directory with nothing in it.
fn empty(object: &OwnedFd) -> bool {
    let mut budget = 1;
    names(object, &mut budget).is_ok_and(|names| names.is_empty())
}

/// Whether `rest` lies below a directory and holds something that a seal would protect.
fn holds(folder: &OwnedFd, rest: &[Vec<u8>], kind: SealKind, budget: &mut usize) -> Result<bool, Errno> {
    let Some((wanted, deeper)) = rest.split_first() else { return Ok(false) };
    for (name, what) in names(folder, budget)? {
        if !fits(wanted, &fold(&name)) {
            continue;
        }
        let object = rustix::fs::openat(folder, name.as_slice(), HOLD, Mode::empty())?;
        let directory = what == FileType::Directory;
        let holds = if deeper.is_empty() {
            match kind {
                SealKind::Directory if directory => !empty(&object),
                // A directory under the name of a file is nothing that anybody reads.
                SealKind::File | SealKind::GitConfig if directory => false,
                SealKind::Directory => what == FileType::Symlink,
                SealKind::File | SealKind::GitConfig => true,
            }
        } else if directory {
            holds(&object, deeper, kind, budget)?
        } else {
            what == FileType::Symlink
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}
