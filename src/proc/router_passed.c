/* SPDX-License-Identifier: MIT */
/* router_passed.c - large messages, whose bytes are not sent but shared.
 *
 * A sender has some pieces of memory, slots, each with a number. It passes a slot's descriptor
 * once, by a socket of its own; then it fills the slot and sends a message that names it: so
 * order and flow are those of all messages, and what is named is there already. A larger one
 * that takes its place has a number of its own: it may be named before it was looked for, when
 * the old one is still here. Until its message was delivered a slot is the router's; that it
 * was, the sender learns by the stream's credit. Memory that is used again costs neither page
 * faults nor zeroing: which is most of what a new one costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/passing.h"
#include "os/sealed.h"
#include "proc/router_internal.h"

/* --- the sockets --------------------------------------------------------------------------- */

static void side_path(const struct semel_router *router, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/p", router->directory);
}

enum semel_status sml_router_open_sides(struct semel_router *router)
{
    char path[sizeof router->directory + 4];
    enum semel_status status;

    side_path(router, path, sizeof path);
    status = sml_passing_listen(path, &router->sides_fd);
    if (status != SEMEL_OK)
        router->sides_fd = -1;
    return status;
}

static void close_side(struct semel_router *router, struct sml_side *side)
{
    router->side_count--;
    sml_list_remove(&side->link);
    sml_passing_close(side->fd);
    free(side);
}

void sml_router_close_sides(struct semel_router *router)
{
    char path[sizeof router->directory + 4];

    while (!sml_list_empty(&router->sides))
        close_side(router, SML_CONTAINER(router->sides.next, struct sml_side, link));
    if (router->sides_fd < 0)
        return;
    sml_passing_close(router->sides_fd);
    router->sides_fd = -1;
    side_path(router, path, sizeof path);
    (void)remove(path);
}

/* --- what was passed ----------------------------------------------------------------------- */

static void drop(struct sml_slot *slot)
{
    sml_list_remove(&slot->link);
    sml_sealed_unmap(slot->data, (size_t)slot->size);
    free(slot);
}

/* What is in that number's place. */
static struct sml_slot *find_place(struct semel_receiver *receiver, uint64_t number)
{
    struct sml_list *slots = &receiver->slots;

    for (struct sml_list *node = slots->next; node != slots; node = node->next) {
        struct sml_slot *slot = SML_CONTAINER(node, struct sml_slot, link);

        if (slot->number % SML_SLOTS_MAX == number % SML_SLOTS_MAX)
            return slot;
    }
    return NULL;
}

static struct sml_slot *find(struct semel_receiver *receiver, uint64_t number)
{
    struct sml_slot *slot = find_place(receiver, number);

    return slot && slot->number == number ? slot : NULL;
}

/* Memory under a number, instead of what was in its place. */
static void keep(struct semel_router *router, const uint8_t *words, int fd)
{
    struct semel_receiver *receiver = sml_router_find(router, words);
    struct sml_slot *slot = NULL, *old;
    uint64_t number, size;

    memcpy(&number, words + SML_PIPE_BODY_BYTES, 8);
    memcpy(&size, words + SML_PIPE_BODY_BYTES + 8, 8);
    old = receiver ? find_place(receiver, number) : NULL;
    if (old && old->data != receiver->lent)
        drop(old);
    if (receiver && !find_place(receiver, number) && size <= SML_SLOT_BYTES_MAX)
        slot = malloc(sizeof *slot);
    if (slot)
        slot->data = sml_sealed_map(fd, (size_t)size);
    sml_sealed_close(fd);
    if (slot == NULL || slot->data == NULL) {
        free(slot);
        return;
    }
    slot->number = number;
    slot->size = size;
    sml_list_push_back(&receiver->slots, &slot->link);
}

/* Take over what the side has passed. Returns whether it has ended. */
static bool take_passed(struct semel_router *router, const struct sml_side *side)
{
    uint8_t words[SML_PASSED_WORDS];
    bool ended;
    int fd;

    while (sml_passing_receive(side->fd, words, sizeof words, &fd, &ended))
        keep(router, words, fd);
    return ended;
}

/* The oldest goes, that there is room for another. Nothing is lost: what it passed is taken over,
 * and if it has more to pass it comes again. */
static void make_room(struct semel_router *router)
{
    struct sml_side *side = SML_CONTAINER(router->sides.next, struct sml_side, link);

    sml_passing_shut(side->fd);
    (void)take_passed(router, side);
    close_side(router, side);
}

static void accept_sides(struct semel_router *router)
{
    int fd;

    while (router->sides_fd >= 0 && (fd = sml_passing_accept(router->sides_fd)) >= 0) {
        struct sml_side *side = malloc(sizeof *side);

        if (side == NULL) {
            sml_passing_close(fd);
            return;
        }
        if (router->side_count == router->options.connections)
            make_room(router);
        side->fd = fd;
        sml_list_push_back(&router->sides, &side->link);
        router->side_count++;
    }
}

void sml_router_look_aside(struct semel_router *router)
{
    struct sml_list *node, *next;

    accept_sides(router);
    for (node = router->sides.next; node != &router->sides; node = next) {
        struct sml_side *side = SML_CONTAINER(node, struct sml_side, link);

        next = node->next;
        if (take_passed(router, side))
            close_side(router, side);
    }
}

bool sml_receiver_lend(struct semel_receiver *receiver, struct semel_bytes words,
                       struct semel_bytes *out)
{
    const uint8_t *at = words.data;
    uint64_t number, size;
    struct sml_slot *slot;

    memcpy(&number, at + 1, sizeof number);
    memcpy(&size, at + 9, sizeof size);
    slot = find(receiver, number);
    if (slot == NULL) {
        sml_router_look_aside(receiver->router);
        slot = find(receiver, number);
    }
    if (slot == NULL || slot->size < size || size > receiver->router->options.message_bytes)
        return false;
    receiver->lent = slot->data;
    *out = semel_bytes(slot->data, (size_t)size);
    return true;
}

void sml_receiver_drop_slots(struct semel_receiver *receiver)
{
    while (!sml_list_empty(&receiver->slots))
        drop(SML_CONTAINER(receiver->slots.next, struct sml_slot, link));
}
