//! Turns a token into whether its own check digits or structure hold. A token that fails is less certain, not clean:
//! the formats are described by their makers but not promised.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// What a format carries that can be checked offline.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Checksum {
    /// The last six characters are the CRC-32 of those between the last `_` and them, in base 62.
    Crc32Base62,
    /// The part before the first dot is base64url of a JSON object with `alg`.
    JwtHeader,
    /// Base64 of `user:password`, printable.
    BasicPair,
    /// The part before the first dot is base64 of a decimal number.
    Base64Number,
}

impl Checksum {
    pub(super) fn holds(self, token: &[u8]) -> bool {
        match self {
            Self::Crc32Base62 => crc32_base62(token).unwrap_or(false),
            Self::JwtHeader => decoded(part(token))
                .is_some_and(|header| header.starts_with(b"{") && super::value::contains(&header, b"\"alg\"")),
            Self::BasicPair => decoded(token).is_some_and(|pair| {
                pair.iter().all(|b| (0x20..0x7f).contains(b))
                    && pair.iter().position(|b| *b == b':').is_some_and(|at| pair.len() > at + 3)
            }),
            Self::Base64Number => {
                decoded(part(token)).is_some_and(|id| id.len() >= 15 && id.iter().all(u8::is_ascii_digit))
            }
        }
    }

    /// Whether a token that fails is no token at all.
    pub(super) fn decides(self) -> bool {
        matches!(self, Self::JwtHeader | Self::BasicPair)
    }
}

fn part(token: &[u8]) -> &[u8] {
    token.split(|b| *b == b'.').next().unwrap_or_default()
}

/// Base64 of either alphabet, padded or not, of at most 1 KiB.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    if text.len() > 1024 {
        return None;
    }
    let standard: Vec<u8> = text
        .iter()
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

fn crc32_base62(token: &[u8]) -> Option<bool> {
    let after = token.rsplit(|b| *b == b'_').next()?;
    let (body, check) = after.split_at_checked(after.len().checked_sub(6)?)?;
    let mut rest = crc32(body);
    let mut digits = [b'0'; 6];
    for slot in digits.iter_mut().rev() {
        let digit = u8::try_from(rest % 62).ok()?;
        *slot = match digit {
            0..=9 => b'0' + digit,
            10..=35 => b'A' + (digit - 10),
            _ => b'a' + (digit - 36),
        };
        rest /= 62;
    }
    Some(check == digits)
}

/// CRC-32 (IEEE 802.3), bit by bit: tokens are short.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_hold_and_others_do_not() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert!(Checksum::BasicPair.holds(b"YWRhOmxvdmVsYWNl"));
        assert!(!Checksum::BasicPair.holds(b"YnJvd3Nlcjo="));
        assert!(Checksum::JwtHeader.holds(b"eyJhbGciOiJIUzI1NiJ9.e30.x"));
        assert!(!Checksum::JwtHeader.holds(b"eyJhIjoxfQ.e30.x"));
        let body = b"Zt0LmX2vB9nR4kW8sYq7Ce5Hd3Jf1G";
        let mut rest = crc32(body);
        let mut check = Vec::new();
        for _ in 0..6 {
            check.push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize]);
            rest /= 62;
        }
        check.reverse();
        let token = [b"ghp_".as_slice(), body, &check].concat();
        assert!(Checksum::Crc32Base62.holds(&token));
        assert!(!Checksum::Crc32Base62.holds(b"ghp_Zt0LmX2vB9nR4kW8sYq7Ce5Hd3Jf1Gaaaaaa"));
    }
}
