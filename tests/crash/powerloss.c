/* Preloaded into the server: records every write to a file below POWERLOSS_DIR, and every sync, in POWERLOSS_LOG, so that
 * the test can undo the writes that a power loss would have lost. powerloss.rs reads the log; both know the record below.
 *
 * A write is recorded before it is done, with the bytes that it replaces; a sync is recorded after it is done. So whenever
 * the process is killed, the log never counts a write as durable that was not. One mutex keeps the log in the order of the
 * effects. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4, RENAME = 5 };

/* Followed by the path, the old bytes and the new bytes (of RENAME, the new path). */
struct record {
    uint64_t kind, path_length, offset, old_size, old_length, new_length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char dir[PATH_MAX];
static size_t dir_length;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

static void die(const char *why) {
    if (real_write) real_write(2, why, strlen(why));
    _exit(99);
}

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    const char *log = getenv("POWERLOSS_LOG"), *below = getenv("POWERLOSS_DIR");
    if (!log || !below || strlen(below) >= sizeof dir) die("powerloss: POWERLOSS_LOG and POWERLOSS_DIR are missing\n");
    strcpy(dir, below);
    dir_length = strlen(dir);
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) die("powerloss: the log cannot be opened\n");
}

static int is_ours(const char *path) {
    return strncmp(path, dir, dir_length) == 0 && path[dir_length] == '/';
}

/* Sets `path` to the path of the file, and returns whether the file is watched. */
static int watched(int fd, char *path) {
    char link[64] = "/proc/self/fd/", digits[16];
    int n = 0, at = 14;
    if (log_fd < 0 || fd < 0) return 0;
    do digits[n++] = '0' + fd % 10; while (fd /= 10);
    while (n) link[at++] = digits[--n];
    link[at] = 0;
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t done = real_write(log_fd, at, length);
        if (done <= 0) die("powerloss: the log cannot be written\n");
        at += done;
        length -= done;
    }
}

/* One write call per record, so that a kill leaves at most one record cut off, at the end. */
static void note(enum kind kind, const char *path, off_t offset, off_t old_size, const void *old, size_t old_length,
                 const void *new, size_t new_length) {
    struct record record = { kind, strlen(path), offset, old_size, old_length, new_length };
    size_t length = sizeof record + record.path_length + old_length + new_length;
    char *bytes = malloc(length), *at = bytes;
    if (!bytes) die("powerloss: no memory\n");
    at = mempcpy(at, &record, sizeof record);
    at = mempcpy(at, path, record.path_length);
    if (old_length) at = mempcpy(at, old, old_length);
    if (new_length) memcpy(at, new, new_length);
    put(bytes, length);
    free(bytes);
}

static off_t size_of(int fd) {
    struct stat stat;
    if (fstat(fd, &stat)) die("powerloss: fstat failed\n");
    return stat.st_size;
}

/* Reads the present bytes of [from, to), through the same descriptor: closing another one would drop the locks that SQLite
 * holds on the file. */
static size_t read_old(int fd, off_t from, off_t to, char **old) {
    *old = NULL;
    if (to <= from) return 0;
    *old = malloc(to - from);
    ssize_t length = *old ? pread(fd, *old, to - from, from) : -1;
    if (length != to - from) die("powerloss: old bytes cannot be read\n");
    return length;
}

static void note_write(int fd, const char *path, const void *bytes, size_t length, off_t offset) {
    off_t size = size_of(fd), end = offset + (off_t)length;
    char *old;
    size_t old_length = read_old(fd, offset, end < size ? end : size, &old);
    note(WRITE, path, offset, size, old, old_length, bytes, length);
    free(old);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char path[PATH_MAX];
    if (!watched(fd, path)) return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    note_write(fd, path, bytes, length, appends ? size_of(fd) : lseek(fd, 0, SEEK_CUR));
    ssize_t done = real_write(fd, bytes, length);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!watched(fd, path)) return real_pwrite(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    note_write(fd, path, bytes, length, offset);
    ssize_t done = real_pwrite(fd, bytes, length, offset);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite(fd, bytes, length, offset); }

int ftruncate(int fd, off_t length) {
    char path[PATH_MAX], *old;
    if (!watched(fd, path)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    off_t size = size_of(fd);
    size_t old_length = read_old(fd, length, size, &old);
    note(TRUNCATE, path, length, size, old, old_length, NULL, 0);
    free(old);
    int done = real_ftruncate(fd, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static int sync_with(int (*real_sync)(int), int fd) {
    char path[PATH_MAX];
    if (!watched(fd, path)) return real_sync(fd);
    pthread_mutex_lock(&lock);
    int done = real_sync(fd);
    if (done == 0) note(SYNC, path, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) { return sync_with(real_fsync, fd); }

int fdatasync(int fd) { return sync_with(real_fdatasync, fd); }

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = real_unlink(path);
    if (done == 0 && log_fd >= 0 && is_ours(path)) note(UNLINK, path, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int done = real_rename(from, to);
    if (done == 0 && log_fd >= 0 && is_ours(from)) note(RENAME, from, 0, 0, NULL, 0, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return done;
}
