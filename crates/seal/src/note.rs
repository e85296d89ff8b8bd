//! Checkpoints (C2SP tlog-checkpoint) and the signed notes (C2SP signed-note) that carry them.
//!
//! A note is text, an empty line, and signature lines. Verification asks for one valid signature of one known key and
//! looks at no other line; it never re-serialises what it verified. A name is not a trust statement: the key is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::{Hash, sha256};

/// Signature type Ed25519 of the signed-note specification.
const ED25519: u8 = 1;
/// Notes longer than this are refused, in bytes.
const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Notes with more signature lines than this are refused.
const SIGNATURES_MAX: usize = 16;

/// A device's signing key, with the name it signs under.
pub struct DeviceKey {
    name: String,
    signing: SigningKey,
    verifier: VerifierKey,
}

/// A device's public key with its name, written `name+id+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// Why a key or its name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A name is empty, or holds white space, control characters or `+`.
    Name,
    /// The text is not `name+id+base64`, or not an Ed25519 key.
    Format,
    /// The id is not the one of this name and key.
    Id,
}

/// Why a note was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// It is not a signed note.
    Malformed(&'static str),
    /// No line is a signature of the expected key.
    NotSigned,
    /// A line claims to be a signature of the expected key and is not.
    WrongSignature,
}

/// Why a note's text is not a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointError(
    /// What was expected and not found.
    pub &'static str,
);

/// The head of a tree: whose, how many leaves, which root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the device's name; equals the key's name.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root hash over these leaves.
    pub root: Hash,
}

impl DeviceKey {
    /// The key that belongs to 32 secret random bytes, which the caller draws and keeps.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let signing = SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, signing.verifying_key())?;
        Ok(Self { name: name.to_owned(), signing, verifier })
    }

    /// The name it signs under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The text as a signed note. The text must end with a newline and hold no other control characters, else
    /// [`NoteError::Malformed`].
    pub fn sign_note(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        let mut blob = self.verifier.id.to_vec();
        blob.extend_from_slice(&self.signing.sign(text.as_bytes()).to_bytes());
        Ok(format!("{text}\n— {} {}\n", self.name, BASE64.encode(blob)))
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKey({})", self.verifier)
    }
}

impl VerifierKey {
    fn new(name: &str, key: VerifyingKey) -> Result<Self, KeyError> {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(KeyError::Name);
        }
        let mut hashed = name.as_bytes().to_vec();
        hashed.extend_from_slice(&[b'\n', ED25519]);
        hashed.extend_from_slice(key.as_bytes());
        let [a, b, c, d, ..] = sha256(&hashed);
        Ok(Self { name: name.to_owned(), id: [a, b, c, d], key })
    }

    /// Reads `name+id+base64`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Format);
        };
        let bytes = BASE64.decode(key).map_err(|_| KeyError::Format)?;
        let Some((&ED25519, key)) = bytes.split_first() else { return Err(KeyError::Format) };
        let key: &[u8; 32] = key.try_into().map_err(|_| KeyError::Format)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| KeyError::Format)?;
        let verifier = Self::new(name, key)?;
        if verifier.id_text() != id {
            return Err(KeyError::Id);
        }
        Ok(verifier)
    }

    /// The name of its owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id as eight hexadecimal digits.
    #[must_use]
    pub fn id_text(&self) -> String {
        let [a, b, c, d] = self.id;
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }

    /// The text of a note, if this key signed it.
    pub fn open_note<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("too long"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
        let (text, signatures) = note.split_at_checked(at + 1).ok_or(NoteError::Malformed("no text"))?;
        check_text(text)?;
        let signatures =
            signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).filter(|lines| !lines.is_empty());
        let signatures = signatures.ok_or(NoteError::Malformed("no signature line"))?;
        let mut found = Err(NoteError::NotSigned);
        for (number, line) in signatures.split('\n').enumerate() {
            if number >= SIGNATURES_MAX {
                return Err(NoteError::Malformed("too many signatures"));
            }
            let (name, blob) = line
                .strip_prefix("— ")
                .and_then(|line| line.split_once(' '))
                .ok_or(NoteError::Malformed("a signature line does not read `— name base64`"))?;
            let blob = BASE64.decode(blob).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
            let Some((id, signature)) = blob.split_first_chunk::<4>() else {
                return Err(NoteError::Malformed("a signature is too short"));
            };
            if name != self.name || *id != self.id {
                continue;
            }
            let signature = Signature::from_slice(signature).map_err(|_| NoteError::WrongSignature)?;
            self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::WrongSignature)?;
            found = Ok(text);
        }
        found
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id_text(), BASE64.encode(key))
    }
}

impl Checkpoint {
    /// The note text: origin, size and root on a line each.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// The checkpoint as a note signed by `key`. Its origin must be fit for a line of text, else
    /// [`NoteError::Malformed`].
    pub fn sign(&self, key: &DeviceKey) -> Result<String, NoteError> {
        key.sign_note(&self.text())
    }

