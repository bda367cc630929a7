/* SPDX-License-Identifier: MIT */
/* One callee and everything around it that matters to a store: a client that keeps to the protocol,
 * a shell, handlers with effects that are counted, and a store that may say no. */
#include "store_world.h"

struct world world;
enum kind world_kinds[CALLS];
static struct sequence now; /* for messages */

static const char *const step_names[] = {
    [CALL] = "call",       [ACK] = "ack",       [CANCEL] = "cancel", [GO] = "go",
    [BEGIN] = "begin",     [FINISH] = "finish", [TX_OK] = "tx ok",   [TX_GONE] = "tx gone",
    [PUT_OFF] = "put off", [TAKE] = "take",     [PULL] = "pull",     [COMMIT] = "commit",
    [FAIL] = "fail",       [READ] = "read",     [LATE] = "late",     [RECONNECT] = "reconnect",
    [CRASH] = "crash",
};

/* --- when something is wrong ------------------------------------------------------------- */

static void wrong(const char *why)
{
    for (uint32_t i = 0; i < now.count; i++) {
        uint8_t step = now.steps[i] / CALLS;

        if (step < OF_A_CALL)
            print_message("%s %d, ", step_names[step], now.steps[i] % CALLS + 1);
        else
            print_message("%s, ", step_names[step]);
    }
    print_message("with calls of kinds %d and %d\n", world_kinds[0], world_kinds[1]);
    fail_msg("%s", why);
}

static void must(bool true_now, const char *why)
{
    if (!true_now)
        wrong(why);
}

#define MUST(x) must((x), #x)

/* --- memory ------------------------------------------------------------------------------ */

static void *world_alloc(void *user, size_t bytes)
{
    (void)user;
    assert_true(world.live < POINTERS);
    return world.pointers[world.live++] = malloc(bytes);
}

static void world_release(void *user, void *pointer)
{
    uint32_t i = 0;

    (void)user;
    if (pointer == NULL)
        return;
    while (i < world.live && world.pointers[i] != pointer)
        i++;
    assert_true(i < world.live);
    world.pointers[i] = world.pointers[--world.live];
    free(pointer);
}

static const struct sml_mem world_mem = { world_alloc, world_release, NULL };

void world_free(void)
{
    while (world.live > 0)
        free(world.pointers[--world.live]);
}

/* --- the store --------------------------------------------------------------------------- */

static struct sml_fingerprint print_of(uint64_t xid)
{
    return (struct sml_fingerprint){ xid, ~xid };
}

static void write_call(const struct sml_incoming *in, enum sml_call_record_state state)
{
    struct stored *stored = &world.records[in->xid - 1];
    struct sml_call_record record = { .session = 1,
                                      .xid = in->xid,
                                      .state = state,
                                      .flags = in->flags,
                                      .crashes = in->crashes,
                                      .fingerprint = in->fingerprint,
                                      .method = { in->method, in->method_bytes },
                                      .key = { in->key, in->key_bytes } };

    if (state == SML_CALL_ENDED) {
        record.verdict = in->verdict;
        record.proven = in->proven;
    }
    stored->size = sml_call_record_bytes(&record);
    assert_true(stored->size <= RECORD_BYTES);
    sml_call_record_encode(&record, stored->bytes);
}

bool world_read_call(int call, struct sml_call_record *out)
{
    const struct stored *stored = &world.records[call];

    if (stored->size == 0)
        return false;
    assert_null(sml_call_record_decode(semel_bytes(stored->bytes, stored->size), out));
    return true;
}

struct sml_session_record world_read_session(void)
{
    struct sml_session_record record;

    assert_null(sml_session_record_decode(
        semel_bytes(world.session_record.bytes, world.session_record.size), &record));
    return record;
}

static void write_session(struct stored *stored, const struct sml_session_record *record)
{
    stored->size = sml_session_record_bytes(record);
    assert_true(stored->size <= RECORD_BYTES);
    sml_session_record_encode(record, stored->bytes);
}

bool world_is_straggler(const struct sml_session_record *record, uint64_t xid)
{
    for (uint32_t i = 0; i < record->straggler_count; i++)
        if (sml_record_straggler(record, i) == xid)
            return true;
    return false;
}

