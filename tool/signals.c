/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>

static struct {
    signals_fn fn;
    void *user;
} watcher;

static void set_of_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

void signals_block(void)
{
    sigset_t set;

    set_of_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void *watch(void *unused)
{
    sigset_t set;
    unsigned count = 0;
    int number;

    (void)unused;
    set_of_signals(&set);
    for (;;) {
        if (sigwait(&set, &number) == 0)
            watcher.fn(number, ++count, watcher.user);
    }
    return NULL;
}

bool signals_watch(signals_fn fn, void *user)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error;

    watcher.fn = fn;
    watcher.user = user;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attributes, watch, NULL);
    pthread_attr_destroy(&attributes);
    errno = error;
    return error == 0;
}

int signals_open(void)
{
    sigset_t set;

    set_of_signals(&set);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}
