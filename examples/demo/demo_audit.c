/* SPDX-License-Identifier: MIT */
/* demo_audit.c - demo_audit [--min-KIND N...] DIRECTORY: did every call run once?
 *
 * Reads nothing but the ledgers (server.ledger, client-*.ledger) and the counters files
 * (server.json, client-*.json, proxy-*.json) of a run of the demo, and compares them. It does not
 * use Semel, so that no mistake there is repeated here.
 *
 *   lost        a call without an outcome; or answered, but never run
 *   run twice   executions beyond a call's first
 *   mismatched  another body, reply, code or kind of outcome here than there; an outcome without a
 *               call; two outcomes; an execution of something that "was not executed"; a key that
 *               two calls share; as many lines or calls as nobody counted
 *   unknown     outcomes that are unknown
 *
 * It ends with 0 when all of these are 0 and enough happened to prove anything: calls, cuts, cuts
 * in the middle of a frame, replies replayed, running calls re-attached. With 1 otherwise; 2 when
 * it cannot read what it is to judge. */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>

#include "ledger.h"

#define FILES_MAX 256
#define PROBLEMS_SHOWN 10

enum kind { CALLED, ENDED, RAN };

/* A line of a ledger. */
struct entry {
    uint64_t call;   /* CLIENT.THREAD.NUMBER packed */
    uint64_t method; /* a hash of its name */
    uint64_t size, hash, reply_size, reply_hash, key[2];
    int code;
    uint8_t kind;
    char outcome;
};

struct audit {
    struct entry *entries;
    size_t count, room;
    uint64_t lines[3]; /* by kind */
    uint64_t calls, lost, twice, mismatched, unknown, not_executed;
    unsigned shown;
};

struct minimum {
    const char *option, *name;
    uint64_t wanted, got;
};

enum { MIN_CALLS, MIN_CUTS, MIN_MID_FRAME, MIN_REPLAYED, MIN_REATTACHED, MINIMA };

static struct minimum minima[MINIMA] = {
    { "--min-calls", "calls", 1000, 0 },
    { "--min-cuts", "connections broken", 20, 0 },
    { "--min-mid-frame", "of them in the middle of a frame", 10, 0 },
    { "--min-replayed", "stored replies replayed", 5, 0 },
    { "--min-reattached", "running calls re-attached", 5, 0 },
};

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("demo_audit: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static void problem(struct audit *audit, uint64_t call, const char *what)
{
    if (audit->shown++ >= PROBLEMS_SHOWN)
        return;
    fprintf(stderr, "demo_audit: call %" PRIu64 ".%" PRIu64 ".%" PRIu64 ": %s\n", call >> 48,
            call >> 32 & 0xffff, call & 0xffffffff, what);
}

static struct entry *entry_add(struct audit *audit, enum kind kind)
{
    struct entry *entry;

    if (audit->count == audit->room) {
        size_t room = audit->room ? audit->room * 2 : 65536;
        struct entry *larger = realloc(audit->entries, room * sizeof *larger);

        if (!larger)
            give_up("out of memory");
        audit->entries = larger;
        audit->room = room;
    }
    audit->lines[kind]++;
    entry = &audit->entries[audit->count++];
    memset(entry, 0, sizeof *entry);
    entry->kind = (uint8_t)kind;
    return entry;
}

/* Read one line into the audit. False: it is not one of ours. */
static bool read_line(struct audit *audit, const char *line)
{
    unsigned client, thread, number;
    char method[16] = "", outcome = 0;
    struct entry e = { 0 }, *entry;
    enum kind kind;
    int end = -1;

    if (line[0] == 'S') {
        kind = CALLED;
        sscanf(line, "S %u.%u.%u %15s %" SCNu64 " %" SCNx64 "%n", &client, &thread, &number, method,
               &e.size, &e.hash, &end);
    } else if (line[0] == 'D') {
        kind = ENDED;
        sscanf(line, "D %u.%u.%u %c %d %" SCNu64 " %" SCNx64 "%n", &client, &thread, &number,
               &outcome, &e.code, &e.reply_size, &e.reply_hash, &end);
    } else {
        kind = RAN;
        sscanf(line,
               "R %u.%u.%u %15s %" SCNu64 " %" SCNx64 " %c %d %" SCNu64 " %" SCNx64 " %16" SCNx64
               "%16" SCNx64 "%n",
               &client, &thread, &number, method, &e.size, &e.hash, &outcome, &e.code,
               &e.reply_size, &e.reply_hash, &e.key[0], &e.key[1], &end);
    }
    if (end < 0 || line[end] != '\n' || client > 0xffff || thread > 0xffff)
        return false;
    if (kind != CALLED && (outcome == 0 || !strchr("VFNU", outcome)))
        return false;
    entry = entry_add(audit, kind);
    e.call = (uint64_t)client << 48 | (uint64_t)thread << 32 | number;
    e.kind = entry->kind;
    e.outcome = outcome;
    e.method = ledger_hash(method, strlen(method));
    *entry = e;
    return true;
}

static void read_ledger(struct audit *audit, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[LEDGER_LINE];
    uint64_t number = 0;

    if (!file)
        give_up("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file)) {
        number++;
        if (!read_line(audit, line))
            give_up("%s:%" PRIu64 ": not a line of a ledger: %s", path, number, line);
    }
    if (ferror(file))
        give_up("%s: cannot be read", path);
    fclose(file);
}

static void find_files(const char *directory, const char *pattern, glob_t *out)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", directory, pattern);
    if (glob(path, 0, NULL, out) != 0)
        give_up("there is no %s", path);
}

