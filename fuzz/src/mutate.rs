//! Seeds to inputs that almost make sense. Knows bytes and words, nothing about what they mean.

/// Longest input made.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// A small deterministic generator (xorshift64*); not for secrets.
pub struct Random(u64);

impl Random {
    /// From a seed; 0 is replaced, because the generator would stay there.
    pub fn new(seed: u64) -> Self {
        Self(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::try_from(self.next() >> 16).unwrap_or(0) % bound }
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

/// Texts and bytes at which parsers stumble.
const AWKWARD: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xf0\x9f\x98\x80",
    "\u{202e}".as_bytes(),
    "\u{feff}".as_bytes(),
    b"\r\n",
    b"\\",
    b"\"",
    b"'",
    b"`",
    b"$(",
    b"${",
    b"$((",
    b")",
    b"}",
    b"]]",
    b"{{",
    b"<<EOF\n",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"NaN",
    b"../../..",
    b"//",
    b"~",
    b"\x1b[2J",
    b"\\u0000",
    b"\\ud800",
    b"[[[[[[[[",
    b"((((((((",
    b"\xe2\x80\x8b",
    b"%00",
    b"null",
];

/// One input from one or two seeds and a few changes.
pub fn mutate(seeds: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut input = random.of(seeds).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(&mut input, seeds, words, random);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let span = random.below(16).min(input.len() - at);
    match random.below(9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            input.drain(at..at + span);
        }
        2 => {
            let repeated: Vec<u8> = input.iter().skip(at).take(span).copied().collect();
            for _ in 0..random.below(64) {
                insert(input, at, &repeated);
            }
        }
        3 => {
            if let Some(awkward) = random.of(AWKWARD) {
                insert(input, at, awkward);
            }
        }
        4 => {
            if let Some(word) = random.of(words) {
                insert(input, at, word.as_bytes());
            }
        }
        5 => input.truncate(at),
        6 => {
            // The beginning of one seed, the end of another.
            if let Some(other) = random.of(seeds) {
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend(other.iter().skip(from));
            }
        }
        7 => {
            let moved: Vec<u8> = input.drain(at..at + span).collect();
            let to = random.below(input.len() + 1);
            insert(input, to, &moved);
        }
        _ => {
            let byte = u8::try_from(random.below(256)).unwrap_or(0);
            insert(input, at, &[byte]);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if input.len() + bytes.len() <= INPUT_BYTES_MAX {
        let at = at.min(input.len());
        input.splice(at..at, bytes.iter().copied());
    }
}
