/* SPDX-License-Identifier: MIT */
/* Where ncurses was not there to build with. */
#include <stdio.h>

#include "top.h"

bool screen_open(char *why, size_t size)
{
    snprintf(why, size, "this semel was built without ncurses; -o json prints one sample");
    return false;
}

void screen_close(void)
{
}

void screen_draw(const struct top_picture *picture)
{
    (void)picture;
}

enum top_key screen_key(bool asking)
{
    (void)asking;
    return TOP_QUIT;
}

enum top_order screen_order(void)
{
    return TOP_BY_RATE;
}

enum top_page screen_page(void)
{
    return TOP_METHODS;
}

const char *screen_choice(const char **out_method)
{
    *out_method = "";
    return "";
}
