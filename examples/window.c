/* SPDX-License-Identifier: MIT */
/* window.c - tasks in worker processes, in a window that stays alive: window [--script]
 *
 * Each task counts the primes below a number, in a process of its own. They can be cancelled, which
 * they hear of themselves, and killed, which ends the process; the window shows what became of
 * them. It draws and answers all the while: a pulse measures the longest time for which it did not.
 *
 * The Semel loop lives in GTK's main loop, so all callbacks are on the thread that may touch
 * widgets, and none of them waits.
 *
 * With --script it obeys lines of standard input, by pressing its own buttons, and prints what its
 * widgets show:
 *
 *     start LIMIT, cancel N, kill N, stop, reset, close     press that button
 *     show            a line for each task, and "end"
 *     gap             what the pulse shows
 *     where NAME [N]  where to click: X Y of start, cancel N, kill N */
#include <glib-unix.h>
#include <gtk/gtk.h>
#include <semel/glib.h>
#include <semel/semel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "primes.h"

#define PULSE_MS 20
#define PATIENCE_MS 2000 /* after the window was closed, before what still runs is killed */
#define TASKS_MAX 256

struct window;

/* A task, and its row. */
struct task {
    struct window *window;
    struct semel_future *future;
    GtkWidget *title, *state, *bar, *cancel, *kill, *words;
    unsigned reports;
};

struct window {
    struct semel_loop *loop;
    struct semel_executor *executor;
    GtkWidget *top, *limit, *start, *stop, *reset, *pulse, *list;
    struct task tasks[TASKS_MAX];
    int count;
    gint64 last_beat, longest; /* us */
    bool closing;
    GString *line; /* of the script */
};

static const char *const states[] = { "waiting", "executing",  "completed",
                                      "failed",  "cancelling", "cancelled" };

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

/* --- what a task tells ------------------------------------------------------------------------ */

static void show_end(struct task *task)
{
    const struct semel_result *result = semel_future_result(task->future);
    char *words;

    if (result == NULL) {
        gtk_label_set_text(GTK_LABEL(task->words), "");
        return;
    }
    if (result->outcome == SEMEL_VALUE)
        words = g_strdup_printf("%.*s primes, %u reports", (int)result->body.size,
                                (const char *)result->body.data, task->reports);
    else
        words = g_strdup(result->text ? result->text : semel_status_text(result->status));
    gtk_label_set_text(GTK_LABEL(task->words), words);
    g_free(words);
}

static void on_change(struct semel_future *future, unsigned changes, void *user)
{
    struct task *task = user;
    char *words;

    gtk_label_set_text(GTK_LABEL(task->state), states[semel_future_state(future)]);
    gtk_widget_set_sensitive(task->cancel, semel_future_is_cancellable(future));
    gtk_widget_set_sensitive(task->kill,
                             semel_future_pid(future) > 0 && !semel_future_is_done(future));
    if (semel_future_state(future) == SEMEL_FUTURE_EXECUTING) {
        words = g_strdup_printf("process %d", semel_future_pid(future));
        gtk_label_set_text(GTK_LABEL(task->words), words);
        g_free(words);
    }
    if (changes & SEMEL_CHANGED_DONE)
        show_end(task);
}

static void on_item(struct semel_future *future, struct semel_bytes bytes, void *user)
{
    struct task *task = user;

    (void)future;
    (void)bytes;
    task->reports++;
}

static void on_progress(struct semel_future *future, struct semel_bytes bytes, void *user)
{
    struct task *task = user;
    char text[8] = "";

    (void)future;
    memcpy(text, bytes.data, MIN(bytes.size, sizeof text - 1));
    gtk_progress_bar_set_fraction(GTK_PROGRESS_BAR(task->bar), atoi(text) / 100.0);
}

/* --- buttons ---------------------------------------------------------------------------------- */

static void on_cancel(GtkButton *button, gpointer user)
{
    struct task *task = user;

    (void)button;
    (void)semel_future_cancel(task->future);
}

