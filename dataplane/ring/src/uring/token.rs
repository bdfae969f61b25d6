//! What a completion is about, packed into the 64 bits that the kernel carries for us. No state.
//!
//! Always: `decode(encode(t)) = Some(t)`; all other bit patterns but those decode to `None` or to a token that the
//! tables then refuse. Layout from the top: kind 4, slot 4, index 24, generation 32.

use crate::ring::ConnId;

const KIND_SHIFT: u32 = 60;
const SLOT_SHIFT: u32 = 56;
const INDEX_SHIFT: u32 = 32;
const INDEX_MASK: u64 = (1 << 24) - 1;

/// The operation behind a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A send of the connection, whose parts lie in this slot.
    Send(ConnId, u8),
    /// The connection's receive.
    Receive(ConnId),
    /// The cancellation of everything of the connection.
    Cancel(ConnId),
    /// The read of the doorbell.
    Bell,
    /// The cancellation of that read.
    BellCancel,
    /// The poll of the descriptor that is watched beside the doorbell.
    Watch,
    /// The cancellation of that poll.
    WatchCancel,
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        let (kind, conn, slot) = match self {
            Self::Send(conn, slot) => (1, conn, slot),
            Self::Receive(conn) => (2, conn, 0),
            Self::Cancel(conn) => (3, conn, 0),
            Self::Bell => (4, ConnId::new(0, 0), 0),
            Self::BellCancel => (5, ConnId::new(0, 0), 0),
            Self::Watch => (6, ConnId::new(0, 0), 0),
            Self::WatchCancel => (7, ConnId::new(0, 0), 0),
        };
        debug_assert!(
            slot < 16 && u64::from(conn.index()) <= INDEX_MASK,
            "limits.rs keeps both in their bits"
        );
        (kind << KIND_SHIFT)
            | (u64::from(slot) << SLOT_SHIFT)
            | (u64::from(conn.index()) << INDEX_SHIFT)
            | u64::from(conn.generation())
    }

    pub(super) fn decode(bits: u64) -> Option<Self> {
        let slot = (bits >> SLOT_SHIFT & 15) as u8;
        let conn = ConnId::new((bits >> INDEX_SHIFT & INDEX_MASK) as u32, bits as u32);
        let token = match bits >> KIND_SHIFT {
            1 => Self::Send(conn, slot),
            2 => Self::Receive(conn),
            3 => Self::Cancel(conn),
            4 => Self::Bell,
            5 => Self::BellCancel,
            6 => Self::Watch,
            7 => Self::WatchCancel,
            _ => return None,
        };
        (token.encode() == bits).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for conn in [ConnId::new(0, 0), ConnId::new(0xFF_FFFF, u32::MAX), ConnId::new(4095, 1)] {
            for token in
                [Token::Send(conn, 0), Token::Send(conn, 15), Token::Receive(conn), Token::Cancel(conn)]
            {
                assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
        for token in [Token::Bell, Token::BellCancel, Token::Watch, Token::WatchCancel] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(Token::decode(0), None, "an operation without user data");
        assert_eq!(Token::decode(u64::MAX), None);
        assert_eq!(Token::decode(Token::Bell.encode() | 1), None, "a doorbell has no connection");
        assert_eq!(Token::decode(Token::Receive(ConnId::new(1, 1)).encode() | 1 << SLOT_SHIFT), None);
    }
}
