/* SPDX-License-Identifier: MIT */
/* crash_vfs.c - see crash_vfs.h. One thread at a time. */
#include "fault/crash_vfs.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

#define SECTOR 512

/* A change that was not synced: bytes that were written, or (bytes NULL) a new size. */
struct change {
    struct change *next;
    uint8_t *bytes;
    size_t at, size;
};

struct content {
    uint8_t *bytes;
    size_t size;
};

/* What a name stands for, for certain and by now. */
struct shadow {
    struct shadow *next;
    char name[200];
    bool exists;        /* by now */
    bool linked;        /* for certain */
    struct content old; /* not linked: what the name stood for before, if `had_old` */
    bool had_old;
    struct content synced;
    struct change *changes, **last;
};

struct crash_capture {
    struct shadow *shadows;
};

struct crash_file {
    sqlite3_file base; /* first */
    struct shadow *shadow;
    bool links; /* its first sync syncs the directory, too */
    sqlite3_file real[];
};

static sqlite3_vfs *below;
static struct shadow *shadows;
static void (*watcher)(bool is_sync, void *user);
static void *watcher_user;
static bool syncs_dropped;
static struct crash_failure failure;
static bool has_failed;
static bool (*asked)(enum crash_call call);

const char *const crash_call_names[CRASH_CALLS] = { "open",     "read",   "write", "truncate",
                                                    "sync",     "size",   "lock",  "map shm",
                                                    "lock shm", "delete", "access" };

static void *must(void *memory)
{
    SML_ASSERT(memory);
    return memory;
}

/* --- contents ------------------------------------------------------------------------------ */

static void resize(struct content *content, size_t size)
{
    if (size > content->size) {
        content->bytes = must(realloc(content->bytes, size));
        memset(content->bytes + content->size, 0, size - content->size);
    }
    content->size = size;
}

static struct content copy_content(const struct content *from)
{
    struct content to = { NULL, 0 };

    resize(&to, from->size);
    if (from->size > 0)
        memcpy(to.bytes, from->bytes, from->size);
    return to;
}

static void clear_content(struct content *content)
{
    free(content->bytes);
    *content = (struct content){ NULL, 0 };
}

static void put(struct content *content, size_t at, const uint8_t *bytes, size_t size)
{
    if (at + size > content->size)
        resize(content, at + size);
    memcpy(content->bytes + at, bytes, size);
}

static void apply(struct content *content, const struct change *change)
{
    if (change->bytes)
        put(content, change->at, change->bytes, change->size);
    else
        resize(content, change->size);
}

static void add_change(struct shadow *shadow, const void *bytes, size_t at, size_t size)
{
    struct change *change = must(calloc(1, sizeof *change));

    change->at = at;
    change->size = size;
    if (bytes) {
        change->bytes = must(malloc(size));
        memcpy(change->bytes, bytes, size);
    }
    *shadow->last = change;
    shadow->last = &change->next;
}

static void drop_changes(struct shadow *shadow)
{
    while (shadow->changes) {
        struct change *next = shadow->changes->next;

        free(shadow->changes->bytes);
        free(shadow->changes);
        shadow->changes = next;
    }
    shadow->last = &shadow->changes;
}

static void drop_old(struct shadow *shadow)
{
    clear_content(&shadow->old);
    shadow->had_old = false;
}

static void clear_shadow(struct shadow *shadow)
{
    drop_changes(shadow);
    clear_content(&shadow->synced);
    drop_old(shadow);
}

static void free_shadows(struct shadow **list)
{
    while (*list) {
        struct shadow *next = (*list)->next;

        clear_shadow(*list);
        free(*list);
        *list = next;
    }
}

static struct shadow *find_shadow(const char *name)
{
    struct shadow *shadow = shadows;

    while (shadow && strcmp(shadow->name, name) != 0)
        shadow = shadow->next;
    return shadow;
}

static struct shadow *make_shadow(struct shadow **list, const char *name)
{
    struct shadow *shadow = must(calloc(1, sizeof *shadow));

