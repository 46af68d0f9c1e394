//! Which machine this is, said so that two machines are not taken for one.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::text::{canonical, invalid, is_word, serde_as_text};

/// Longest host name that is kept, in bytes; Linux allows no longer one.
const NAME_MAX: usize = 64;

/// A machine, or a container on one, as its processes see it: its name and, where there is one, a digest of its machine id.
///
/// Its text is `name` or `name+digest`, as in `build-3+09c2d5fd1b1f0a4e`.
///
/// Two hosts that compare equal are one machine as far as can be known. That is not far in two cases, and
/// neither lets a live process be taken for dead unless machine id *and* name are shared as well:
///
/// - Containers usually have a name of their own and no machine id. Without a machine id a restart of the machine proves nothing about a process (see [`Liveness`](crate::Liveness)).
/// - Machines cloned from one image may share their machine id; give them names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    machine: Option<MachineDigest>,
}

impl Host {
    /// Answers the host that this process runs on: the node name of the kernel, and `/etc/machine-id`.
    pub fn current() -> Self {
        let name: String = crate::sys::node_name()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || ".-_".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .take(NAME_MAX)
            .collect();
        Self {
            name: if is_word(&name, NAME_MAX) {
                name
            } else {
                "unnamed".to_owned()
            },
            machine: crate::sys::machine_id()
                .as_deref()
                .and_then(MachineDigest::of),
        }
    }

    /// Answers the name people know the host by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether the host is known by more than its name.
    pub(crate) fn has_machine_id(&self) -> bool {
        self.machine.is_some()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.machine {
            Some(machine) => write!(f, "+{machine}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, machine) = match text.split_once('+') {
            Some((name, machine)) => (name, Some(canonical("a digest of a machine id", machine)?)),
            None => (text, None),
        };
        if !is_word(name, NAME_MAX) {
            return Err(invalid("a host", text));
        }
        Ok(Self {
            name: name.to_owned(),
            machine,
        })
    }
}

serde_as_text!(Host);

/// What is kept of a machine id, which itself should not leave its machine (see `machine-id(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct MachineDigest(u64);

impl MachineDigest {
    /// Digests a machine id of 128 bits in hexadecimal; anything else ("uninitialized", nothing) is no id.
    fn of(machine_id: &str) -> Option<Self> {
        let id = machine_id.trim();
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        // FNV-1a. Half of the id's bits are enough to tell machines apart and too few to get it back.
        let digest = id
            .bytes()
            .map(|byte| byte.to_ascii_lowercase())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Some(Self(digest))
    }
}

impl fmt::Display for MachineDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for MachineDigest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_machine_id_counts() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(MachineDigest::of(id), MachineDigest::of(&format!("{id}\n")));
        assert_ne!(
            MachineDigest::of(id),
            MachineDigest::of(&id.replace('3', "4"))
        );
        for nothing in [
            "",
            "uninitialized",
            "\n",
            &id[1..],
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert_eq!(MachineDigest::of(nothing), None, "{nothing:?}");
        }
    }
}
