//! A container's seccomp profile that forbids io_uring is told by name. A process of its own, because filters stay.

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_ring::{Obstacle, RingError, UringConfig, UringRing, probe};

/// Makes io_uring_setup answer EPERM on this thread, as Docker's default profile does.
fn forbid_io_uring() {
    let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let setup = libc::SYS_io_uring_setup as u32;
    let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = [
        libc::sock_filter { code: load_number, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: jump_equal, jt: 0, jf: 1, k: setup },
        libc::sock_filter { code: answer, jt: 0, jf: 0, k: eperm },
        libc::sock_filter { code: answer, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a call without pointers.
    let failed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(failed, 0);
    // SAFETY: the filter and the program it points to are live locals; the kernel copies them.
    let failed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
    assert_eq!(failed, 0);
}

#[test]
fn a_profile_that_forbids_io_uring_is_named() {
    if let Err(obstacle) = probe().io_uring {
        println!("skipped: {obstacle}");
        return;
    }
    forbid_io_uring();
    let report = probe();
    let obstacle = Obstacle::Seccomp { errno: libc::EPERM };
    assert_eq!(report.io_uring, Err(obstacle));
    assert!(report.to_string().contains("seccomp profile"), "{report}");

    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![1], huge_pages: HugePages::Never };
    let (arena, _shards) = Arena::map(&config).unwrap();
    let error = UringRing::new(&arena, 0, &UringConfig::default()).unwrap_err();
    assert_eq!(error, RingError::Unusable(obstacle));
}
