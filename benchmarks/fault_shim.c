/* Faults of disk and clock for the processes that have this library preloaded; fault_shim.py turns them on and off.

   Only files below KENPIN_FAULT_ROOT are touched. The monotonic clock stays as it is, as on a machine whose time
   is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* As in fault_shim.py. */
struct control {
    _Atomic int64_t clock_s;   /* what the wall clock is ahead */
    _Atomic int64_t sync_ms;   /* what each sync takes longer */
    _Atomic int64_t broken;    /* error number of every write and sync; 0 = none */
    _Atomic int64_t countdown; /* this many writes or syncs of the database from now, one fails; 0 = none */
    _Atomic int64_t failed;    /* how many have failed */
};

static struct control *control;
static const char *root;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("KENPIN_FAULT_CONTROL");
    root = getenv("KENPIN_FAULT_ROOT");
    int handle = path && root ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (handle < 0) return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (memory != MAP_FAILED) control = memory;
}

static int is_below(int handle, const char *folder, const char *name) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0 && strstr(path, name) != NULL;
}

/* The error number that this write or sync of a file ends with; 0 = it goes on. */
static int fault(int handle) {
    if (!control) return 0;
    int error = 0;
    if (control->broken && is_below(handle, root, "/")) error = (int)control->broken;
    else if (control->countdown > 0 && is_below(handle, root, "/station.") &&
             atomic_fetch_sub(&control->countdown, 1) == 1) error = EIO;
    if (error) atomic_fetch_add(&control->failed, 1);
    return error;
}

static void wait_for_disk(int handle) {
    if (!control || !control->sync_ms || !is_below(handle, root, "/")) return;
    struct timespec pause = {control->sync_ms / 1000, control->sync_ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

#define FAIL(handle) do { int error = fault(handle); if (error) { errno = error; return -1; } } while (0)
#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) { NEXT(write); FAIL(handle); return next(handle, data, size); }

ssize_t pwrite(int handle, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    FAIL(handle);
    return next(handle, data, size, at);
}

ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    FAIL(handle);
    return next(handle, data, size, at);
}

int fsync(int handle) { NEXT(fsync); wait_for_disk(handle); FAIL(handle); return next(handle); }

int fdatasync(int handle) { NEXT(fdatasync); wait_for_disk(handle); FAIL(handle); return next(handle); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int result = next(clock, now);
    if (control && !result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->clock_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    NEXT(gettimeofday);
    int result = next(now, zone);
    if (control && !result) now->tv_sec += control->clock_s;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
