//! Epochs and checkpoints as objects: create-if-absent, read and check, verify whole.
//!
//! Stateless. Always: a read that fails for any reason but absence is an error, never "absent".

use super::{LocalStore, files};
use crate::epoch::EpochRecord;
use crate::frame::{self, Damage, FrameKind};
use crate::layout;
use crate::limits::VERIFY_CHUNK_BYTES;
use crate::metadata::{Metadata, Object, Outputs};
use crate::store::{Scanned, ScannedState, StoreDone, StoreFault, is_permanent};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use xxhash_rust::xxh3::Xxh3;

/// Metadata as found.
enum Found {
    Absent,
    Void,
    Metadata(Box<Metadata>),
    Damaged(String),
}

impl LocalStore {
    pub(super) async fn read_epochs(&self) -> Result<StoreDone, StoreFault> {
        let names = self.epoch_names().await?;
        let claims = names.iter().filter(|(_, settled)| !settled).map(|(epoch, _)| *epoch).collect();
        let newest = names.iter().filter(|(_, settled)| *settled).map(|(epoch, _)| *epoch).max();
        let settled = match newest {
            None => None,
            Some(epoch) => {
                let name = layout::settled(epoch);
                let bytes = self.get(&name).await?.ok_or_else(|| format!("{name} vanished"))?;
                Some(EpochRecord::decode(epoch, &bytes).map_err(|damage| format!("{name}: {damage}")))
            }
        };
        Ok(StoreDone::Epochs { claims, settled })
    }

    pub(super) async fn newest_epoch(&self) -> Result<StoreDone, StoreFault> {
        let names = self.epoch_names().await?;
        Ok(StoreDone::Newest(names.into_iter().map(|(epoch, _)| epoch).max().unwrap_or(0)))
    }

    pub(super) async fn claim_epoch(&self, record: &EpochRecord) -> Result<StoreDone, StoreFault> {
        let bytes = record.encode().map_err(|e| e.to_string())?;
        self.create(&layout::epoch(record.epoch), bytes).await
    }

    pub(super) async fn settle_epoch(&self, record: &EpochRecord) -> Result<StoreDone, StoreFault> {
        let bytes = record.encode().map_err(|e| e.to_string())?;
        self.create(&layout::settled(record.epoch), bytes).await
    }

    async fn epoch_names(&self) -> Result<Vec<(u64, bool)>, StoreFault> {
        let prefix = path(layout::EPOCHS)?;
        let list =
            self.objects.list_with_delimiter(Some(&prefix)).await.map_err(|e| at(layout::EPOCHS, &e))?;
        let names = list.objects.iter().filter_map(|meta| meta.location.filename());
        Ok(names.filter_map(layout::parse_epoch).collect())
    }

    pub(super) async fn scan(&self, job: u128) -> Result<StoreDone, StoreFault> {
        let dir = layout::checkpoints_dir(job);
        let prefix = path(&dir)?;
        let list = self.objects.list_with_delimiter(Some(&prefix)).await.map_err(|e| at(&dir, &e))?;
        let mut found = Vec::new();
        for location in list.common_prefixes {
            let Some((id, quarantined)) = location.filename().and_then(layout::parse_checkpoint) else {
                continue;
            };
            // Whatever is there counts as a list, readable or not.
            let outputs = match self.get(&format!("{location}/{}", layout::OUTPUTS)).await {
                Ok(found) => found.is_some(),
                Err(fault) if fault.permanent => true,
                Err(fault) => return Err(fault),
            };
            let state = match self.find(job, id, location.as_ref()).await {
                Ok(Found::Absent) => ScannedState::Absent,
                Ok(Found::Void) => ScannedState::Void,
                Ok(Found::Metadata(metadata)) => ScannedState::Present { epoch: metadata.epoch },
                Ok(Found::Damaged(reason)) => ScannedState::Damaged(reason),
                // One that nobody will ever read again must not keep all others from being read.
                Err(fault) if fault.permanent => ScannedState::Damaged(fault.reason),
                Err(fault) => return Err(fault),
            };
            found.push(Scanned { id, quarantined, state, outputs });
        }
        found.sort_by_key(|entry| (entry.id, entry.quarantined));
        Ok(StoreDone::Scanned(found))
    }