/* Would a crash now be survived? */
static void check_store(void)
{
    const struct sml_session_record session = world_read_session();

    for (int i = 0; i < CALLS; i++) {
        const struct one_call *call = &world.calls[i];
        uint64_t xid = (uint64_t)i + 1;
        bool open = xid > session.base || world_is_straggler(&session, xid);

        if (!call->sent || world.records[i].size > 0)
            continue;
        if (!call->acked && !call->seen)
            must(open, "a call that its client waits for is neither stored nor expected");
        if (call->effects > 0 && call->kind != BARE)
            must(!open, "a call that had its effect would be run again");
    }
}

/* --- the client -------------------------------------------------------------------------- */

static uint64_t sent_count(void)
{
    return (uint64_t)world.calls[0].sent + world.calls[1].sent;
}

static void give_frame(const struct sml_frame *frame)
{
    const char *why = NULL;

    must(sml_callee_frame(&world.session.callee, frame, world.now, &why) == SEMEL_OK,
         "a frame is refused");
}

static void send_call(int i)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = (uint64_t)i + 1 };
    bool bare = world.calls[i].kind == BARE;

    frame.u.call = (struct sml_call_frame){ .fingerprint = print_of(frame.xid),
                                            .body_bytes = 2,
                                            .remaining_ms = 1000,
                                            .method = { bare ? "b" : "m", 1 },
                                            .fragment = { "bb", 2 } };
    if (world.calls[i].kind == KEYED)
        frame.u.call.key = semel_bytes_text("k");
    world.calls[i].sent = true;
    world.calls[i].send = false;
    give_frame(&frame);
}

static void send_ack(int i)
{
    uint8_t bytes[64];
    struct sml_ack_range range = { (uint64_t)i + 1, 1 };
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    struct sml_frame frame;
    const char *why;

    world.calls[i].acked = true;
    world.calls[i].send = false;
    if (!world.up)
        return;
    sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why);
    give_frame(&frame);
}

static void send_cancel(int i)
{
    struct sml_frame frame = { .type = SML_CANCEL, .xid = (uint64_t)i + 1 };

    world.calls[i].cancelled = true;
    world.calls[i].send &= world.calls[i].doubtful; /* its CALL comes after that */
    give_frame(&frame);
}

/* Its verdict, or what it proves, must be in the store, and agree with what happened. */
static void check_reply(int i, const struct sml_reply_frame *reply)
{
    struct one_call *call = &world.calls[i];
    struct sml_call_record record;
    enum semel_outcome outcome = reply->verdict.outcome;
    bool done = call->effects > 0;

    if (reply->flags & SML_REPLY_RECORDED) {
        MUST(world_read_call(i, &record) && record.state == SML_CALL_ENDED);
        MUST(record.verdict.outcome == outcome && record.verdict.status == reply->verdict.status);
        if (world.durable_hi < (uint64_t)i + 1)
            world.durable_hi = (uint64_t)i + 1;
    } else {
        MUST(world.records[i].size == 0);
        must(outcome == SEMEL_NOT_EXECUTED || call->kind == BARE, "a verdict is told unstored");
    }
    if (call->kind == KEYED)
        done = world.calls[0].effects + world.calls[1].effects > 0;
    if (outcome == SEMEL_NOT_EXECUTED)
        must(call->effects == 0, "not executed, it is said, and it was");
    if (outcome == SEMEL_NOT_EXECUTED && (reply->flags & SML_REPLY_PROVEN))
        MUST(!done);
    if (outcome == SEMEL_VALUE)
        MUST(done);
    if (outcome == SEMEL_UNKNOWN)
        MUST(world.crashes > 0);
    MUST(!call->seen);
    call->seen = true;
    call->send = false;
    call->outcome = outcome;
}

static void read_frames(void)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    size_t size = sml_callee_pull(&world.session.callee, bytes, sizeof bytes, world.now), at = 0,
           used;
    struct sml_frame frame;
    const char *why;

    for (; at < size; at += used) {
        MUST(sml_frame_decode(bytes + at, size - at, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) ==
             SML_DECODED);
        MUST(!world.calls[frame.xid - 1].acked);
        if (frame.type == SML_BUSY)
            world.calls[frame.xid - 1].send = true;
        else
            check_reply((int)frame.xid - 1, &frame.u.reply);
    }
    MUST(!sml_callee_wants_write(&world.session.callee));
}

