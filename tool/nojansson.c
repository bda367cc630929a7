/* SPDX-License-Identifier: MIT */
/* Where Jansson was not there to build with: what a server says of itself cannot be read. */
#include "output.h"
#include "tool.h"

static int refuse(void)
{
    output_error("this semel was built without Jansson, and cannot read what servers say of "
                 "themselves");
    return TOOL_USAGE;
}

int tool_list(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return refuse();
}

int tool_describe(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return refuse();
}

int tool_ps(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return refuse();
}

int tool_cancel(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return refuse();
}

int tool_top(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return refuse();
}
