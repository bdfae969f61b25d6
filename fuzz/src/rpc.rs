//! Bytes as a message between JobManager and TaskManager, in either direction.
//!
//! As they are, and behind a header that is right. Oracle: what is read can be written and read again, equal; reading holds
//! no more memory than the bytes justify (a fuzzer's own limit sees to that).

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_rpc::envelope::MAGIC;
use tidegate_rpc::limits::{FRAME_HEADER_BYTES, PROTOCOL_VERSION};
use tidegate_rpc::{Envelope, ToJobManager, ToTaskManager};

/// Any bytes as a message.
pub fn rpc(bytes: &[u8]) {
    one(bytes);
    let mut sealed = [&MAGIC[..], &PROTOCOL_VERSION.to_le_bytes(), &[3; 8]].concat();
    debug_assert_eq!(sealed.len(), FRAME_HEADER_BYTES);
    sealed.extend_from_slice(bytes);
    one(&sealed);
}

fn one(bytes: &[u8]) {
    direction::<ToJobManager>(bytes);
    direction::<ToTaskManager>(bytes);
}

fn direction<T: Debug + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = Envelope::<T>::decode(bytes) else { return };
    assert_eq!((&bytes[..4], &bytes[6..14]), (&MAGIC[..], &message.epoch.to_le_bytes()[..]));
    let again = message.encode().expect("what was read can be written");
    let again = Envelope::<T>::decode(&again).expect("what was written is read");
    // Told by what is printed: a message may hold a number that is not equal to itself.
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
    assert!(Envelope::<T>::decode(&bytes[..bytes.len() - 1]).is_err(), "a cut message is refused");
    assert!(Envelope::<T>::decode(&[bytes, &[0]].concat()).is_err(), "bytes behind the end are refused");
}
