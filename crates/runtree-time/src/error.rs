//! What can be wrong with a text, a number or a foreign value that should become an instant.

use std::{error::Error, fmt};

use time::PrimitiveDateTime;

/// Why a text is not a timestamp under the rules it was read with.
///
/// Holds no part of the input but an escaped preview of at most 32 bytes, so it
/// is safe to log whatever was sent.
///
/// # Examples
///
/// ```
/// use runtree_time::{ParseErrorKind, Timestamp};
///
/// let error = "2025-06-22T24:00:00Z".parse::<Timestamp>().unwrap_err();
/// assert_eq!(error.kind(), ParseErrorKind::EndOfDay);
/// assert_eq!(error.offset(), 11);
/// assert_eq!(
///     error.to_string(),
///     "hour 24 at byte 11 of \"2025-06-22T24:00:00Z\" (write 00:00:00 of the next day)",
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ParseError {
    fault: Fault,
    preview: Preview,
}

impl ParseError {
    /// Returns what is wrong.
    #[must_use]
    pub const fn kind(&self) -> ParseErrorKind {
        self.fault.kind
    }

    /// Returns the byte of the input at which it is wrong; the input's length where its end came too early.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.fault.offset
    }

    /// Returns the form that would do.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        self.fault.hint
    }

    /// Returns at most 32 bytes of the input around the offset, escaped to printable ASCII.
    #[must_use]
    pub fn preview(&self) -> &str {
        self.preview.as_str()
    }

    #[cold]
    pub(crate) fn new(fault: Fault, input: &str) -> Self {
        Self {
            fault,
            preview: Preview::of(input.as_bytes(), fault.offset),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, offset) = (self.fault.kind.phrase(), self.fault.offset);
        let (preview, hint) = (self.preview(), self.fault.hint);
        write!(f, "{what} at byte {offset} of \"{preview}\" ({hint})")
    }
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParseError")
            .field("kind", &self.kind())
            .field("offset", &self.offset())
            .field("preview", &self.preview())
            .field("hint", &self.hint())
            .finish()
    }
}

impl Error for ParseError {}

/// What is wrong with a text that should be a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The text has no bytes. Leave the value out, or give one.
    Empty,
    /// The text is longer than any timestamp. Look at where it comes from: it is something else.
    TooLong,
    /// The text has a byte that is not ASCII, be it a digit of another script. Fix the input.
    NonAscii,
    /// The text is a number, and nothing says of which unit or which epoch.
    /// Use the `Timestamp::from_unix_*` constructor of the unit the sender means.
    Number,
    /// The text has a byte that no form of a timestamp has there, or ends early. Fix the input.
    Syntax,
    /// The text is a form that only the interop profile reads.
    /// Fix the input, or ask for [`Profile::Interop`](crate::Profile::Interop) if its sender cannot be fixed.
    InteropForm,
    /// The text has no offset, so it names a different instant in every zone.
    /// Have the sender add one, or state a [`NaivePolicy`](crate::NaivePolicy) under the interop profile.
    Naive,
    /// The text names a month, a day, an hour, a minute or a second that does not exist. Fix the input.
    NoSuchField,
    /// The text says 24:00:00. Write 00:00:00 of the next day.
    EndOfDay,
    /// The text names second 60 where no leap second can be. Fix the input.
    LeapSecond,
    /// The offset is larger than 23:59, or its minutes larger than 59. Fix the input.
    NoSuchOffset,
    /// The instant, taken to UTC, is before year 1 or after year 9999.
    /// Treat it as the mistake it almost surely is; "no bound" is an absent value, not a far one.
    OutOfRange,
    /// The fraction is finer than a microsecond, and the rules refuse to floor it.
    /// Floor it yourself, or allow [`SubMicros::Floor`](crate::SubMicros::Floor).
    SubMicros,
    /// The text carries an annotation that must be honoured or refused (`[!...]`).
    /// Have the sender drop the `!`, or convert the value where the annotation is understood.
    CriticalAnnotation,
}

impl ParseErrorKind {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Empty => "empty text",
            Self::TooLong => "text too long for a timestamp",
            Self::NonAscii => "non-ASCII byte",
            Self::Number => "bare number",
            Self::Syntax => "malformed timestamp",
            Self::InteropForm => "form outside the strict profile",
            Self::Naive => "missing offset",
            Self::NoSuchField => "field out of its range",
            Self::EndOfDay => "hour 24",
            Self::LeapSecond => "leap second where none can be",
            Self::NoSuchOffset => "offset out of its range",
            Self::OutOfRange => "instant outside the years 1 to 9999 in UTC",
            Self::SubMicros => "fraction finer than a microsecond",
            Self::CriticalAnnotation => "critical annotation",
        }
    }
}

/// A [`ParseError`] before it knows its input: small enough to return by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: ParseErrorKind,
    pub(crate) offset: usize,
    pub(crate) hint: &'static str,
}

