/* Adds BENCH_FSYNC_US microseconds to every fsync and fdatasync: a disk that really flushes.
 * Build: gcc -O2 -shared -fPIC -o slow_fsync.so slow_fsync.c -ldl. Use: LD_PRELOAD=./slow_fsync.so PROGRAM */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void linger(void)
{
    const char *given = getenv("BENCH_FSYNC_US");
    long us = given ? atol(given) : 2000;
    struct timespec left = {us / 1000000, (us % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0)
        ;
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    linger();
    return real(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    linger();
    return real(fd);
}
