//! Where a reader of the log stands.
//!
//! A position from a sequence becomes visible out of commit order, so readers page by (transaction, position) and
//! stop below the oldest running transaction. A transaction id means nothing in another cluster: a cursor names
//! an epoch, which a restore moves on.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_128, AES_128_KEY_LEN, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;

use crate::InvalidValue;

/// A place in the global order of the log. `xid` is Postgres's `xid8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The transaction that wrote the event.
    pub xid: i64,
    /// The event within all that were numbered.
    pub position: i64,
}

/// Makes text of places, and places of text. Places count what all tenants write: whoever reads a cursor may know of its own
/// tenant only. So it is one block of AES-128, the epoch, transaction and position under the log's own key, in hexadecimal;
/// what nobody sealed opens to another epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CursorSeal {
    epoch: u32,
    key: [u8; AES_128_KEY_LEN],
}

/// Bytes of a transaction or position: 2^48 of them outlast every log.
const WIDTH: usize = 6;

impl CursorSeal {
    /// What the row of `log_epoch` says.
    ///
    /// # Errors
    /// A negative epoch, or a key that has not 16 bytes.
    pub fn new(epoch: i32, key: &[u8]) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue("log_epoch has no epoch and key of 16 bytes".to_owned());
        Ok(Self { epoch: u32::try_from(epoch).map_err(|_| bad())?, key: key.try_into().map_err(|_| bad())? })
    }

    /// The text of a place.
    #[must_use]
    pub fn seal(&self, place: Position) -> Cursor {
        Cursor { position: place, seal: *self }
    }

    /// The place of a text.
    ///
    /// # Errors
    /// When this log did not make it since it was restored last.
    pub fn open(&self, text: &str) -> Result<Position, InvalidValue> {
        let bad = || InvalidValue("is not a cursor that this service handed out".to_owned());
        let is_ours = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let block = u128::from_str_radix(text, 16).ok().filter(|_| is_ours).ok_or_else(bad)?;
        let block = self.decrypt(block.to_be_bytes()).map_err(|_| bad())?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        let (epoch, place) = block.split_at(4);
        if *epoch != self.epoch.to_be_bytes() {
            return Err(bad());
        }
        Ok(Position { xid: number(&place[..WIDTH]), position: number(&place[WIDTH..]) })
    }

    fn encrypt(&self, mut block: [u8; 16]) -> Result<[u8; 16], Unspecified> {
        EncryptingKey::ecb(UnboundCipherKey::new(&AES_128, &self.key)?)?.encrypt(&mut block)?;
        Ok(block)
    }

    fn decrypt(&self, mut block: [u8; 16]) -> Result<[u8; 16], Unspecified> {
        let key = DecryptingKey::ecb(UnboundCipherKey::new(&AES_128, &self.key)?)?;
        key.decrypt(&mut block, DecryptionContext::None)?;
        Ok(block)
    }
}

impl fmt::Debug for CursorSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorSeal").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// A [`Position`] for clients: text that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The place.
    pub position: Position,
    seal: CursorSeal,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&self.seal.epoch.to_be_bytes());
        let last = |number: i64| number.to_be_bytes().into_iter().skip(8 - WIDTH);
        let place = last(self.position.xid).chain(last(self.position.position));
        block[4..].iter_mut().zip(place).for_each(|(byte, value)| *byte = value);
        let sealed = self.seal.encrypt(block).map_err(|_| fmt::Error)?;
        write!(f, "{:032x}", u128::from_be_bytes(sealed))
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test stops where something is wrong")]
mod tests {
    use super::{CursorSeal, Position};

    #[test]
    fn reads_what_it_wrote_and_refuses_the_rest() {
        let seal = CursorSeal::new(1, &[7; 16]).expect("a key");
        let place = Position { xid: 745, position: 0x1234_5678_9abc };
        let text = seal.seal(place).to_string();
        assert_eq!(seal.open(&text), Ok(place));
        for other in [CursorSeal::new(2, &[7; 16]), CursorSeal::new(1, &[8; 16])] {
            assert!(other.expect("a key").open(&text).is_err(), "of another epoch, or another log");
        }
        let mut changed = text.clone().into_bytes();
        changed[9] = if changed[9] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).expect("hexadecimal");
        for bad in [
            "",
            "1-2-3",
            &text[1..],
            &text.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"),
            &changed,
        ] {
            assert!(seal.open(bad).is_err(), "{bad}");
        }
    }

    /// The cipher is what it says: FIPS 197, appendix B, with the block as a place.
    #[test]
    fn seals_with_aes() {
        let key =
            [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];
        let seal = CursorSeal::new(0x3243_f6a8, &key).expect("a key");
        let place = Position { xid: 0x885a_308d_3131, position: 0x98a2_e037_0734 };
        assert_eq!(seal.seal(place).to_string(), "3925841d02dc09fbdc118597196a0b32");
    }
}