/// At most 32 bytes of printable ASCII that show where in an input a fault is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Preview {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Preview {
    const ROOM: usize = 32;
    const CUT: &'static [u8] = b"...";
    /// How much of the input before a late fault is shown.
    const LEAD: usize = 12;

    /// Shows the input from its start, or from shortly before the offset if that is far in.
    fn of(input: &[u8], offset: usize) -> Self {
        let mut preview = Self {
            bytes: [0; Self::ROOM],
            len: 0,
        };
        let skipped = if escaped_len(input) <= Self::ROOM || offset < Self::ROOM - 8 {
            0
        } else {
            preview.push(Self::CUT);
            offset.min(input.len()) - Self::LEAD
        };
        let rest = input.get(skipped..).unwrap_or_default();
        let fits = escaped_len(rest) <= Self::ROOM - preview.len;
        for &byte in rest {
            let (escaped, len) = escape(byte);
            let reserve = if fits { 0 } else { Self::CUT.len() };
            if preview.len + len + reserve > Self::ROOM {
                preview.push(Self::CUT);
                break;
            }
            preview.push(&escaped[..len]);
        }
        preview
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("because only ASCII was pushed")
    }
}

/// Returns a byte as printable ASCII, in at most four bytes.
fn escape(byte: u8) -> ([u8; 4], usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => ([b'\\', byte, 0, 0], 2),
        b' '..=b'~' => ([byte, 0, 0, 0], 1),
        _ => {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            ([b'\\', b'x', HEX[high], HEX[low]], 4)
        }
    }
}

fn escaped_len(input: &[u8]) -> usize {
    // Whatever is longer than the room counts as too long, however long it is.
    let visible = input.iter().take(Preview::ROOM + 1);
    visible.map(|&byte| escape(byte).1).sum()
}

/// Why a number or a foreign value is not an instant, or an instant not a foreign value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvertError {
    kind: ConvertErrorKind,
    value: Value,
}

/// The value that was refused, for the error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Unix { count: i128, unit: &'static str },
    Offset { count: i128, unit: &'static str },
    Naive(PrimitiveDateTime),
    Foreign { target: &'static str, micros: i64 },
}

impl ConvertError {
    /// Returns what is wrong.
    #[must_use]
    pub const fn kind(&self) -> ConvertErrorKind {
        self.kind
    }

    pub(crate) const fn out_of_range(count: i128, unit: &'static str) -> Self {
        Self {
            kind: ConvertErrorKind::OutOfRange,
            value: Value::Unix { count, unit },
        }
    }

    pub(crate) const fn sub_micros(nanos: i128) -> Self {
        Self {
            kind: ConvertErrorKind::SubMicros,
            value: Value::Unix {
                count: nanos,
                unit: "nanoseconds",
            },
        }
    }

    pub(crate) const fn offset_out_of_range(count: i128, unit: &'static str) -> Self {
        Self {
            kind: ConvertErrorKind::OutOfRange,
            value: Value::Offset { count, unit },
        }
    }

    pub(crate) const fn naive(kind: ConvertErrorKind, value: PrimitiveDateTime) -> Self {
        Self {
            kind,
            value: Value::Naive(value),
        }
    }

    pub(crate) const fn foreign(target: &'static str, micros: i64) -> Self {
        Self {
            kind: ConvertErrorKind::OutOfRange,
            value: Value::Foreign { target, micros },
        }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Unix { count, unit } => write!(f, "{count} {unit} since 1970 UTC")?,
            Value::Offset { count, unit } => {
                return write!(f, "{count} {unit} from UTC is no whole minute up to 23:59");
            }
            Value::Naive(value) => write!(f, "{value} without offset")?,
            Value::Foreign { target, micros } => {
                return write!(
                    f,
                    "{micros} microseconds since 1970 UTC is outside the range of {target}"
                );
            }
        }
        f.write_str(match self.kind {
            ConvertErrorKind::OutOfRange => " is outside the years 1 to 9999 in UTC",
            ConvertErrorKind::Naive => {
                " names no instant under the policy that rejects naive values"
            }
            ConvertErrorKind::SubMicros => " is finer than a microsecond",
        })
    }
}

impl Error for ConvertError {}

/// What is wrong with a value that should be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvertErrorKind {
    /// The target type cannot hold the value. Treat it as the mistake it almost
    /// surely is, or pick the nearer end of the range yourself.
    OutOfRange,
    /// The value has no offset and the policy is to reject such. Attach the
    /// offset where it is known, or state a [`NaivePolicy`](crate::NaivePolicy).
    Naive,
    /// The value is finer than a microsecond and the rules refuse to floor it.
    /// Floor it yourself, or allow [`SubMicros::Floor`](crate::SubMicros::Floor).
    SubMicros,
}
