/*
 * flow.c - rows from a reader to a task and its results, which come in completion order, to a writer in the
 * order of the input. What is held back behind a slow row is bounded in rows and in bytes: at the bound the
 * task is told that the input has ended, so that it finishes what it has, and is then called again. Rows that are
 * not wanted (of other shards) take a place in the window, so that numbers stay those of the whole input.
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
    bool done, failed, passed; /* passed over: nothing is written */
    uint8_t digest[32];
    char *error;           /* with a store: why it failed */
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
    sill_status cut;       /* the input broke off: said when the rows before that are finished */
    sill_error cut_error;
    double flushed;        /* when the output was last handed on */
    sill__record record;   /* of the result being made */
    uint64_t record_index;
    int32_t record_sequence;
    sill__flow_counts counts;
    bool digests;
    sill__sha256 input;    /* over the rows' digests */
    sill__str whole;       /* scratch: a row's results, joined */
    uint64_t *uneven;      /* pairs */
    size_t n_uneven, uneven_cap;
    uint64_t *failed_rows;
    size_t n_failed, failed_cap;
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
    f->digests = f->o.store || f->o.digest;
    sill__sha256_init(&f->input);
    sill__str_init(&f->whole, SIZE_MAX / 2);
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
    sill__free(e->error);
    memset(e, 0, sizeof *e);
}

