//! The accounting, under the allocator it belongs to.

use std::hint::black_box;
use std::sync::mpsc;
use std::thread;

use tidegate_memory::{
    Accounted, Counters, Label, RegisterError, Scope, measure, register_thread, this_thread, thread_counters,
};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

fn named(name: &str) -> Option<Counters> {
    thread_counters().into_iter().find(|thread| thread.name == name).map(|thread| thread.by_label.total())
}

#[test]
fn counts_are_exact() {
    let (kept, counted) = measure(|| {
        let kept: Vec<u8> = black_box(Vec::with_capacity(100));
        drop(black_box(vec![0u64; 10]));
        kept
    });
    assert_eq!(counted, Counters { allocations: 2, frees: 1, allocated_bytes: 180, freed_bytes: 80 });
    assert_eq!(counted.current_bytes(), 100);
    let ((), freed) = measure(|| drop(kept));
    assert_eq!((freed.frees, freed.current_bytes()), (1, -100));
}

#[test]
fn growing_is_a_free_and_an_allocation() {
    let mut grown: Vec<u8> = black_box(Vec::with_capacity(64));
    let ((), counted) = measure(|| grown.reserve_exact(4096));
    assert_eq!(counted, Counters { allocations: 1, frees: 1, allocated_bytes: 4096, freed_bytes: 64 });
}

#[test]
fn code_that_allocates_nothing_counts_nothing() {
    let mut buffer = [0u64; 32];
    let ((), counted) = measure(|| {
        for (place, value) in black_box(&mut buffer).iter_mut().zip(0..) {
            *place = value;
        }
    });
    assert_eq!(counted, Counters::default());
}

#[test]
fn scopes_nest_and_end() {
    let before = this_thread();
    let framework = black_box(Box::new(1u8));
    let user = Scope::enter(Label::User);
    let in_user = black_box(Box::new(2u32));
    {
        let _inner = Scope::enter(Label::Framework);
        drop(framework);
    }
    let also_user = black_box(Box::new(3u32));
    drop(user);
    drop((in_user, also_user));
    let after = this_thread();
    let framework = after.of(Label::Framework) - before.of(Label::Framework);
    let user = after.of(Label::User) - before.of(Label::User);
    assert_eq!(user, Counters { allocations: 2, frees: 0, allocated_bytes: 8, freed_bytes: 0 });
    assert_eq!(framework, Counters { allocations: 1, frees: 3, allocated_bytes: 1, freed_bytes: 9 });
}

#[test]
fn a_registered_thread_is_read_by_others_while_it_runs() {
    let (ready, seen) = mpsc::channel();
    let (proceed, wait) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let before = this_thread().total();
        let handle = register_thread("slot-0").expect("not registered yet");
        assert_eq!(register_thread("again").err(), Some(RegisterError::Registered));
        assert!(handle.counters().total().allocations >= before.allocations, "the counts go on");
        let start = handle.counters().total();
        let held = black_box(vec![0u8; 1 << 20]);
        ready.send(start).expect("the test waits");
        wait.recv().expect("the test answers");
        drop(held);
        let last = handle.counters().total();
        drop(handle);
        assert!(this_thread().total().allocations >= last.allocations, "back in the thread's own counters");
        drop(register_thread("slot-0 again").expect("free again"));
    });
    let start = seen.recv().expect("the worker reports");
    let now = named("slot-0").expect("listed while the handle lives");
    assert!((now - start).allocated_bytes >= 1 << 20);
    proceed.send(()).expect("the worker waits");
    worker.join().expect("no assertion failed");
    assert_eq!(named("slot-0"), None, "gone with the handle");
}

#[test]
fn a_handle_may_outlive_the_thread_s_other_locals() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<tidegate_memory::ThreadHandle>> = const { std::cell::RefCell::new(None) };
    }
    thread::spawn(|| {
        KEPT.with(|kept| *kept.borrow_mut() = Some(register_thread("at exit").expect("not registered yet")));
        assert!(named("at exit").is_some());
    })
    .join()
    .expect("a thread may end with its handle in a local");
    assert_eq!(named("at exit"), None);
}

#[test]
fn memory_freed_elsewhere_balances_over_all_threads() {
    let moved = black_box(vec![1u8; 500]);
    let freed = thread::spawn(move || measure(|| drop(moved)).1).join().expect("no panic");
    assert_eq!((freed.allocated_bytes, freed.freed_bytes, freed.current_bytes()), (0, 500, -500));
}
