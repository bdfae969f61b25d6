//! The accounting, under the allocator it belongs to.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use tidegate_memory::{
    Account, Accounted, Counters, RegisterError, measure, process_counters, process_heap, register_thread,
    this_thread, thread_counters,
};

/// Those that look at the whole process take turns.
static TURN: Mutex<()> = Mutex::new(());

#[global_allocator]
static HEAP: Accounted = Accounted::new();

fn named(name: &str) -> Option<Counters> {
    thread_counters().into_iter().find(|thread| thread.name == name).map(|thread| thread.counters)
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
fn accounts_nest_and_take_what_runs_under_them() {
    let (outer, inner) = (Account::new("outer"), Account::new("inner"));
    let before = this_thread();
    let early = black_box(Box::new(1u8));
    let (kept, ()) = outer.run(|| {
        let kept = black_box(Box::new(2u32));
        inner.run(|| drop(black_box(vec![0u8; 64])));
        drop(early);
        (kept, ())
    });
    let late = black_box(Box::new(3u32));
    let counts = |allocations, frees, allocated_bytes, freed_bytes| Counters {
        allocations,
        frees,
        allocated_bytes,
        freed_bytes,
    };
    assert_eq!(outer.read().counters, counts(1, 1, 4, 1), "what came from elsewhere is freed here");
    assert_eq!(inner.read().counters, counts(1, 1, 64, 64));
    assert_eq!((inner.read().current_bytes, inner.read().peak_bytes), (0, 64));
    assert_eq!(this_thread() - before, counts(4, 2, 73, 65), "a thread counts all of it");
    drop((kept, late));
}

#[test]
fn a_limit_raises_a_flag_and_nothing_else() {
    let account = Account::new("task");
    account.set_limit(Some(100));
    let kept = account.run(|| black_box(vec![0u8; 100]));
    assert!(!account.over(), "up to the limit");
    let more = account.run(|| black_box(vec![0u8; 1]));
    assert!(account.over() && account.read().over);
    account.run(|| drop(more));
    assert!(account.over(), "it stays up");
    account.set_limit(Some(50));
    assert!(!account.over());
    account.run(|| drop(black_box(Box::new(1u8))));
    assert!(account.over(), "a lower limit counts at the next allocation, though no new peak was reached");
    drop(kept);
}

#[test]
fn a_panic_leaves_the_account() {
    let account = Account::new("task");
    let result =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| account.run(|| panic!("a user's"))));
    assert!(result.is_err());
    let before = account.read().counters.allocations;
    drop(black_box(vec![0u8; 10]));
    assert_eq!(account.read().counters.allocations, before);
}

#[test]
fn the_process_is_the_sum_of_its_threads() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    const BYTES: usize = 64 << 20;
    let before = process_counters().current_bytes();
    let kept = thread::spawn(|| {
        let unregistered = black_box(vec![0u8; BYTES]);
        let handle = register_thread("in between").expect("not registered yet");
        let registered = black_box(vec![0u8; BYTES]);
        drop(handle);
        (unregistered, registered)
    });
    let kept = kept.join().expect("no panic");
    // Other tests run beside this one, with far less.
    let grown = process_counters().current_bytes() - before;
    assert!((grown - 2 * BYTES as i64).abs() < BYTES as i64 / 4, "{grown}");
    drop(kept);
    assert!((process_counters().current_bytes() - before).abs() < BYTES as i64 / 4);
}

/// Whenever somebody looks, what an account has just taken is the account's and nobody else's.
#[test]
fn what_accounts_hold_is_told_from_the_rest_of_the_heap_at_once() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    const BYTES: usize = 256 << 20;
    const HALF: u64 = BYTES as u64 / 2;
    let account = Account::new("task");
    let rest = || {
        let heap = process_heap();
        (heap.accounts, heap.all.saturating_sub(heap.accounts))
    };
    let before = rest();
    let kept = account.run(|| black_box(vec![0u8; BYTES]));
    let during = rest();
    assert!(during.0 - before.0 > HALF, "{before:?} {during:?}");
    // Other tests run beside this one, with less.
    assert!(during.1.abs_diff(before.1) < HALF + HALF / 2, "{before:?} {during:?}");
    account.run(|| drop(kept));
    assert!(rest().0 < HALF);
    drop(account);
}

#[test]
fn a_registered_thread_is_read_by_others_while_it_runs() {
    let (ready, seen) = mpsc::channel();
    let (proceed, wait) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let before = this_thread();
        let handle = register_thread("slot-0").expect("not registered yet");
        assert_eq!(register_thread("again").err(), Some(RegisterError::Registered));
        assert!(handle.counters().allocations >= before.allocations, "the counts go on");
        let start = handle.counters();
        let held = black_box(vec![0u8; 1 << 20]);
        ready.send(start).expect("the test waits");
        wait.recv().expect("the test answers");
        drop(held);
        let last = handle.counters();
        drop(handle);
        assert!(this_thread().allocations >= last.allocations, "back in the thread's own counters");
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