void sill__flow_free(sill__flow *f) {
    if (!f) return;
    for (uint64_t n = f->base; f->ring && n < f->tip; n++) drop_entry(f, at(f, n));
    for (size_t i = 0; i < f->n_failures; i++) sill__free(f->failures[i]);
    sill__record_free(&f->record);
    sill__str_free(&f->whole);
    sill__free(f->uneven);
    sill__free(f->failed_rows);
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

static sill_status note_uneven(sill__flow *f, const entry *e) {
    if (e->n_done == f->o.n_sequences) return SILL_OK;
    if (f->n_uneven == f->uneven_cap) {
        size_t cap = f->uneven_cap ? f->uneven_cap * 2 : 64, bytes;
        uint64_t *p = sill__mul(cap, 2 * sizeof *p, &bytes) ? sill__realloc(f->uneven, bytes) : NULL;
        if (!p) return sill__fail(&f->error, SILL_ENOMEM, "no memory for the numbers of failed rows");
        f->uneven = p;
        f->uneven_cap = cap;
    }
    f->uneven[2 * f->n_uneven] = f->base;
    f->uneven[2 * f->n_uneven++ + 1] = (uint64_t)e->n_done;
    return SILL_OK;
}

static sill_status note_failed(sill__flow *f, const entry *e) {
    if (!e->failed) return SILL_OK;
    if (f->n_failed == f->failed_cap) {
        size_t cap = f->failed_cap ? f->failed_cap * 2 : 64, bytes;
        uint64_t *p = sill__mul(cap, sizeof *p, &bytes) ? sill__realloc(f->failed_rows, bytes) : NULL;
        if (!p) return sill__fail(&f->error, SILL_ENOMEM, "no memory for the numbers of failed rows");
        f->failed_rows = p;
        f->failed_cap = cap;
    }
    f->failed_rows[f->n_failed++] = f->base;
    return SILL_OK;
}

/* Writes every finished row at the old end of the window. */
static void write_finished(sill__flow *f) {
    bool any = false;
    while (f->base < f->tip && at(f, f->base)->done) {
        entry *e = at(f, f->base);
        for (piece *p = e->pieces; p; p = p->next)
            if (failed(f, sill__writer_put(f->writer, (const char *)(p + 1), p->n, &f->error))) return;
        if (!e->passed) {
            if (failed(f, sill__writer_end_row(f->writer, &f->error)) || failed(f, note_uneven(f, e)) || failed(f, note_failed(f, e))) return;
            f->counts.written++;
            any = true;
        }
        drop_entry(f, e);
        f->base++;
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
    const sill__cell *context = f->o.has_context && f->o.context_slot < row->n_cells ? &row->cells[f->o.context_slot] : NULL;
    if (f->o.has_context && (!context || context->kind == SILL__CELL_MISSING)) return "the row has no context";
    if (context && context->kind == SILL__CELL_JSON) return "the row's context is a JSON array or object, not a text";
    if (f->o.has_id && row->cells[f->o.id_slot].kind == SILL__CELL_MISSING) return "the row has no id";
    return NULL;
}

static void note_failure(sill__flow *f, const sill__corpus_row *row, const char *message) {
    sill__str s;
    if (f->n_failures == MAX_FAILURES) return;
    sill__str_init(&s, 2048);
    sill__str_putf(&s, "row %llu", (unsigned long long)row->number);
    if (row->line) sill__str_putf(&s, " (line %llu)", (unsigned long long)row->line);
    if (sill__str_putf(&s, ": %.1000s", message) && (f->failures[f->n_failures] = sill__strndup(s.p, s.n)))
        f->n_failures++;
    sill__str_free(&s);
}

static sill_status answer_kept(sill__flow *f, entry *e, const sill__kept *kept);

/* Gives the row its place in the window. DONE: it is not for the task, being passed over or in the store. */
static sill_status take_row(sill__flow *f, sill__corpus_row *row, bool *done) {
    entry *e = at(f, row->number);
    sill__kept kept = {0};
    uint64_t number = row->number;
    bool found = false;
    e->row = row;
    f->tip = number + 1;
    f->held += row->bytes;
    f->counts.read++;
    *done = true;
    if (f->digests) {
        sill__row_digest(row, e->digest);
        sill__sha256_update(&f->input, e->digest, sizeof e->digest);
    }
    if (f->o.wanted && !f->o.wanted(f->o.user, number)) {
        drop_entry(f, e);
        e->done = e->passed = true;
        if (number == f->base) write_finished(f);
        return f->status;
    }
    f->counts.rows++;
    sill_status s = f->o.store ? f->o.store->get(f->o.store->user, row, e->digest, &found, &kept, &f->error) : SILL_OK;
    if (s != SILL_OK) return s;
    *done = found;
    return found ? answer_kept(f, e, &kept) : SILL_OK;
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
        sill_status s = sill__reader_next(f->reader, &row, &f->error);
        if (s == SILL_EIO || s == SILL_EFORMAT) {
            f->cut = s;
            f->cut_error = f->error;
            row = NULL;
        } else if (failed(f, s)) return -1;
        if (!row) {
            f->ended = true;
            return 0;
        }
        bool done;
        if (failed(f, take_row(f, row, &done))) return -1;
        if (done) continue;
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
        if (f->o.has_context) {
            out->context = row->cells[f->o.context_slot].p;
            out->n_context_bytes = row->cells[f->o.context_slot].n;
        }
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

static sill_status add_piece(sill__flow *f, entry *e, int32_t sequence, const char *from, size_t n) {
    size_t bytes;
    piece *p = sill__add(sizeof *p, n, &bytes) ? sill__alloc(bytes) : NULL;
    if (!p) return sill__fail(&f->error, SILL_ENOMEM, "no memory for a result of %zu bytes", n);
    p->n = n;
    p->sequence = sequence;
    if (n) memcpy(p + 1, from, n);
    piece **at_ = &e->pieces;
    while (*at_ && (*at_)->sequence <= p->sequence) at_ = &(*at_)->next;
    p->next = *at_;
    *at_ = p;
    f->held += sizeof *p + n;
    return SILL_OK;
}

static void row_done(sill__flow *f, entry *e) {
    e->done = true;
    if (e->row->number == f->base) write_finished(f);
    if (f->o.tick) f->o.tick(f->o.user);
}

/* The store's results of a row are those of this run. */
static sill_status answer_kept(sill__flow *f, entry *e, const sill__kept *kept) {
    f->counts.kept++;
    if (kept->error) {
        e->failed = true;
        f->counts.failed++;
        note_failure(f, e->row, kept->error);
    }
    sill_status s = add_piece(f, e, 0, kept->bytes, kept->n);
    if (s != SILL_OK) return s;
    e->n_done = (int32_t)kept->n_records;
    row_done(f, e);
    return f->status;
}

static sill_status store_row(sill__flow *f, const entry *e) {
    sill__kept kept = {.n_records = (uint32_t)e->n_done, .error = e->error};
    sill__str_clear(&f->whole);
    for (const piece *p = e->pieces; p; p = p->next) sill__str_put(&f->whole, p + 1, p->n);
    if (f->whole.failed) return sill__fail(&f->error, SILL_ENOMEM, "no memory for a row's results");
    kept.bytes = f->whole.p;
    kept.n = f->whole.n;
    return f->o.store->put(f->o.store->user, e->row->number, e->digest, &kept, &f->error);
}

/* Files the record under its row; a row with all its results is done. */
static int commit(sill__flow *f, bool whole_row) {
    entry *e = open_entry(f, f->record_index);
    if (!e) return stopped(f);
    sill_status s = f->record.out.failed ? sill__fail(&f->error, SILL_ENOMEM, "no memory for a result of %zu bytes", f->record.out.n)
                                         : add_piece(f, e, f->record_sequence, f->record.out.p, f->record.out.n);
    if (failed(f, s)) return 1;
    if (++e->n_done < f->o.n_sequences && !whole_row) return stopped(f);
    if (f->o.store && failed(f, store_row(f, e))) return 1;
    row_done(f, e);
    return stopped(f);
}

int sill__flow_commit(sill__flow *f) { return commit(f, false); }

static int fail(sill__flow *f, uint64_t index, int32_t sequence, const char *message, bool whole_row) {
    entry *e = open_entry(f, index);
    if (!e) return stopped(f);
    f->counts.failed += !e->failed; /* rows */
    if (f->o.store && !e->failed && !(e->error = sill__strndup(message, strlen(message)))) {
        failed(f, sill__fail(&f->error, SILL_ENOMEM, "no memory for a message"));
        return 1;
    }
    e->failed = true;
    note_failure(f, e->row, message);
    sill__flow_begin(f, index, sequence);
    sill__record_end(&f->record, message);
    return commit(f, whole_row);
}

int sill__flow_fail(sill__flow *f, uint64_t index, const char *message) { return fail(f, index, INT32_MAX, message, true); }

int sill__flow_fail_sequence(sill__flow *f, uint64_t index, int32_t sequence, const char *message) {
    return fail(f, index, sequence, message, false);
}

sill_status sill__flow_status(const sill__flow *f, sill_error *err) {
    if (f->status == SILL_OK && f->ended && f->cut != SILL_OK) {
        if (err) *err = f->cut_error;
        return f->cut;
    }
    if (f->status != SILL_OK && err) *err = f->error;
    return f->status;
}

sill__flow_counts sill__flow_get_counts(const sill__flow *f) {
    sill__flow_counts counts = f->counts;
    counts.bad_utf8 = f->record.bad_utf8;
    return counts;
}

void sill__flow_input_sha256(const sill__flow *f, char out[65]) {
    sill__sha256 copy = f->input;
    uint8_t digest[32];
    sill__sha256_final(&copy, digest);
    sill__sha256_hex(digest, out);
}

const uint64_t *sill__flow_uneven(const sill__flow *f, size_t *n_pairs) {
    *n_pairs = f->n_uneven;
    return f->uneven;
}

const uint64_t *sill__flow_failed(const sill__flow *f, size_t *n) {
    *n = f->n_failed;
    return f->failed_rows;
}

const char *sill__flow_failure(const sill__flow *f, size_t i) { return i < f->n_failures ? f->failures[i] : NULL; }
