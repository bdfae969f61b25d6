//! No heap after start: neither an operation nor a completion nor a wait allocates. A process of its own, because the
//! allocator is one of the process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::{TcpListener, TcpStream},
};

use tidegate_arena::{Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard};
use tidegate_ring::{
    AnyRing, Completion, ConnId, Doorbell, EpollConfig, EpollRing, ReceivePart, ReceiveParts, Registration,
    Ring, SendMode, SendPart, SendParts, UringConfig, UringRing, probe,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; a const thread-local of a Cell allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's layout, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's pointer and layout, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };

#[derive(Clone, Copy, Debug)]
enum Driver {
    Uring(SendMode),
    Epoll,
}

struct Half {
    arena: Arena,
    shard: Shard,
    ring: AnyRing,
    conn: ConnId,
}

impl Half {
    fn new(stream: TcpStream, driver: Driver) -> Self {
        let segment_size = SegmentSize::DEFAULT;
        let config = ArenaConfig { segment_size, shards: vec![64], huge_pages: HugePages::Never };
        let (arena, mut shards) = Arena::map(&config).unwrap();
        let mut ring: AnyRing = match driver {
            Driver::Uring(send) => {
                let config = UringConfig { send, registration: Registration::Auto, connections_max: 2 };
                UringRing::new(&arena, 0, &config).unwrap().into()
            }
            Driver::Epoll => {
                EpollRing::new(&arena, &EpollConfig { connections_max: 2, ..EpollConfig::default() })
                    .unwrap()
                    .into()
            }
        };
        let conn = ring.attach(stream.into()).unwrap();
        Self { arena, shard: shards.remove(0), ring, conn }
    }

    fn send(&mut self) {
        let part = |_| {
            let segment = self.shard.acquire(HOLDER).unwrap();
            SendPart { segment: self.arena.launch(self.arena.seal(segment, 1000)), offset: 0, len: 1000 }
        };
        let parts: SendParts = (0..4).map(part).collect();
        assert!(self.ring.send(self.conn, parts).is_ok());
    }

    fn receive(&mut self) {
        let segment = self.shard.acquire_granted(HOLDER).unwrap();
        let part = ReceivePart { segment: self.arena.post(segment), offset: 0, len: 4000 };
        assert!(self.ring.receive(self.conn, ReceiveParts::from_iter([part])).is_ok());
    }

    /// Bytes sent or received by the next turn.
    fn turn(&mut self) -> u64 {
        let (arena, shard) = (&self.arena, &mut self.shard);
        let mut bytes = 0;
        self.ring.reap(8, &mut |completion| match completion {
            Completion::Sent { result, parts, .. } => {
                bytes += result.unwrap();
                parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
            }
            Completion::Released { parts, .. } => {
                parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
            }
            Completion::Received { result, parts, .. } => {
                bytes += u64::from(result.unwrap());
                parts.into_iter().for_each(|part| shard.release(arena.unpost::<Granted>(part.segment)));
            }
            Completion::Closed { .. } => {}
        });
        bytes
    }
}

#[test]
fn nothing_on_the_data_path_allocates() {
    let usable = probe().io_uring.inspect_err(|obstacle| println!("io_uring is skipped: {obstacle}")).is_ok();
    let uring = [SendMode::Fixed, SendMode::Plain, SendMode::Zc].map(Driver::Uring);
    for driver in uring.into_iter().filter(|_| usable).chain([Driver::Epoll]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut from, mut to) = (Half::new(stream, driver), Half::new(listener.accept().unwrap().0, driver));
        let doorbell = to.ring.doorbell();
        let before = ALLOCATIONS.with(Cell::get);
        assert!(before > 0, "making rings allocates, and is counted");
        for _ in 0..200 {
            let (mut sent, mut received) = (0, 0);
            from.send();
            while sent < 4000 {
                sent += from.turn();
            }
            while received < 4000 {
                to.receive();
                loop {
                    let bytes = to.turn();
                    received += bytes;
                    if bytes > 0 {
                        break;
                    }
                    to.ring.wait(None);
                }
            }
            doorbell.ring();
            to.ring.wait(None);
            from.turn();
        }
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "{driver:?}");
        // Ending and beginning a connection in a place that was used before do not either.
        let again = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let before = ALLOCATIONS.with(Cell::get);
        from.ring.close(from.conn);
        while from.ring.report().connections > 0 {
            from.turn();
        }
        from.conn = from.ring.attach(again.into()).unwrap();
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "{driver:?}");
    }
}
