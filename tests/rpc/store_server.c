/* SPDX-License-Identifier: MIT */
/* A server with a database, to be killed: store_server DIRECTORY. It listens at DIRECTORY/s, its
 * store is DIRECTORY/db, and its handlers leave a line in a file of DIRECTORY before they reply.
 * Says "ready" when it serves; stops, as an operator would have it, when its input ends. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include <semel/semel.h>
#include <semel/sqlite.h>

struct place {
    const char *directory;
};

static void die(const char *what)
{
    perror(what);
    abort();
}

static int open_file(const struct place *place, const char *name, int flags)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", place->directory, name);
    return open(path, flags | O_CLOEXEC, 0600);
}

/* One line, in one write: it is there when the process dies, or it is not. */
static void leave(const struct place *place, const char *name, const char *line)
{
    int fd = open_file(place, name, O_WRONLY | O_APPEND | O_CREAT);

    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
        die(name);
    close(fd);
}

static void name_key(const struct semel_request *request, char out[33])
{
    struct semel_key key = semel_request_key(request);

    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", key.bytes[i]);
}

/* "BODY KEY" into the file that is named as the method. */
static void leave_trace(const struct place *place, const struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);
    char line[128], key[33];

    name_key(request, key);
    snprintf(line, sizeof line, "%.*s %s\n", (int)body.size, (const char *)body.data, key);
    leave(place, semel_request_method(request), line);
}

static void reply_body(struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);

    if (semel_request_reply(request, body.data, body.size) != SEMEL_OK)
        abort();
}

static void trace(struct semel_request *request, void *user)
{
    leave_trace(user, request);
    reply_body(request);
}

/* Takes the server with it in the middle. */
static void fall(struct semel_request *request, void *user)
{
    leave_trace(user, request);
    raise(SIGKILL);
}

/* Is there a trace of it? */
static void find_trace(struct semel_request *request, void *user)
{
    int fd = open_file(user, semel_request_method(request), O_RDONLY);
    char key[34] = " ", line[128];
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    bool found = false;

    name_key(request, key + 1);
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, key)) {
            *strstr(line, key) = '\0';
            found = true;
            break;
        }
    if (file)
        fclose(file);
    if (found)
        (void)!semel_request_reply(request, line, strlen(line));
    else
        (void)!semel_request_never_ran(request, NULL);
}

static void enter(struct semel_request *request, struct semel_store *store)
{
    static const char sql[] = "INSERT INTO ledger (number) VALUES (?1)";
    struct semel_bytes body = semel_request_body(request);
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(semel_sqlite_handle(store), sql, -1, &statement, NULL) != SQLITE_OK)
        abort();
    (void)sqlite3_bind_text(statement, 1, body.data, (int)body.size, SQLITE_STATIC);
    if (sqlite3_step(statement) != SQLITE_DONE)
        abort();
    (void)sqlite3_finalize(statement);
}

static void add(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    reply_body(request);
}

static void add_and_fall(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)store;
    leave_trace(user, request);
    enter(request, store);
    raise(SIGKILL);
}

static void say(enum semel_log_level level, const char *text, void *user)
{
    (void)user;
    if (level <= SEMEL_LOG_ERROR)
        fprintf(stderr, "store_server: %s\n", text);
}

static void must(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    fprintf(stderr, "store_server: %s: %s\n", what, semel_status_text(status));
    exit(1);
}

static void export_all(struct semel_server *server, struct place *place)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct semel_method_options again = { .on_crash = SEMEL_CRASH_RERUN };
    struct semel_method_options find_out = { .on_crash = SEMEL_CRASH_RESOLVE,
                                             .resolve = find_trace,
                                             .resolve_user = place };

    must(semel_server_export(server, "once", trace, place, NULL), "once");
    must(semel_server_export(server, "idempotent", trace, place, &harmless), "idempotent");
    must(semel_server_export(server, "rerun", trace, place, &again), "rerun");
    must(semel_server_export(server, "resolve", trace, place, &find_out), "resolve");
    must(semel_server_export(server, "fall", fall, place, NULL), "fall");
    must(semel_server_export_transactional(server, "add", add, place, NULL), "add");
    must(semel_server_export_transactional(server, "add-fall", add_and_fall, place, NULL),
         "add-fall");
}

int main(int argc, char **argv)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct place place = { argc > 1 ? argv[1] : "." };
    char path[256], address[256], text[256], byte;
    struct semel_server *server = NULL;
    enum semel_status status;
    int tries = 0;

    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof path, "%s/db", place.directory);
    snprintf(address, sizeof address, "unix:%s/s", place.directory);
    while ((status = semel_sqlite_open(&options.store, path, NULL, text, sizeof text)) ==
               SEMEL_STORE_LOCKED &&
           tries++ < 1000)
        usleep(5000); /* what is left of a killed process may hold it for a moment */
    if (status != SEMEL_OK) {
        fprintf(stderr, "store_server: %s\n", text);
        return 1;
    }
    options.log = say;
    options.workers = 4;
    options.idle_session_ms = 20000;
    must(semel_server_create(&server, &options), "create");
    export_all(server, &place);
    must(semel_server_listen(server, address), "listen");
    must(semel_server_start(server), "start");
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        return 1;
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
        continue;
    must(semel_server_destroy(server), "destroy");
    return 0;
}