    pub(super) async fn put_metadata(
        &self,
        metadata: &Metadata,
        outputs: bool,
    ) -> Result<StoreDone, StoreFault> {
        let (job, epoch, id) = (metadata.job, metadata.epoch, metadata.id);
        let dir = layout::checkpoint_dir(job, id);
        let encoded = match metadata.encode() {
            Ok(encoded) => encoded,
            Err(damage) => return Ok(StoreDone::Damaged(damage.to_string())),
        };
        if outputs {
            let list = Outputs { job, epoch, id, files: metadata.committables() };
            let bytes = match list.encode() {
                Ok(bytes) => bytes,
                Err(damage) => return Ok(StoreDone::Damaged(damage.to_string())),
            };
            let name = format!("{dir}/{}", layout::OUTPUTS);
            if self.create(&name, bytes).await? == StoreDone::Exists {
                return Ok(StoreDone::Damaged(format!("{name} exists: somebody else uses this id")));
            }
        }
        self.create(&format!("{dir}/{}", layout::METADATA), encoded).await
    }

    pub(super) async fn read_metadata(&self, job: u128, id: u64) -> Result<StoreDone, StoreFault> {
        let dir = layout::checkpoint_dir(job, id);
        Ok(match self.find(job, id, &dir).await? {
            Found::Absent => StoreDone::Absent,
            Found::Void => StoreDone::Void,
            Found::Metadata(metadata) => {
                self.sync(&format!("{dir}/{}", layout::METADATA)).await?;
                StoreDone::Metadata(metadata)
            }
            Found::Damaged(reason) => StoreDone::Damaged(reason),
        })
    }

    pub(super) async fn void_metadata(&self, job: u128, id: u64) -> Result<StoreDone, StoreFault> {
        let name = format!("{}/{}", layout::checkpoint_dir(job, id), layout::METADATA);
        self.create(&name, frame::seal(FrameKind::Void, &[])).await
    }

    /// Void first: whoever still means to publish one of them cannot any more.
    pub(super) async fn discard(&self, job: u128, ids: &[u64]) -> Result<StoreDone, StoreFault> {
        for &id in ids {
            let dir = layout::checkpoint_dir(job, id);
            let created = self.void_metadata(job, id).await? == StoreDone::Created;
            if created || matches!(self.find(job, id, &dir).await?, Found::Void) {
                self.blocking(move |disk, root| files::discard(disk, root, job, id)).await?;
            }
        }
        Ok(StoreDone::Done)
    }

    pub(super) async fn verify(&self, job: u128, id: u64) -> Result<StoreDone, StoreFault> {
        let metadata = match self.find(job, id, &layout::checkpoint_dir(job, id)).await? {
            Found::Absent => return Ok(StoreDone::Absent),
            Found::Void => return Ok(StoreDone::Void),
            Found::Damaged(reason) => return Ok(StoreDone::Damaged(format!("_metadata: {reason}"))),
            Found::Metadata(metadata) => metadata,
        };
        for object in metadata.objects() {
            if let Err(damage) = self.verify_object(object).await? {
                return Ok(StoreDone::Damaged(format!("{}: {damage}", object.path)));
            }
        }
        Ok(StoreDone::Metadata(metadata))
    }

