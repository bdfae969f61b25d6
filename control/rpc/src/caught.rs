//! Work of the runtime's that is answered even if it panics.
//!
//! A runtime catches the panic of a task, and who waits for a message from it waits for ever. What libraries do may panic
//! where the system gives no more: so does blocking work in tokio when its pool has no thread and gets none.

use tokio::task::JoinSet;

/// Runs `work` as a task and gives what it gives. It ends with who waits for it.
///
/// # Errors
/// That it panicked, in words.
pub async fn caught<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
    let mut task = JoinSet::new();
    task.spawn(work);
    let ended = task.join_next().await.expect("invariant: it was just spawned");
    ended.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_answered_with_its_words() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let panicked: Result<u32, String> = caught(async { panic!("no thread") }).await;
        assert!(panicked.unwrap_err().contains("no thread"));
    }
}
