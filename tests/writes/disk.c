/* A disk that fails at the n-th call: put before a process by LD_PRELOAD, told what to do by a file in shared memory.
 *
 * Counted are the calls that change what is below the folders of the state: each write, sync, truncation, rename
 * and link, and what makes a file or a folder. All processes that have this library and the same state count together. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, ONCE, ON, TORN, KILL };

struct state {
    uint64_t count;   /* calls so far */
    uint64_t at;      /* the call that fails, from 1 on; 0: none */
    uint64_t failed;  /* calls that have failed */
    int32_t mode;     /* one of the above */
    int32_t error;    /* the errno of a call that fails */
    char folders[4][512];
    char log[512];    /* where each call is written down; "" for nowhere */
};

static struct state *state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAILING_DISK");
    if (path == NULL) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (found != MAP_FAILED) state = found;
}

static int is_below(const char *path) {
    for (int n = 0; n < 4; n++) {
        size_t length = strlen(state->folders[n]);
        if (length && strncmp(path, state->folders[n], length) == 0 && (path[length] == '/' || path[length] == 0))
            return 1;
    }
    return 0;
}

/* The absolute path of a name that a call was given; not resolved further. */
static int place_of(int folder, const char *name, char *path) {
    if (name == NULL) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return 1;
    }
    char link[64], base[PATH_MAX];
    if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
    if (length <= 0) return 0;
    base[length] = 0;
    while (name[0] == '.' && name[1] == '/') name += 2;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

static int place_of_open(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return path[0] == '/';
}

static void note(uint64_t number, const char *what, const char *path) {
    char line[PATH_MAX + 64];
    if (!state->log[0]) return;
    int length = snprintf(line, sizeof line, "%llu\t%s\t%d\t%s\n", (unsigned long long)number, what, getpid(), path);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, state->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, (size_t)length);
    syscall(SYS_close, fd);
}

enum answer { DO, FAIL, HALF, DIE };

/* Count a call on this path, and say what becomes of it. */
static enum answer ask(const char *what, const char *path) {
    if (!is_below(path)) return DO;
    int before = errno;
    uint64_t number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    enum answer answer = DO;
    if (state->at && number == state->at) answer = state->mode == TORN ? HALF : state->mode == KILL ? DIE : FAIL;
    else if (state->at && number > state->at && state->mode == ON) answer = FAIL;
    if (answer != DO || !state->at) note(number, what, path);
    if (answer != DO) __atomic_add_fetch(&state->failed, 1, __ATOMIC_SEQ_CST);
    errno = before;
    return answer;
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int refused(const char *what, const char *path) {
    switch (ask(what, path)) {
    case DO: return 0;
    case DIE: die(); return 1; /* before it has happened */
    default: errno = state->error; return 1;
    }
}

static int refused_fd(const char *what, int fd) {
    char path[PATH_MAX];
    return state && place_of_open(fd, path) && refused(what, path);
}

static int refused_at(const char *what, int folder, const char *name) {
    char path[PATH_MAX];
    return state && place_of(folder, name, path) && refused(what, path);
}

/* What makes a file or a folder counts where there is none of that name yet. */
static int refused_new(const char *what, int folder, const char *name) {
    struct stat about;
    int before = errno, is_there = fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) == 0;
    errno = before;
    return !is_there && refused_at(what, folder, name);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Writes: of one that is torn the first half arrives. */
#define WRITE(call, half) \
    do { \
        char path[PATH_MAX]; \
        if (!state || !place_of_open(fd, path)) return call; \
        switch (ask("write", path)) { \
        case DO: return call; \
        case FAIL: errno = state->error; return -1; \
        case HALF: (void)!half; errno = state->error; return -1; \
        default: (void)!half; die(); return -1; \
        } \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    WRITE(real(fd, data, size), real(fd, data, size / 2));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(pwrite);
    WRITE(real(fd, data, size, offset), real(fd, data, size / 2, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64);
    WRITE(real(fd, data, size, offset), real(fd, data, size / 2, offset));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    WRITE(real(fd, parts, count), real(fd, parts, count / 2));
}

ssize_t sendfile(int fd, int from, off_t *offset, size_t size) {
    static ssize_t (*real)(int, int, off_t *, size_t);
    if (!real) real = (ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile");
    WRITE(real(fd, from, offset, size), real(fd, from, offset, 7));
}

ssize_t sendfile64(int fd, int from, off64_t *offset, size_t size) {
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = (ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64");
    WRITE(real(fd, from, offset, size), real(fd, from, offset, 7));
}

ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *offset, size_t size, unsigned flags) {
    REAL(copy_file_range);
    WRITE(real(from, start, fd, offset, size, flags), real(from, start, fd, offset, 7, flags));
}

/* What is not torn: it happens or does not. */
#define PLAIN(name, what, parameters, arguments, check) \
    int name parameters { \
        REAL(name); \
        if (check) return -1; \
        return real arguments; \
    }

PLAIN(fsync, "sync", (int fd), (fd), refused_fd("sync", fd))
PLAIN(fdatasync, "sync", (int fd), (fd), refused_fd("sync", fd))
PLAIN(ftruncate, "truncate", (int fd, off_t size), (fd, size), refused_fd("truncate", fd))
PLAIN(ftruncate64, "truncate", (int fd, off64_t size), (fd, size), refused_fd("truncate", fd))
PLAIN(mkdir, "mkdir", (const char *name, mode_t mode), (name, mode), refused_new("mkdir", AT_FDCWD, name))
PLAIN(mkdirat, "mkdir", (int at, const char *name, mode_t mode), (at, name, mode), refused_new("mkdir", at, name))
PLAIN(rename, "rename", (const char *from, const char *to), (from, to), refused_at("rename", AT_FDCWD, to))
PLAIN(renameat, "rename", (int a, const char *from, int b, const char *to), (a, from, b, to),
      refused_at("rename", b, to))
PLAIN(link, "link", (const char *from, const char *to), (from, to), refused_at("link", AT_FDCWD, to))
PLAIN(symlink, "link", (const char *from, const char *to), (from, to), refused_at("link", AT_FDCWD, to))

#define OPEN(name, parameters, at, path, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { /* else it has no mode */ \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
            if (refused_new("create", at, path)) return -1; \
        } \
        return real arguments; \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), at, path, (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), at, path, (at, path, flags, mode))
