//! Room for a text on the stack, so that peers which can write without allocating are measured so.

use std::{fmt, io};

/// Up to 64 bytes of text on the stack.
#[derive(Clone, Debug)]
pub struct StackText {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl StackText {
    const ROOM: usize = 64;

    /// Makes an empty text.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            len: 0,
        }
    }

    /// Returns the bytes written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for StackText {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for StackText {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::Write::write_all(self, text.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl io::Write for StackText {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(bytes.len())
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
