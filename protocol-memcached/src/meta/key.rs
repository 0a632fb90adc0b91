//! Keys: as they are on the line, and as they are stored.

use super::base64;

/// A key as the line has it (rule M3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    text: &'a [u8],
    is_binary: bool,
}

/// Room for a decoded key: three quarters of the longest encoded one (rule L1).
pub type KeyBuffer = [u8; 250];

impl<'a> Key<'a> {
    /// A key of this text; `is_binary` says that it is base64. `None` if it is not then.
    pub fn new(text: &'a [u8], is_binary: bool) -> Option<Key<'a>> {
        let decodes = !is_binary || base64::decode(text, &mut [0; 250]).is_some();
        decodes.then_some(Key { text, is_binary })
    }

    /// A key that is not encoded.
    #[inline]
    pub(super) fn of_text(text: &'a [u8]) -> Key<'a> {
        Key { text, is_binary: false }
    }

    /// The text on the line.
    pub fn text(self) -> &'a [u8] {
        self.text
    }

    /// Whether the text is base64.
    pub fn is_binary(self) -> bool {
        self.is_binary
    }

    /// The key as it is stored.
    ///
    /// ```
    /// use hotspare_memcached::meta::Key;
    /// let key = Key::new(b"Zm9v", true).unwrap();
    /// assert_eq!(key.bytes(&mut [0; 250]), b"foo");
    /// ```
    pub fn bytes<'b>(self, buffer: &'b mut KeyBuffer) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.is_binary {
            return self.text;
        }
        // It was decoded once, to make the key.
        let length = base64::decode(self.text, buffer).unwrap_or_default();
        &buffer[..length]
    }

    /// Appends the key as answers echo it: a binary one encoded anew (rule M3).
    pub fn encode(self, out: &mut Vec<u8>) {
        encode_stored_key(self.bytes(&mut [0; 250]), self.is_binary, out);
    }
}

/// Appends a key as it is stored, encoded if it is binary.
pub fn encode_stored_key(key: &[u8], is_binary: bool, out: &mut Vec<u8>) {
    if is_binary {
        base64::encode(key, out);
    } else {
        out.extend_from_slice(key);
    }
}