static void reconnect(void)
{
    struct sml_outstanding list[CALLS];
    struct sml_listed states[CALLS];
    const char *why = NULL;
    uint32_t count = 0;

    sml_callee_down(&world.session.callee);
    for (int i = 0; i < CALLS; i++)
        if (world.calls[i].sent && !world.calls[i].acked && !world.calls[i].seen)
            list[count++] =
                (struct sml_outstanding){ .xid = (uint64_t)i + 1, .fingerprint = print_of(i + 1) };
    must(sml_callee_resume(&world.session.callee, sent_count() + 1, list, count, states, &why) ==
             SEMEL_OK,
         "a resume is refused");
    MUST(world.session.callee.durable_hi >= world.durable_hi);
    world.durable_hi = world.session.callee.durable_hi;
    world.up = true;
    for (uint32_t i = 0; i < count; i++) {
        struct one_call *call = &world.calls[list[i].xid - 1];

        call->doubtful = states[i].state == SML_STATE_IN_DOUBT;
        call->send = states[i].state == SML_STATE_EXPECTED || call->doubtful ||
                     states[i].state == SML_STATE_REFUSED;
    }
    for (int i = 0; i < CALLS; i++) /* what it has seen is left out, and so released */
        world.calls[i].acked |= world.calls[i].seen;
}

/* --- the shell --------------------------------------------------------------------------- */

static struct sml_verdict some_verdict(enum semel_outcome outcome, uint8_t **out_reply)
{
    struct sml_verdict verdict = { .outcome = outcome };

    *out_reply = sml_callee_reply_alloc(&world.session.callee, 2);
    memcpy(*out_reply, "rr", 2);
    verdict.body = semel_bytes(*out_reply, 2);
    if (outcome == SEMEL_UNKNOWN)
        verdict.status = SEMEL_SERVER_DIED;
    return verdict;
}

static void effect(int i)
{
    const struct one_call *call = &world.calls[i];

    world.calls[i].effects += world.calls[i].effects < 2;
    must(!call->seen || call->outcome != SEMEL_NOT_EXECUTED, "not executed, it was said");
    if (call->kind != KEYED && call->kind != BARE)
        must(call->effects == 1, "a call ran twice");
    if (call->kind == KEYED)
        must(world.calls[0].effects + world.calls[1].effects == 1, "a key was used twice");
}

static void go(int i)
{
    struct one_call *call = &world.calls[i];

    if (call->kind == TRANS || call->kind == BARE)
        call->hand =
            sml_callee_begin(&world.session.callee, call->in, 0, world.now) ? RUNS : NOT_HELD;
    else
        call->hand =
            sml_callee_start(&world.session.callee, call->in, world.now) ? WAITS : NOT_HELD;
    if (call->hand == RUNS && call->kind == BARE)
        effect(i);
}

static void begin(int i)
{
    struct one_call *call = &world.calls[i];
    struct sml_call_record record;

    call->hand = sml_callee_begin(&world.session.callee, call->in, 0, world.now) ? RUNS : NOT_HELD;
    if (call->hand == NOT_HELD)
        return;
    must(world_read_call(i, &record) && record.state == SML_CALL_STARTED,
         "a handler begins unstored");
    effect(i);
}

static void finish(int i)
{
    struct one_call *call = &world.calls[i];
    uint8_t *reply;
    struct sml_verdict verdict = some_verdict(SEMEL_VALUE, &reply);

    if (call->kind == TRANS) {
        sml_callee_decide(&world.session.callee, call->in, &verdict, reply);
        call->hand = IN_TX;
        return;
    }
    sml_callee_finish(&world.session.callee, call->in, &verdict, reply);
    call->hand = NOT_HELD;
}

static void end_transaction(int i, bool committed)
{
    struct one_call *call = &world.calls[i];
    struct sml_change change = { SML_CHANGE_END, call->in };

    if (!committed) {
        if (call->hand == RUNS)
            sml_callee_give_back(&world.session.callee, call->in);
        else
            sml_callee_retry(&world.session.callee, call->in);
        call->hand = HELD;
        return;
    }
    write_call(call->in, SML_CALL_ENDED);
    effect(i);
    call->hand = NOT_HELD;
    sml_callee_recorded(&world.session.callee, &change, (uint64_t)i + 1, true);
}

static void take(void)
{
    struct sml_incoming *in = sml_callee_take(&world.session.callee);

    if (in == NULL)
        return;
    MUST(world.calls[in->xid - 1].hand == NOT_HELD);
    world.calls[in->xid - 1].in = in;
    world.calls[in->xid - 1].hand = HELD;
}

