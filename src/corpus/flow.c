/*
 * flow.c - rows from a reader to a task and its results, which come in completion order, to a writer in the
 * order of the input. What is held back behind a slow row is bounded in rows and in bytes: at the bound the
 * task is told that the input has ended, so that it finishes what it has, and is then called again.
 */
#include "corpus/corpus.h"

#define DEFAULT_WINDOW_ROWS 65536
#define DEFAULT_WINDOW_BYTES ((size_t)256 << 20)
#define MAX_FAILURES 20

typedef struct piece { struct piece *next; int32_t sequence; size_t n; } piece; /* n bytes behind it */

typedef struct entry {
    sill__corpus_row *row; /* NULL: not open */
    piece *pieces;         /* in the order of their sequences */
    int32_t n_done;
    bool done, failed;
} entry;

struct sill__flow {
    sill__reader *reader;
    sill__writer *writer;
    sill__flow_options o;
    entry *ring;           /* row number N is at N & mask */
    size_t ring_size;
    uint64_t base, tip;    /* oldest number not written; next number to come */
    size_t held;           /* bytes of open rows and of results not written */
    bool ended;
    double flushed;        /* when the output was last handed on */
    sill__record record;   /* of the result being made */
    uint64_t record_index;
    int32_t record_sequence;
    sill__flow_counts counts;
    char *failures[MAX_FAILURES];
    size_t n_failures;
    sill_status status;
    sill_error error;
};

sill_status sill__flow_create(sill__reader *reader, sill__writer *writer, const sill__flow_options *options,
                              sill__flow **out, sill_error *err) {
    sill__flow *f = sill__calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return sill__fail(err, SILL_ENOMEM, "no memory for a run");
    f->reader = reader;
    f->writer = writer;
    f->o = *options;
    if (!f->o.window_rows) f->o.window_rows = DEFAULT_WINDOW_ROWS;
    if (!f->o.window_bytes) f->o.window_bytes = DEFAULT_WINDOW_BYTES;
    if (f->o.n_sequences < 1) f->o.n_sequences = 1;
    f->base = f->tip = sill__reader_get_stats(reader).rows + 1;
    f->ring_size = 64;
    f->ring = sill__calloc(f->ring_size, sizeof *f->ring);
    sill__record_init(&f->record, writer);
    if (!f->ring) {
        sill__flow_free(f);
        return sill__fail(err, SILL_ENOMEM, "no memory for a run");
    }
    *out = f;
    return SILL_OK;
}

static entry *at(const sill__flow *f, uint64_t number) { return &f->ring[number & (f->ring_size - 1)]; }

static entry *open_entry(const sill__flow *f, uint64_t number) {
    if (number < f->base || number >= f->tip) return NULL;
    entry *e = at(f, number);
    return e->row && !e->done ? e : NULL;
}

static void drop_entry(sill__flow *f, entry *e) {
    for (piece *p = e->pieces, *next; p; p = next) {
        next = p->next;
        f->held -= sizeof *p + p->n;
        sill__free(p);
    }
    if (e->row) f->held -= e->row->bytes;
    sill__row_free(e->row);
    memset(e, 0, sizeof *e);
}

void sill__flow_free(sill__flow *f) {
    if (!f) return;
    for (uint64_t n = f->base; f->ring && n < f->tip; n++) drop_entry(f, at(f, n));
    for (size_t i = 0; i < f->n_failures; i++) sill__free(f->failures[i]);
    sill__record_free(&f->record);
    sill__free(f->ring);
    sill__free(f);
}

static bool failed(sill__flow *f, sill_status status) {
    if (status != SILL_OK && f->status == SILL_OK) f->status = status;
    return f->status != SILL_OK;
}

static bool make_room(sill__flow *f) {
    if (f->tip - f->base < f->ring_size) return true;
    size_t size = f->ring_size * 2;
    entry *ring = sill__calloc(size, sizeof *ring);
    if (!ring) return false;
    for (uint64_t n = f->base; n < f->tip; n++) ring[n & (size - 1)] = *at(f, n);
    sill__free(f->ring);
    f->ring = ring;
    f->ring_size = size;
    return true;
}

/* Writes every finished row at the old end of the window. */
static void write_finished(sill__flow *f) {
    bool any = false;
    while (f->base < f->tip && at(f, f->base)->done) {
        entry *e = at(f, f->base);
        for (piece *p = e->pieces; p; p = p->next)
            if (failed(f, sill__writer_put(f->writer, (const char *)(p + 1), p->n, &f->error))) return;
        if (failed(f, sill__writer_end_row(f->writer, &f->error))) return;
        drop_entry(f, e);
        f->base++;
        f->counts.written++;
        any = true;
    }
    double now = any ? sill__now() : 0;
    if (any && now - f->flushed > 0.1) { /* often enough for a reader of a pipe, seldom enough to cost nothing */
        f->flushed = now;
        failed(f, sill__writer_flush(f->writer, &f->error));
    }
}

static bool stopped(const sill__flow *f) { return f->status != SILL_OK || (f->o.stop && *f->o.stop); }

