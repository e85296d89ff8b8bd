//! Digests: plain for public artefacts, salted for erasable details, keyed for content.
//!
//! A plain digest of short content can be guessed by trying; that is why details are salted (the salt is erased with
//! them) and content is keyed (the key can be destroyed, and with it every link from digest to content).

use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};

use crate::Hash;

/// SHA-256 of bytes that are public anyway: executables, skills, bundles.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// HMAC-SHA-256 (RFC 2104), for any length of key.
#[must_use]
pub fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Hash {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length; the error type exists for other MACs")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

/// The digest that a sealed envelope holds of its erasable detail: `SHA-256(salt ‖ detail)`.
#[must_use]
pub fn detail_digest(salt: &[u8; 16], detail: &[u8]) -> Hash {
    let mut state = Sha256::new();
    state.update(salt);
    state.update(detail);
    state.finalize().into()
}

/// The key under which content is digested. Whoever destroys it makes all content digests meaningless at once.
pub struct ContentKey {
    bytes: [u8; 32],
}

impl ContentKey {
    /// From 32 random bytes, which the caller draws and keeps.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes }
    }

    /// The keyed digest of content.
    #[must_use]
    pub fn digest(&self, content: &[u8]) -> Hash {
        hmac_sha256(&self.bytes, content)
    }
}

impl Drop for ContentKey {
    fn drop(&mut self) {
        self.bytes.fill(0);
        std::hint::black_box(&self.bytes);
    }
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn known_answers() {
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // RFC 4231, test cases 2 and 6 (a key longer than a block).
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_detail_digest_is_the_digest_of_salt_and_detail() {
        let salt = [7; 16];
        let mut joined = salt.to_vec();
        joined.extend_from_slice(b"detail");
        assert_eq!(detail_digest(&salt, b"detail"), sha256(&joined));
        assert_ne!(detail_digest(&[8; 16], b"detail"), sha256(&joined));
    }

    #[test]
    fn a_content_key_is_hmac_and_is_never_printed() {
        let key = ContentKey::from_bytes([3; 32]);
        assert_eq!(key.digest(b"x"), hmac_sha256(&[3; 32], b"x"));
        assert_eq!(format!("{key:?}"), "ContentKey(hidden)");
    }
}
