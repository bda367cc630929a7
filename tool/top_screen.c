/* SPDX-License-Identifier: MIT */
/* top_screen.c - the terminal of semel top.
 *
 * Everything is drawn anew each time; ncurses sends what has changed. Words of others pass through
 * `put`, which lets nothing through that could move the cursor. The terminal is given back by
 * screen_close, also at exit; signals that would end the process are read from a descriptor, so
 * that this is always passed. Only the main thread comes here. */
#include "top.h"

#include <curses.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#include "duration.h"
#include "inspect.h"

#define FIRST_ROW 8 /* of the page, below its heading */
#define ID_BYTES 64

static struct {
    SCREEN *terminal;
    bool open, coloured;
    enum top_page page;
    enum top_order order;
    size_t chosen, top, shown; /* a row; the first that is on the screen; how many there are */
    char id[ID_BYTES];         /* the chosen call: it may move */
    char method[SEMEL_METHOD_BYTES + 1];
} screen;

enum { PLAIN, HEADING = 1, GOOD, BAD }; /* colour pairs */

/* --- the terminal ---------------------------------------------------------------------------- */

bool screen_open(char *why, size_t size)
{
    const char *name = getenv("TERM");

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        snprintf(why, size, "there is no terminal here; -o json prints one sample");
        return false;
    }
    (void)setlocale(LC_CTYPE, "");
    screen.terminal = name && terminal_is_known(name) ? newterm(NULL, stdout, stdin) : NULL;
    if (!screen.terminal) {
        snprintf(why, size, "the terminal '%s' is not known; -o json prints one sample",
                 name ? name : "");
        return false;
    }
    screen.open = true;
    atexit(screen_close);
    set_term(screen.terminal);
    cbreak();
    noecho();
    nonl();
    curs_set(0);
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(50);
    screen.coloured =
        !getenv("NO_COLOR") && has_colors() && start_color() == OK && use_default_colors() == OK;
    if (screen.coloured) {
        init_pair(HEADING, COLOR_CYAN, -1);
        init_pair(GOOD, COLOR_GREEN, -1);
        init_pair(BAD, COLOR_RED, -1);
    }
    return true;
}

void screen_close(void)
{
    if (!screen.open)
        return;
    screen.open = false;
    endwin();
    delscreen(screen.terminal);
    screen.terminal = NULL;
}

/* --- words ----------------------------------------------------------------------------------- */

static attr_t paint(int pair, attr_t otherwise)
{
    return screen.coloured ? COLOR_PAIR(pair) | (pair == BAD ? A_BOLD : 0) : otherwise;
}

/* At most `width` columns of `text`, at row and column; what cannot be shown is '?'. */
static void put(int row, int column, int width, const char *text)
{
    mbstate_t state = { 0 };
    size_t left = strlen(text);

    if (width > COLS - column)
        width = COLS - column;
    if (row >= LINES || move(row, column) == ERR)
        return;
    while (left > 0) {
        wchar_t wide[2] = { 0, 0 };
        size_t length = mbrtowc(wide, text, left, &state);
        int columns;

        if (length == (size_t)-1 || length == (size_t)-2 || length == 0) {
            memset(&state, 0, sizeof state);
            length = 1;
            wide[0] = L'?';
        }
        columns = iswprint((wint_t)wide[0]) ? wcwidth(wide[0]) : -1;
        if (columns <= 0) {
            wide[0] = L'?';
            columns = 1;
        }
        if (columns > width)
            return;
        addnwstr(wide, 1);
        width -= columns;
        text += length;
        left -= length;
    }
}

