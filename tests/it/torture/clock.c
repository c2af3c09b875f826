/* The wall clock of one process, stepped from outside: preloaded, it adds to CLOCK_REALTIME the milliseconds that the file
 * $TORTURE_CLOCK holds as a number of eight bytes. The monotonic clock is left alone, as a step leaves it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *step;

__attribute__((constructor)) static void map_step(void) {
    const char *path = getenv("TORTURE_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) step = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int ended = (int)syscall(SYS_clock_gettime, clock, time);
    if (ended == 0 && clock == CLOCK_REALTIME && step) {
        long long nanos = time->tv_nsec + (*step % 1000) * 1000000LL;
        time->tv_sec += *step / 1000;
        if (nanos < 0) { nanos += 1000000000LL; time->tv_sec -= 1; }
        if (nanos >= 1000000000LL) { nanos -= 1000000000LL; time->tv_sec += 1; }
        time->tv_nsec = nanos;
    }
    return ended;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int ended = clock_gettime(CLOCK_REALTIME, &exact);
    time->tv_sec = exact.tv_sec;
    time->tv_usec = exact.tv_nsec / 1000;
    return ended;
}
