/*
 * kv.c - KV blocks and the sequences made of them: reference counts, block tables, forks. The contents live in
 * the backend; only the copy of a partial block, at a fork or where a sequence is cut, reaches it from here.
 */
#include "engine/internal.h"

sill_status sill__blocks_init(sill__blocks *b, int32_t n, sill_error *err) {
    memset(b, 0, sizeof *b);
    b->refs = sill__calloc((size_t)n, sizeof *b->refs);
    b->stack = sill__calloc((size_t)n, sizeof *b->stack);
    if (!b->refs || !b->stack) {
        sill__blocks_free(b);
        return sill__fail(err, SILL_ENOMEM, "no memory for the table of %d KV blocks", n);
    }
    b->n = b->n_free = n;
    for (int32_t i = 0; i < n; i++) b->stack[i] = n - 1 - i;
    return SILL_OK;
}

void sill__blocks_free(sill__blocks *b) {
    sill__free(b->stack);
    sill__free(b->refs);
    memset(b, 0, sizeof *b);
}

int32_t sill__blocks_take(sill__blocks *b) {
    if (b->n_free == 0) return -1;
    int32_t block = b->stack[--b->n_free];
    b->refs[block] = 1;
    return block;
}

void sill__blocks_ref(sill__blocks *b, int32_t block) { b->refs[block]++; }

void sill__blocks_drop(sill__blocks *b, int32_t block) {
    if (--b->refs[block] == 0) b->stack[b->n_free++] = block;
}

static bool valid(const sill_session *s, sill__seq seq) {
    return seq >= 0 && seq < s->layout.n_handles && s->seqs[seq].used;
}

sill__seq sill__seq_new(sill_session *s) {
    for (int32_t i = 0; i < s->layout.n_handles; i++)
        if (!s->seqs[i].used) {
            s->seqs[i].used = true;
            s->seqs[i].n_tokens = s->seqs[i].n_blocks = 0;
            return i;
        }
    return -1;
}

/* A block of one sequence alone with the first n positions of FROM; one must be free. */
static int32_t copy_block(sill_session *s, int32_t from, int32_t n) {
    const sill__backend *ops = s->model->ops;
    const int32_t to = sill__blocks_take(&s->blocks);
    ops->begin(s->queue, &s->empty);
    ops->kv_copy(s->queue, s->kv, from, to, n);
    if (s->fork_error.code == SILL_OK) ops->submit(s->queue, NULL, &s->fork_error);
    return to;
}

sill__seq sill__seq_fork(sill_session *s, sill__seq parent, int32_t n) {
    if (!valid(s, parent) || n < 0 || n > s->seqs[parent].n_tokens) return -1;
    int32_t whole = n / SILL__KV_BLOCK, rest = n % SILL__KV_BLOCK;
    if (rest && s->blocks.n_free == 0) return -1;
    sill__seq seq = sill__seq_new(s);
    if (seq < 0) return -1;
    sill__seq_state *to = &s->seqs[seq], *from = &s->seqs[parent];
    for (int32_t i = 0; i < whole; i++) {
        to->blocks[i] = from->blocks[i];
        sill__blocks_ref(&s->blocks, from->blocks[i]);
    }
    to->n_blocks = whole;
    if (rest) to->blocks[to->n_blocks++] = copy_block(s, from->blocks[whole], rest);
    to->n_tokens = n;
    return seq;
}

void sill__seq_free(sill_session *s, sill__seq seq) {
    sill__ahead_forget(s, seq);
    if (!valid(s, seq)) return;
    sill__seq_state *q = &s->seqs[seq];
    for (int32_t i = q->n_blocks; i-- > 0;) sill__blocks_drop(&s->blocks, q->blocks[i]);
    q->used = false;
    q->n_blocks = q->n_tokens = 0;
}

bool sill__seq_truncate(sill_session *s, sill__seq seq, int32_t n) {
    if (!valid(s, seq) || n < 0 || n > s->seqs[seq].n_tokens) return false;
    sill__seq_state *q = &s->seqs[seq];
    const int32_t whole = n / SILL__KV_BLOCK, rest = n % SILL__KV_BLOCK;
    /* Where it ends inside of a block that others have too, they keep that one. */
    const bool shared = rest && s->blocks.refs[q->blocks[whole]] > 1;
    bool room = !shared || s->blocks.n_free > 0;
    for (int32_t i = whole + 1; i < q->n_blocks && !room; i++) room = s->blocks.refs[q->blocks[i]] == 1;
    if (!room) return false;
    sill__ahead_forget(s, seq);
    while (q->n_blocks > sill__blocks_needed(n)) sill__blocks_drop(&s->blocks, q->blocks[--q->n_blocks]);
    if (shared) {
        const int32_t own = copy_block(s, q->blocks[whole], rest);
        sill__blocks_drop(&s->blocks, q->blocks[whole]);
        q->blocks[whole] = own;
    }
    q->n_tokens = n;
    return true;
}

int32_t sill__seq_length(const sill_session *s, sill__seq seq) { return valid(s, seq) ? s->seqs[seq].n_tokens : 0; }

int32_t sill__seq_blocks_for(const sill_session *s, sill__seq seq, int32_t n) {
    return valid(s, seq) ? SILL_MAX(0, sill__blocks_needed(s->seqs[seq].n_tokens + n) - s->seqs[seq].n_blocks) : 0;
}

int32_t sill__session_free_blocks(const sill_session *s) { return s->blocks.n_free; }