/* Its end will be told like any other. */
static void on_kill(GtkButton *button, gpointer user)
{
    struct task *task = user;

    (void)button;
    (void)semel_future_kill(task->future);
}

static void make_row(struct task *task, const char *limit)
{
    GtkWidget *row = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 8);

    task->title = gtk_label_new(limit);
    task->state = gtk_label_new("waiting");
    task->bar = gtk_progress_bar_new();
    task->cancel = gtk_button_new_with_label("Cancel");
    task->kill = gtk_button_new_with_label("Kill");
    task->words = gtk_label_new("");
    gtk_label_set_xalign(GTK_LABEL(task->words), 0);
    gtk_label_set_width_chars(GTK_LABEL(task->state), 10);
    gtk_widget_set_valign(task->bar, GTK_ALIGN_CENTER);
    gtk_widget_set_sensitive(task->kill, FALSE);
    g_signal_connect(task->cancel, "clicked", G_CALLBACK(on_cancel), task);
    g_signal_connect(task->kill, "clicked", G_CALLBACK(on_kill), task);
    gtk_box_pack_start(GTK_BOX(row), task->title, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), task->state, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), task->bar, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), task->cancel, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), task->kill, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), task->words, TRUE, TRUE, 0);
    gtk_list_box_insert(GTK_LIST_BOX(task->window->list), row, -1);
    gtk_widget_show_all(row);
}

static void on_start(GtkButton *button, gpointer user)
{
    struct window *window = user;
    struct semel_task_options options = SEMEL_TASK_OPTIONS_INIT;
    struct task *task = &window->tasks[window->count];
    const char *limit = gtk_entry_get_text(GTK_ENTRY(window->limit));
    enum semel_status status;

    (void)button;
    if (window->count == TASKS_MAX)
        return;
    task->window = window;
    options.on_change = on_change;
    options.on_item = on_item;
    options.on_progress = on_progress;
    options.user = task;
    make_row(task, limit);
    status = semel_executor_submit(window->executor, "primes", semel_bytes_text(limit), &options,
                                   &task->future);
    window->count++;
    if (status == SEMEL_OK)
        return;
    gtk_label_set_text(GTK_LABEL(task->state), "refused");
    gtk_label_set_text(GTK_LABEL(task->words), semel_status_text(status));
    gtk_widget_set_sensitive(task->cancel, FALSE);
}

static void on_stop(GtkButton *button, gpointer user)
{
    struct window *window = user;

    (void)button;
    for (int i = 0; i < window->count; i++)
        (void)semel_future_cancel(window->tasks[i].future);
}

/* --- the pulse -------------------------------------------------------------------------------- */

static void show_longest(struct window *window)
{
    char *words = g_strdup_printf("longest silence %d ms", (int)(window->longest / 1000));

    gtk_label_set_text(GTK_LABEL(window->pulse), words);
    g_free(words);
}

static gboolean on_beat(gpointer user)
{
    struct window *window = user;
    gint64 now = g_get_monotonic_time(), gap = now - window->last_beat - PULSE_MS * 1000;

    window->last_beat = now;
    if (gap > window->longest) {
        window->longest = gap;
        show_longest(window);
    }
    return G_SOURCE_CONTINUE;
}