    /// Reads one object whole. The outer error is the store's, the inner one the object's.
    async fn verify_object(&self, object: &Object) -> Result<Result<(), String>, StoreFault> {
        let Ok(location) = path(&object.path) else { return Ok(Err("not a path of the store".to_owned())) };
        let size = match self.objects.head(&location).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(Err("it was removed".to_owned())),
            Err(e) => return Err(at(&object.path, &e)),
        };
        if size < object.len {
            return Ok(Err(Damage::Truncated { expected: object.len, found: size }.to_string()));
        }
        if size > object.len {
            return Ok(Err(Damage::TooLong { expected: object.len, found: size }.to_string()));
        }
        let mut hasher = Xxh3::new();
        let mut offset = 0;
        while offset < size {
            let end = size.min(offset + VERIFY_CHUNK_BYTES as u64);
            let chunk =
                self.objects.get_range(&location, offset..end).await.map_err(|e| at(&object.path, &e))?;
            hasher.update(&chunk);
            offset = end;
        }
        let found = hasher.digest();
        if found != object.hash {
            let damage = Damage::Hash { what: "object", expected: object.hash, found };
            return Ok(Err(damage.to_string()));
        }
        Ok(Ok(()))
    }

    pub(super) async fn read_outputs(
        &self,
        job: u128,
        id: u64,
        expected: bool,
    ) -> Result<StoreDone, StoreFault> {
        let mut reason = "neither its metadata nor its list of outputs is left".to_owned();
        for dir in [layout::checkpoint_dir(job, id), layout::damaged_dir(job, id)] {
            if let Some(bytes) = self.get(&format!("{dir}/{}", layout::OUTPUTS)).await? {
                match Outputs::decode(job, id, &bytes) {
                    Ok(outputs) => return Ok(StoreDone::Outputs(outputs)),
                    Err(damage) => reason = format!("its list of outputs: {damage}"),
                }
            }
            match self.find(job, id, &dir).await? {
                Found::Metadata(metadata) => {
                    let (epoch, files) = (metadata.epoch, metadata.committables());
                    return Ok(StoreDone::Outputs(Outputs { job, epoch, id, files }));
                }
                Found::Damaged(damage) => reason = format!("{reason}; its metadata: {damage}"),
                Found::Absent | Found::Void => {}
            }
        }
        Ok(if expected { StoreDone::Damaged(reason) } else { StoreDone::Absent })
    }

    /// Metadata in a directory, which may be one that was set aside.
    async fn find(&self, job: u128, id: u64, dir: &str) -> Result<Found, StoreFault> {
        let Some(bytes) = self.get(&format!("{dir}/{}", layout::METADATA)).await? else {
            return Ok(Found::Absent);
        };
        if frame::open(FrameKind::Void, &bytes).is_ok() {
            return Ok(Found::Void);
        }
        Ok(match Metadata::decode(job, id, &bytes) {
            Ok(metadata) => Found::Metadata(Box::new(metadata)),
            Err(damage) => Found::Damaged(damage.to_string()),
        })
    }

    /// The bytes of an object, `None` if it is absent.
    async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreFault> {
        match self.objects.get(&path(name)?).await {
            Ok(result) => result.bytes().await.map(Some).map_err(|e| at(name, &e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(at(name, &e)),
        }
    }

    /// Creates an object if it is absent; durable when it returns.
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<StoreDone, StoreFault> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&path(name)?, PutPayload::from(bytes), options).await {
            // Of the directories above it only those that were made now are durable.
            Ok(_) => {
                self.sync(name).await?;
                Ok(StoreDone::Created)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.sync(name).await?;
                Ok(StoreDone::Exists)
            }
            Err(e) => Err(at(name, &e)),
        }
    }
}

impl LocalStore {
    /// Makes an object durable that somebody created, perhaps without living to see it synced.
    async fn sync(&self, name: &str) -> Result<(), StoreFault> {
        let name = name.to_owned();
        self.blocking(move |disk, root| files::sync_object(disk, root, &name)).await.map(drop)
    }
}

/// A failure at an object; what the file system said stands somewhere below what `object_store` says.
fn at(name: &str, error: &object_store::Error) -> StoreFault {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let io = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
    .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    StoreFault { reason: format!("{name}: {error}"), permanent: io.is_some_and(is_permanent) }
}

fn path(name: &str) -> Result<Path, StoreFault> {
    Path::parse(name).map_err(|e| format!("{name}: {e}").into())
}