    (void)snprintf(shadow->name, sizeof shadow->name, "%s", name);
    shadow->last = &shadow->changes;
    shadow->next = *list;
    *list = shadow;
    return shadow;
}

/* --- failures ------------------------------------------------------------------------------ */

void crash_fail(const struct crash_failure *wanted)
{
    failure = *wanted;
    has_failed = false;
}

bool crash_has_failed(void)
{
    return has_failed;
}

void crash_ask(bool (*may)(enum crash_call call))
{
    asked = may;
}

static bool fails(enum crash_call call)
{
    if (asked && !asked(call))
        return true;
    if (failure.n == 0 || failure.call != call || --failure.n > 0)
        return false;
    failure.n = failure.stays;
    has_failed = true;
    return true;
}

/* --- files --------------------------------------------------------------------------------- */

static struct crash_file *of(sqlite3_file *file)
{
    return (struct crash_file *)file;
}

static int file_close(sqlite3_file *file)
{
    struct crash_file *f = of(file);

    return f->real->pMethods ? f->real->pMethods->xClose(f->real) : SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *out, int size, sqlite3_int64 at)
{
    struct crash_file *f = of(file);

    return fails(CRASH_READ) ? SQLITE_IOERR_READ : f->real->pMethods->xRead(f->real, out, size, at);
}

static int file_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 at)
{
    struct crash_file *f = of(file);
    bool bad = fails(CRASH_WRITE);
    int code = failure.full ? SQLITE_FULL : SQLITE_IOERR_WRITE;

    if (watcher)
        watcher(false, watcher_user);
    if (bad && !failure.after) {
        /* A part of it may have been written. */
        size /= 2;
        if (size == 0)
            return code;
    }
    if (f->shadow)
        add_change(f->shadow, bytes, (size_t)at, (size_t)size);
    if (!bad)
        return f->real->pMethods->xWrite(f->real, bytes, size, at);
    (void)f->real->pMethods->xWrite(f->real, bytes, size, at);
    return code;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct crash_file *f = of(file);

    if (fails(CRASH_TRUNCATE))
        return SQLITE_IOERR_TRUNCATE;
    if (f->shadow)
        add_change(f->shadow, NULL, 0, (size_t)size);
    return f->real->pMethods->xTruncate(f->real, size);
}

/* Names in the directory are certain now. */
static void sync_directory(void)
{
    for (struct shadow *shadow = shadows; shadow; shadow = shadow->next) {
        shadow->linked = shadow->exists;
        drop_old(shadow);
    }
}

static int file_sync(sqlite3_file *file, int flags)
{
    struct crash_file *f = of(file);
    bool bad = fails(CRASH_SYNC);

    (void)flags;
    if (watcher)
        watcher(true, watcher_user);
    if (bad && failure.lost && f->shadow)
        drop_changes(f->shadow);
    if ((bad && !failure.after) || syncs_dropped)
        return bad ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    if (f->shadow) {
        for (const struct change *change = f->shadow->changes; change; change = change->next)
            apply(&f->shadow->synced, change);
        drop_changes(f->shadow);
    }
    if (f->links) {
        sync_directory();
        f->links = false;
    }
    return bad ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out_size)
{
    struct crash_file *f = of(file);

    return fails(CRASH_SIZE) ? SQLITE_IOERR_FSTAT : f->real->pMethods->xFileSize(f->real, out_size);
}

static int file_lock(sqlite3_file *file, int kind)
{
    struct crash_file *f = of(file);

    return fails(CRASH_LOCK) ? SQLITE_IOERR_LOCK : f->real->pMethods->xLock(f->real, kind);
}

static int file_unlock(sqlite3_file *file, int kind)
{
    return of(file)->real->pMethods->xUnlock(of(file)->real, kind);
}

static int file_check_lock(sqlite3_file *file, int *out)
{
    return of(file)->real->pMethods->xCheckReservedLock(of(file)->real, out);
}

static int file_control(sqlite3_file *file, int operation, void *argument)
{
    return of(file)->real->pMethods->xFileControl(of(file)->real, operation, argument);
}

