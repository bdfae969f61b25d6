//! The way to the JobManager: every address of its name in turn, and what is said about those where it is not.
//!
//! Owner of the state: the control thread remembers what it said of the last try, no more.
//!
//! Always true: a reason is logged when it is new and not again while it lasts; trying goes on whatever it is.

use std::io;

use tidegate_rpc::{ConnectError, Connection, caught, connect};

/// Why one try, or one address of it, gave no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unconnected {
    /// The name has no address.
    #[error(
        "--jobmanager {name} has no address ({reason}); is the name right, does it resolve on this host?"
    )]
    Nowhere {
        /// As it was given.
        name: String,
        /// What the resolver says.
        reason: String,
    },
    /// An address gave none.
    #[error(transparent)]
    Address(#[from] ConnectError),
}

impl Unconnected {
    /// Whether somebody has to change something: a JobManager that is away comes back by itself.
    fn is_mistake(&self) -> bool {
        !matches!(self, Self::Address(ConnectError::Unreachable { .. }))
    }
}

/// Tries the addresses of the name until one gives a connection.
///
/// # Errors
/// What each of them gave instead; at least one.
pub(crate) async fn dial(jobmanager: &str) -> Result<Connection, Vec<Unconnected>> {
    let nowhere = |reason: String| Unconnected::Nowhere { name: jobmanager.to_owned(), reason };
    let name = jobmanager.to_owned();
    let resolved =
        caught(async move { Ok::<_, io::Error>(Vec::from_iter(tokio::net::lookup_host(name).await?)) });
    let addresses = match resolved.await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(vec![nowhere(error.to_string())]),
        Err(panic) => return Err(vec![nowhere(panic)]),
    };
    let mut reasons = Vec::new();
    for address in addresses {
        match connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => reasons.push(error.into()),
        }
    }
    if reasons.is_empty() {
        reasons.push(nowhere("the answer is empty".to_owned()));
    }
    Err(reasons)
}

/// What was said of the last try. Reasons name their address, so each address is told apart.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<String>);

impl Complaints {
    /// There is a connection: what happens to it later is news.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Logs what the try before did not say.
    pub(crate) fn log(&mut self, reasons: &[Unconnected]) {
        for (reason, text) in reasons.iter().zip(self.news(reasons)) {
            match text {
                Some(text) if reason.is_mistake() => tracing::warn!("{text}; trying again and again"),
                Some(text) => tracing::info!("{text}"),
                None => tracing::debug!("{reason}"),
            }
        }
    }

    /// The words of each reason that is new.
    fn news(&mut self, reasons: &[Unconnected]) -> Vec<Option<String>> {
        let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let before = std::mem::replace(&mut self.0, texts.clone());
        texts.into_iter().map(|text| (!before.contains(&text)).then_some(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_rpc::Stranger;

    fn at(port: u16, found: Stranger) -> Unconnected {
        ConnectError::NotAJobManager { address: ([127, 0, 0, 1], port).into(), found }.into()
    }

    #[test]
    fn a_reason_is_said_once_for_each_address_and_again_when_it_changes() {
        let mut complaints = Complaints::default();
        let mut said = |reasons: &[Unconnected]| -> Vec<bool> {
            complaints.news(reasons).iter().map(Option::is_some).collect()
        };
        assert_eq!(said(&[at(1, Stranger::Http1)]), [true]);
        assert_eq!(said(&[at(1, Stranger::Http1)]), [false]);
        assert_eq!(said(&[at(1, Stranger::Http1), at(2, Stranger::Http1)]), [false, true]);
        assert_eq!(said(&[at(1, Stranger::Silent), at(2, Stranger::Http1)]), [true, false]);
        assert_eq!(said(&[at(1, Stranger::Http1), at(2, Stranger::Http1)]), [true, false]);
        complaints.clear();
        assert!(complaints.news(&[at(1, Stranger::Http1)])[0].is_some(), "there was a connection meanwhile");
    }

    #[test]
    fn a_jobmanager_that_is_away_is_nobodys_mistake() {
        let away =
            ConnectError::Unreachable { address: ([127, 0, 0, 1], 1).into(), reason: "refused".into() };
        assert!(!Unconnected::from(away).is_mistake());
        assert!(at(1, Stranger::Http1).is_mistake());
    }
}
