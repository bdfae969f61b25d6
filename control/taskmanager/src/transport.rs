//! How the TaskManagers of one host and user talk: over TCP as all others, or through shared memory.
//!
//! No state. Always true: an arena that is not shared is private memory; whatever stands in the way of sharing is logged
//! once, and the links go over TCP then, unless sharing was demanded of this process.

use tidegate_arena::{Arena, ArenaConfig, ArenaError, Shard};
use tidegate_exchange::Endpoint;
use tidegate_memory::own_memory_file;

use crate::start::StartError;

/// What is between the TaskManagers of one host and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Shared memory where this process and the peer can and want to, else TCP.
    #[default]
    Auto,
    /// TCP, as with all others.
    Tcp,
    /// Shared memory, or this process does not start. With a peer that cannot, still TCP.
    Shm,
}

impl Transport {
    /// The arena, in memory that this transport can show to peers.
    pub(crate) fn map(self, config: &ArenaConfig) -> Result<(Arena, Vec<Shard>), ArenaError> {
        let mapped = match self {
            Self::Tcp => Arena::map(config),
            Self::Shm => Arena::map_shared(config),
            Self::Auto => match Arena::map_shared(config) {
                Err(error @ ArenaError::Share { .. }) => {
                    tracing::warn!("links to this host's TaskManagers go over TCP: {error}");
                    Arena::map(config)
                }
                mapped => mapped,
            },
        };
        if let Ok((arena, _)) = &mapped {
            own_memory_file(file_bytes(arena));
        }
        mapped
    }

    /// Offers the arena to peers. What became of it, for people; the first word is for programs.
    pub(crate) fn share(self, endpoint: &Endpoint, arena: &Arena) -> Result<String, StartError> {
        if self == Self::Tcp || arena.file().is_none() {
            return Ok("tcp".to_owned());
        }
        let instead = |error: &_| tracing::warn!("a link within this host goes over TCP: {error}");
        match endpoint.share(arena, instead) {
            Ok(()) => Ok("shm within the host, else tcp".to_owned()),
            Err(error) if self == Self::Auto => {
                tracing::warn!("links to this host's TaskManagers go over TCP: {error}");
                Ok(format!("tcp, not shm: {error}"))
            }
            Err(error) => Err(StartError::Share(error)),
        }
    }
}

/// What the arena takes of a memory file: nothing if it is in none.
fn file_bytes(arena: &Arena) -> u64 {
    let file = arena.file().and_then(|file| file.try_clone_to_owned().ok());
    file.and_then(|file| std::fs::File::from(file).metadata().ok()).map_or(0, |file| file.len())
}