static int file_sector(sqlite3_file *file)
{
    return of(file)->real->pMethods->xSectorSize(of(file)->real);
}

static int file_traits(sqlite3_file *file)
{
    return of(file)->real->pMethods->xDeviceCharacteristics(of(file)->real);
}

static int shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    struct crash_file *f = of(file);

    return fails(CRASH_SHM_MAP) ? SQLITE_IOERR_SHMMAP
                                : f->real->pMethods->xShmMap(f->real, page, size, extend, out);
}

static int shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    struct crash_file *f = of(file);

    /* Letting go does not fail. */
    if ((flags & SQLITE_SHM_LOCK) && fails(CRASH_SHM_LOCK))
        return SQLITE_IOERR_SHMLOCK;
    return f->real->pMethods->xShmLock(f->real, offset, count, flags);
}

static void shm_barrier(sqlite3_file *file)
{
    of(file)->real->pMethods->xShmBarrier(of(file)->real);
}

static int shm_unmap(sqlite3_file *file, int forget)
{
    return of(file)->real->pMethods->xShmUnmap(of(file)->real, forget);
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* --- the file system ------------------------------------------------------------------------- */

/* The file has been opened, and made if it was not there. */
static void note_open(struct crash_file *f, const char *name, int flags)
{
    f->shadow = find_shadow(name);
    if (f->shadow == NULL)
        f->shadow = make_shadow(&shadows, name);
    if (!f->shadow->exists) {
        f->shadow->exists = true;
        f->shadow->linked = false;
    }
    f->links =
        (flags & SQLITE_OPEN_CREATE) && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL));
}

static int fs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                   int *out_flags)
{
    struct crash_file *f = of(file);
    int code;

    (void)vfs;
    memset(f, 0, sizeof *f);
    if (fails(CRASH_OPEN))
        return SQLITE_CANTOPEN;
    code = below->xOpen(below, name, f->real, flags, out_flags);
    if (f->real->pMethods)
        f->base.pMethods = &file_methods;
    if (code == SQLITE_OK && name && asked == NULL &&
        (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)))
        note_open(f, name, flags);
    return code;
}

static int fs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct shadow *shadow = find_shadow(name);
    int code;

    (void)vfs;
    if (fails(CRASH_DELETE))
        return SQLITE_IOERR_DELETE;
    code = below->xDelete(below, name, sync);
    if (code != SQLITE_OK || shadow == NULL)
        return code;
    if (shadow->linked) {
        shadow->old = shadow->synced;
        shadow->had_old = true;
        shadow->synced = (struct content){ NULL, 0 };
    } else {
        clear_content(&shadow->synced);
    }
    drop_changes(shadow);
    shadow->exists = shadow->linked = false;
    if (sync && !syncs_dropped)
        sync_directory();
    return SQLITE_OK;
}

static int fs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    return fails(CRASH_ACCESS) ? SQLITE_IOERR_ACCESS : below->xAccess(below, name, flags, out);
}

