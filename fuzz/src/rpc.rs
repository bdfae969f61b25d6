//! Bytes as a message between JobManager and TaskManager, in either direction.
//!
//! As they are, and behind a header that is right. Oracle: what is read can be written and read again, equal; reading holds
//! no more memory than the bytes justify (a fuzzer's own limit sees to that).

use std::fmt::Debug;

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
    if let Ok(message) = Envelope::<ToJobManager>::decode(bytes) {
        let again = message.encode().expect("what was read can be written");
        same(&Envelope::<ToJobManager>::decode(&again).expect("what was written is read"), &message);
    }
    if let Ok(message) = Envelope::<ToTaskManager>::decode(bytes) {
        let again = message.encode().expect("what was read can be written");
        same(&Envelope::<ToTaskManager>::decode(&again).expect("what was written is read"), &message);
    }
}

/// Equal, told by what is printed: a message may hold a number that is not equal to itself.
fn same<T: Debug>(one: &T, other: &T) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
