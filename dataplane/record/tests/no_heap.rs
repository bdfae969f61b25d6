//! Writing and reading records in place takes nothing from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tidegate_record::{Key, KeyRef, KeyedCodec, Plain, Record, Records, Slot};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: S-5 does not apply; this passes every call on to the system's allocator unchanged and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counter any more, and nothing of ours runs then.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Tick {
    id: u64,
    size: u64,
}

#[derive(Record)]
struct Order {
    customer: String,
    lines: Vec<(String, u32)>,
    note: Option<String>,
}

#[repr(align(64))]
struct Segment([u8; 32 * 1024]);

#[test]
fn records_take_no_heap() {
    let line = |i: u32| (format!("an article with a long name {i}"), i);
    let order = Order {
        customer: "somebody with a long name".into(),
        lines: (0..300).map(line).collect(),
        note: None,
    };
    let key = String::from("a key of some length");
    let mut segment = Box::new(Segment([0; 32 * 1024]));

    let before = ALLOCATIONS.get();
    let mut slot = Slot::new(&mut segment.0, 0);
    while (Tick { id: 1, size: 2 }).write(&mut slot).is_ok() {}
    let sum: u64 = Records::<Tick>::new(slot.bytes()).map(|tick| tick.map_or(0, |tick| tick.id)).sum();

    let mut slot = Slot::new(&mut segment.0, 0);
    order.write(&mut slot).unwrap();
    let lines = Records::<Order>::new(slot.bytes()).next().unwrap().unwrap().lines.len();

    type Codec = <Order as Record>::Keyed<String>;
    let mut slot = Slot::new(&mut segment.0, 0);
    Codec::write(&key, &order, &mut slot).unwrap();
    let (found, _) = Codec::read(slot.bytes(), &mut 0, &|_: &Order| String::new()).unwrap().unwrap();
    let same = found.is(&key) && found.hash() == key.hash();
    let allocations = ALLOCATIONS.get() - before;

    assert_eq!((sum, lines, same), (2048, 300, true));
    assert_eq!(allocations, 0);
}
