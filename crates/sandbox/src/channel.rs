//! Messages and descriptors between the processes of one cage, over socket pairs that keep message borders.
//!
//! Both ends are the same program image, so the messages are plain JSON of private types. The one fact a newcomer gets
//! wrong: the broker's memory is reachable for nobody, but what it sends was caused by a hostile process, so lengths and
//! counts are bounded on both ends.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes.
pub(crate) const MAX_MESSAGE: usize = 128 * 1024;
/// Most descriptors in one message.
const MAX_DESCRIPTORS: usize = 8;

/// A connected pair; one end stays, the other goes to a child.
///
/// # Errors
/// The kernel's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// One received message.
#[derive(Debug)]
pub(crate) struct Received<T> {
    /// What it says.
    pub(crate) message: T,
    /// What came with it.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The sender in this process's own numbering, where the socket asks for it.
    pub(crate) sender: Option<i32>,
}

/// Sends one message.
///
/// # Errors
/// The kernel's; `WouldBlock` where the other end is slow and `flags` say not to wait; `InvalidInput` beyond the bounds.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = flags | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The next message, `None` at the end.
///
/// # Errors
/// The kernel's; `WouldBlock` where there is none and `flags` say not to wait; `InvalidData` for what is no message.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<Received<T>>> {
    SPACE.with_borrow_mut(|bytes| {
        if bytes.is_empty() {
            // Zeroed by the kernel as far as it is touched, which is not far.
            *bytes = vec![0; MAX_MESSAGE];
        }
        receive_into(socket.as_fd(), bytes, flags)
    })
}

thread_local! {
    /// Kept between messages: a new one for each would be as many mappings made and ended.
    static SPACE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn receive_into<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<Received<T>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let count = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut *bytes)], &mut ancillary, flags) {
            Ok(got) if got.flags.contains(rustix::net::ReturnFlags::TRUNC) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(got) => break got.bytes,
            Err(Errno::INTR) => {}
            // The other end went away with messages of ours unread.
            Err(Errno::CONNRESET) => break 0,
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut descriptors = Vec::new();
    let mut sender = None;
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => sender = Some(who.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    let Some(bytes) = bytes.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let message = serde_json::from_slice(bytes)?;
    Ok(Some(Received { message, descriptors, sender }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_brings_its_descriptors_and_the_end_is_seen() {
        let (here, there) = pair().unwrap();
        let (left, right) = pair().unwrap();
        send(&here, &"over", &[left.as_fd()], SendFlags::empty()).unwrap();
        let got = receive::<String>(&there, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!(got.message, "over");
        drop(left);
        send(got.descriptors.first().unwrap(), &1_u8, &[], SendFlags::empty()).unwrap();
        assert_eq!(receive::<u8>(&right, RecvFlags::empty()).unwrap().unwrap().message, 1);
        drop(here);
        assert!(receive::<String>(&there, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let (here, _there) = pair().unwrap();
        let error = send(&here, &"x".repeat(MAX_MESSAGE), &[], SendFlags::empty()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
