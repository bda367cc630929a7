/* SPDX-License-Identifier: MIT */
/* main.c - the simulator as a program of its own. See run.c. */
#include "sim.h"

int main(int argc, char **argv)
{
    return sim_main(argc, argv);
}