/* The sum of a counter over the files of a pattern. */
static uint64_t sum_counter(const char *directory, const char *pattern, const char *counter)
{
    char line[4096], key[64];
    uint64_t sum = 0;
    glob_t found;

    find_files(directory, pattern, &found);
    snprintf(key, sizeof key, "\"%s\":", counter);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "r");
        const char *at = file && fgets(line, sizeof line, file) ? strstr(line, key) : NULL;

        if (!at)
            give_up("%s: there is no %s in it", found.gl_pathv[i], key);
        sum += strtoull(at + strlen(key), NULL, 10);
        fclose(file);
    }
    globfree(&found);
    return sum;
}

static int by_call(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;

    if (a->call != b->call)
        return a->call < b->call ? -1 : 1;
    return (int)a->kind - (int)b->kind;
}

static int by_key(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    int order = memcmp(a->key, b->key, sizeof a->key);

    return order ? order : by_call(left, right);
}

/* What differs between the two sides' words on one call, or NULL. */
static const char *difference(const struct entry *called, const struct entry *ended,
                              const struct entry *ran)
{
    if (called->method != ran->method || called->size != ran->size || called->hash != ran->hash)
        return "the handler got another method or body than was sent";
    if (ended->outcome != ran->outcome || ended->code != ran->code)
        return "the caller got another outcome than the handler gave";
    if (ended->reply_size != ran->reply_size || ended->reply_hash != ran->reply_hash)
        return "the caller got another reply than the handler gave";
    return NULL;
}

/* Judge the lines of one call: counts and first entry of each kind. */
static void judge(struct audit *audit, const struct entry *const first[3], const size_t count[3])
{
    uint64_t call = (first[CALLED]  ? first[CALLED]
                     : first[ENDED] ? first[ENDED]
                                    : first[RAN])
                        ->call;
    const char *why = NULL;

    audit->calls++;
    if (count[RAN] > 1) {
        audit->twice += count[RAN] - 1;
        problem(audit, call, "run twice");
    }
    if (count[CALLED] != 1)
        why = count[CALLED] ? "called twice" : "nobody called it";
    else if (count[ENDED] > 1)
        why = "two outcomes";
    else if (count[ENDED] == 1 && first[ENDED]->outcome == 'N' && count[RAN])
        why = "it ran, but the caller was told that it did not";
    else if (count[ENDED] == 1 && count[RAN] && first[ENDED]->outcome != 'U')
        why = difference(first[CALLED], first[ENDED], first[RAN]);
    if (why) {
        audit->mismatched++;
        problem(audit, call, why);
    }
    if (count[ENDED] == 0) {
        audit->lost++;
        problem(audit, call, "lost: it has no outcome");
        return;
    }
    if (count[RAN] == 0 && strchr("VF", first[ENDED]->outcome)) {
        audit->lost++;
        problem(audit, call, "lost: answered, but never run");
    }
    audit->unknown += first[ENDED]->outcome == 'U';
    audit->not_executed += first[ENDED]->outcome == 'N';
}

static void judge_all(struct audit *audit)
{
    const struct entry *entries = audit->entries;

    qsort(audit->entries, audit->count, sizeof *entries, by_call);
    for (size_t at = 0, end; at < audit->count; at = end) {
        const struct entry *first[3] = { NULL, NULL, NULL };
        size_t count[3] = { 0, 0, 0 };

        for (end = at; end < audit->count && entries[end].call == entries[at].call; end++) {
            if (count[entries[end].kind]++ == 0)
                first[entries[end].kind] = &entries[end];
        }
        judge(audit, first, count);
    }
    qsort(audit->entries, audit->count, sizeof *entries, by_key);
    for (size_t i = 1; i < audit->count; i++) {
        if (entries[i].kind == RAN && entries[i - 1].kind == RAN &&
            entries[i].call != entries[i - 1].call &&
            memcmp(entries[i].key, entries[i - 1].key, sizeof entries[i].key) == 0) {
            audit->mismatched++;
            problem(audit, entries[i].call, "another call has the same key");
        }
    }
}