/* --- the store's thread ------------------------------------------------------------------ */

/* Before a keyed call starts, what is known of the key decides. True: it starts. */
static bool ask_key(struct sml_incoming *in)
{
    struct sml_verdict verdict;
    uint8_t *reply;

    if (in->key_bytes == 0)
        return true;
    for (uint32_t i = 0; i < world.change_count; i++)
        if (world.changes[i].kind == SML_CHANGE_START) {
            sml_callee_postpone(&world.session.callee, in, 20); /* by another in this transaction */
            return false;
        }
    if (world.key.state == KEY_FREE)
        return true;
    if (world.key.state == KEY_STARTED && world.key.xid == in->xid)
        return true; /* its start was taken back */
    if (world.key.state == KEY_STARTED) {
        sml_callee_postpone(&world.session.callee, in, 20);
        return false;
    }
    verdict = some_verdict(world.key.outcome, &reply);
    sml_callee_answer(&world.session.callee, in, &verdict, reply, false);
    return false;
}

static void pull(void)
{
    struct sml_callee *callee = &world.session.callee;
    struct sml_session_record record;
    uint8_t room[8 * CALLS];
    struct sml_change change;

    world.change_count = 0;
    while (sml_callee_next_change(callee, &change)) {
        int i = (int)change.in->xid - 1;

        if (change.kind == SML_CHANGE_START && !ask_key(change.in)) {
            world.calls[i].hand = NOT_HELD;
            continue;
        }
        world.changes[world.change_count++] = change;
    }
    world.session_change = sml_session_pull(&world.session, &record, room);
    MUST(world.session_change != SML_SESSION_DELETE);
    if (world.session_change == SML_SESSION_PUT)
        write_session(&world.next_session_record, &record);
    world.under_way = world.change_count > 0 || world.session_change != SML_SESSION_SAME;
}

static void store_key(const struct sml_change *change)
{
    const struct sml_incoming *in = change->in;

    if (in->key_bytes == 0 || in->answered)
        return;
    if (change->kind == SML_CHANGE_AGAIN)
        return;
    if (change->kind == SML_CHANGE_START) {
        world.key.state = KEY_STARTED;
        world.key.xid = in->xid;
    } else if (change->kind == SML_CHANGE_FORGET) {
        if (world.key.state == KEY_STARTED && world.key.xid == in->xid) {
            must(world.calls[in->xid - 1].effects == 0, "a key was freed after its use");
            world.key.state = KEY_FREE;
        }
    } else if (world.key.state == KEY_STARTED && world.key.xid == in->xid) {
        world.key.state = in->verdict.outcome == SEMEL_NOT_EXECUTED ? KEY_FREE : KEY_ENDED;
        world.key.outcome = in->verdict.outcome;
    }
}

static void end_batch(bool committed)
{
    static const enum sml_call_record_state state_of[] = {
        [SML_CHANGE_START] = SML_CALL_STARTED,
        [SML_CHANGE_AGAIN] = SML_CALL_AGAIN,
        [SML_CHANGE_END] = SML_CALL_ENDED,
    };
    struct sml_callee *callee = &world.session.callee;

    for (uint32_t i = 0; i < world.change_count; i++) {
        struct sml_change *change = &world.changes[i];
        struct sml_incoming *in = change->in;
        uint64_t xid = in->xid, row = xid;

        if (committed) {
            store_key(change);
            if (change->kind == SML_CHANGE_LEAVE || change->kind == SML_CHANGE_FORGET)
                row = world.records[in->xid - 1].size = 0;
            else
                write_call(in, state_of[change->kind]);
        }
        if (!sml_callee_recorded(callee, change, row, committed))
            world.calls[xid - 1].hand = NOT_HELD;
    }
    if (committed && world.session_change == SML_SESSION_PUT)
        world.session_record = world.next_session_record;
    sml_session_recorded(&world.session, world.session_change, 1, 1, committed);
    world.under_way = false;
    world.change_count = 0;
}

/* --- the server dies --------------------------------------------------------------------- */

static bool keeps_records(void *user, struct semel_bytes method)
{
    (void)user;
    return *(const char *)method.data == 'm';
}

