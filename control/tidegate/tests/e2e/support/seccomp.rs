//! A container's seccomp profile that forbids io_uring, for the calling thread and the processes that it starts.

/// Makes io_uring_setup answer EPERM on this thread, as Docker's default profile does.
pub fn forbid_io_uring() {
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
