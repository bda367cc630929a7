/* SPDX-License-Identifier: MIT */
/* run.c - the simulator's command line. See sim.h.
 *
 *   sim [--seed N | --seeds A..B] [--calls N] [--mode swarm|full|calm|hostile|store|steady]
 *       [--with FAULT,..] [--only FAULT,..] [--without FAULT,..] [--clients N] [--target N]
 *       [--trace FOLDER]
 *       [--dedup-off] [--lying-disk] [--complete] [--twice] [--shrink] [--details] [--verbose]
 *
 * --calls is per seed. --with switches faults on, --only and --without others off. --clients and
 * --target are the most that a seed may have of clients, and of calls open at one. --complete fails
 * a run that missed a fault or a state of the menu. --twice runs everything a second time and
 * compares the hashes. --dedup-off switches deduplication off in the callees and succeeds exactly
 * when doubled effects are reported; --lying-disk has stores answer before they have synced, and
 * succeeds exactly when that is noticed. */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS_THAT_TELL 10000 /* in fewer, the ratio of faults to calls may be anything */
#define SEED_SECONDS 120      /* a seed takes a few hundredths of one; this is for endless loops */

struct run {
    struct sim_options options;
    uint64_t first, last;
    bool complete, twice, shrink, details;
};

static const char *const mode_names[] = { "swarm", "calm", "full", "hostile", "store", "steady" };
#define MODES (sizeof mode_names / sizeof *mode_names)

/* What a signal handler prints when the run dies. */
static char replay_text[4096];

static void put_faults(char *out, size_t room, const char *option, uint64_t bits)
{
    size_t at = strlen(out);
    const char *separator = option;

    for (uint32_t i = 0; i < SIM_FAULT_COUNT && at < room; i++)
        if (bits & SIM_BIT(i)) {
            at += (size_t)snprintf(out + at, room - at, "%s%s", separator,
                                   sim_fault_word((enum sim_fault)i));
            separator = ",";
        }
}

static void put_number(char *out, size_t room, const char *option, uint32_t number)
{
    size_t at = strlen(out);

    if (number && at < room)
        snprintf(out + at, room - at, "%s%u", option, number);
}

static void set_replay(const struct sim_options *options, uint64_t seed)
{
    snprintf(replay_text, sizeof replay_text, "replay: sim --seed %llu --calls %u --mode %s%s",
             (unsigned long long)seed, options->calls, mode_names[options->mode],
             options->dedup_off    ? " --dedup-off"
             : options->lying_disk ? " --lying-disk"
                                   : "");
    put_number(replay_text, sizeof replay_text, " --clients ", options->clients);
    put_number(replay_text, sizeof replay_text, " --target ", options->target);
    put_faults(replay_text, sizeof replay_text, " --with ", options->with);
    put_faults(replay_text, sizeof replay_text, " --only ", options->only);
    put_faults(replay_text, sizeof replay_text, " --without ", options->without);
    strncat(replay_text, "\n", sizeof replay_text - strlen(replay_text) - 1);
}

static void on_crash(int number)
{
    static const char text[] = "\nCRASHED OR STUCK: ";

    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, replay_text, strlen(replay_text));
    signal(number, SIG_DFL);
    raise(number);
}

/* ---- shrinking ----------------------------------------------------------------------------- */

/* In a child of its own: the run may abort. */
static bool fails(const struct sim_options *options, uint64_t seed)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct sim_stats stats = { 0 };
        char why[512];

        if (!freopen("/dev/null", "w", stderr))
            _exit(3);
        alarm(60);
        _exit(!sim_world_run(options, seed, &stats, why, sizeof why));
    }
    return child > 0 && waitpid(child, &status, 0) == child && status != 0;
}

static void shrink_calls(struct sim_options *options, uint64_t seed)
{
    for (uint32_t step = options->calls / 2; step > 0; step /= 2)
        while (options->calls > step) {
            options->calls -= step;
            if (fails(options, seed))
                continue;
            options->calls += step;
            break;
        }
}

/* The least of a few numbers with which it still fails; 0 if there is none. */
static void shrink_number(const struct sim_options *options, uint32_t *number, uint64_t seed)
{
    for (uint32_t few = 1; few <= 4; few *= 2) {
        *number = few;
        if (fails(options, seed))
            return;
    }
    *number = 0;
}

static void shrink(struct sim_options options, uint64_t seed)
{
    shrink_calls(&options, seed);
    shrink_number(&options, &options.clients, seed);
    shrink_number(&options, &options.target, seed);
    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++) {
        options.without |= SIM_BIT(i);
        if (!fails(&options, seed))
            options.without &= ~SIM_BIT(i);
    }
    shrink_calls(&options, seed);
    set_replay(&options, seed);
    printf("shrunk %s", replay_text);
    replay_text[strlen(replay_text) - 1] = '\0';
    printf("trace  %s --verbose\n", replay_text + strlen("replay: "));
}

/* ---- running ------------------------------------------------------------------------------- */

