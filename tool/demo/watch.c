/* SPDX-License-Identifier: MIT */
#include "watch.h"

#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "json.h"
#include "output.h"

#define LIVE_NS 250000000
#define NOTE_NS INT64_C(5000000000)

/* --- counters -------------------------------------------------------------------------------- */

static uint64_t counter(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* Call `fn` with the line of each file of a pattern. */
static void each_file(const struct demo *demo, const char *pattern,
                      void (*fn)(const char *line, struct watch_sums *sums),
                      struct watch_sums *sums)
{
    char line[512];
    glob_t found;

    if (glob(demo_path(demo, "%s", pattern), 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");

        if (file && fgets(line, sizeof line, file))
            fn(line, sums);
        if (file)
            fclose(file);
    }
    globfree(&found);
}

static void add_client(const char *line, struct watch_sums *sums)
{
    sums->replayed += counter(line, "\"replayed\":");
    sums->reattached += counter(line, "\"reattached\":");
    sums->resumed += counter(line, "\"resumed\":");
}

static void add_proxy(const char *line, struct watch_sums *sums)
{
    sums->cuts += counter(line, "\"cuts\":");
}

void watch_sum(const struct demo *demo, struct watch_sums *out_sums)
{
    memset(out_sums, 0, sizeof *out_sums);
    each_file(demo, "client-*.json", add_client, out_sums);
    each_file(demo, "proxy-*.json", add_proxy, out_sums);
}

/* --- while it runs --------------------------------------------------------------------------- */

void watch_show(const struct demo *demo, int64_t now, const struct evidence *evidence,
                const struct killer_count *kills, unsigned clients_killed)
{
    static int64_t next;
    struct watch_sums sums;
    char text[256];

    if (now == 0) {
        output_progress(NULL);
        return;
    }
    if (now < next || output_quiet())
        return;
    next = now + (output_live() ? LIVE_NS : NOTE_NS);
    watch_sum(demo, &sums);
    snprintf(text, sizeof text,
             "%2" PRId64 " s  %" PRIu64 " calls  %u kills (and %u of clients)  %" PRIu64
             " cuts  %" PRId64 " in the bank  %" PRIu64 " replayed, %" PRIu64 " reattached",
             (now - demo->begin) / 1000000000, evidence->replied, kills->kills, clients_killed,
             sums.cuts, bank_money(demo), sums.replayed, sums.reattached);
    if (output_live())
        output_progress("%s", text);
    else
        output_note("%s", text);
}

/* --- at the end ------------------------------------------------------------------------------ */

static double seconds(const struct demo *demo)
{
    return (double)(demo->end - demo->begin) / 1e9;
}

static void print_json(const struct demo *demo, const struct watch_sums *sums,
                       const struct killer_count *kills, const struct watch_audit *audit)
{
    struct jsonl json;

    jsonl_begin(&json, stdout);
    jsonl_count(&json, "calls", audit->calls);
    jsonl_count(&json, "kills", kills->kills);
    jsonl_count(&json, "kills_busy", kills->busy);
    jsonl_count(&json, "cuts", sums->cuts);
    jsonl_count(&json, "replayed", sums->replayed);
    jsonl_count(&json, "reattached", sums->reattached);
    jsonl_count(&json, "resumed", sums->resumed);
    jsonl_count(&json, "lost", audit->lost);
    jsonl_count(&json, "doubled", audit->doubled);
    jsonl_count(&json, "unknown", audit->unknown);
    jsonl_real(&json, "seconds", seconds(demo), 1);
    jsonl_end(&json);
}

static void print_text(const struct demo *demo, const struct watch_sums *sums,
                       const struct killer_count *k, unsigned clients_killed,
                       const struct watch_audit *a)
{
    printf("seconds          %.1f\n", seconds(demo));
    printf("calls            %" PRIu64 " (%" PRIu64 " values, %" PRIu64 " failures, %" PRIu64
           " not executed)\n",
           a->calls, a->values, a->failures, a->not_executed);
    printf("server kills     %u, of which %u hit calls under way\n", k->kills, k->busy);
    printf("  before a start         %u\n", k->before_start);
    printf("  before a commit        %u (%u inside a transaction)\n", k->before_commit,
           k->in_transaction);
    printf("  before a reply         %u\n", k->before_reply);
    printf("client kills     %u\n", clients_killed);
    printf("connections cut  %" PRIu64 "\n", sums->cuts);
    printf("resumed          %" PRIu64 " sessions\n", sums->resumed);
    printf("replayed         %" PRIu64 " replies\n", sums->replayed);
    printf("reattached       %" PRIu64 " running calls\n", sums->reattached);
    printf("lost             %" PRIu64 "\n", a->lost);
    printf("doubled          %" PRIu64 "\n", a->doubled);
    printf("mismatched       %" PRIu64 "\n", a->mismatched);
    printf("unknown          %" PRIu64 " transfers; %" PRIu64 " notices, %s\n", a->unknown,
           a->notify_unknown,
           a->unexplained ? "not all explained by kills" : "each explained by a kill");
}

void watch_result(const struct demo *demo, const struct killer_count *kills,
                  unsigned clients_killed, const struct watch_audit *audit)
{
    struct watch_sums sums;

    watch_sum(demo, &sums);
    if (output_json())
        print_json(demo, &sums, kills, audit);
    else
        print_text(demo, &sums, kills, clients_killed, audit);
}
