/* common.c - see task.h. */
#include "task/task.h"

sill_status sill__row_next(sill_next_fn next, void *user, sill_row *row, bool *got, sill_error *err) {
    memset(row, 0, sizeof *row);
    int r = next(user, row);
    *got = r > 0;
    return r < 0 ? sill__fail(err, SILL_ECANCELLED, "cancelled by the source of rows") : SILL_OK;
}

sill_status sill__row_pull(const sill__pull *p, bool *got, sill_error *err) {
    for (;;) {
        sill_row in;
        sill_error why = {0};
        sill_status st = sill__row_next(p->next, p->user, &in, got, err);
        if (st != SILL_OK || !*got || (st = p->take(p->task, &in, &why)) == SILL_OK) return st;
        if (sill__is_fatal(st)) {
            if (err) *err = why;
            return st;
        }
        if ((st = p->failed(p->task, in.index, &why, err)) != SILL_OK) return st;
    }
}

sill_status sill__ids_known(const sill_model *model, const sill__ids *ids, sill_error *err) {
    for (size_t i = 0; i < ids->n; i++)
        if (ids->p[i] < 0 || ids->p[i] >= model->config.n_vocab)
            return sill__fail(err, SILL_ERANGE, "token id %d is outside the model's vocabulary of %d", ids->p[i],
                              model->config.n_vocab);
    return SILL_OK;
}

sill_status sill__row_ids(const sill_model *model, const sill_row *row, uint32_t flags, sill__ids *out,
                          sill_error *err) {
    sill_status st;
    if (!row->ids && !row->text) return sill__fail(err, SILL_EINVAL, "the row has neither text nor ids");
    if (row->ids) st = sill__ids_put(out, row->ids, row->n_ids, err);
    else st = sill__ids_text(out, model->tokenizer, row->text, row->n_bytes, flags, err);
    return st == SILL_OK ? sill__ids_known(model, out, err) : st;
}

bool sill__is_fatal(sill_status status) {
    return status == SILL_ENOMEM || status == SILL_EDEVICE || status == SILL_ECANCELLED || status == SILL_EINTERNAL;
}

sill_status sill__overflowed(const char *what, double value, sill_error *err) {
    return sill__fail(err, SILL_EDEVICE, "%s is %g: the model's numbers overflowed (not a number), or its weights are damaged; "
                      "try dtype f32", what, value);
}

/* A tokenizer may know ids that the model has no row for: those start no text. */
static int32_t known(const sill_model *model, int32_t id) { return id < model->config.n_vocab ? id : -1; }

int32_t sill__bos_id(const sill_model *model) {
    if (model->config.bos_id >= 0) return known(model, model->config.bos_id);
    return model->tokenizer ? known(model, sill__tokenizer_bos(model->tokenizer)) : -1;
}

int32_t sill__start_id(const sill_model *model) {
    int32_t bos = sill__bos_id(model);
    if (bos >= 0) return bos;
    if (model->config.n_eos > 0) return known(model, model->config.eos_ids[0]);
    return model->tokenizer ? known(model, sill__tokenizer_eos(model->tokenizer)) : -1;
}
