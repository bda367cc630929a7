/* SPDX-License-Identifier: MIT */
/* bugs.c - is each bug that is seeded on purpose (base/bug.h) found, and how soon? See sim.h.
 *
 *   sim_bugs                      each of them, in a process of its own, for at most a minute
 *   sim_bugs --bug NAME           one of them
 *   sim_bugs --bug NAME --seed .. as sim (run.c), with that bug
 *
 * Seeds are tried one after the other, in mode `store`. Found means that an invariant is seen
 * broken, or that the process comes to grief: both would stop a release. */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bug.h"

#define SECONDS_MAX 60

enum sml_bug sml_bug = SML_BUG_NONE;

static const struct {
    const char *name, *text;
} names[SML_BUG_COUNT] = {
#define NAME(name, text) [SML_BUG_##name] = { #name, text },
    SML_BUG_TABLE(NAME)
#undef NAME
};

/* Bugs that need some luck are looked for with these faults switched on. */
static const uint64_t with[SML_BUG_COUNT] = {
    [SML_BUG_EXPIRED_RUNS] =
        SIM_BIT(SIM_SHORT_DEADLINE) | SIM_BIT(SIM_SLOW_HANDLER) | SIM_BIT(SIM_KIND_ONCE),
    [SML_BUG_KEYED_START_COMES] = SIM_BIT(SIM_KEYS) | SIM_BIT(SIM_SAME_KEY) |
                                  SIM_BIT(SIM_KIND_ONCE) | SIM_BIT(SIM_CRASH_POINT),
    [SML_BUG_BEGUN_LOST] = SIM_BIT(SIM_CRASH_RERUN) | SIM_BIT(SIM_CANCEL) | SIM_BIT(SIM_RESTART),
    [SML_BUG_ANSWERED_OVERWRITES] = SIM_BIT(SIM_KEYS) | SIM_BIT(SIM_SAME_KEY) |
                                    SIM_BIT(SIM_SHORT_RETENTION) | SIM_BIT(SIM_OUTBOX) |
                                    SIM_BIT(SIM_CLIENT_CRASH) | SIM_BIT(SIM_KIND_ONCE),
    [SML_BUG_PROVEN_UNSEEN] = SIM_BIT(SIM_KEYS) | SIM_BIT(SIM_OUTBOX) | SIM_BIT(SIM_CLIENT_CRASH) |
                              SIM_BIT(SIM_CANCEL) | SIM_BIT(SIM_KIND_ONCE),
    [SML_BUG_KEYED_DISCARDED] = SIM_BIT(SIM_KEYS) | SIM_BIT(SIM_SAME_KEY) | SIM_BIT(SIM_CANCEL) |
                                SIM_BIT(SIM_SHORT_DEADLINE) | SIM_BIT(SIM_SLOW_HANDLER) |
                                SIM_BIT(SIM_KIND_ONCE),
    [SML_BUG_KEYED_CANCELLED] = SIM_BIT(SIM_KEYS) | SIM_BIT(SIM_SHORT_DEADLINE) |
                                SIM_BIT(SIM_SLOW_HANDLER) | SIM_BIT(SIM_KIND_ONCE),
    [SML_BUG_EXPIRES_RUNNING] = SIM_BIT(SIM_OUTAGE) | SIM_BIT(SIM_DEAF_HANDLER),
    [SML_BUG_BUSY_PROVES] = SIM_BIT(SIM_FULL_QUEUE) | SIM_BIT(SIM_CRASH_RERUN) |
                            SIM_BIT(SIM_RESTART) | SIM_BIT(SIM_CLIENT_STOP),
    [SML_BUG_RERUN_PROVES] = SIM_BIT(SIM_RERUN_OK) | SIM_BIT(SIM_OUTAGE) |
                             SIM_BIT(SIM_CLIENT_STOP) | SIM_BIT(SIM_SHORT_DEADLINE),
    [SML_BUG_PARTIAL_REPLY_KEPT] =
        SIM_BIT(SIM_BIG_BODIES) | SIM_BIT(SIM_RESTART) | SIM_BIT(SIM_SLOW_LINK),
    [SML_BUG_UNSAVED_SENT] = SIM_BIT(SIM_OUTBOX) | SIM_BIT(SIM_CLIENT_CRASH) |
                             SIM_BIT(SIM_SLOW_SAVE) | SIM_BIT(SIM_KEYS),
};

/* ---- one bug ------------------------------------------------------------------------------- */

/* In a process of its own: until something is wrong. */
static void look_for(enum sml_bug bug)
{
    const struct rlimit limit = { SECONDS_MAX, SECONDS_MAX + 5 };
    struct sim_options options = { .mode = SIM_STORE, .calls = 500, .with = with[bug] };
    struct sim_stats stats = { 0 };
    char why[512];

    setrlimit(RLIMIT_CPU, &limit);
    sml_bug = bug;
    if (!freopen("/dev/null", "w", stderr))
        _exit(3);
    for (uint64_t seed = 1;; seed++)
        if (!sim_world_run(&options, seed, &stats, why, sizeof why)) {
            printf("  seed %llu: %s\n", (unsigned long long)seed, why);
            fflush(stdout);
            _exit(1);
        }
}

/* Returns the seconds that it took; negative: it was not found. */
static double find(enum sml_bug bug)
{
    struct rusage usage;
    pid_t child;
    int status;
    double took;

    fflush(stdout);
    child = fork();
    if (child == 0)
        look_for(bug);
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return -1;
    took = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGXCPU && WTERMSIG(status) != SIGKILL)
        printf("  it came to grief: %s\n", strsignal(WTERMSIG(status)));
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
        return -1;
    return took;
}

static bool report(enum sml_bug bug, double *out_sum)
{
    double took = find(bug);

    if (took < 0)
        printf("%-22s NOT FOUND in %d s: %s\n", names[bug].name, SECONDS_MAX, names[bug].text);
    else
        printf("%-22s %6.2f s: %s\n", names[bug].name, took, names[bug].text);
    fflush(stdout);
    *out_sum += took < 0 ? SECONDS_MAX : took;
    return took >= 0;
}

static int all_bugs(void)
{
    uint32_t found = 0;
    double sum = 0;

    for (int bug = SML_BUG_NONE + 1; bug < SML_BUG_COUNT; bug++)
        found += report((enum sml_bug)bug, &sum);
    printf("%u of %d seeded bugs found, in %.0f s\n", found, SML_BUG_COUNT - 1, sum);
    return found == SML_BUG_COUNT - 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    double sum = 0;
    int bug = SML_BUG_NONE + 1;

    if (argc == 1)
        return all_bugs();
    while (argc >= 3 && bug < SML_BUG_COUNT && strcmp(argv[2], names[bug].name) != 0)
        bug++;
    if (argc < 3 || strcmp(argv[1], "--bug") != 0 || bug == SML_BUG_COUNT) {
        fprintf(stderr, "sim_bugs [--bug NAME [options of sim]]\n");
        return 2;
    }
    if (argc == 3)
        return report((enum sml_bug)bug, &sum) ? 0 : 1;
    sml_bug = (enum sml_bug)bug;
    argv[2] = argv[0];
    return sim_main(argc - 2, argv + 2);
}