void crash_install(void)
{
    static sqlite3_vfs vfs;

    below = sqlite3_vfs_find(NULL);
    vfs = *below;
    vfs.zName = "crash";
    vfs.szOsFile = (int)sizeof(struct crash_file) + below->szOsFile;
    vfs.pNext = NULL;
    vfs.xOpen = fs_open;
    vfs.xDelete = fs_delete;
    vfs.xAccess = fs_access;
    SML_ASSERT(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}

void crash_reset(void)
{
    free_shadows(&shadows);
    watcher = NULL;
    syncs_dropped = false;
    failure.n = 0;
    has_failed = false;
}

void crash_watch(void (*before)(bool is_sync, void *user), void *user)
{
    watcher = before;
    watcher_user = user;
}

void crash_drop_syncs(bool drop)
{
    syncs_dropped = drop;
}

/* --- captures -------------------------------------------------------------------------------- */

struct crash_capture *crash_capture(void)
{
    struct crash_capture *capture = must(calloc(1, sizeof *capture));

    for (const struct shadow *from = shadows; from; from = from->next) {
        struct shadow *to = make_shadow(&capture->shadows, from->name);

        to->exists = from->exists;
        to->linked = from->linked;
        to->had_old = from->had_old;
        to->old = copy_content(&from->old);
        to->synced = copy_content(&from->synced);
        for (const struct change *change = from->changes; change; change = change->next)
            add_change(to, change->bytes, change->at, change->size);
    }
    return capture;
}

void crash_capture_free(struct crash_capture *capture)
{
    if (capture == NULL)
        return;
    free_shadows(&capture->shadows);
    free(capture);
}

static uint32_t random_of(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Sectors of a write that are there. */
static void apply_torn(struct content *content, const struct change *change, bool zeros,
                       size_t old_size, uint32_t *seed)
{
    for (size_t from = change->at, end = change->at + change->size; from < end;) {
        size_t to = (from / SECTOR + 1) * SECTOR;
        static const uint8_t nothing[SECTOR];

        if (to > end)
            to = end;
        if (random_of(seed) % 2)
            put(content, from, change->bytes + (from - change->at), to - from);
        else if (zeros && from >= old_size)
            put(content, from, nothing, to - from);
        from = to;
    }
}

static struct content find_content(const struct shadow *shadow, enum crash_keep keep,
                                   uint32_t *seed)
{
    struct content content = copy_content(&shadow->synced);
    unsigned count = 0, first;

    for (const struct change *change = shadow->changes; change; change = change->next)
        count++;
    first = random_of(seed) % (count + 1);
    for (const struct change *change = shadow->changes; change; change = change->next) {
        if (keep == CRASH_NOTHING || (keep == CRASH_BEGINNING && first-- == 0))
            break;
        if (keep >= CRASH_SOME && random_of(seed) % 3 == 0)
            continue;
        if (keep >= CRASH_TORN && change->bytes && random_of(seed) % 2)
            apply_torn(&content, change, keep == CRASH_ZEROS, shadow->synced.size, seed);
        else
            apply(&content, change);
    }
    return content;
}

/* Does the name exist afterwards, and is it what it was before? */
static bool find_name(const struct shadow *shadow, enum crash_keep keep, uint32_t *seed,
                      bool *out_old)
{
    bool done = keep == CRASH_ALL || (keep != CRASH_NOTHING && random_of(seed) % 2);

    *out_old = false;
    if (shadow->linked || done)
        return shadow->exists;
    *out_old = shadow->had_old;
    return shadow->had_old;
}

static void write_file(const char *name, const struct content *content)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    size_t at = 0;

    SML_ASSERT(fd >= 0);
    while (at < content->size) {
        ssize_t n = write(fd, content->bytes + at, content->size - at);

        SML_ASSERT(n > 0);
        at += (size_t)n;
    }
    (void)close(fd);
}

/* Whatever was there. */
static void remove_all(const char *path)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
    char name[220];

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct shadow *shadow;

        (void)snprintf(name, sizeof name, "%s%s", path, ends[i]);
        (void)unlink(name);
        shadow = find_shadow(name);
        if (shadow) {
            clear_shadow(shadow);
            shadow->exists = shadow->linked = false;
        }
    }
}

void crash_restore(const struct crash_capture *capture, const char *from, const char *to,
                   enum crash_keep keep, uint32_t *seed)
{
    size_t length = strlen(from);

    remove_all(to);
    for (const struct shadow *shadow = capture->shadows; shadow; shadow = shadow->next) {
        struct shadow *fresh;
        char name[200];
        bool old;

        if (strncmp(shadow->name, from, length) != 0 ||
            (shadow->name[length] != '\0' && shadow->name[length] != '-') ||
            !find_name(shadow, keep, seed, &old))
            continue;
        SML_ASSERT(snprintf(name, sizeof name, "%s%s", to, shadow->name + length) <
                   (int)sizeof name);
        fresh = find_shadow(name);
        if (fresh == NULL)
            fresh = make_shadow(&shadows, name);
        fresh->synced = old ? copy_content(&shadow->old) : find_content(shadow, keep, seed);
        fresh->exists = fresh->linked = true;
        write_file(name, &fresh->synced);
    }
}
