//! What each kind of asker may do.
//!
//! | Asker | user mode | system mode |
//! |---|---|---|
//! | below an agent | nothing | nothing |
//! | the daemon's own account | all, loosening with a confirmation code at a terminal | – |
//! | another account | nothing | its own records and questions, to look at |
//! | member of `creel-analyst` | – | everybody's records, to look at |
//! | member of `creel-approver` | – | sees questions of all accounts, answers those of *other* ones |
//! | root | all | all |
//!
//! In user mode a hostile process of the same account can imitate a person; `creel status` says so. The test is a
//! positive one all the same: a terminal, no agent above it, and a code that is shown on another screen.

use creel_guard::Approver;
use creel_model::Mode;
use creel_wire::control::RefusalCode;

use super::Refusal;
use crate::sockets::Peer;
use crate::world::World;

/// Who asks, and what the machine says about them.
pub struct Asker {
    /// The peer.
    pub peer: Peer,
    /// Account.
    pub uid: u32,
    /// Login name.
    pub name: String,
    /// Whether it has a controlling terminal.
    pub terminal: bool,
    mode: Mode,
    analyst: bool,
    approver: bool,
}

impl Asker {
    /// Looks at the peer.
    ///
    /// # Errors
    /// It is below an agent, ended already, or of a foreign account in user mode.
    pub(crate) fn of(peer: Peer, world: &World) -> Result<Self, Refusal> {
        match world.identity.agent_above(peer.pid) {
            Ok(None) => {}
            Ok(Some(kind)) => {
                return Err(Refusal::new(
                    RefusalCode::BelowAgent,
                    format!("this command runs below {kind}, and an agent has no say here"),
                    "open a terminal of your own and try again there",
                ));
            }
            Err(error) => {
                return Err(Refusal::new(
                    RefusalCode::Forbidden,
                    format!("it cannot be told who is asking: {error}"),
                    "try again",
                ));
            }
        }
        // A cage whose program is none of the catalog's has no agent in its tree, and no say either.
        if world.cages.around(peer.pid).is_some() {
            let message = "this command runs in a cage, and a cage has no say here";
            return Err(Refusal::new(
                RefusalCode::BelowAgent,
                message,
                "open a terminal of your own and try again there",
            ));
        }
        if peer.is_still_there() == Some(false) {
            return Err(Refusal::new(RefusalCode::Forbidden, "the process that asks has ended", ""));
        }
        let mode = world.mode();
        let own = rustix::process::geteuid().as_raw();
        if mode == Mode::User && peer.uid != own && peer.uid != 0 {
            return Err(Refusal::new(
                RefusalCode::Forbidden,
                "this creel serves another account",
                "start your own with `creel up`, or install the system service",
            ));
        }
        let name = world.account_name(peer.uid);
        let analyst = world.is_member(&name, "creel-analyst");
        let approver = world.is_member(&name, "creel-approver");
        let terminal = world.identity.has_terminal(peer.pid);
        Ok(Self { uid: peer.uid, name, terminal, mode, analyst, approver, peer })
    }

    /// Whether it may see records and questions of that account.
    #[must_use]
    pub fn may_see(&self, owner: u32) -> bool {
        self.uid == 0 || self.uid == owner || self.analyst || self.mode == Mode::User
    }

    /// Whether it may see questions of that account: who is to answer them must know what they are.
    #[must_use]
    pub fn may_see_question(&self, owner: u32) -> bool {
        self.may_see(owner) || self.approver
    }

    /// The account whose records it may see, or all.
    #[must_use]
    pub fn sees_only(&self) -> Option<u32> {
        if self.uid == 0 || self.analyst || self.mode == Mode::User { None } else { Some(self.uid) }
    }

    /// Whether it may change creel itself.
    pub(crate) fn may_administer(&self, what: &str) -> Result<(), Refusal> {
        if self.mode == Mode::User || self.uid == 0 {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::Forbidden,
            format!("only root may {what} in system mode"),
            "run the command with sudo",
        ))
    }

    /// Whether loosening needs a confirmation code, and it may be given at all.
    pub(crate) fn needs_code(&self) -> Result<bool, Refusal> {
        if self.mode == Mode::System {
            return Ok(false);
        }
        if !self.terminal {
            return Err(Refusal::new(
                RefusalCode::Forbidden,
                "this needs a person at a terminal",
                "run the command in a terminal, not from a script",
            ));
        }
        Ok(true)
    }

    /// Whether it may answer a question of that account, and as whom.
    pub(crate) fn may_answer(&self, owner: u32) -> Result<Approver, Refusal> {
        let (verified, means) = match self.mode {
            Mode::User => (false, "terminal-and-code"),
            Mode::System if self.uid == 0 => (true, "root"),
            Mode::System if self.approver && self.uid != owner => (true, "creel-approver"),
            Mode::System => {
                return Err(Refusal::new(
                    RefusalCode::Forbidden,
                    "the account that the agent runs as cannot approve for it",
                    "ask a member of creel-approver, or use sudo",
                ));
            }
        };
        Ok(self.as_approver(means, verified))
    }

    /// This asker as the record names it.
    #[must_use]
    pub fn as_approver(&self, means: &str, verified: bool) -> Approver {
        Approver { uid: self.uid, name: self.name.clone(), means: means.to_owned(), verified }
    }

    /// This asker as somebody who administers.
    #[must_use]
    pub fn as_administrator(&self) -> Approver {
        match self.mode {
            Mode::System => self.as_approver("root", true),
            Mode::User => self.as_approver("terminal-and-code", false),
        }
    }
}