static void on_reset(GtkButton *button, gpointer user)
{
    struct window *window = user;

    (void)button;
    window->longest = 0;
    window->last_beat = g_get_monotonic_time();
    show_longest(window);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_state(struct semel_executor *executor, enum semel_executor_state state, void *user)
{
    struct window *window = user;

    (void)executor;
    if (state == SEMEL_EXECUTOR_STOPPED && window->closing)
        gtk_main_quit();
}

static gboolean on_impatience(gpointer user)
{
    struct window *window = user;

    for (int i = 0; i < window->count; i++)
        (void)semel_future_kill(window->tasks[i].future);
    return G_SOURCE_CONTINUE;
}

/* The window is gone when its tasks are: that is soon, whatever they do. */
static gboolean on_close(GtkWidget *widget, GdkEvent *event, gpointer user)
{
    struct window *window = user;

    (void)widget;
    (void)event;
    if (window->closing)
        return TRUE;
    window->closing = true;
    gtk_widget_set_sensitive(window->start, FALSE);
    (void)g_timeout_add(PATIENCE_MS, on_impatience, window);
    if (semel_executor_state(window->executor) == SEMEL_EXECUTOR_STOPPED)
        gtk_main_quit();
    else
        semel_executor_stop(window->executor); /* on_state tells of the last */
    return TRUE;
}

/* --- the script ------------------------------------------------------------------------------- */

static void show_all(const struct window *window)
{
    for (int i = 0; i < window->count; i++) {
        const struct task *task = &window->tasks[i];

        printf("%d|%s|%s|%d|%s|%s%s\n", i + 1, gtk_label_get_text(GTK_LABEL(task->title)),
               gtk_label_get_text(GTK_LABEL(task->state)),
               (int)(gtk_progress_bar_get_fraction(GTK_PROGRESS_BAR(task->bar)) * 100 + 0.5),
               gtk_label_get_text(GTK_LABEL(task->words)),
               gtk_widget_get_sensitive(task->cancel) ? "c" : "-",
               gtk_widget_get_sensitive(task->kill) ? "k" : "-");
    }
    printf("end\n");
}

static void show_where(GtkWidget *widget)
{
    GtkAllocation size;
    int x = 0, y = 0, left = 0, top = 0;

    if (!gtk_widget_get_mapped(widget)) {
        printf("nowhere\n");
        return;
    }
    gtk_widget_get_allocation(widget, &size);
    (void)gtk_widget_translate_coordinates(widget, gtk_widget_get_toplevel(widget), size.width / 2,
                                           size.height / 2, &x, &y);
    (void)gdk_window_get_origin(gtk_widget_get_window(gtk_widget_get_toplevel(widget)), &left,
                                &top);
    printf("%d %d\n", left + x, top + y);
}

static GtkWidget *find(struct window *window, const char *name, const char *number)
{
    int n = atoi(number);

    if (strcmp(name, "start") == 0)
        return window->start;
    if (strcmp(name, "stop") == 0)
        return window->stop;
    if (strcmp(name, "reset") == 0)
        return window->reset;
    if (n < 1 || n > window->count)
        return NULL;
    if (strcmp(name, "cancel") == 0)
        return window->tasks[n - 1].cancel;
    return strcmp(name, "kill") == 0 ? window->tasks[n - 1].kill : NULL;
}

static void obey(struct window *window, const char *line)
{
    char verb[16] = "", what[32] = "", number[16] = "";
    GtkWidget *button;

    if (sscanf(line, "%15s %31s %15s", verb, what, number) < 1)
        return;
    button = find(window, verb, what);
    if (strcmp(verb, "show") == 0)
        show_all(window);
    else if (strcmp(verb, "gap") == 0)
        printf("%s\n", gtk_label_get_text(GTK_LABEL(window->pulse)));
    else if (strcmp(verb, "close") == 0)
        gtk_window_close(GTK_WINDOW(window->top));
    else if (strcmp(verb, "where") == 0 && find(window, what, number))
        show_where(find(window, what, number));
    else if (button == NULL)
        printf("no such command or task: %s\n", line);
    if (button == window->start && what[0])
        gtk_entry_set_text(GTK_ENTRY(window->limit), what);
    if (button && gtk_widget_get_sensitive(button))
        gtk_button_clicked(GTK_BUTTON(button));
    (void)fflush(stdout);
}

static gboolean on_script(gint fd, GIOCondition condition, gpointer user)
{
    struct window *window = user;
    char bytes[512];
    ssize_t n = read(fd, bytes, sizeof bytes);
    char *end;

    (void)condition;
    if (n <= 0) {
        gtk_window_close(GTK_WINDOW(window->top));
        return G_SOURCE_REMOVE;
    }
    (void)g_string_append_len(window->line, bytes, n);
    while ((end = strchr(window->line->str, '\n')) != NULL) {
        *end = '\0';
        obey(window, window->line->str);
        (void)g_string_erase(window->line, 0, end + 1 - window->line->str);
    }
    return G_SOURCE_CONTINUE;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static GtkWidget *make_bar(struct window *window)
{
    GtkWidget *bar = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 8);
    GtkWidget *spinner = gtk_spinner_new();

    window->limit = gtk_entry_new();
    window->start = gtk_button_new_with_label("Count primes");
    window->stop = gtk_button_new_with_label("Cancel all");
    window->pulse = gtk_label_new("");
    window->reset = gtk_button_new_with_label("Reset");
    gtk_entry_set_text(GTK_ENTRY(window->limit), "20000000");
    gtk_spinner_start(GTK_SPINNER(spinner));
    g_signal_connect(window->start, "clicked", G_CALLBACK(on_start), window);
    g_signal_connect(window->stop, "clicked", G_CALLBACK(on_stop), window);
    g_signal_connect(window->reset, "clicked", G_CALLBACK(on_reset), window);
    gtk_box_pack_start(GTK_BOX(bar), gtk_label_new("below"), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), window->limit, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), window->start, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), window->stop, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), spinner, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), window->pulse, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(bar), window->reset, FALSE, FALSE, 0);
    return bar;
}