    /// Reads a note's text. Lines after the third are extensions and are ignored.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError("an origin"))?;
        let size = lines.next().ok_or(CheckpointError("a size"))?;
        if size.is_empty() || (size.len() > 1 && size.starts_with('0')) || !size.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CheckpointError("a size in decimal digits without leading zeros"));
        }
        let size = size.parse().map_err(|_| CheckpointError("a size below 2^64"))?;
        let root = lines.next().ok_or(CheckpointError("a root"))?;
        let root = BASE64.decode(root).map_err(|_| CheckpointError("a root in base64"))?;
        let root = root.try_into().map_err(|_| CheckpointError("a root of 32 bytes"))?;
        if lines.next().is_none() {
            return Err(CheckpointError("a newline at the end"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// The checkpoint in a note, if `key` signed it and it is of the key's own log.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let checkpoint =
            Self::parse(key.open_note(note)?).map_err(|CheckpointError(expected)| NoteError::Malformed(expected))?;
        if checkpoint.origin != key.name {
            return Err(NoteError::Malformed("an origin that is the key's name"));
        }
        Ok(checkpoint)
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("the text does not end with a newline"));
    }
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteError::Malformed("a control character"));
    }
    if text.len() > NOTE_BYTES_MAX {
        return Err(NoteError::Malformed("too long"));
    }
    Ok(())
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeyError::Name => "a key's name is not empty and holds neither white space, control characters nor `+`",
            KeyError::Format => "expected a public key as `name+id+base64`",
            KeyError::Id => "the key's id does not belong to its name and bytes",
        })
    }
}

impl std::error::Error for KeyError {}

impl std::fmt::Display for NoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoteError::Malformed(why) => write!(f, "not a signed note: {why}"),
            NoteError::NotSigned => f.write_str("not signed by the expected key"),
            NoteError::WrongSignature => f.write_str("the signature is wrong"),
        }
    }
}

impl std::error::Error for NoteError {}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a checkpoint: expected {}", self.0)
    }
}

impl std::error::Error for CheckpointError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DeviceKey {
        DeviceKey::from_seed("creel/test", &[9; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "creel/test".to_owned(), size: 12, root: sha256(b"root") }
    }

    #[test]
    fn the_published_example_verifies() {
        // From the Go package golang.org/x/mod/sumdb/note, which the specification follows.
        let key = VerifierKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(key.open_note(&note), Ok(text));
    }

    #[test]
    fn another_implementation_reads_our_notes_and_we_read_its_keys() {
        let key = key();
        let note = checkpoint().sign(&key).unwrap();
        let theirs = signed_note::StandardVerifier::new(&key.verifier().to_string()).unwrap();
        let parsed = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        let (verified, _) = parsed.verify(&signed_note::VerifierList::new(vec![Box::new(theirs)])).unwrap();
        assert_eq!(verified.len(), 1);
        let head = tlog_tiles::Checkpoint::from_bytes(parsed.text()).unwrap();
        assert_eq!((head.origin(), head.size(), head.hash().0), ("creel/test", 12, sha256(b"root")));
        assert_eq!(VerifierKey::parse(&key.verifier().to_string()).as_ref(), Ok(key.verifier()));
    }

    #[test]
    fn a_checkpoint_comes_back() {
        let key = key();
        let note = checkpoint().sign(&key).unwrap();
        assert_eq!(Checkpoint::open(&note, key.verifier()), Ok(checkpoint()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = key();
        let note = checkpoint().sign(&key).unwrap();
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(Checkpoint::open(&changed, key.verifier()).is_err(), "byte {at}");
        }
        for cut in 0..note.len() {
            if let Some(short) = note.get(..cut) {
                assert!(Checkpoint::open(short, key.verifier()).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn another_key_and_another_log_are_refused() {
        let key = key();
        let other = DeviceKey::from_seed("creel/test", &[8; 32]).unwrap();
        let note = checkpoint().sign(&other).unwrap();
        assert_eq!(Checkpoint::open(&note, key.verifier()), Err(NoteError::NotSigned));
        let foreign = Checkpoint { origin: "creel/other".to_owned(), ..checkpoint() };
        assert!(Checkpoint::open(&foreign.sign(&key).unwrap(), key.verifier()).is_err());
    }

    #[test]
    fn a_cosigned_note_still_opens() {
        let key = key();
        let witness = DeviceKey::from_seed("witness", &[1; 32]).unwrap();
        let mut note = checkpoint().sign(&key).unwrap();
        let line = witness.sign_note(&checkpoint().text()).unwrap();
        note.push_str(line.split_once("\n\n").unwrap().1);
        assert_eq!(Checkpoint::open(&note, key.verifier()), Ok(checkpoint()));
        assert_eq!(witness.verifier().open_note(&note), Ok(checkpoint().text().as_str()));
    }

    #[test]
    fn bad_names_keys_and_heads_are_refused() {
        for name in ["", "a b", "a+b", "a\nb"] {
            assert_eq!(DeviceKey::from_seed(name, &[1; 32]).err(), Some(KeyError::Name), "{name:?}");
        }
        for text in ["", "a", "a+b", "a+00000000+AQ==", "a+00000000+!!"] {
            assert_eq!(VerifierKey::parse(text), Err(KeyError::Format), "{text:?}");
        }
        let wrong_id = key().verifier().to_string().replace(&key().verifier().id_text(), "00000000");
        assert_eq!(VerifierKey::parse(&wrong_id), Err(KeyError::Id));
        for text in ["", "\n1\nAAAA\n", "o\n01\nAAAA\n", "o\n-1\nAAAA\n", "o\n1\nAAAA\n", "o\n1\n"] {
            assert!(Checkpoint::parse(text).is_err(), "{text:?}");
        }
        assert!(key().sign_note("no newline").is_err());
        assert!(key().sign_note("a\tb\n").is_err());
    }
}
