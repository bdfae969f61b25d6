//! Which driver moves the bytes of a TaskManager's slots: the one that was asked for, or the best that this host allows.
//!
//! No state. Always true: all slots of a process have the same driver; nothing above the slot threads knows which.

use tidegate_arena::Arena;
use tidegate_ring::{
    AnyRing, EpollConfig, EpollRing, Obstacle, Registration, RingError, UringConfig, UringRing,
};

use crate::start::StartError;

/// What is to drive the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// io_uring, or epoll where that is missing or forbidden.
    #[default]
    Auto,
    /// io_uring, or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// What does drive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll {
        /// What stands in the way of io_uring, unless epoll was asked for.
        instead: Option<Obstacle>,
    },
}

impl Chosen {
    /// Chooses; `usable` finds out whether io_uring may be used here.
    ///
    /// # Errors
    /// Epoll was asked for, and a registration that it cannot have.
    pub(crate) fn new(
        wanted: Driver,
        registration: Registration,
        usable: impl FnOnce() -> Result<(), Obstacle>,
    ) -> Result<Self, StartError> {
        match wanted {
            Driver::IoUring => Ok(Self::IoUring),
            Driver::Epoll if registration == Registration::Required => Err(StartError::Unregistrable),
            Driver::Epoll => Ok(Self::Epoll { instead: None }),
            // Who insists on the registration wants to hear who forbids it.
            Driver::Auto if registration == Registration::Required => Ok(Self::IoUring),
            Driver::Auto => Ok(usable().map_or_else(Self::instead_of_io_uring, |()| Self::IoUring)),
        }
    }

    /// Epoll, because of `obstacle`, which the log says.
    pub(crate) fn instead_of_io_uring(obstacle: Obstacle) -> Self {
        tracing::warn!("the network runs on epoll instead of io_uring: {obstacle}");
        Self::Epoll { instead: Some(obstacle) }
    }

    /// The ring of a slot, for the calling thread.
    pub(crate) fn ring(
        self,
        arena: &Arena,
        shard: usize,
        config: &UringConfig,
    ) -> Result<AnyRing, RingError> {
        let mut ring: AnyRing = match self {
            Self::IoUring => UringRing::new(arena, shard, config)?.into(),
            Self::Epoll { .. } => {
                let config = EpollConfig { send: config.send, connections_max: config.connections_max };
                EpollRing::new(arena, &config)?.into()
            }
        };
        if arena.file().is_some() {
            ring.expect_neighbours()?;
        }
        Ok(ring)
    }

    /// Its name, as it is asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll { .. } => "epoll",
        }
    }

    /// What stands in the way of io_uring.
    pub(crate) fn obstacle(self) -> Option<Obstacle> {
        match self {
            Self::IoUring => None,
            Self::Epoll { instead } => instead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: Obstacle = Obstacle::Seccomp { errno: 1 };

    fn chosen(wanted: Driver, registration: Registration, usable: Result<(), Obstacle>) -> Option<Chosen> {
        Chosen::new(wanted, registration, || usable).ok()
    }

    #[test]
    fn auto_takes_io_uring_where_it_may_and_else_epoll() {
        let auto = |usable| chosen(Driver::Auto, Registration::Auto, usable);
        assert_eq!(auto(Ok(())), Some(Chosen::IoUring));
        assert_eq!(auto(Err(FORBIDDEN)), Some(Chosen::Epoll { instead: Some(FORBIDDEN) }));
    }

    #[test]
    fn what_was_asked_for_is_not_replaced() {
        let forbidden = Err(FORBIDDEN);
        assert_eq!(chosen(Driver::IoUring, Registration::Auto, forbidden), Some(Chosen::IoUring));
        assert_eq!(chosen(Driver::Auto, Registration::Required, forbidden), Some(Chosen::IoUring));
        assert_eq!(chosen(Driver::Epoll, Registration::Never, Ok(())), Some(Chosen::Epoll { instead: None }));
        assert_eq!(chosen(Driver::Epoll, Registration::Required, Ok(())), None);
    }
}
