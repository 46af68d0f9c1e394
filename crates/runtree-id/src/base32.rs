//! Crockford's base 32 as TypeID uses it: 128 bits in 26 lower-case characters.

/// The length of 128 bits in base 32.
pub(crate) const LENGTH: usize = 26;

/// The alphabet, in the order of its values, which is also the order of its bytes.
const ALPHABET: [u8; 32] = *b"0123456789abcdefghjkmnpqrstvwxyz";

/// Writes 128 bits as 26 characters; the first holds only three of them.
pub(crate) fn encode(value: u128) -> [u8; LENGTH] {
    let mut text = [0; LENGTH];
    let mut rest = value;
    for place in text.iter_mut().rev() {
        let [low, ..] = rest.to_le_bytes();
        *place = ALPHABET[usize::from(low & 31)];
        rest >>= 5;
    }
    text
}

/// Returns the value of a character; `None` for one that is not in the alphabet.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'h' => byte - b'a' + 10,
        b'j' | b'k' => byte - b'j' + 18,
        b'm' | b'n' => byte - b'm' + 20,
        b'p'..=b't' => byte - b'p' + 22,
        b'v'..=b'z' => byte - b'v' + 27,
        _ => return None,
    };
    Some(value)
}

/// Says why a text is not the base 32 of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base32Error {
    /// The byte at this place is not in the alphabet.
    Digit { at: usize },
    /// The value needs more than 128 bits.
    Overflow,
}

/// Reads at most 26 characters as a number.
pub(crate) fn decode(text: &[u8]) -> Result<u128, Base32Error> {
    let mut value: u128 = 0;
    for (at, byte) in text.iter().enumerate() {
        let digit = digit(*byte).ok_or(Base32Error::Digit { at })?;
        if value >> (128 - 5) != 0 {
            return Err(Base32Error::Overflow);
        }
        value = value << 5 | u128::from(digit);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_decodes_to_its_place_in_the_alphabet() {
        for (value, byte) in (0_u8..).zip(ALPHABET) {
            assert_eq!(digit(byte), Some(value));
        }
        let known = (0..=u8::MAX).filter(|byte| digit(*byte).is_some()).count();
        assert_eq!(known, ALPHABET.len());
    }

    #[test]
    fn the_largest_value_fits_and_the_next_does_not() {
        assert_eq!(&encode(u128::MAX), b"7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(decode(b"7zzzzzzzzzzzzzzzzzzzzzzzzz"), Ok(u128::MAX));
        assert_eq!(
            decode(b"80000000000000000000000000"),
            Err(Base32Error::Overflow)
        );
    }
}
