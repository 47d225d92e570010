//! Leave to use the tile registers of AMX, which are so large that Linux gives them on request only.

#![allow(unsafe_code, reason = "the C library has no function for this call")]

/// Whether this process may use tile registers from now on, in all its threads.
///
/// True where the processor has them and the system saves them; `false` on systems that cannot be asked.
pub fn permit_tiles() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl(2)`.
        const REQUEST: libc::c_ulong = 0x1023;
        /// The number of the state `XTILEDATA`.
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: the call takes two numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    false
}
