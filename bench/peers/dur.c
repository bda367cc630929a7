/* dur.c - what the disk and SQLite allow without any library.
 *   --mode=fsync|log|gbuf|sqlite --batch=N --n=THREADS --secs=S --dir=DIR --prealloc=0|1
 *   --pin=none|same|cross
 * fsync  one thread: 4 KiB append + fdatasync (--prealloc=1: into a file that is already written)
 * log    one thread: batch records of 64 bytes in one write + fdatasync, preallocated file
 * gbuf   n threads each commit 64-byte records one at a time; they share a memory buffer, one of
 *        them writes it and fdatasyncs (group commit), preallocated file
 * sqlite one thread: batch rows of 64 bytes in one transaction, WAL + synchronous=FULL
 * Pinned, it runs where the harness of bench.h would have a server. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 256
#define SAMPLES_MAX 1000000
#define FILE_BLOCKS 8192	/* of 4 KiB, when preallocated */
#define REWIND_AT (24 << 20)	/* well before its end */

static const char *pin = "none";
static double secs = 1;
static int batch = 1, prealloc, nthr = 8;
static char block[4096];
static int file;
static uint64_t *lat, nl, began;

static uint64_t ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int over(void) { return ns() - began > (uint64_t)(secs * 1e9); }

static void sample(uint64_t since)
{
	if (nl < SAMPLES_MAX)
		lat[nl++] = ns() - since;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void report(const char *mode, uint64_t commits, uint64_t rows)
{
	double elapsed = (ns() - began) / 1e9;
	qsort(lat, nl, sizeof *lat, ascending);
	printf("dur=%s batch=%d n=%d pin=%s commits_s=%.0f rows_s=%.0f p50_us=%.1f p99_us=%.1f\n", mode,
	       batch, nthr, pin, commits / elapsed, rows / elapsed, nl ? lat[nl / 2] / 1e3 : 0,
	       nl ? lat[nl * 99 / 100] / 1e3 : 0);
}

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void put(const void *bytes, size_t size)
{
	if (write(file, bytes, size) != (ssize_t)size)
		die("write");
}

static void sync_file(void)
{
	if (fdatasync(file))
		die("fdatasync");
}

static void rewind_file(void)
{
	if (lseek(file, 0, SEEK_CUR) > REWIND_AT)
		lseek(file, 0, SEEK_SET);
}

/* ---- group commit: the first thread that finds nobody syncing syncs for all ---- */
static pthread_mutex_t mx = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static uint64_t written, synced, done, syncs;
static int syncing;
static char *buffer[2];		/* one fills while the other is written */
static size_t filled[2];
static int current;

/* mx is held, and let go meanwhile */
static void sync_all(void)
{
	uint64_t upto = written;
	int b = current;
	syncing = 1;
	current = !current;
	pthread_mutex_unlock(&mx);
	rewind_file();
	put(buffer[b], filled[b]);
	sync_file();
	pthread_mutex_lock(&mx);
	filled[b] = 0;
	synced = upto;
	syncing = 0;
	syncs++;
	pthread_cond_broadcast(&cv);
}

static void *committer(void *arg)
{
	pthread_mutex_lock(&mx);
	while (!over()) {
		memset(buffer[current] + filled[current], 'r', 64);
		filled[current] += 64;
		uint64_t my = ++written;
		while (synced < my) {
			if (syncing)
				pthread_cond_wait(&cv, &mx);
			else
				sync_all();
		}
		done++;
	}
	pthread_mutex_unlock(&mx);
	return arg;
}

static void run_group(void)
{
	pthread_t th[THREADS_MAX];
	buffer[0] = malloc(64 * THREADS_MAX);
	buffer[1] = malloc(64 * THREADS_MAX);
	for (int i = 0; i < nthr; i++)
		if (pthread_create(&th[i], NULL, committer, NULL))
			die("pthread_create");
	for (int i = 0; i < nthr; i++)
		pthread_join(th[i], NULL);
	report("gbuf", syncs, done);
}

/* ---- one thread ---- */
static void run_log(void)
{
	char *records = calloc(batch, 64);
	uint64_t n = 0;
	while (!over()) {
		uint64_t t = ns();
		rewind_file();
		put(records, batch * 64);
		sync_file();
		sample(t);
		n++;
	}
	report("log", n, n * batch);
}

static void run_append(void)
{
	uint64_t n = 0;
	while (!over() && n < FILE_BLOCKS - 192) {
		uint64_t t = ns();
		put(block, sizeof block);
		sync_file();
		sample(t);
		n++;
	}
	report(prealloc ? "fsync-prealloc" : "fsync", n, n);
}

static void run_file(const char *mode, const char *path)
{
	int append = !strcmp(mode, "fsync");
	file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	if (file < 0)
		die(path);
	if (prealloc || !append) {
		for (int i = 0; i < FILE_BLOCKS; i++)
			put(block, sizeof block);
		fsync(file);
		lseek(file, 0, SEEK_SET);
	}
	began = ns();
	if (append)
		run_append();
	else if (!strcmp(mode, "log"))
		run_log();
	else
		run_group();
	unlink(path);
}

/* ---- SQLite ---- */
static sqlite3 *db;

static void need(int code)
{
	if (code == SQLITE_OK || code == SQLITE_DONE)
		return;
	fprintf(stderr, "sqlite: %s\n", sqlite3_errmsg(db));
	_exit(1);
}

static void run_sqlite(const char *path)
{
	static const char *const ends[] = { "", "-wal", "-shm" };
	sqlite3_stmt *insert;
	uint64_t n = 0;
	char name[320];
	need(sqlite3_open(path, &db));
	need(sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
			      "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", 0, 0, 0));
	need(sqlite3_prepare_v2(db, "INSERT INTO t(v) VALUES(?)", -1, &insert, 0));
	began = ns();
	while (!over()) {
		uint64_t t = ns();
		need(sqlite3_exec(db, "BEGIN", 0, 0, 0));
		for (int i = 0; i < batch; i++) {
			sqlite3_bind_blob(insert, 1, block, 64, SQLITE_STATIC);
			need(sqlite3_step(insert));
			sqlite3_reset(insert);
		}
		need(sqlite3_exec(db, "COMMIT", 0, 0, 0));
		sample(t);
		n++;
	}
	report("sqlite", n, n * batch);
	sqlite3_finalize(insert);
	sqlite3_close(db);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "%s%s", path, ends[i]);
		unlink(name);
	}
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "fsync", "log", "gbuf", "sqlite" };
	const char *mode = "fsync", *dir = ".";
	char path[300];
	int known = 0;
	for (int i = 1; i < argc; i++) {
		char *a = argv[i];
		if (!strncmp(a, "--mode=", 7)) mode = a + 7;
		else if (!strncmp(a, "--dir=", 6)) dir = a + 6;
		else if (!strncmp(a, "--secs=", 7)) secs = atof(a + 7);
		else if (!strncmp(a, "--batch=", 8)) batch = atoi(a + 8);
		else if (!strncmp(a, "--prealloc=", 11)) prealloc = atoi(a + 11);
		else if (!strncmp(a, "--n=", 4)) nthr = atoi(a + 4);
		else if (!strncmp(a, "--pin=", 6)) pin = a + 6;
		else { fprintf(stderr, "unknown option %s\n", a); return 2; }
	}
	for (int i = 0; i < 4; i++)
		known |= !strcmp(mode, modes[i]);
	if (!known || nthr < 1 || nthr > THREADS_MAX || batch < 1)
		return 2;
	if (strcmp(pin, "none")) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(!strcmp(pin, "cross"), &set);
		if (sched_setaffinity(0, sizeof set, &set))
			die("sched_setaffinity");
	}
	alarm((unsigned)secs + 30);
	lat = malloc(SAMPLES_MAX * sizeof *lat);
	memset(block, 'x', sizeof block);
	snprintf(path, sizeof path, "%s/dur.%d", dir, (int)getpid());
	if (!strcmp(mode, "sqlite"))
		run_sqlite(path);
	else
		run_file(mode, path);
	return 0;
}
