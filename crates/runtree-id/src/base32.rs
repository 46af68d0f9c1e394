//! Crockford's base 32 as TypeID uses it: 128 bits in 26 lower-case characters.
//!
//! It works on all characters at once: between a number and the bytes of five bits each by shifts of
//! whole words, between these and the characters by arithmetic without branches, which the compiler
//! turns into vector instructions.

/// The length of 128 bits in base 32.
pub(crate) const LENGTH: usize = 26;

/// The characters that are worked on, of which only the last 26 count.
const ROOM: usize = 32;

/// The characters that are one word of eight bytes.
const WORD: usize = 8;

/// The bits that they hold.
const WORD_BITS: usize = 40;

/// Writes four characters and 128 bits as 26 more, of which the first holds only three; two
/// zeros fill the last word.
///
/// Whole words are written, because whoever reads a word that was written piece by piece
/// waits until all of it has left the processor's queue.
#[inline]
pub(crate) fn encode(head: [u8; HEAD], value: u128) -> [[u8; WORD]; WORDS] {
    let bits = |shift: usize| word(value >> shift);
    let first = write(bits(2 * WORD_BITS + LAST_BITS)) >> (8 * HEAD) << (8 * HEAD);
    let [a, b, c, d] = head;
    let first = first | u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0]);
    let second = write(bits(WORD_BITS + LAST_BITS));
    let third = write(bits(LAST_BITS));
    let last = write(word(value << (WORD_BITS - LAST_BITS)));
    [first, second, third, last].map(u64::to_le_bytes)
}

/// The characters before the digits, and the words that both fill.
const HEAD: usize = 4;
const WORDS: usize = (HEAD + LENGTH).div_ceil(WORD);

/// The bits that the last word holds.
const LAST_BITS: usize = (HEAD + LENGTH) % WORD * 5;

/// The two characters of each value below 1024.
static PAIRS: [[u8; 2]; 1024] = {
    let mut pairs = [[0; 2]; 1024];
    let (mut high, mut index) = (0, 0);
    while high < 32 {
        let mut low = 0;
        while low < 32 {
            pairs[index] = [character(high), character(low)];
            (low, index) = (low + 1, index + 1);
        }
        high += 1;
    }
    pairs
};

/// Returns the lowest word of a number.
#[inline]
fn word(value: u128) -> u64 {
    const MASK: u128 = (1 << WORD_BITS) - 1;
    u64::try_from(value & MASK).expect("because a word has fewer bits")
}

/// Writes a word's bits as eight characters, the first in the lowest byte.
#[inline]
fn write(word: u64) -> u64 {
    let pair = |index: u32| {
        let [low, high, ..] = (word >> (30 - 10 * index)).to_le_bytes();
        let pair = PAIRS[usize::from(u16::from_le_bytes([low, high]) & 0x3ff)];
        u64::from(u16::from_le_bytes(pair)) << (16 * index)
    };
    pair(0) | pair(1) | pair(2) | pair(3)
}

/// Reads 26 characters as a number.
#[inline]
pub(crate) fn decode(text: &[u8; LENGTH]) -> Result<u128, Base32Error> {
    let mut bytes = [character(0); ROOM];
    bytes[ROOM - LENGTH..].copy_from_slice(text);
    let mut wrong = 0;
    for byte in &mut bytes {
        let value = value(*byte);
        wrong |= character(value) ^ *byte;
        *byte = value;
    }
    // The first character has two bits more than fit.
    if wrong != 0 || bytes[ROOM - LENGTH] > 7 {
        return Err(refusal(text));
    }
    let (words, _) = bytes.as_chunks::<WORD>();
    let mut number = 0;
    for word in words {
        number = number << WORD_BITS | u128::from(gathered(u64::from_be_bytes(*word)));
    }
    Ok(number)
}

/// Reads at most 26 characters as a number.
pub(crate) fn decode_short(text: &[u8]) -> Result<u128, Base32Error> {
    let missing = LENGTH - text.len();
    let mut whole = [character(0); LENGTH];
    whole[missing..].copy_from_slice(text);
    decode(&whole).map_err(|error| match error {
        Base32Error::Digit { at } => Base32Error::Digit { at: at - missing },
        Base32Error::Overflow => Base32Error::Overflow,
    })
}

