//! System calls in a capture: how their events are called, and which of their errors are no failures.
//! Both halves need to say the same; nothing is read or decided here.

/// The set that has the system calls of all threads. Beside file operations only those of threads other
/// than the main one are recorded, in the set of these.
pub const SET: &str = "syscalls";
/// A thread enters the kernel; argument `id`, the number of the call.
pub const ENTER: &str = "sys_enter";
/// It leaves; arguments `id` and `ret`.
pub const EXIT: &str = "sys_exit";
/// It leaves with a failure; the same arguments, and a stack.
pub const FAILED: &str = "sys_exit.failed";

/// Results from here to -1 are error numbers (include/linux/err.h, MAX_ERRNO).
pub const MAX_ERRNO: i64 = 4095;
/// Error numbers from here on never reach the program: the kernel makes the call anew, or turns them
/// into EINTR (include/linux/errno.h, ERESTARTSYS and following).
pub const FIRST_INTERNAL: i64 = 512;
/// Errors that are no failures: EINTR, EAGAIN, ETIMEDOUT and EINPROGRESS are how calls that do not
/// block say "not yet", and how waiting ends (include/uapi/asm-generic/errno-base.h and errno.h). They
/// come by the thousand, and a stack would tell nothing.
pub const NOT_YET: [i64; 4] = [4, 11, 110, 115];

/// Whether a result says that a call failed, not only that it shall be made again.
#[must_use]
pub fn is_failure(result: i64) -> bool {
    let internal = result <= FIRST_INTERNAL.wrapping_neg();
    result < 0 && !internal && !NOT_YET.contains(&result.saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_waiting() {
        for (result, failed) in
            [(-2, true), (-13, true), (-511, true), (-11, false), (-4, false), (-512, false)]
        {
            assert_eq!(is_failure(result), failed, "{result}");
        }
        assert!(![0, 5, i64::MIN, i64::MAX, -4096].into_iter().any(is_failure));
    }
}