static const char *unusable(const sill__flow *f, const sill__corpus_row *row) {
    const sill__cell *text = f->o.text_slot < row->n_cells ? &row->cells[f->o.text_slot] : NULL;
    if (row->error) return row->error;
    if (!text || text->kind == SILL__CELL_MISSING) return "the row has no text";
    if (text->kind == SILL__CELL_JSON && !f->o.json_text) return "the row's text is a JSON array or object, not a text";
    if (f->o.has_id && row->cells[f->o.id_slot].kind == SILL__CELL_MISSING) return "the row has no id";
    return NULL;
}

int sill__flow_next(void *flow, sill_row *out) {
    sill__flow *f = flow;
    for (;;) {
        sill__corpus_row *row;
        if (stopped(f)) return -1;
        if (f->tip > f->base && (f->tip - f->base >= f->o.window_rows || f->held >= f->o.window_bytes)) return 0;
        if (!make_room(f)) {
            failed(f, sill__fail(&f->error, SILL_ENOMEM, "no memory for rows in flight"));
            return -1;
        }
        if (failed(f, sill__reader_next(f->reader, &row, &f->error))) return -1;
        if (!row) {
            f->ended = true;
            return 0;
        }
        entry *e = at(f, row->number);
        e->row = row;
        f->tip = row->number + 1;
        f->held += row->bytes;
        f->counts.rows++;
        const char *why = unusable(f, row);
        if (why) {
            if (sill__flow_fail(f, row->number, why)) return -1;
            continue;
        }
        const sill__cell *text = &row->cells[f->o.text_slot];
        memset(out, 0, sizeof *out);
        out->index = row->number;
        out->key = row->number;
        if (f->o.has_id) out->key = sill_row_key(row->cells[f->o.id_slot].p, row->cells[f->o.id_slot].n);
        out->text = text->p;
        out->n_bytes = text->n;
        return 1;
    }
}

bool sill__flow_more(const sill__flow *f) { return !f->ended && !stopped(f); }

sill__record *sill__flow_begin(sill__flow *f, uint64_t index, int32_t sequence) {
    entry *e = open_entry(f, index);
    if (!e) return NULL;
    sill__str_clear(&f->record.out);
    f->record.out.failed = false;
    f->record_index = index;
    f->record_sequence = sequence;
    sill__record_begin(&f->record, e->row);
    return &f->record;
}

/* Files the record under its row; a row with all its results is done. */
static int commit(sill__flow *f, bool whole_row) {
    entry *e = open_entry(f, f->record_index);
    if (!e) return stopped(f);
    size_t n = f->record.out.n, bytes;
    piece *p = NULL;
    if (!f->record.out.failed && sill__add(sizeof *p, n, &bytes)) p = sill__alloc(bytes);
    if (!p) {
        failed(f, sill__fail(&f->error, SILL_ENOMEM, "no memory for a result of %zu bytes", n));
        return 1;
    }
    p->n = n;
    p->sequence = f->record_sequence;
    memcpy(p + 1, f->record.out.p, n);
    piece **at_ = &e->pieces;
    while (*at_ && (*at_)->sequence <= p->sequence) at_ = &(*at_)->next;
    p->next = *at_;
    *at_ = p;
    f->held += sizeof *p + n;
    e->done = ++e->n_done >= f->o.n_sequences || whole_row;
    if (e->done) {
        if (f->record_index == f->base) write_finished(f);
        if (f->o.tick) f->o.tick(f->o.user);
    }
    return stopped(f);
}

int sill__flow_commit(sill__flow *f) { return commit(f, false); }

static int fail(sill__flow *f, uint64_t index, int32_t sequence, const char *message, bool whole_row) {
    entry *e = open_entry(f, index);
    if (!e) return stopped(f);
    f->counts.failed += !e->failed; /* rows */
    e->failed = true;
    if (f->n_failures < MAX_FAILURES) {
        sill__str s;
        sill__str_init(&s, 2048);
        if (sill__str_putf(&s, "row %llu (line %llu): %.1000s", (unsigned long long)index,
                           (unsigned long long)e->row->line, message) &&
            (f->failures[f->n_failures] = sill__strndup(s.p, s.n)))
            f->n_failures++;
        sill__str_free(&s);
    }
    sill__flow_begin(f, index, sequence);
    sill__record_end(&f->record, message);
    return commit(f, whole_row);
}

int sill__flow_fail(sill__flow *f, uint64_t index, const char *message) { return fail(f, index, INT32_MAX, message, true); }

int sill__flow_fail_sequence(sill__flow *f, uint64_t index, int32_t sequence, const char *message) {
    return fail(f, index, sequence, message, false);
}

sill_status sill__flow_status(const sill__flow *f, sill_error *err) {
    if (f->status != SILL_OK && err) *err = f->error;
    return f->status;
}

sill__flow_counts sill__flow_get_counts(const sill__flow *f) {
    sill__flow_counts counts = f->counts;
    counts.bad_utf8 = f->record.bad_utf8;
    return counts;
}
const char *sill__flow_failure(const sill__flow *f, size_t i) { return i < f->n_failures ? f->failures[i] : NULL; }
