/* A disk that misbehaves, or is watched: preloaded (LD_PRELOAD) beneath SQLite and Python.
 *
 * SHIM_CONTROL names a text file that is read again at each call; each line is
 *     OP PART fail ERRNO       the call on a path that contains PART fails, nothing is done
 *     OP PART delay 0          the call waits while the line is there
 *     OP PART quota BYTES      a call that would make a file on a path that contains PART larger fails with EDQUOT once
 *                              the files beside it, and it, would hold more than BYTES together
 *     OP PART kill NUMBER      the NUMBERth such call from now on ends the process before it is done
 * where OP is write, sync, truncate, unlink or rename. Lines starting with '#' are skipped.
 * SHIM_RECORD names a file that gets a record of each successful call, in order:
 *     u8 op, u16 path length, u64 offset, u32 data length, path, data
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 'w', SYNC = 's', TRUNCATE = 't', UNLINK = 'u', RENAME = 'r', ALLOCATE = 'a' };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static int record_fd = -2;
static long calls_seen = 0;

static void path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

static __thread long grown; /* bytes by which this thread's call would make its file larger */

/* bytes of all files in the directory of `path` */
static long held_beside(const char *path) {
    char place[4096];
    snprintf(place, sizeof place, "%s", path);
    char *slash = strrchr(place, '/');
    if (!slash) return 0;
    *slash = 0;
    DIR *directory = opendir(place);
    if (!directory) return 0;
    long sum = 0;
    struct dirent *entry;
    struct stat found;
    while ((entry = readdir(directory)))
        if (!fstatat(dirfd(directory), entry->d_name, &found, 0) && S_ISREG(found.st_mode)) sum += found.st_size;
    closedir(directory);
    return sum;
}

static long growth(int fd, long end) {
    struct stat found;
    return !fstat(fd, &found) && S_ISREG(found.st_mode) && end > found.st_size ? end - found.st_size : 0;
}

/* 0: go on; else the errno that the call fails with */
static int ruled(const char *op, const char *path) {
    const char *control = getenv("SHIM_CONTROL");
    if (!control || !path[0]) return 0;
    for (;;) {
        char text[4096];
        int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
        if (fd < 0) return 0;
        ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
        syscall(SYS_close, fd);
        if (length <= 0) return 0;
        text[length] = 0;
        int wait = 0;
        char *rest = text, *line;
        while ((line = strsep(&rest, "\n"))) {
            char want[16], part[256], action[16];
            long value;
            if (line[0] == '#' || sscanf(line, "%15s %255s %15s %ld", want, part, action, &value) != 4) continue;
            if (strcmp(want, op) || !strstr(path, part)) continue;
            if (!strcmp(action, "fail")) return (int)value;
            if (!strcmp(action, "quota") && grown && held_beside(path) + grown > value) return EDQUOT;
            if (!strcmp(action, "delay")) wait = 1;
            if (!strcmp(action, "kill") && __sync_add_and_fetch(&calls_seen, 1) == value) _exit(137);
        }
        if (!wait) return 0;
        usleep(2000);
    }
}

static void note(char op, const char *path, uint64_t offset, const void *data, uint32_t size) {
    pthread_mutex_lock(&guard);
    if (record_fd == -2) {
        const char *name = getenv("SHIM_RECORD");
        record_fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    }
    if (record_fd >= 0 && path[0] == '/') {
        uint16_t length = (uint16_t)strlen(path);
        size_t total = 15 + length + size;
        char *buffer = malloc(total);
        buffer[0] = op;
        memcpy(buffer + 1, &length, 2);
        memcpy(buffer + 3, &offset, 8);
        memcpy(buffer + 11, &size, 4);
        memcpy(buffer + 15, path, length);
        if (size) memcpy(buffer + 15 + length, data, size);
        if (syscall(SYS_write, record_fd, buffer, total) != (long)total) abort();
        free(buffer);
    }
    pthread_mutex_unlock(&guard);
}

#define RULED(op, fd)                                   \
    char path[4096];                                    \
    path_of(fd, path, sizeof path);                     \
    int refused = ruled(op, path);                      \
    if (refused) { errno = refused; return -1; }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    grown = growth(fd, (long)offset + (long)size);
    RULED("write", fd)
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) note(WRITE, path, (uint64_t)offset, data, (uint32_t)done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    RULED("write", fd)
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (done > 0) {
        int kept = errno;
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end >= 0) note(WRITE, path, (uint64_t)(end - done), data, (uint32_t)done);
        errno = kept;
    }
    return done;
}

int fdatasync(int fd) {
    RULED("sync", fd)
    int done = (int)syscall(SYS_fdatasync, fd);
    if (!done) note(SYNC, path, 0, 0, 0);
    return done;
}

int fsync(int fd) {
    RULED("sync", fd)
    int done = (int)syscall(SYS_fsync, fd);
    if (!done) note(SYNC, path, 0, 0, 0);
    return done;
}

int ftruncate64(int fd, off64_t size) {
    RULED("truncate", fd)
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (!done) note(TRUNCATE, path, (uint64_t)size, 0, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    char path[4096];
    path_of(fd, path, sizeof path);
    grown = growth(fd, (long)offset + (long)size);
    int refused = ruled("write", path);
    if (refused) return refused;
    if (syscall(SYS_fallocate, fd, 0, offset, size)) return errno;
    note(ALLOCATE, path, (uint64_t)(offset + size), 0, 0);
    return 0;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

int unlink(const char *name) {
    int refused = ruled("unlink", name);
    if (refused) { errno = refused; return -1; }
    int done = (int)syscall(SYS_unlink, name);
    if (!done) note(UNLINK, name, 0, 0, 0);
    return done;
}

int rename(const char *from, const char *to) {
    int refused = ruled("rename", from);
    if (refused) { errno = refused; return -1; }
    int done = (int)syscall(SYS_rename, from, to);
    if (!done) note(RENAME, from, 0, to, (uint32_t)strlen(to));
    return done;
}