static void put_format(int row, int column, int width, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void put_format(int row, int column, int width, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(row, column, width, text);
}

/* A whole row, its rest too, in this attribute. */
static void bar(int row, attr_t attribute)
{
    if (row < LINES)
        mvchgat(row, 0, -1, attribute & ~A_COLOR, (short)PAIR_NUMBER(attribute), NULL);
}

static const char *rate_text(double rate, char *text, size_t size)
{
    if (rate >= 1e6)
        snprintf(text, size, "%.2fM", rate / 1e6);
    else if (rate >= 1e5)
        snprintf(text, size, "%.0fk", rate / 1e3);
    else if (rate >= 100 || rate == 0)
        snprintf(text, size, "%.0f", rate);
    else
        snprintf(text, size, "%.1f", rate);
    return text;
}

/* At most six columns, whatever the number. */
struct count_text {
    char text[24];
};

static struct count_text count_of(uint64_t count)
{
    static const char units[] = "kMGTPE";
    struct count_text out;
    double value = (double)count;
    int unit = -1;

    for (; value >= (unit < 0 ? 1e5 : 999.5); unit++)
        value /= 1000;
    if (unit < 0)
        snprintf(out.text, sizeof out.text, "%" PRIu64, count);
    else
        snprintf(out.text, sizeof out.text, value < 100 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return out;
}

/* --- the head -------------------------------------------------------------------------------- */

static void draw_title(const struct top_picture *picture)
{
    char up[32];

    put_format(0, 0, COLS, "semel top  %s", picture->address);
    if (picture->view) {
        const json_t *server = top_server(picture->view);
        uint64_t seconds = member_count(server, "uptime_ns") / 1000000000;
        char text[160];
        int length;

        duration_format((int64_t)seconds * 1000000000, up, sizeof up);
        length = snprintf(text, sizeof text, "  pid %" PRIu64 "  up %s  %s",
                          member_count(server, "pid"), up, member_text(server, "state"));
        if (length < COLS)
            put(0, COLS - length, length, text);
    }
    bar(0, A_REVERSE);
}

static struct count_text counter(const struct top_view *view, const char *name)
{
    return count_of(top_counter(view, name));
}

static void draw_figures(const struct top_view *view)
{
    char rate[32], p50[32], p99[32];

    put_format(1, 0, COLS, "rate %s/s   p50 %s   p99 %s   in flight %s   backlog %s of %s",
               view->fresh ? "-" : rate_text(view->all.rate, rate, sizeof rate),
               time_text(view->all.p50_ns, p50, sizeof p50),
               time_text(view->all.p99_ns, p99, sizeof p99), counter(view, "calls_running").text,
               counter(view, "calls_waiting").text,
               count_of(member_count(top_server(view), "backlog")).text);
    put_format(2, 0, COLS,
               "sessions %s (%s made, %s resumed)   connections %s   cuts %s   replays %s",
               counter(view, "sessions_open").text, counter(view, "sessions_created").text,
               counter(view, "sessions_resumed").text, counter(view, "connections_open").text,
               counter(view, "connections_lost").text, counter(view, "replayed").text);
    put_format(3, 0, COLS,
               "values %s   failures %s   not executed %s   unknown %s   busy %s   refused %s",
               counter(view, "values").text, counter(view, "failures").text,
               counter(view, "not_executed").text, counter(view, "unknown").text,
               counter(view, "calls_busy").text, counter(view, "calls_refused").text);
}

/* Of a thread: . idle, r reads, # in a handler. Of a process: . idle, # has a call, s starts,
 * x neither. */
static chtype sign_of(const json_t *worker)
{
    const char *state = member_text(worker, "state");

    if (strcmp(state, "running") == 0 || member_count(worker, "running") > 0)
        return '#';
    if (strcmp(state, "reading") == 0)
        return 'r';
    if (!json_object_get(worker, "place") || strcmp(state, "ready") == 0)
        return '.';
    return strcmp(state, "starting") == 0 ? 's' : 'x';
}

/* The processes, if the calls run in such, else the threads. */
static void draw_strip(const struct top_view *view)
{
    const json_t *processes = json_object_get(view->now, "processes");
    const json_t *workers = processes ? processes : json_object_get(view->now, "workers");
    int column = 9;

    put_format(4, 0, COLS, "workers");
    for (size_t i = 0; i < json_array_size(workers) && column < COLS; i++, column++) {
        chtype letter = sign_of(json_array_get(workers, i));
        bool runs = letter == '#';

        mvaddch(4, column, letter | (runs ? paint(GOOD, A_BOLD) : 0));
    }
}

/* --- pages ----------------------------------------------------------------------------------- */

/* Rows of the page that are on the screen. */
static size_t rows(void)
{
    return LINES > FIRST_ROW + 1 ? (size_t)(LINES - FIRST_ROW - 1) : 0;
}

/* The choice stays on the screen, and within what there is. */
static void settle(size_t count)
{
    screen.shown = count;
    if (screen.chosen >= count)
        screen.chosen = count > 0 ? count - 1 : 0;
    if (screen.top > screen.chosen)
        screen.top = screen.chosen;
    if (rows() > 0 && screen.chosen >= screen.top + rows())
        screen.top = screen.chosen - rows() + 1;
}

static void draw_methods(const struct top_view *view)
{
    char rate[32], p50[32], p99[32];

    settle(view->count);
    put_format(FIRST_ROW - 1, 0, COLS, "%-22s %8s %7s %7s %6s %6s %6s %6s %4s", "METHOD", "RATE/s",
               "P50", "P99", "RUN", "WAIT", "CALLS", "FAIL", "UNKN");
    for (size_t i = 0; i < rows() && screen.top + i < view->count; i++) {
        const struct top_method *m = &view->methods[screen.top + i];
        int row = FIRST_ROW + (int)i;

        put(row, 0, 22, m->name);
        put_format(row, 22, COLS - 22, " %8s %7s %7s %6s %6s %6s %6s %4s",
                   view->fresh ? "-" : rate_text(m->rate, rate, sizeof rate),
                   time_text(m->p50_ns, p50, sizeof p50), time_text(m->p99_ns, p99, sizeof p99),
                   count_of(m->running).text, count_of(m->waiting).text, count_of(m->ended).text,
                   count_of(m->failures).text, count_of(m->unknown).text);
        if (screen.top + i == screen.chosen)
            bar(row, A_BOLD);
    }
}

/* The chosen call's row now. */
static void find_choice(const json_t *calls)
{
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (strcmp(member_text(json_array_get(calls, i), "id"), screen.id) == 0)
            screen.chosen = i;
}

static void keep_choice(const json_t *calls)
{
    const json_t *call = json_array_get(calls, screen.chosen);

    snprintf(screen.id, sizeof screen.id, "%s", member_text(call, "id"));
    snprintf(screen.method, sizeof screen.method, "%s", member_text(call, "method"));
}

static void draw_calls(const json_t *answer)
{
    const json_t *calls = json_object_get(answer, "calls");
    size_t count = json_array_size(calls);
    uint64_t left_off =
        member_count(answer, "running_left_off") + member_count(answer, "waiting_left_off");
    char age[32], left[32];

    find_choice(calls);
    settle(count);
    keep_choice(calls);
    put_format(FIRST_ROW - 1, 0, COLS, "%-16s %-9s %8s %8s  %-16s %s", "ID", "STATE", "AGE", "LEFT",
               "METHOD", left_off > 0 ? "PEER (and more calls)" : "PEER");
    for (size_t i = 0; i < rows() && screen.top + i < count; i++) {
        const json_t *call = json_array_get(calls, screen.top + i);
        int row = FIRST_ROW + (int)i;

        put(row, 0, 16, member_text(call, "id"));
        put_format(row, 17, 28, "%-9.8s %8s %8s", member_text(call, "state"),
                   member_time(call, "age_ns", age, sizeof age),
                   member_time(call, "remaining_ms", left, sizeof left));
        if (member_is(call, "cancelled"))
            put(row, 25, 1, "*");
        put(row, 46, 16, member_text(call, "method"));
        put(row, 63, COLS - 63, member_text(call, "peer"));
        if (screen.top + i == screen.chosen)
            bar(row, A_REVERSE);
    }
}

static void draw_workers(const struct top_view *view)
{
    const json_t *workers = json_object_get(view->now, "workers");
    char span[32];

    settle(json_array_size(workers));
    put_format(FIRST_ROW - 1, 0, COLS, "%-5s %-8s %8s  %s", "SLOT", "STATE", "FOR", "METHOD");
    for (size_t i = 0; i < rows() && screen.top + i < json_array_size(workers); i++) {
        const json_t *worker = json_array_get(workers, screen.top + i);
        int row = FIRST_ROW + (int)i;

        put_format(row, 0, COLS, "%-5" PRIu64 " %-8s %8s", member_count(worker, "slot"),
                   member_text(worker, "state"), member_time(worker, "for_ns", span, sizeof span));
        put(row, 25, COLS - 25, member_text(worker, "method"));
        if (screen.top + i == screen.chosen)
            bar(row, A_BOLD);
    }
}

static void draw_processes(const json_t *processes)
{
    char age[32], pid[24], calls[24], running[24];

    settle(json_array_size(processes));
    put_format(FIRST_ROW - 1, 0, COLS, "%-7s %-8s %7s %7s %8s %8s  %s", "PID", "STATE", "RUNNING",
               "CALLS", "RESTARTS", "AGE", "LAST END");
    for (size_t i = 0; i < rows() && screen.top + i < json_array_size(processes); i++) {
        const json_t *process = json_array_get(processes, screen.top + i);
        int row = FIRST_ROW + (int)i;

        put_format(row, 0, COLS, "%-7s %-8s %7s %7s %8s %8s",
                   member_number(process, "pid", pid, sizeof pid), member_text(process, "state"),
                   member_number(process, "running", running, sizeof running),
                   member_number(process, "calls", calls, sizeof calls),
                   count_of(member_count(process, "restarts")).text,
                   member_time(process, "age_ms", age, sizeof age));
        put(row, 52, COLS - 52, member_text(process, "last_exit"));
        if (screen.top + i == screen.chosen)
            bar(row, A_BOLD);
    }
}

static void draw_page(const struct top_picture *picture)
{
    static const char *const names[TOP_PAGES] = { "1 methods", "2 calls", "3 workers" };
    int column = 0;

    for (int i = 0; i < TOP_PAGES; i++) {
        attrset(i == (int)screen.page ? A_REVERSE : A_NORMAL);
        put_format(6, column, COLS, " %s ", names[i]);
        column += (int)strlen(names[i]) + 3;
    }
    attrset(A_NORMAL);
    if (screen.page == TOP_METHODS && picture->view)
        draw_methods(picture->view);
    else if (screen.page == TOP_CALLS && picture->calls)
        draw_calls(picture->calls);
    else if (screen.page == TOP_WORKERS && picture->view &&
             json_object_get(picture->view->now, "processes"))
        draw_processes(json_object_get(picture->view->now, "processes"));
    else if (screen.page == TOP_WORKERS && picture->view)
        draw_workers(picture->view);
    bar(FIRST_ROW - 1, paint(HEADING, A_BOLD));
}

static void draw_keys(const struct top_picture *picture)
{
    static const char *const orders[TOP_ORDERS] = { "rate", "p99", "in flight", "name" };
    int row = LINES - 1;

    if (*picture->message) {
        put(row, 0, COLS, picture->message);
        bar(row, picture->asking ? A_REVERSE : A_BOLD);
        return;
    }
    put_format(row, 0, COLS, "q quit  Tab page  s sort: %s  up/down choose%s", orders[screen.order],
               screen.page == TOP_CALLS ? "  k cancel" : "");
}

void screen_draw(const struct top_picture *picture)
{
    erase();
    draw_title(picture);
    if (picture->view) {
        draw_figures(picture->view);
        draw_strip(picture->view);
    }
    if (*picture->trouble) {
        put(5, 0, COLS, picture->trouble);
        bar(5, paint(BAD, A_BOLD));
    }
    draw_page(picture);
    draw_keys(picture);
    refresh();
}

/* --- keys ------------------------------------------------------------------------------------ */

static void turn_to(enum top_page page)
{
    screen.page = page;
    screen.chosen = screen.top = 0;
    screen.id[0] = screen.method[0] = '\0';
}

/* A choice by its row: the call that was there is forgotten. */
static void choose(long row)
{
    screen.chosen = row < 0 ? 0 : (size_t)row;
    if (screen.shown > 0 && screen.chosen >= screen.shown)
        screen.chosen = screen.shown - 1;
    screen.id[0] = screen.method[0] = '\0';
}

static bool moves(int key)
{
    long page = (long)rows();

    switch (key) {
    case KEY_UP:
        choose((long)screen.chosen - 1);
        return true;
    case KEY_DOWN:
        choose((long)screen.chosen + 1);
        return true;
    case KEY_PPAGE:
        choose((long)screen.chosen - page);
        return true;
    case KEY_NPAGE:
        choose((long)screen.chosen + page);
        return true;
    case KEY_HOME:
        choose(0);
        return true;
    case KEY_END:
        choose((long)screen.shown - 1);
        return true;
    default:
        return false;
    }
}

static enum top_key answer(int key)
{
    if (key == 'y' || key == 'Y')
        return TOP_YES;
    return key == 'f' || key == 'F' ? TOP_FORCE : TOP_NO;
}

enum top_key screen_key(bool asking)
{
    int key = getch();

    if (key == ERR)
        return TOP_NOTHING;
    if (key == KEY_RESIZE)
        return TOP_REDRAW;
    if (asking)
        return answer(key);
    if (moves(key))
        return TOP_REDRAW;
    switch (key) {
    case 'q':
    case 'Q':
        return TOP_QUIT;
    case '\t':
        turn_to((screen.page + 1) % TOP_PAGES);
        return TOP_REDRAW;
    case '1':
    case '2':
    case '3':
        turn_to((enum top_page)(key - '1'));
        return TOP_REDRAW;
    case 's':
        screen.order = (screen.order + 1) % TOP_ORDERS;
        return TOP_REDRAW;
    case 'k':
        return TOP_ASK_CANCEL;
    default:
        return TOP_REDRAW;
    }
}

enum top_order screen_order(void)
{
    return screen.order;
}

enum top_page screen_page(void)
{
    return screen.page;
}

const char *screen_choice(const char **out_method)
{
    *out_method = screen.method;
    return screen.page == TOP_CALLS ? screen.id : "";
}
