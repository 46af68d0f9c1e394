//! One macro for an enum of known words that also keeps the words it does not know.

/// Makes an enum over stored words and the newtype of its unknown ones.
///
/// The newtype's field is private and every way to build it refuses the known words, so a
/// known word has exactly one representation and equality means equality of the text.
macro_rules! open_set {
    (
        what = $what:literal;
        $(#[$words_meta:meta])*
        words = $words:ident;
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+
        }
        otherwise {
            $(#[$other_meta:meta])* $other:ident($other_type:ident),
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
            $(#[$other_meta])* $other($other_type),
        }

        $(#[$words_meta])*
        #[macro_export]
        macro_rules! $words {
            $( ($variant) => { $word }; )+
        }

        impl $name {
            /// Every value this version knows, in the order of listings.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),+];

            /// The words of [`KNOWN`](Self::KNOWN), in the same order.
            pub const KNOWN_WORDS: &'static [&'static str] = &[$($word),+];

            /// Returns the stored word. Usable in constants.
            #[must_use]
            pub const fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $word, )+
                    Self::$other(word) => word.as_str(),
                }
            }

            /// Returns the value of a word; an unknown word is kept as it is.
            #[must_use]
            pub fn from_word(word: $crate::Word) -> Self {
                match $other_type::new(word) {
                    Some(other) => Self::$other(other),
                    None => match word.as_str() {
                        $( $word => Self::$variant, )+
                        text => unreachable!("{text} is refused only because it is known"),
                    },
                }
            }

            /// Reads what is stored: the tolerant reader.
            ///
            /// A word this version does not know is kept byte for byte.
            ///
            /// # Errors
            ///
            /// [`WordError`](crate::WordError) when the text is no [`Word`](crate::Word) at all.
            pub fn from_stored(text: &str) -> Result<Self, $crate::WordError> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => $crate::Word::new(text).map(Self::from_word),
                }
            }

            /// Returns the value's word as a [`Word`](crate::Word).
            #[must_use]
            pub const fn to_word(self) -> $crate::Word {
                match self {
                    $( Self::$variant => const { $crate::Word::known($word) }, )+
                    Self::$other(word) => word.word(),
                }
            }

            /// Returns whether this version knows the word.
            #[must_use]
            pub const fn is_known(&self) -> bool {
                match self {
                    $( Self::$variant => true, )+
                    Self::$other(_) => false,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        /// Reads what a person typed: the strict reader.
        ///
        /// Only known words, exactly as they are written; the error lists them.
        impl std::str::FromStr for $name {
            type Err = $crate::NotOneOf;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::NotOneOf::new($what, text, Self::KNOWN_WORDS)),
                }
            }
        }

        /// Writes the word as text.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        /// Reads text with the tolerant reader.
        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::from_stored(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        #[doc = concat!("Holds a word that is none of the known values of [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $other_type($crate::Word);

        impl $other_type {
            /// Takes an unknown word; `None` when the word is a known one.
            #[must_use]
            pub fn new(word: $crate::Word) -> Option<Self> {
                match word.as_str() {
                    $( $word )|+ => None,
                    _ => Some(Self(word)),
                }
            }

            /// Returns the word.
            #[must_use]
            pub const fn word(self) -> $crate::Word {
                self.0
            }

            /// Returns the word as text.
            #[must_use]
            pub const fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl std::fmt::Display for $other_type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use open_set;
