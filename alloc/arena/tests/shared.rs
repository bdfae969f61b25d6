//! Memory between processes: what is shared arrives and stays ours, and what a peer shares is refused by what it lacks.
#![cfg(not(any(loom, miri)))]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use tidegate_arena::foreign::{Foreign, ForeignError};
use tidegate_arena::shared::Words;
use tidegate_arena::{Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard};

const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };
const FOUR: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

fn arena() -> (Arena, Shard) {
    let (segment_size, shards) = (SegmentSize::new(4096).unwrap(), vec![4, 2]);
    let (arena, mut shards) =
        Arena::map_shared(&ArenaConfig { segment_size, shards, huge_pages: HugePages::Never }).unwrap();
    (arena, shards.swap_remove(1))
}

fn memory_file(seals: SealFlags, bytes: u64) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

#[test]
fn a_peer_reads_what_a_segment_holds_at_every_alignment() {
    let (arena, mut shard) = arena();
    let mut filling = shard.acquire(HOLDER).unwrap();
    for (index, byte) in arena.bytes_mut(&mut filling).iter_mut().enumerate() {
        *byte = (index * 7 + index / 256) as u8;
    }
    let sealed = arena.seal(filling, 4096);
    let file = arena.file().unwrap().try_clone_to_owned().unwrap();
    let foreign = Foreign::map(&file, 1, 1 << 30).unwrap();
    let offset = arena.file_offset(&sealed);
    assert!(offset > 0, "the second shard does not start the file");
    let odd = [(0, 0, 4096), (1, 0, 4095), (3, 5, 64), (8, 1, 17), (15, 2, 7), (9, 9, 0)];
    let all = (0..=600).map(|len| (u64::from(len) % 17, len % 13, len));
    for (skip, at, len) in odd.into_iter().chain(all) {
        let mut target = arena.post(shard.acquire_granted(HOLDER).unwrap());
        arena.copy_in(&mut target, at, &foreign, offset + skip, len);
        let received = arena.received(arena.unpost::<Granted>(target), at + len);
        let expected = &arena.bytes(&sealed)[skip as usize..(skip + u64::from(len)) as usize];
        assert_eq!(&arena.bytes(&received)[at as usize..], expected, "{skip} {at} {len}");
        arena.release(received);
    }
    arena.release(sealed);
}

#[test]
fn what_is_shared_can_be_neither_written_nor_resized_by_who_gets_it() {
    let (arena, _shard) = arena();
    let words = Words::new().unwrap();
    for file in [arena.file().unwrap(), words.file()] {
        assert_eq!(ftruncate(file, 0), Err(Errno::PERM));
        assert_eq!(ftruncate(file, 1 << 30), Err(Errno::PERM));
        assert_eq!(rustix::io::pwrite(file, b"x", 0), Err(Errno::PERM));
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert_eq!(rustix::fs::fallocate(file, hole, 0, 4096), Err(Errno::PERM));
        // Opened anew through the file's own entry, by the same user.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let again = File::options().read(true).write(true).open(path).unwrap();
        assert_eq!(rustix::io::pwrite(again.as_fd(), b"x", 0), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(again.as_fd(), SealFlags::WRITE), Err(Errno::PERM));
    }
}

#[test]
fn words_arrive() {
    let words = Words::new().unwrap();
    let foreign = Foreign::map(&words.file().try_clone_to_owned().unwrap(), 4096, 4096).unwrap();
    words.set(3, 17);
    words.publish(Words::COUNT - 1, u64::MAX);
    assert_eq!((foreign.word(3), foreign.word(Words::COUNT - 1), foreign.word(0)), (17, u64::MAX, 0));
    drop(words);
    assert_eq!(foreign.word(3), 17, "the memory stays as long as somebody has it mapped");
}

#[test]
fn a_file_is_refused_by_what_it_lacks() {
    let map = |file: &OwnedFd| Foreign::map(file, 4096, 8192).map(|_| ());
    assert_eq!(map(&memory_file(FOUR, 8192)), Ok(()));
    for seal in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE] {
        let refusal = map(&memory_file(FOUR.difference(seal), 8192)).unwrap_err();
        let (name, _) = seal.iter_names().next().unwrap();
        assert!(matches!(refusal, ForeignError::Unsealed { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
    let refusal = map(&memory_file(SealFlags::empty(), 8192)).unwrap_err().to_string();
    for name in ["SHRINK", "GROW", "SEAL", "FUTURE_WRITE"] {
        assert!(refusal.contains(name), "{refusal}");
    }
    for found in [0, 4095, 8193] {
        assert_eq!(
            map(&memory_file(FOUR, found)),
            Err(ForeignError::Size { found, least: 4096, most: 8192 })
        );
    }
    let plain = OwnedFd::from(File::open("/proc/self/exe").unwrap());
    assert_eq!(map(&plain), Err(ForeignError::NoMemoryFile));
    let socket = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    assert_eq!(map(&socket), Err(ForeignError::NoMemoryFile));
}

/// A page that is read where there was none is made then, at the reader's charge: so none is read there.
#[test]
fn copies_come_from_pages_that_were_there() {
    const PAGE: u64 = 4096;
    let file = memory_file(SealFlags::empty(), 1 << 40);
    for page in [2, 3, 9] {
        rustix::io::pwrite(&file, &[1; PAGE as usize], page * PAGE).unwrap();
    }
    fcntl_add_seals(&file, FOUR).unwrap();
    let foreign = Foreign::map(&file, 1, 1 << 40).unwrap();
    let held = [(2 * PAGE, 2 * PAGE), (3 * PAGE + 4095, 1), (9 * PAGE, PAGE), (4 * PAGE - 8, 8)];
    for (offset, len) in held {
        assert!(foreign.holds(offset, len as u32), "{offset} {len}");
    }
    let holes = [(0, 1), (2 * PAGE - 1, 2), (3 * PAGE, 2 * PAGE), (5 * PAGE, 1), (9 * PAGE, PAGE + 1)];
    for (offset, len) in holes.into_iter().chain([((1 << 40) - 1, 1), (u64::MAX, 2)]) {
        assert!(!foreign.holds(offset, len as u32), "{offset} {len}");
    }
    let scattered = memory_file(SealFlags::empty(), 1 << 30);
    for page in 0..=tidegate_arena::limits::FOREIGN_RANGES_MAX as u64 {
        rustix::io::pwrite(&scattered, &[1], 2 * page * PAGE).unwrap();
    }
    fcntl_add_seals(&scattered, FOUR).unwrap();
    assert_eq!(Foreign::map(&scattered, 1, 1 << 30).map(|_| ()), Err(ForeignError::Scattered));
}

#[test]
#[should_panic(expected = "lies within the foreign memory")]
fn a_copy_from_beyond_the_end_is_refused() {
    let (arena, mut shard) = arena();
    let foreign = Foreign::map(&memory_file(FOUR, 4096), 1, 4096).unwrap();
    let mut target = arena.post(shard.acquire_granted(HOLDER).unwrap());
    arena.copy_in(&mut target, 0, &foreign, u64::MAX - 3, 8);
}
