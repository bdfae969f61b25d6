//! Segments written to and read from a file by tokio-uring, plain and as registered buffers.

#![cfg(all(feature = "tokio-uring", not(any(loom, miri))))]

use std::panic::catch_unwind;

use tidegate_arena::file_buffer::FileBuffer;
use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize, Shard};
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::fs::OpenOptions;

const HOLDER: Holder = Holder::new(HolderKind::Snapshot, 1);

fn arena() -> (Arena, Shard) {
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![2], huge_pages: HugePages::Never };
    let (arena, mut shards) = Arena::map(&config).expect("two segments can be mapped");
    (arena, shards.remove(0))
}

fn buffer(arena: &Arena, shard: &mut Shard) -> FileBuffer {
    FileBuffer::new(arena, shard.acquire(HOLDER).expect("one is free"))
}

/// Whether this host lets a process have a ring; the crate panics where it does not.
fn rings_allowed() -> bool {
    catch_unwind(|| tokio_uring::start(async {})).is_ok()
}

#[test]
fn an_append_takes_what_fits() {
    let (arena, mut shard) = arena();
    let mut buffer = buffer(&arena, &mut shard);
    assert_eq!(buffer.append(&[1; 30_000]), 30_000);
    assert_eq!(buffer.append(&[2; 30_000]), 2_768);
    assert_eq!((buffer.room(), buffer.len(), buffer.append(b"x")), (0, 32_768, 0));
    assert_eq!((buffer[29_999], buffer[30_000]), (1, 2));
    buffer.clear();
    assert!(buffer.is_empty());
    let (segment, filled) = buffer.into_segment();
    assert_eq!(filled, 0);
    shard.release(segment);
    assert_eq!(shard.free(), 2);
}

#[test]
fn a_file_is_written_and_read_back() {
    if !rings_allowed() {
        return;
    }
    let (arena, mut shard) = arena();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let (mut out, back) = (buffer(&arena, &mut shard), buffer(&arena, &mut shard));
    assert_eq!(out.append(b"a snapshot"), 10);
    tokio_uring::start(async {
        let file = OpenOptions::new().read(true).write(true).open(file.path()).await.expect("opened");
        let (result, out) = file.write_all_at(out, 0).await;
        result.expect("written");
        drop(out);
        let (result, back) = file.read_at(back, 0).await;
        assert_eq!(result.expect("read"), 10);
        assert_eq!(&back[..], b"a snapshot");
        file.close().await.expect("closed");
    });
    assert_eq!(shard.free(), 2, "both buffers went home");
}

#[test]
fn registered_segments_carry_file_data() {
    if !rings_allowed() {
        return;
    }
    let (arena, mut shard) = arena();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut first = buffer(&arena, &mut shard);
    assert_eq!(first.append(b"fixed"), 5);
    let buffers = [first, buffer(&arena, &mut shard)];
    tokio_uring::start(async {
        let registry = FixedBufRegistry::new(buffers);
        registry.register().expect("64 KiB can be registered");
        let file = OpenOptions::new().read(true).write(true).open(file.path()).await.expect("opened");
        let (result, _) = file.write_fixed_at(registry.check_out(0).expect("free"), 0).await;
        assert_eq!(result.expect("written"), 5);
        let (result, back) = file.read_fixed_at(registry.check_out(1).expect("free"), 0).await;
        assert_eq!(result.expect("read"), 5);
        assert_eq!(&back[..], b"fixed");
        file.close().await.expect("closed");
    });
    assert_eq!(shard.free(), 2, "the runtime has let both go");
}