static void make_window(struct window *window)
{
    GtkWidget *all = gtk_box_new(GTK_ORIENTATION_VERTICAL, 8);
    GtkWidget *rows = gtk_scrolled_window_new(NULL, NULL);

    window->top = gtk_window_new(GTK_WINDOW_TOPLEVEL);
    window->list = gtk_list_box_new();
    gtk_list_box_set_selection_mode(GTK_LIST_BOX(window->list), GTK_SELECTION_NONE);
    gtk_window_set_title(GTK_WINDOW(window->top), "Tasks");
    gtk_window_set_default_size(GTK_WINDOW(window->top), 900, 400);
    gtk_container_set_border_width(GTK_CONTAINER(window->top), 8);
    gtk_container_add(GTK_CONTAINER(rows), window->list);
    gtk_box_pack_start(GTK_BOX(all), make_bar(window), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(all), rows, TRUE, TRUE, 0);
    gtk_container_add(GTK_CONTAINER(window->top), all);
    g_signal_connect(window->top, "delete-event", G_CALLBACK(on_close), window);
    gtk_widget_show_all(window->top);
}

int main(int argc, char **argv)
{
    static struct window window;
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    int code = semel_worker_main(argc, argv, primes_export, NULL);
    GSource *source;

    if (code >= 0)
        return code; /* this process was a worker: it has no window */
    if (!gtk_init_check(&argc, &argv)) {
        (void)fprintf(stderr, "window: no display\n");
        return 1;
    }
    need(semel_loop_create(&window.loop, NULL), "loop");
    source = semel_glib_source_new(window.loop);
    if (source == NULL)
        return 1;
    (void)g_source_attach(source, NULL);
    options.on_state = on_state;
    options.user = &window;
    need(semel_executor_create(&window.executor, window.loop, &options), "executor");
    make_window(&window);
    on_reset(NULL, &window);
    (void)g_timeout_add(PULSE_MS, on_beat, &window);
    window.line = g_string_new(NULL);
    if (argc > 1 && strcmp(argv[1], "--script") == 0)
        (void)g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP, on_script, &window);
    gtk_main();
    need(semel_executor_destroy(window.executor), "executor");
    for (int i = 0; i < window.count; i++)
        semel_future_unref(window.tasks[i].future);
    gtk_widget_destroy(window.top);
    (void)g_string_free(window.line, TRUE);
    g_source_destroy(source);
    g_source_unref(source);
    need(semel_loop_destroy(window.loop), "loop");
    return 0;
}
