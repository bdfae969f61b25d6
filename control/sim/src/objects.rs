//! The objects of a store on the simulated disk: what `object_store` does on a directory with its syncs on, call by call.
//!
//! It owns nothing. Always: an object is written under a name of its own, synced, linked to the right one if that is free,
//! and its directory synced, in this order; a directory is made when it is missing, and synced with those above it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidegate_checkpoint::LocalStore;
use tidegate_checkpoint::local::FileSystem as _;

use crate::disk::Disk;
use crate::store::STORE;

/// What lies below the store's directory.
#[derive(Clone, Debug)]
pub struct Objects(pub Disk);

/// The real store over the simulated disk.
pub fn local_store(disk: &Disk) -> LocalStore {
    let objects = Arc::new(Objects(disk.clone()));
    LocalStore::over(FilePath::new(STORE), objects, Arc::new(disk.clone()))
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects on the simulated disk")
    }
}

fn file(location: &Path) -> PathBuf {
    FilePath::new(STORE).join(location.as_ref())
}

fn failed(error: std::io::Error) -> Error {
    Error::Generic { store: "simulated", source: Box::new(error) }
}

fn absent<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: "the simulation".to_owned() })
}

impl Objects {
    fn make_dirs(&self, dir: &FilePath) -> std::io::Result<()> {
        let missing: Vec<&FilePath> = dir.ancestors().take_while(|dir| self.0.len(dir).is_err()).collect();
        let top = missing.last().and_then(|dir| dir.parent());
        missing.iter().rev().try_for_each(|dir| self.0.create_dir(dir))?;
        missing.iter().copied().chain(top).try_for_each(|dir| self.0.sync(dir))
    }

    fn put(&self, path: &FilePath, bytes: &[u8]) -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(FilePath::new("/"));
        let staged = (1..).map(|number| format!("{}#{number}", path.display()));
        let staged = staged.map(PathBuf::from).find(|path| self.0.len(path).is_err());
        let staged = staged.expect("invariant: numbers do not end");
        let node = match self.0.create_new(&staged) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_dirs(dir)?;
                self.0.create_new(&staged)
            }
            made => made,
        }?;
        let linked = self.0.append(node, 0, bytes).and_then(|()| self.0.sync_node(node)).and_then(|()| {
            self.0.hard_link(&staged.display().to_string(), &path.display().to_string())?;
            self.0.sync(dir)
        });
        let _ = self.0.remove_file(&staged);
        linked
    }

    fn meta(&self, location: Path) -> Result<ObjectMeta> {
        match self.0.len(&file(&location)) {
            Ok(size) => Ok(ObjectMeta {
                location,
                last_modified: Default::default(),
                size,
                e_tag: None,
                version: None,
            }),
            Err(source) if source.kind() == ErrorKind::NotFound => {
                Err(Error::NotFound { path: location.to_string(), source: Box::new(source) })
            }
            Err(error) => Err(failed(error)),
        }
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if opts.mode != PutMode::Create {
            return absent("anything but creating");
        }
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        match self.put(&file(location), &bytes) {
            Ok(()) => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            Err(source) if source.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(source) })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        absent("multipart uploads")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let meta = self.meta(location.clone())?;
        let all = self.0.read(&file(location).display().to_string()).unwrap_or_default();
        let range = match options.range {
            None => 0..meta.size,
            Some(GetRange::Bounded(range)) => range.start.min(meta.size)..range.end.min(meta.size),
            Some(_) => return absent("other ranges"),
        };
        let bytes = bytes::Bytes::from(all).slice(range.start as usize..range.end as usize);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        let (attributes, extensions) = Default::default();
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { absent("deleting") }).boxed()
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { absent("listing all") }).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (mut common_prefixes, mut objects) = (Vec::new(), Vec::new());
        for name in self.0.list(&file(&prefix).display().to_string()) {
            // Names of objects that are being written, or were when somebody died.
            if name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok()) {
                continue;
            }
            let location = prefix.clone().join(name.as_str());
            if self.0.read(&file(&location).display().to_string()).is_some() {
                objects.push(self.meta(location)?);
            } else {
                common_prefixes.push(location);
            }
        }
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        absent("copying")
    }
}