/* The programs' own counts must be those of their ledgers. */
static void compare_counts(struct audit *audit, const char *directory)
{
    uint64_t called = sum_counter(directory, "client-*.json", "calls");
    uint64_t ended = sum_counter(directory, "client-*.json", "completed");
    uint64_t started = sum_counter(directory, "server.json", "calls_started");

    if (called != audit->lines[CALLED] || ended != audit->lines[ENDED] ||
        started != audit->lines[RAN]) {
        audit->mismatched++;
        fprintf(stderr,
                "demo_audit: the clients count %" PRIu64 " calls and %" PRIu64
                " outcomes, the server %" PRIu64 " executions; the ledgers have %" PRIu64
                ", %" PRIu64 " and %" PRIu64 "\n",
                called, ended, started, audit->lines[CALLED], audit->lines[ENDED],
                audit->lines[RAN]);
    }
}

static void read_all(struct audit *audit, const char *directory)
{
    char path[4096];
    glob_t found;

    snprintf(path, sizeof path, "%s/server.ledger", directory);
    read_ledger(audit, path);
    find_files(directory, "client-*.ledger", &found);
    for (size_t i = 0; i < found.gl_pathc; i++)
        read_ledger(audit, found.gl_pathv[i]);
    globfree(&found);
}

static int verdict(const struct audit *audit)
{
    bool enough = true;
    bool clean = !audit->lost && !audit->twice && !audit->mismatched && !audit->unknown &&
                 !audit->not_executed;

    printf("calls                      %" PRIu64 "\n", minima[MIN_CALLS].got);
    printf("connections broken         %" PRIu64 " (%" PRIu64 " in the middle of a frame)\n",
           minima[MIN_CUTS].got, minima[MIN_MID_FRAME].got);
    printf("stored replies replayed    %" PRIu64 "\n", minima[MIN_REPLAYED].got);
    printf("running calls re-attached  %" PRIu64 "\n", minima[MIN_REATTACHED].got);
    printf("lost                       %" PRIu64 "\n", audit->lost);
    printf("run twice                  %" PRIu64 "\n", audit->twice);
    printf("mismatched                 %" PRIu64 "\n", audit->mismatched);
    printf("unknown                    %" PRIu64 "\n", audit->unknown);
    printf("not executed               %" PRIu64 "\n", audit->not_executed);
    for (int i = 0; i < MINIMA; i++) {
        if (minima[i].got >= minima[i].wanted)
            continue;
        enough = false;
        printf("too little happened to prove anything: %s: %" PRIu64 ", at least %" PRIu64
               " are needed\n",
               minima[i].name, minima[i].got, minima[i].wanted);
    }
    puts(!clean    ? "FAILED: calls were lost, doubled, mixed up or left open"
         : !enough ? "FAILED: not a proof"
                   : "PASSED: every call ran once and got its own answer");
    return clean && enough ? 0 : 1;
}

static const char *read_arguments(int argc, char **argv)
{
    int at = 1;

    for (; at + 1 < argc && strncmp(argv[at], "--min-", 6) == 0; at += 2) {
        int i = 0;

        while (i < MINIMA && strcmp(minima[i].option, argv[at]) != 0)
            i++;
        if (i == MINIMA)
            give_up("%s: no such option", argv[at]);
        minima[i].wanted = strtoull(argv[at + 1], NULL, 10);
    }
    if (at + 1 != argc)
        give_up("usage: demo_audit [--min-calls N] [--min-cuts N] [--min-mid-frame N] "
                "[--min-replayed N] [--min-reattached N] DIRECTORY");
    return argv[at];
}

int main(int argc, char **argv)
{
    static struct audit audit;
    const char *directory = read_arguments(argc, argv);
    int code;

    read_all(&audit, directory);
    judge_all(&audit);
    compare_counts(&audit, directory);
    minima[MIN_CALLS].got = audit.lines[ENDED];
    minima[MIN_CUTS].got = sum_counter(directory, "proxy-*.json", "cuts");
    minima[MIN_MID_FRAME].got = sum_counter(directory, "proxy-*.json", "cuts_mid_frame");
    minima[MIN_REPLAYED].got = sum_counter(directory, "server.json", "replayed");
    minima[MIN_REATTACHED].got = sum_counter(directory, "server.json", "reattached");
    code = verdict(&audit);
    free(audit.entries);
    return code;
}
