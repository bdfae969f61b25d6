//! Bytes as what a client or a disk says of a job: the body of a submission, a job's id, a job's record.
//!
//! Oracle: a request that is taken is within the stated bounds; an id has one printed form; a record that is read can be
//! written and read again, equal.

use tidegate_checkpoint::limits::{INTERVAL_MS_MIN, RETAINED_MAX};
use tidegate_jobmanager::JobRecord;
use tidegate_jobmanager::limits::REQUEST_MS_MAX;
use tidegate_jobmanager::submit_body::SubmitBody;
use tidegate_rpc::JobId;

/// Any bytes as any of these.
pub fn rest(bytes: &[u8]) {
    match SubmitBody::parse(bytes) {
        Ok(body) => {
            let _ = body.id();
            if let Ok(request) = body.request() {
                assert!((1..=RETAINED_MAX).contains(&request.retained));
                let times = [request.checkpoint_interval_ms, Some(request.checkpoint_timeout_ms)];
                let lawful = |ms| (INTERVAL_MS_MIN..=REQUEST_MS_MAX).contains(&ms);
                assert!(times.into_iter().flatten().all(lawful));
                assert!(request.min_pause_ms <= REQUEST_MS_MAX);
            }
        }
        Err(rejection) => assert!(rejection.status == 400 && !rejection.errors.is_empty()),
    }
    if let Ok(record) = serde_json::from_slice::<JobRecord>(bytes) {
        let text = serde_json::to_vec(&record).expect("a record is JSON");
        let again: JobRecord = serde_json::from_slice(&text).expect("what was written is read");
        assert_eq!(again, record);
    }
    if let Ok(id) = std::str::from_utf8(bytes).unwrap_or_default().parse::<JobId>() {
        assert_eq!(id.to_string().parse(), Ok(id), "an id has one printed form");
    }
}
