/* What a disk would still hold after a power cut: a copy of each watched file as it was at its last sync.
 *
 * Preloaded into a process; PLATTER_OF is the path of a database (its log begins with the same name), PLATTER
 * the folder of the copies. Whatever was written and not synced is not there: the harshest disk there is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void keep(int handle) {
    const char *watched = getenv("PLATTER_OF"), *folder = getenv("PLATTER");
    char link[64], path[PATH_MAX], name[PATH_MAX], target[PATH_MAX + 64], partial[PATH_MAX + 64];
    static __thread char own[1 << 16];
    if (!watched || !folder) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (strncmp(path, watched, strlen(watched)) != 0) return;
    strcpy(name, path);
    snprintf(target, sizeof target, "%s/%s", folder, basename(name));
    snprintf(partial, sizeof partial, "%s.%ld", target, (long)syscall(SYS_gettid));
    int out = open(partial, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    off_t at = 0;
    while ((length = pread(handle, own, sizeof own, at)) > 0) {
        if (write(out, own, length) != length) abort();
        at += length;
    }
    close(out);
    rename(partial, target);
}

/* A file that was removed is not read again; a journal of before the log would be taken for a hot one. */
int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    const char *watched = getenv("PLATTER_OF"), *folder = getenv("PLATTER");
    if (watched && folder && strncmp(path, watched, strlen(watched)) == 0) {
        char name[PATH_MAX], target[PATH_MAX + 64];
        snprintf(name, sizeof name, "%s", path);
        snprintf(target, sizeof target, "%s/%s", folder, basename(name));
        real(target);
    }
    return real(path);
}

int fsync(int handle) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int result = real(handle);
    if (result == 0) keep(handle);
    return result;
}

int fdatasync(int handle) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(handle);
    if (result == 0) keep(handle);
    return result;
}
