/* SPDX-License-Identifier: MIT */
/* judge.c - the end of a run: the audit, and whether enough was hit for it to prove anything. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "demo.h"
#include "output.h"
#include "process.h"
#include "watch.h"

#define TICK_NS 5000000
#define AUDIT_NS INT64_C(120000000000)
#define ENOUGH_KILLS 20 /* from so many on they must have hit everything */

/* Beside this tool, as it is built; else where it is installed. False: it is not there. */
static bool audit_find(const struct demo *demo, char path[DEMO_PATH])
{
    const char *slash = strrchr(demo->program, '/');

    snprintf(path, DEMO_PATH, "%.*s/semel-audit", slash ? (int)(slash - demo->program) : 0,
             demo->program);
    if (access(path, X_OK) == 0)
        return true;
    snprintf(path, DEMO_PATH, "%s/semel-audit", SEMEL_LIBEXECDIR);
    return access(path, X_OK) == 0;
}

bool judge_is_there(const struct demo *demo)
{
    char path[DEMO_PATH];

    if (audit_find(demo, path))
        return true;
    output_error("there is no audit: %s, or semel-audit beside %s", path, demo->program);
    return false;
}

/* What it printed: numbers for us, words for whoever reads. */
static void audit_read(FILE *file, struct watch_audit *audit)
{
    const struct {
        const char *name;
        uint64_t *value;
    } numbers[] = {
        { "calls", &audit->calls },
        { "values", &audit->values },
        { "failures", &audit->failures },
        { "not-executed", &audit->not_executed },
        { "lost", &audit->lost },
        { "doubled", &audit->doubled },
        { "mismatched", &audit->mismatched },
        { "unknown", &audit->unknown },
        { "notify-unknown", &audit->notify_unknown },
        { "unexplained", &audit->unexplained },
    };
    char line[1024], name[32];
    uint64_t value;

    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "semel-audit: ", 13) == 0)
            output_error("%s", line + 13);
        if (sscanf(line, "%31s %" SCNu64, name, &value) != 2)
            continue;
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            if (strcmp(name, numbers[i].name) == 0)
                *numbers[i].value = value;
        }
    }
}

/* Run it. Returns its exit status; -1: it did not run. */
static int audit_run(const struct demo *demo, struct watch_audit *audit)
{
    const char *log = demo_path(demo, "audit.log");
    char path[DEMO_PATH];
    char *argv[] = { "semel-audit", (char *)demo->dir, NULL };
    int64_t until = clock_now() + AUDIT_NS;
    struct process process;
    FILE *file;

    if (!audit_find(demo, path) || !process_start(&process, path, argv, demo->dir, log))
        return -1;
    while (!process_ended(&process)) {
        if (!demo_pause(TICK_NS) || clock_now() > until) {
            process_kill(&process);
            return -1;
        }
    }
    file = fopen(log, "re");
    if (file) {
        audit_read(file, audit);
        fclose(file);
    }
    if (WIFEXITED(process.status) && WEXITSTATUS(process.status) < 2)
        return WEXITSTATUS(process.status);
    output_error("the audit cannot judge (%s); see %s", process_status_text(&process), log);
    return -1;
}

/* Why the run proves nothing, although the audit found nothing; NULL: it does. */
static const char *weakness(const struct killer_count *kills)
{
    if (kills->kills < ENOUGH_KILLS)
        return NULL;
    if (kills->busy * 10 < kills->kills * 9)
        return "too few kills hit calls under way";
    if (kills->before_start == 0)
        return "no kill hit a call before its start";
    if (kills->before_commit == 0)
        return "no kill hit a call before its commit";
    if (kills->before_reply == 0)
        return "no kill hit a call before its reply";
    return NULL;
}

bool judge(const struct demo *demo, const struct killer_count *kills, unsigned clients_killed)
{
    struct watch_audit audit = { 0 };
    int status = audit_run(demo, &audit);
    const char *weak = weakness(kills);

    output_progress(NULL);
    if (status < 0)
        return false;
    watch_result(demo, kills, clients_killed, &audit);
    if (demo->options.kill_every_ns > 0 && kills->kills < ENOUGH_KILLS)
        output_note("%u kills prove less than %u would; run longer", kills->kills, ENOUGH_KILLS);
    if (status == 0 && !weak && !output_json())
        puts("PASSED: every call happened exactly once, or its outcome says that nobody knows");
    if (status != 0)
        output_error("FAILED: calls were lost, doubled, mixed up or left open");
    else if (weak)
        output_error("FAILED: not a proof: %s", weak);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        output_error("standard output cannot be written");
        return false;
    }
    return status == 0 && !weak;
}