static void open_session(void)
{
    static const struct sml_callee_limits limits = { .window = CALLS,
                                                     .body_bytes = 100,
                                                     .session_bytes = 100 };

    memset(&world.session, 0, sizeof world.session);
    sml_callee_init(&world.session.callee, &world_mem, &limits);
    world.session.callee.durable = world.session.callee.keys = true;
    world.session.callee.methods.keeps_records = keeps_records;
    world.session.row = world.session.conn_no = world.session.conn_no_stored = 1;
}

/* Whoever asks for a call that was released is not given it. */
static void ask_for_the_released(const struct sml_session_record *session)
{
    for (int i = 0; i < CALLS; i++) {
        struct sml_outstanding entry = { .xid = (uint64_t)i + 1, .fingerprint = print_of(i + 1) };
        struct sml_listed listed;
        const char *why;

        if (!world.calls[i].sent || world.records[i].size > 0 || entry.xid > session->base ||
            world_is_straggler(session, entry.xid))
            continue;
        MUST(sml_callee_resume(&world.session.callee, CALLS + 1, &entry, 1, &listed, &why) ==
             SEMEL_PROTOCOL);
    }
}

static void crash(void)
{
    struct sml_session_record session = world_read_session();
    struct sml_call_record record;
    const char *why = NULL;

    world_free();
    open_session();
    world.under_way = world.up = world.stopping = false;
    world.change_count = 0;
    world.crashes++;
    for (int i = 0; i < CALLS; i++)
        world.calls[i].hand = NOT_HELD;
    MUST(sml_callee_restore(&world.session.callee, &session));
    for (int i = CALLS - 1; i >= 0; i--) {
        struct sml_incoming *in;
        struct sml_verdict verdict;
        uint8_t *reply;

        if (!world_read_call(i, &record))
            continue;
        in = sml_callee_restore_call(&world.session.callee, (uint64_t)i + 1, &record, &why);
        must(in != NULL, "a record is refused");
        if (record.state == SML_CALL_STARTED && world.calls[i].kind == AGAIN) {
            sml_callee_expect_again(&world.session.callee, in);
            world.calls[i].effects = 0;
        } else if (record.state == SML_CALL_STARTED) {
            verdict = some_verdict(SEMEL_UNKNOWN, &reply);
            sml_callee_finish(&world.session.callee, in, &verdict, reply);
        }
    }
    ask_for_the_released(&session);
}

/* --- steps ------------------------------------------------------------------------------- */

static bool may_call(enum step step, int i)
{
    const struct one_call *call = &world.calls[i];

    switch (step) {
    case CALL:
        return world.up && (call->send || (!call->sent && call->kind != NO_CALL && !call->acked &&
                                           sent_count() == (uint64_t)i));
    case ACK:
        return call->sent && !call->acked;
    case CANCEL:
        return world.up && call->sent && !call->acked && !call->seen && !call->cancelled;
    case GO:
        return call->hand == HELD && !world.stopping;
    case BEGIN:
        return call->hand == WAITS && call->in->phase != SML_IN_STARTING && !world.stopping;
    case PUT_OFF:
        return call->hand == HELD || (call->hand == WAITS && call->in->phase != SML_IN_STARTING);
    case FINISH:
        return call->hand == RUNS;
    case TX_GONE:
        return call->hand == IN_TX || (call->hand == RUNS && call->kind == TRANS);
    default:
        return call->hand == IN_TX;
    }
}

bool world_may(uint8_t code)
{
    enum step step = code / CALLS;
    const struct sml_callee *callee = &world.session.callee;

    if (step < OF_A_CALL)
        return may_call(step, code % CALLS);
    if (code % CALLS != 0)
        return false;
    switch (step) {
    case TAKE:
        return !world.stopping && !sml_list_empty(&callee->ready);
    case PULL:
        return !world.under_way &&
               (sml_callee_has_change(callee) || sml_session_has_change(&world.session));
    case COMMIT:
    case FAIL:
        return world.under_way;
    case READ:
        return world.up && sml_callee_wants_write(callee);
    case LATE:
        return !world.late && sent_count() > 0;
    case RECONNECT:
        return sent_count() > 0;
    default:
        return sent_count() > 0 && world.crashes < 2;
    }
}

