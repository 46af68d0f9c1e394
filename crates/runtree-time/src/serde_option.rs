//! The `option` module that each form for `#[serde(with)]` has, written once.

/// Defines `pub mod option` on top of the `serialize` and `deserialize` beside it.
macro_rules! option_module {
    () => {
        /// The same form for `Option<Timestamp>`; `None` is the format's null.
        ///
        /// Add `#[serde(default)]` where the field may also be absent.
        pub mod option {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            use crate::timestamp::Timestamp;

            /// Writes the value, or null.
            ///
            /// # Errors
            ///
            /// Only those of the serializer.
            pub fn serialize<S: Serializer>(
                value: &Option<Timestamp>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                value.map(Form).serialize(serializer)
            }

            /// Reads the value, or null.
            ///
            /// # Errors
            ///
            /// As for a value that is not optional.
            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<Timestamp>, D::Error> {
                let value = Option::<Form>::deserialize(deserializer)?;
                Ok(value.map(|form| form.0))
            }

            /// A value whose form is that of the module above.
            struct Form(Timestamp);

            impl Serialize for Form {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    super::serialize(&self.0, serializer)
                }
            }

            impl<'de> Deserialize<'de> for Form {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    super::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

pub(crate) use option_module;
