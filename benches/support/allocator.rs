//! The allocator of the program. Not of the plain build (`plain_build`), which has what its user would have: libc's.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
