/* SPDX-License-Identifier: MIT */
/* Asked before newterm, which leaves memory behind where it fails. A file of its own, since term.h
 * defines `lines`, `columns` and hundreds of such words. */
#include <curses.h>
#include <term.h>
#include <unistd.h>

#include "top.h"

bool terminal_is_known(const char *name)
{
    int error;

    if (!*name || setupterm(name, STDOUT_FILENO, &error) != OK)
        return false;
    del_curterm(cur_term);
    return true;
}
