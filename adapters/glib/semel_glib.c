/* SPDX-License-Identifier: MIT */
/* semel_glib.c - watch the Semel loop's descriptor by a GSource.
 *
 * The source watches a copy of the descriptor: it may outlive the Semel loop, which a callback may
 * destroy. While a callback runs, GLib keeps the source out of main loops that the callback runs
 * inside of it, as the Semel loop would want it. */
#include <semel/glib.h>

#include <fcntl.h>
#include <unistd.h>

#include <glib-unix.h>

struct semel_source {
    GSource source; /* first: GLib's rule */
    struct semel_loop *loop;
    gpointer tag;
    int fd;
};

static gboolean check(GSource *source)
{
    struct semel_source *own = (struct semel_source *)source;

    return g_source_query_unix_fd(source, own->tag) != 0;
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
    struct semel_source *own = (struct semel_source *)source;
    enum semel_status s = semel_loop_dispatch(own->loop);

    (void)callback;
    (void)user_data;
    /* ALREADY: another thread is inside, against the rules. Everything else is the end. */
    return s == SEMEL_OK || s == SEMEL_ALREADY ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void finalize(GSource *source)
{
    (void)close(((struct semel_source *)source)->fd);
}

/* GLib wants it writable, and writes nothing that we gave. */
static GSourceFuncs functions = { .check = check, .dispatch = dispatch, .finalize = finalize };

struct _GSource *semel_glib_source_new(struct semel_loop *loop)
{
    struct semel_source *own;
    GSource *source;
    int fd;

    if (!loop)
        return NULL;
    fd = fcntl(semel_loop_fd(loop), F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    source = g_source_new(&functions, sizeof(*own));
    own = (struct semel_source *)source;
    own->loop = loop;
    own->fd = fd;
    own->tag = g_source_add_unix_fd(source, fd, G_IO_IN);
    g_source_set_name(source, "semel");
    return source;
}