static bool run_seeds(const struct run *run, struct sim_stats *stats)
{
    char why[512];

    for (uint64_t seed = run->first; seed <= run->last; seed++) {
        set_replay(&run->options, seed);
        alarm(SEED_SECONDS);
        if (sim_world_run(&run->options, seed, stats, why, sizeof why) || run->options.dedup_off)
            continue;
        if (run->options.lying_disk) {
            printf("seed %llu: %s\nthe disk was caught\n", (unsigned long long)seed, why);
            return false;
        }
        printf("FAILED, seed %llu: %s\n%s", (unsigned long long)seed, why, replay_text);
        fflush(stdout);
        if (run->shrink)
            shrink(run->options, seed);
        return false;
    }
    return true;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void summary(const struct run *run, const struct sim_stats *stats, double took)
{
    uint64_t struck = sim_faults_counted(stats);

    printf("sim %s: %llu seeds, %llu calls, %.0f calls/s; %llu faults (one per %.1f calls), "
           "%llu values, %llu failures, %llu not executed, %llu unknown, %llu abandoned; "
           "%llu effects, %llu doubled; %.1f events and %.0f bytes per call; hash %016llx\n",
           mode_names[run->options.mode], (unsigned long long)stats->seeds,
           (unsigned long long)stats->calls, (double)stats->calls / (took > 0 ? took : 1),
           (unsigned long long)struck, struck ? (double)stats->calls / (double)struck : 0.0,
           (unsigned long long)stats->outcomes[SEMEL_VALUE],
           (unsigned long long)stats->outcomes[SEMEL_FAILURE],
           (unsigned long long)stats->outcomes[SEMEL_NOT_EXECUTED],
           (unsigned long long)stats->outcomes[SEMEL_UNKNOWN], (unsigned long long)stats->abandoned,
           (unsigned long long)stats->effects, (unsigned long long)stats->doubled,
           (double)stats->events / (double)(stats->calls + !stats->calls),
           (double)stats->bytes / (double)(stats->calls + !stats->calls),
           (unsigned long long)stats->hash);
}

static int execute(const struct run *run)
{
    struct sim_stats stats = { 0 }, again = { 0 };
    double begin = seconds();
    bool good = run_seeds(run, &stats);

    summary(run, &stats, seconds() - begin);
    if (run->details)
        sim_report_details(&stats);
    if (run->options.lying_disk)
        return good ? 1 : 0;
    if (!good)
        return 1;
    if (run->options.dedup_off) {
        printf("deduplication off: doubled effects were %sreported\n", stats.doubled ? "" : "NOT ");
        return stats.doubled ? 0 : 1;
    }
    if (run->twice) {
        if (!run_seeds(run, &again) || again.hash != stats.hash) {
            printf("FAILED: the same seeds gave another run: hash %016llx\n",
                   (unsigned long long)again.hash);
            return 1;
        }
        printf("the same seeds gave the same run\n");
    }
    if (stats.calls >= CALLS_THAT_TELL && !run->options.only && !run->options.without &&
        sim_faults_counted(&stats) * 20 < stats.calls) {
        printf("INCOMPLETE: fewer than one fault per 20 calls\n");
        return 1;
    }
    if (run->complete && !sim_report_complete(&stats, run->options.mode))
        return 1;
    return 0;
}

/* ---- options ------------------------------------------------------------------------------- */

static bool parse_faults(char *text, uint64_t *bits)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        uint64_t bit = sim_fault_bit(word);

        if (!bit)
            return false;
        *bits |= bit;
    }
    return true;
}

static bool parse_mode(const char *text, enum sim_mode *mode)
{
    for (uint32_t i = 0; i < MODES; i++)
        if (strcmp(text, mode_names[i]) == 0) {
            *mode = (enum sim_mode)i;
            return true;
        }
    return false;
}

static bool parse_flag(struct run *run, const char *name)
{
    if (strcmp(name, "--dedup-off") == 0)
        return run->options.dedup_off = true;
    if (strcmp(name, "--lying-disk") == 0)
        return run->options.lying_disk = true;
    if (strcmp(name, "--verbose") == 0)
        return run->options.verbose = true;
    if (strcmp(name, "--complete") == 0)
        return run->complete = true;
    if (strcmp(name, "--twice") == 0)
        return run->twice = true;
    if (strcmp(name, "--shrink") == 0)
        return run->shrink = true;
    if (strcmp(name, "--details") == 0)
        return run->details = true;
    return false;
}

static bool parse_value(struct run *run, const char *name, char *value)
{
    char *end = value;

    if (strcmp(name, "--seed") == 0) {
        run->first = run->last = strtoull(value, &end, 0);
    } else if (strcmp(name, "--seeds") == 0) {
        run->first = strtoull(value, &end, 0);
        if (strncmp(end, "..", 2) != 0)
            return false;
        run->last = strtoull(end + 2, &end, 0);
    } else if (strcmp(name, "--calls") == 0) {
        run->options.calls = (uint32_t)strtoul(value, &end, 0);
    } else if (strcmp(name, "--mode") == 0) {
        return parse_mode(value, &run->options.mode);
    } else if (strcmp(name, "--clients") == 0) {
        run->options.clients = (uint32_t)strtoul(value, &end, 0);
    } else if (strcmp(name, "--target") == 0) {
        run->options.target = (uint32_t)strtoul(value, &end, 0);
    } else if (strcmp(name, "--trace") == 0) {
        run->options.trace = value;
        return true;
    } else if (strcmp(name, "--with") == 0) {
        return parse_faults(value, &run->options.with);
    } else if (strcmp(name, "--only") == 0) {
        return parse_faults(value, &run->options.only);
    } else if (strcmp(name, "--without") == 0) {
        return parse_faults(value, &run->options.without);
    } else {
        return false;
    }
    return *end == '\0';
}

int sim_main(int argc, char **argv)
{
    struct run run = { .options = { .mode = SIM_SWARM, .calls = 2000 }, .first = 1, .last = 1 };

    for (int i = 1; i < argc; i++) {
        if (parse_flag(&run, argv[i]))
            continue;
        if (i + 1 < argc && parse_value(&run, argv[i], argv[i + 1])) {
            i++;
            continue;
        }
        fprintf(stderr, "sim: bad option %s (see tests/sim/run.c)\n", argv[i]);
        return 2;
    }
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    signal(SIGALRM, on_crash);
    return execute(&run);
}
