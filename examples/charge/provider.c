/* SPDX-License-Identifier: MIT */
/* provider.c - charge_provider SOCKET BOOKS [DELAY_MS]
 *
 * A payment provider, as far as it matters here: it charges whoever asks, and the same key only
 * once. A line "KEY AMOUNT" over the socket is answered by "receipt N", N being the line of BOOKS
 * that has that key; it is appended if there is none. The answer comes DELAY_MS later. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHARGES_MAX 100000
#define KEY_BYTES 33

static char keys[CHARGES_MAX][KEY_BYTES];
static int count;

static int charge(FILE *books, const char *key, const char *amount)
{
    for (int i = 0; i < count; i++)
        if (strcmp(keys[i], key) == 0)
            return i + 1;
    if (count == CHARGES_MAX)
        exit(1);
    snprintf(keys[count++], KEY_BYTES, "%s", key);
    fprintf(books, "%s %s\n", key, amount);
    fflush(books);
    return count;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    useconds_t delay = argc > 3 ? (useconds_t)atoi(argv[3]) * 1000 : 0;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd;
    FILE *books;

    if (argc < 3) {
        fputs("usage: charge_provider SOCKET BOOKS [DELAY_MS]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* who asked may be gone when the answer is there */
    books = fopen(argv[2], "w");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    if (!books || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 64) != 0) {
        perror("charge_provider");
        return 1;
    }
    /* One after the other: providers are slow. */
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        FILE *in = fdopen(fd, "r");
        char key[KEY_BYTES], amount[32];

        if (in && fscanf(in, "%32s %31s", key, amount) == 2) {
            int receipt = charge(books, key, amount);

            usleep(delay);
            dprintf(fd, "receipt %d\n", receipt);
        }
        if (in)
            fclose(in);
    }
    return 1;
}