static void do_step(uint8_t code)
{
    int i = code % CALLS;

    switch ((enum step)(code / CALLS)) {
    case CALL:
        send_call(i);
        break;
    case ACK:
        send_ack(i);
        break;
    case CANCEL:
        send_cancel(i);
        break;
    case GO:
        go(i);
        break;
    case BEGIN:
        begin(i);
        break;
    case FINISH:
        finish(i);
        break;
    case TX_OK:
    case TX_GONE:
        end_transaction(i, code / CALLS == TX_OK);
        break;
    case PUT_OFF:
        world.stopping = true;
        world.calls[i].hand = NOT_HELD;
        sml_callee_postpone_to_restart(&world.session.callee, world.calls[i].in);
        break;
    case TAKE:
        take();
        break;
    case PULL:
        pull();
        break;
    case COMMIT:
    case FAIL:
        end_batch(code / CALLS == COMMIT);
        break;
    case READ:
        read_frames();
        break;
    case RECONNECT:
        reconnect();
        break;
    case LATE:
        world.late = true;
        world.now += SML_SECOND;
        sml_callee_tick(&world.session.callee, world.now);
        break;
    default:
        crash();
        break;
    }
}

static void check_world(void)
{
    uint32_t held = world.change_count;

    for (int i = 0; i < CALLS; i++)
        held += world.calls[i].hand != NOT_HELD;
    MUST(world.session.callee.held == held);
    check_store();
}

void world_replay(const struct sequence *sequence)
{
    const struct sml_session_record record = { .conn_no = 1, .window = CALLS };

    world_free();
    memset(&world, 0, sizeof world);
    now = *sequence;
    for (int i = 0; i < CALLS; i++)
        world.calls[i].kind = world_kinds[i];
    world.up = true;
    write_session(&world.session_record, &record);
    open_session();
    for (uint32_t i = 0; i < sequence->count; i++) {
        now.count = i + 1;
        do_step(sequence->steps[i]);
    }
    check_world();
}

/* --- to the end -------------------------------------------------------------------------- */

/* What has begun comes to its end, the rest is put off, all is stored, and the next one begins. */
static void stop(void)
{
    static const enum step in_turn[] = { PUT_OFF, FINISH, TX_OK, PULL, COMMIT };
    bool more = true;

    while (more) {
        more = false;
        for (size_t s = 0; s < sizeof in_turn / sizeof *in_turn; s++) {
            for (uint8_t i = 0; i < CALLS; i++) {
                uint8_t code = (uint8_t)(in_turn[s] * CALLS + i);

                if (!world_may(code))
                    continue;
                do_step(code);
                check_world();
                more = true;
            }
        }
    }
    MUST(world.session.callee.held == 0);
    for (int i = 0; i < CALLS; i++) {
        struct sml_call_record record;

        must(world.calls[i].kind == AGAIN || !world_read_call(i, &record) ||
                 record.state != SML_CALL_STARTED,
             "a call is left as if it had begun");
    }
    crash();
    check_world();
}

void world_settle(void)
{
    static const enum step in_turn[] = { RECONNECT, CALL,  TAKE, GO,     BEGIN,
                                         FINISH,    TX_OK, PULL, COMMIT, READ };
    bool more = true;

    if (world.stopping)
        stop();
    if (world.up)
        read_frames();
    for (int round = 0; more; round++) {
        must(round < 20, "it goes on for ever");
        more = false;
        for (size_t s = 0; s < sizeof in_turn / sizeof *in_turn; s++) {
            for (uint8_t i = 0; i < CALLS; i++) {
                uint8_t code = (uint8_t)(in_turn[s] * CALLS + i);

                if (!world_may(code) || (in_turn[s] == RECONNECT && world.up))
                    continue;
                do_step(code);
                check_world();
                more = true;
            }
        }
    }
    for (int i = 0; i < CALLS; i++) {
        must(!world.calls[i].sent || world.calls[i].acked || world.calls[i].seen, "a call is lost");
        if (world.calls[i].sent && !world.calls[i].acked)
            send_ack(i);
    }
    while (world_may(PULL * CALLS)) {
        pull();
        end_batch(true);
    }
    check_world();
    for (int i = 0; i < CALLS; i++)
        must(world.records[i].size == 0, "a record is left");
    MUST(world.key.state != KEY_STARTED);
    MUST(sml_callee_empty(&world.session.callee));
    MUST(world.session.callee.bytes_in == 0 && world.session.callee.bytes_stored == 0 &&
         world.session.callee.bytes_kept == 0);
    MUST(sml_callee_timeout(&world.session.callee) == SML_NEVER);
    sml_callee_clear(&world.session.callee);
    must(world.live == 0, "memory is left");
}