/// Says why a text is not the base 32 of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base32Error {
    /// The byte at this place is not in the alphabet.
    Digit { at: usize },
    /// The value needs more than 128 bits.
    Overflow,
}

/// Returns the value of a character; `None` for one that is not in the alphabet.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    let value = value(byte);
    (character(value) == byte).then_some(value)
}

/// Returns the character of a value below 32: digits, then letters without i, l, o and u.
#[inline]
const fn character(value: u8) -> u8 {
    const TO_LETTERS: u8 = b'a' - b'0' - 10;
    b'0' + value
        + (value > 9) as u8 * TO_LETTERS
        + (value > 17) as u8
        + (value > 19) as u8
        + (value > 21) as u8
        + (value > 26) as u8
}

/// Returns the value of a character; for one that is not in the alphabet, that of another.
#[inline]
const fn value(byte: u8) -> u8 {
    const TO_LETTERS: u8 = b'a' - b'0' - 10;
    let value = byte
        .wrapping_sub(b'0')
        .wrapping_sub((byte > b'9') as u8 * TO_LETTERS)
        .wrapping_sub((byte > b'i') as u8)
        .wrapping_sub((byte > b'l') as u8)
        .wrapping_sub((byte > b'o') as u8)
        .wrapping_sub((byte > b'u') as u8);
    value & 31
}

/// Gathers eight values of five bits in 40.
#[inline]
fn gathered(bytes: u64) -> u64 {
    let quarters = bytes & 0x1f_001f_001f_001f | (bytes & 0x1f00_1f00_1f00_1f00) >> 3;
    let halves = quarters & 0x3ff_0000_03ff | (quarters & 0x3ff_0000_03ff_0000) >> 6;
    halves & 0xf_ffff | (halves & 0xf_ffff_0000_0000) >> 12
}

/// Says what is wrong with a text that is known to be wrong.
#[cold]
fn refusal(text: &[u8; LENGTH]) -> Base32Error {
    match text.iter().position(|byte| digit(*byte).is_none()) {
        Some(at) => Base32Error::Digit { at },
        None => Base32Error::Overflow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: u128) -> [u8; LENGTH] {
        let words = encode(*b"run_", value);
        let (text, fill) = words.as_flattened().split_at(HEAD + LENGTH);
        assert_eq!((&text[..HEAD], fill), (&b"run_"[..], &b"00"[..]));
        *text.last_chunk().expect("there are as many")
    }

    /// The alphabet, in the order of its values, which is also the order of its bytes.
    const ALPHABET: [u8; 32] = *b"0123456789abcdefghjkmnpqrstvwxyz";

    #[test]
    fn every_character_decodes_to_its_place_in_the_alphabet() {
        for (value, byte) in (0_u8..).zip(ALPHABET) {
            assert_eq!(character(value), byte);
            assert_eq!(digit(byte), Some(value));
        }
        let known = (0..=u8::MAX).filter(|byte| digit(*byte).is_some()).count();
        assert_eq!(known, ALPHABET.len());
    }

    #[test]
    fn every_place_counts_alone_and_beside_all_others() {
        for bit in 0..u128::BITS {
            for value in [1 << bit, !(1 << bit), u128::MAX >> bit] {
                assert_eq!(decode(&encoded(value)), Ok(value));
            }
        }
        assert_eq!(decode_short(b""), Ok(0));
        assert_eq!(decode_short(b"10"), Ok(32));
    }

    #[test]
    fn the_first_wrong_character_is_named() {
        for at in 0..LENGTH {
            let mut text = encoded(u128::MAX);
            text[at..].fill(b'u');
            assert_eq!(decode(&text), Err(Base32Error::Digit { at }));
        }
        assert_eq!(decode_short(b"0l"), Err(Base32Error::Digit { at: 1 }));
    }

    #[test]
    fn the_largest_value_fits_and_the_next_does_not() {
        assert_eq!(&encoded(u128::MAX), b"7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(decode(b"7zzzzzzzzzzzzzzzzzzzzzzzzz"), Ok(u128::MAX));
        assert_eq!(
            decode(b"80000000000000000000000000"),
            Err(Base32Error::Overflow)
        );
    }
}
