/*
 * sill.h - language models on the computer you have
 *
 * The one public header of libsill. It runs GPT-2 and small Llama-type models (SmolLM2, TinyLlama)
 * straight from the files they are published in: safetensors directories and GGUF.
 *
 * The shortest program (compiled and run by tests/api/test_usage.sh, so it is always true):
 *
 * ---- usage example ----
 * #include <sill.h>
 * #include <stdio.h>
 *
 * int main(int argc, char **argv) {
 *     sill_error err = {0};
 *     sill_model *model = NULL;
 *     sill_session *session = NULL;
 *     char text[4096];
 *     size_t n = 0;
 *     if (argc < 3) return 2;
 *     if (sill_model_load(argv[1], NULL, &model, &err) == SILL_OK &&
 *         sill_session_create(model, NULL, &session, &err) == SILL_OK &&
 *         sill_generate_text(session, argv[2], NULL, text, sizeof text, &n, &err) == SILL_OK)
 *         printf("%s\n", text);
 *     else
 *         fprintf(stderr, "sill: %s\n", err.msg);
 *     sill_session_free(session);
 *     sill_model_free(model);
 *     return err.code == SILL_OK ? 0 : 1;
 * }
 * ---- end of usage example ----
 *
 * Conventions
 *  - Every call that can fail returns a sill_status and takes a sill_error of the caller's, which
 *    may be NULL. On success the error is left untouched. The library never exits, aborts or prints.
 *  - Option structs begin with `size_t size`; set it to sizeof the struct. Zero in any other field
 *    means the default, and a NULL option pointer means all defaults. Where zero is a useful value
 *    of its own the comment names the sentinel.
 *  - Text is bytes with a length. It need not be valid UTF-8 and may hold NUL bytes. Functions that
 *    take a `const char *` with no length take NUL-terminated strings.
 *  - A model is immutable after load and may be shared by threads. A session is not: one thread at
 *    a time. A tokenizer is immutable and may be shared.
 *  - Log-probabilities are natural logarithms. Token ids are int32_t.
 *  - For one device and instruction set, the numbers for a text do not depend on what else is in
 *    the batch, the order, the number of threads, or how the work is cut into chunks: same bits.
 */
#ifndef SILL_H
#define SILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SILL_VERSION_MAJOR 0
#define SILL_VERSION_MINOR 1
#define SILL_VERSION_PATCH 0
#define SILL_VERSION_STRING "0.1.0"

#if defined(__GNUC__) || defined(__clang__)
#define SILL_API __attribute__((visibility("default")))
#define SILL_USE_RESULT __attribute__((warn_unused_result))
#else
#define SILL_API
#define SILL_USE_RESULT
#endif

/* The version of the library that is linked, as SILL_VERSION_STRING. Static storage. */
SILL_API const char *sill_version(void);

/* ------------------------------------------------------------------ errors */

/* Status codes and their one-line texts: X(name, value, text). */
#define SILL_STATUS_LIST(X)                                                                        \
    X(OK, 0, "success")                                                                            \
    X(EINVAL, 1, "invalid argument")                                                               \
    X(ENOMEM, 2, "out of memory")                                                                  \
    X(EIO, 3, "input/output error")                                                                \
    X(EFORMAT, 4, "malformed file or text")                                                        \
    X(EUNSUPPORTED, 5, "not supported")                                                            \
    X(ENOENT, 6, "not found")                                                                      \
    X(ERANGE, 7, "value or length out of range")                                                   \
    X(ENOFIT, 8, "would not fit in memory")                                                        \
    X(ECANCELLED, 9, "cancelled by the callback")                                                  \
    X(EDEVICE, 10, "device failure")                                                               \
    X(EINTERNAL, 11, "internal error")

typedef enum sill_status {
#define SILL_X(name, value, text) SILL_##name = value,
    SILL_STATUS_LIST(SILL_X)
#undef SILL_X
} sill_status;

/* What went wrong: what failed, the value, the limit, what to do. msg is NUL-terminated UTF-8. */
typedef struct sill_error {
    sill_status code;
    char msg[508];
} sill_error;

/* One-line text of a status code. Static storage; "unknown status" for other values. */
SILL_API const char *sill_status_text(sill_status status);

/* Frees memory that a function documented as "free with sill_free" returned. NULL is allowed. */
SILL_API void sill_free(void *ptr);

/* Log lines for people (level 0 error, 1 warning, 2 information, 3 debugging). The library is silent
 * until a callback is set. The callback may be called from any thread. Process-wide; set it before
 * other calls. */
typedef void (*sill_log_fn)(void *user, int level, const char *line);
SILL_API void sill_set_log(sill_log_fn fn, void *user);

/* ------------------------------------------------------------------ models */

typedef struct sill_model sill_model;
typedef struct sill_session sill_session;
typedef struct sill_tokenizer sill_tokenizer;

typedef enum sill_dtype {
    SILL_DTYPE_AUTO = 0, /* the stored type; quantized files: int8 activations in groups of 32 */
    SILL_DTYPE_F32,      /* any file, dequantized on the fly, f32 activations and KV: parity path */
    SILL_DTYPE_F16,      /* f32 activations, weights f16 (floating-point checkpoints) */
    SILL_DTYPE_BF16,     /* weights bf16 (floating-point checkpoints) */
    /* Floating-point checkpoints quantized while they are loaded. Embeddings are looked up as stored, classification
     * heads are computed as stored, and so is a matrix whose inputs are no multiple of 32 with q8 and q4. */
    SILL_DTYPE_Q8,       /* groups of 32 as GGUF's Q8_0, int8 activations in groups of 32 */
    SILL_DTYPE_Q4,       /* groups of 32 with a minimum as GGUF's Q4_1, the output head as q8; activations as q8 */
    SILL_DTYPE_INT8      /* LLM.int8: weights int8 by rows; activations int8 by rows but for |x| >= 6, kept in f16 */
} sill_dtype;

typedef enum sill_kv_dtype {
    SILL_KV_AUTO = 0, /* f32 with SILL_DTYPE_F32 and f32 checkpoints, else f16 */
    SILL_KV_F32,
    SILL_KV_F16,
    SILL_KV_INT8 /* 8-bit codes; each position of a head has an f32 scale for K and V, and an f32 offset for K */
} sill_kv_dtype;

typedef struct sill_model_options {
    size_t size;
    const char *device;  /* "auto" (default), "metal" (Apple GPUs, on macOS), "cpu", "ref" (scalar reference). "auto": the
                          * first that computes right and takes the model; why another was passed over is logged */
    sill_dtype dtype;
    int32_t n_threads;   /* 0: all (performance) cores, never more than physical ones */
    uint64_t memory_limit_bytes; /* 0: what the system says is free; refused with ENOFIT above it */
    int32_t no_cache;    /* 1: no packed copy of the weights is taken from the user's cache directory or, when the model
                            is freed, kept there. It saves the next process the packing, and changes no result
                            (docs/ENVIRONMENT.md: where, and how much) */
    const char *tokenizer; /* where the tokenizer is, as for sill_tokenizer_load, instead of beside or in the model; NULL: there */
} sill_model_options;

/* Loads a model from PATH: a directory as on the hub (config.json, model.safetensors or an index
 * with shards, tokenizer.json or vocab.json + merges.txt) or a .gguf file or a .safetensors file with
 * its config beside it; also pytorch_model.bin instead of safetensors, and GPT-2 as nanoGPT (ckpt.pt), llm.c (.bin) and
 * OpenAI (model.ckpt.index, hparams.json) keep it: docs/FORMATS.md. No code of a file is run. On success *out is the caller's: free with sill_model_free.
 * Errors: ENOENT, EIO, EFORMAT (file broken), EUNSUPPORTED (family, type or device), ENOFIT, ENOMEM.
 * After failure nothing is held and *out is NULL. */
SILL_USE_RESULT SILL_API sill_status sill_model_load(const char *path, const sill_model_options *options,
                                                     sill_model **out, sill_error *err);
/* Frees a model; all its sessions must be freed before. NULL is allowed. */
SILL_API void sill_model_free(sill_model *model);

typedef struct sill_model_info {
    char family[16];       /* "gpt2", "llama" */
    char device[32];       /* "cpu avx512", "ref", ... */
    char stored_type[16];  /* type that holds most parameters in the file: "F32", "Q4_1", ... */
    char dtype[16];        /* type computed with: "f32", "bf16", "q4_1+int8", "q8+int8", "int8", ... */
    int32_t n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff;
    int32_t n_ctx;         /* positions the model was made for */
    int32_t n_vocab;       /* rows of the output head (may be padded above the tokenizer's) */
    int32_t n_labels;      /* 0, or outputs of a classification head */
    int32_t is_instruct;   /* 1 when the file carries a chat template that we support */
    uint64_t n_params, weight_bytes;
    int32_t bos_id, eos_id, pad_id; /* -1 where there is none */
    int32_t add_bos;       /* 1 when the model expects BOS before every text */
    int32_t n_threads;
    char device_check[64]; /* what is known of the device: "passed 2026-11-22T14:10:00Z (first use)", "failed ...",
                              "not checked" (the CPU, unless sill_check was run) */
    char problem_type[32]; /* of a classification head, in transformers' words: "single_label_classification",
                              "multi_label_classification", "regression"; "" without one */
} sill_model_info;

/* Fills the first info_size bytes of *info (pass sizeof *info). Never fails. */
SILL_API void sill_model_get_info(const sill_model *model, sill_model_info *info, size_t info_size);
/* The model's tokenizer; lives as long as the model. NULL if the files have none. */
SILL_API const sill_tokenizer *sill_model_tokenizer(const sill_model *model);
/* Name of label I (0 <= I < n_labels) of a classification head; NULL outside. Lives as the model. */
SILL_API const char *sill_model_label(const sill_model *model, int32_t i);

/* --------------------------------------------------------------- tokenizer */

enum {
    SILL_TOKENIZE_SPECIAL = 1, /* parse special (and other added) tokens, <|endoftext|> say, out of the text, wherever
                                  they stand as written (also those marked "normalized" in tokenizer.json, which
                                  tokenizers looks for in the normalized text, and so seldom finds) */
    SILL_TOKENIZE_BOS = 2,     /* put BOS in front (ERANGE if the model has none) */
    SILL_TOKENIZE_NO_PREFIX = 4 /* SentencePiece: no dummy space in front (a continuation) */
};

/* Loads a tokenizer alone: tokenizer.json, a directory, vocab.json (merges.txt beside it), or GGUF; also
 * OpenAI's encoder.json (vocab.bpe beside it), merges.txt or vocab.bpe alone (ids in GPT-2's order), and llm.c's gpt2_tokenizer.bin.
 * Free with sill_tokenizer_free. */
SILL_USE_RESULT SILL_API sill_status sill_tokenizer_load(const char *path, sill_tokenizer **out,
                                                         sill_error *err);
SILL_API void sill_tokenizer_free(sill_tokenizer *tokenizer);
SILL_API int32_t sill_tokenizer_n_vocab(const sill_tokenizer *tokenizer);

/* Most ids that n_bytes of text can become, BOS included. */
SILL_API size_t sill_tokenize_bound(const sill_tokenizer *tokenizer, size_t n_bytes);
/* text (n_bytes) -> ids. Any bytes are text, and sill_detokenize gives the same bytes back, with these
 * exceptions, which are the vocabulary's: bytes that a byte-level vocabulary has no token for are left out
 * (SmolLM2's lacks 21, control characters and bytes that UTF-8 rarely or never uses); characters that a
 * SentencePiece vocabulary has neither a token nor bytes for become the unknown token. To a SentencePiece vocabulary
 * U+2581, its mark of a space, is a character like others here, so that it comes back; tokenizers takes it for a space.
 * *n_ids is set to the number of ids also when CAP is too small (ERANGE; the
 * first CAP ids are then written). Time is linear in n_bytes up to a logarithm, whatever the text. */
SILL_USE_RESULT SILL_API sill_status sill_tokenize(const sill_tokenizer *tokenizer, const char *text,
                                                   size_t n_bytes, uint32_t flags, int32_t *ids,
                                                   size_t cap, size_t *n_ids, sill_error *err);
/* Bytes [begin, end) of a text. */
typedef struct sill_token_span { size_t begin, end; } sill_token_span;
/* The same ids, and where each stands in the text: SPANS (cap) as well. A BOS that was put in front, and a dummy space, are
 * empty. A token may end inside a character; bytes that became no token are in no span. */
SILL_USE_RESULT SILL_API sill_status sill_tokenize_spans(const sill_tokenizer *tokenizer, const char *text, size_t n_bytes,
                                                         uint32_t flags, int32_t *ids, sill_token_span *spans, size_t cap,
                                                         size_t *n_ids, sill_error *err);
/* Most bytes that n_ids ids can become. */
SILL_API size_t sill_detokenize_bound(const sill_tokenizer *tokenizer, const int32_t *ids, size_t n_ids);
enum {
    SILL_DETOKENIZE_SKIP_SPECIAL = 1, /* special tokens stand for nothing */
    SILL_DETOKENIZE_CONTINUATION = 2  /* SentencePiece: these ids continue a text; see below */
};
/* ids -> bytes (not NUL-terminated), exactly the bytes that the ids stand for, valid UTF-8 or not.
 * A SentencePiece tokenizer puts a dummy space in front of a text; decoding takes one leading space off
 * again. Ids that continue other ids (a generated answer, the next piece of a stream) are decoded with
 * SILL_DETOKENIZE_CONTINUATION, which keeps it: then the pieces of a text join to the whole. Byte-level
 * tokenizers have no such space and ignore the flag.
 * ERANGE if CAP is too small (*n_bytes is set to what is needed) or an id is outside the vocabulary. */
SILL_USE_RESULT SILL_API sill_status sill_detokenize(const sill_tokenizer *tokenizer, const int32_t *ids,
                                                     size_t n_ids, uint32_t flags, char *text,
                                                     size_t cap, size_t *n_bytes, sill_error *err);
typedef struct sill_tokenizer_info {
    int32_t n_vocab;       /* ids are 0 .. n_vocab - 1; some may have no token */
    int32_t bos_id, eos_id, unk_id, pad_id; /* as the tokenizer's files say, without a config.json; -1 where there is none */
    int32_t add_bos;       /* 1 when the files want BOS before every text */
    int32_t has_chat;      /* 1 when the files carry a chat template that sill_tokenizer_chat renders */
    char kind[16];         /* "gpt2", "smollm", "llama3": byte-level, with whose pattern; "spm": SentencePiece */
} sill_tokenizer_info;
/* Fills the first info_size bytes of *info (pass sizeof *info). Never fails. */
SILL_API void sill_tokenizer_get_info(const sill_tokenizer *tokenizer, sill_tokenizer_info *info, size_t info_size);
/* 1 for a special token, which SILL_DETOKENIZE_SKIP_SPECIAL leaves out; 0 for others and ids outside the vocabulary. */
SILL_API int32_t sill_token_is_special(const sill_tokenizer *tokenizer, int32_t id);
/* A token as vocabularies write it (GPT-2's letters for bytes, so that a space is U+0120; SentencePiece's U+2581 for a space),
 * UTF-8 without a NUL, into TEXT (cap bytes). *n_bytes is set to its length also when CAP is too small (ERANGE, also for an id
 * that has no token). */
SILL_USE_RESULT SILL_API sill_status sill_token_text(const sill_tokenizer *tokenizer, int32_t id, char *text, size_t cap,
                                                     size_t *n_bytes, sill_error *err);
/* Number of bytes at the start of TEXT that end on a complete UTF-8 character (an incomplete sequence
 * at the end is held back; invalid bytes are not). For streaming. */
SILL_API size_t sill_utf8_complete(const char *text, size_t n_bytes);

/* ---------------------------------------------------------------- sessions */

typedef struct sill_session_options {
    size_t size;
    int32_t n_ctx;         /* longest sequence in tokens; 0: the model's n_ctx */
    int32_t batch_tokens;  /* most tokens in one ragged batch; 0: chosen by the planner */
    int32_t max_sequences; /* most sequences in flight; 0: chosen by the planner */
    sill_kv_dtype kv_dtype;
    uint64_t memory_limit_bytes; /* for KV and scratch; 0: what the system says is free */
    int32_t interactive;   /* 1: a single text at a time that somebody waits for. On a GPU the kernels that answer
                            * soonest; their numbers agree with those of other sessions within a bound, not bit for bit */
} sill_session_options;

/* Bytes that a model and session will take, told before anything is loaded or allocated. */
typedef struct sill_plan_info {
    uint64_t weight_bytes, kv_bytes, scratch_bytes, total_bytes;
    uint64_t available_bytes; /* what the system says is free now */
    int32_t n_ctx, batch_tokens, max_sequences;
    int32_t fits;             /* 1 or 0 */
    char advice[256];         /* where it does not fit: the next smaller choice */
    char device[16];          /* that it is planned for: "cpu", "metal", ... */
    char passed_over[320];    /* device "auto" alone: a device before that one, and why it does not take the model or session; else "" */
} sill_plan_info;

/* Plans PATH with these options. Reads headers only. */
SILL_USE_RESULT SILL_API sill_status sill_plan(const char *path, const sill_model_options *mo,
                                               const sill_session_options *so, sill_plan_info *plan,
                                               sill_error *err);

/* A session: KV cache and scratch of fixed size, allocated here and never afterwards while decoding.
 * Free with sill_session_free before the model. ENOFIT says the numbers and the next smaller choice. */
SILL_USE_RESULT SILL_API sill_status sill_session_create(sill_model *model,
                                                         const sill_session_options *options,
                                                         sill_session **out, sill_error *err);
SILL_API void sill_session_free(sill_session *session);

/* Logits of one sequence, for tests and bindings: ids (n_ids) from position 0 -> out
 * (n_ids, n_vocab) row-major, the caller's. The KV used is released again. */
SILL_USE_RESULT SILL_API sill_status sill_logits(sill_session *session, const int32_t *ids, size_t n_ids,
                                                 float *out, sill_error *err);

/* Hidden states behind the final norm, for bindings: ids (n_ids) from position 0 -> out (n_ids, n_embd) row-major, the
 * caller's; transformers' last_hidden_state. The KV used is released again. */
SILL_USE_RESULT SILL_API sill_status sill_hidden_states(sill_session *session, const int32_t *ids, size_t n_ids,
                                                        float *out, sill_error *err);

/* ------------------------------------------------------------------- tasks
 *
 * A task pulls rows through `next` and hands results to `done`, so that a corpus of any length runs in
 * constant memory while the scheduler keeps the batch full. Results come in completion order and
 * carry the row's number. Both are called on the caller's thread, inside the task call. A row whose
 * numbers overflow in the model (not a number, or infinite) fails with SILL_EDEVICE; others go on.
 */

typedef struct sill_row {
    uint64_t index;       /* the caller's number for the row; comes back in the result */
    uint64_t key;         /* random-number key (see sill_row_key); same key + seed = same sample */
    const char *text;     /* stays valid until the row's result was delivered */
    size_t n_bytes;
    const int32_t *ids;   /* when not NULL: these ids instead of text (text is then not tokenized) */
    size_t n_ids;
    /* score: what stands before the text, which is scored given it (context_ids where the row has ids); NULL: nothing. */
    const char *context;
    size_t n_context_bytes;
    const int32_t *context_ids;
    size_t n_context_ids;
} sill_row;

/* next: fills *row and returns 1; 0 at the end; a negative value cancels (ECANCELLED). */
typedef int (*sill_next_fn)(void *user, sill_row *row);

/* 64-bit key of a row's identifier, for sill_row.key: a hash of the bytes. */
SILL_API uint64_t sill_row_key(const char *id, size_t n_bytes);

/* Texts longer than the session (n_ctx tokens). A text that is cut is read in windows of n_ctx tokens. */
typedef enum sill_long {
    SILL_LONG_DEFAULT = 0, /* window for score and perplexity; error for classify, embed, generate */
    SILL_LONG_ERROR,
    SILL_LONG_TRUNCATE,    /* generate: keeps the end of the prompt; others: keep the start */
    SILL_LONG_WINDOW,      /* windows that overlap: each adds the tokens of a stride (half a window, but for score); embed
                              and classify: the mean of the windows, each counted with the tokens that it adds */
    SILL_LONG_SPLIT_MEAN   /* windows side by side, each a text of its own (BOS in front where a text has it, the whole prompt
                              around it where there is one); the mean, each counted with its tokens. Both are for score,
                              embed and classify, WINDOW also for perplexity */
} sill_long;

/* ---- generate */

/* What a generated text must match, for one model's vocabulary: made once and used for any number of calls, by one thread at
 * a time (masks of tokens are made as they are needed, and kept). A token is only taken if the text can still be ended, so what is
 * made matches whole, is valid UTF-8, and ends where it must or where an end of text is chosen, as long as max_new_tokens are
 * not fewer than the shortest text has bytes; with fewer the end may be missing (finish_reason "length"). docs/CONSTRAINTS.md: the
 * dialect, the subset of JSON Schema, limits. Free with sill_constraint_free, before the model. Errors: EFORMAT (no such pattern,
 * no JSON), EUNSUPPORTED (named), ERANGE (too large, or nothing that the vocabulary can write), ENOMEM. */
typedef struct sill_constraint sill_constraint;
SILL_USE_RESULT SILL_API sill_status sill_constraint_regex(const sill_model *model, const char *pattern, size_t n_bytes,
                                                           sill_constraint **out, sill_error *err);
/* One of N texts, to the byte. */
SILL_USE_RESULT SILL_API sill_status sill_constraint_choices(const sill_model *model, const char *const *choices, size_t n,
                                                             sill_constraint **out, sill_error *err);
SILL_USE_RESULT SILL_API sill_status sill_constraint_json_schema(const sill_model *model, const char *schema, size_t n_bytes,
                                                                 sill_constraint **out, sill_error *err);
SILL_API void sill_constraint_free(sill_constraint *constraint); /* NULL is allowed */

typedef struct sill_generate_options {
    size_t size;
    int32_t max_new_tokens;    /* 0: 20 as transformers (256 with a constraint), unless max_length is set */
    int32_t max_length;        /* prompt included; 0: unset; max_new_tokens wins when both are set */
    int32_t min_new_tokens;    /* ends of text are forbidden before; nothing with ignore_eos */
    int32_t do_sample;         /* 0: greedy */
    float temperature;         /* 0: 1.0 */
    int32_t top_k;             /* 0: 50; -1: off */
    float top_p;               /* 0: 1.0 (off) */
    float min_p, typical_p, epsilon_cutoff, eta_cutoff; /* 0: off */
    float repetition_penalty;  /* 0: 1.0 (off) */
    int32_t no_repeat_ngram_size;
    int32_t num_return_sequences; /* 0: 1; more needs do_sample or as many beams */
    uint64_t seed;             /* a GPU draws tokens itself where temperature, top_k, top_p and min_p are all that is set,
                                  with the same random numbers; where a border of these lies within the rounding of
                                  its sums (f32), it may choose otherwise than the CPU, always in the same way */
    int32_t ignore_eos;        /* 1: an end of text is a token like others: it ends nothing, min_new_tokens does not
                                  forbid it, and as a bad word of one token it is forbidden */
    int32_t logprobs;          /* n >= 1: the n best of each step too (tops); 0 or -1: none */
    uint32_t tokenize_flags;   /* SILL_TOKENIZE_*; BOS follows the model unless no_bos */
    int32_t no_bos;
    sill_long long_policy;
    const char *const *stop;   /* stop strings; the text is cut before the first (n_stop of them) */
    size_t n_stop;
    const int32_t *bias_ids;   /* logit bias: bias_values[i] is added to the logit of bias_ids[i] */
    const float *bias_values;
    size_t n_bias;
    const int32_t *bad_words;  /* sequences of ids never produced, concatenated; ends in bad_word_ends */
    const size_t *bad_word_ends;
    size_t n_bad_words;
    int32_t min_length;        /* as min_new_tokens, the prompt included; nothing where min_new_tokens is set */
    const int32_t *suppress_tokens; /* ids never produced (n_suppress of them); an end of text too, if it is named */
    size_t n_suppress;
    const int32_t *begin_suppress_tokens; /* the same for the first new token alone */
    size_t n_begin_suppress;
    const int32_t *bias_words; /* bias for the last id of each sequence of ids where those before it were just produced (or end
                                  the prompt): concatenated, ends in bias_word_ends, transformers' sequence_bias */
    const size_t *bias_word_ends;
    const float *bias_word_values;
    size_t n_bias_words;
    /* Beam search, as in transformers: num_beams sequences of a row go on side by side, and of all that ended the
     * num_return_sequences with the best scores are the results, the best first. The processors work on log-probabilities
     * then, as there. With do_sample the continuations are drawn (without replacement). Results come whole; what a stream
     * brings before are pieces without text or ids, one a step, which DONE may cancel at. */
    int32_t num_beams;         /* 0: 1 (no beams); a session must have room for as many sequences */
    float length_penalty;      /* score: summed log-probability / length ^ length_penalty; 0: 1.0; NaN: 0.0, the sum */
    int32_t early_stopping;    /* sill_early_stopping */
    sill_constraint *constraint; /* of the session's model; NULL: none. Ends of text follow only where it may end */
    /* Speculative decoding: the next tokens are guessed and computed in one step; each is then chosen as it would have been
     * without, and those behind the first wrong guess are thrown away. So the results are the same, ids and logprobs to the bit,
     * sampled ones too (in an interactive session on a GPU: within its bound), only sooner where guesses are right and later
     * where they are not. A step has outputs for max_sequences rows (and batch_tokens tokens); guesses take those that the
     * sequences in flight leave, so a full batch goes without. Not with beams. */
    int32_t prompt_lookup_num_tokens; /* n >= 1: at most n tokens that followed, earlier in prompt and text, the same last
                                  tokens; transformers' prompt lookup. 0: off */
    int32_t max_matching_ngram_size; /* of these last tokens: the longest match of so many or fewer; 0: 2 */
    sill_session *assistant;   /* of a smaller model with the same vocabulary, which guesses; not the session that generates, and
                                  used by this call alone while it runs. Rows that it has no room for (sequences, positions, KV
                                  blocks) go on without guesses. NULL: none; not together with prompt_lookup_num_tokens */
    int32_t num_assistant_tokens; /* guesses of the assistant at once, at first: 2 more when all were right, 1 less when not; 0: 5 */
} sill_generate_options;

/* When beams end: transformers' early_stopping False, True and "never". */
typedef enum sill_early_stopping {
    SILL_EARLY_STOPPING_NO = 0, /* when no sequence of the present length could be better than the worst kept */
    SILL_EARLY_STOPPING_YES,    /* when num_beams sequences have ended */
    SILL_EARLY_STOPPING_NEVER   /* when none could be better at any length up to the most that is allowed */
} sill_early_stopping;

/* Fills in what transformers' text-generation pipeline would take for this model where its user says nothing. NAME:
 *  "hf-5"  transformers 5.23: 256 new tokens, do_sample, temperature 0.7, top_k 50; what generation_config.json sets
 *          (config.json where there is none) wins, and its max_length replaces the 256 new tokens.
 *  "hf-4"  transformers 4.57: the same defaults, but do_sample, 0.7 and the 256 tokens win over generation_config.json
 *          (except a max_length there that is not 20); then the task_specific_params of config.json for
 *          "text-generation" win, but for their max_length; then, unless the file was written before 4.50,
 *          generation_config.json again over what is back at a default.
 *  "hf-5-generate"  transformers 5.23's model.generate() instead of its pipeline: greedy, 20 new tokens; what
 *          generation_config.json sets (config.json where there is none) wins.
 * A preset does not change with later versions of sill. out->size must be set. Lengths, do_sample, the filters, penalties
 * num_return_sequences and what is of beams are overwritten; bad_words, suppress_tokens, begin_suppress_tokens and bias_words where
 * the files set them: those lists are the model's and live as long as it. Other fields are left; change afterwards what you want
 * otherwise (a max_length of your own needs max_new_tokens 0). After failure *out is as it was.
 * Errors: EINVAL (no such preset), EFORMAT (a value in the files that transformers would refuse, or that is no number of
 * its kind), EUNSUPPORTED (the files set something that sill has not, or not from a file: stop_strings, ...), EIO, ENOENT, ENOMEM. */
SILL_USE_RESULT SILL_API sill_status sill_generate_preset(const sill_model *model, const char *name,
                                                          sill_generate_options *out, sill_error *err);

typedef struct sill_top { int32_t id; float logprob; } sill_top;

typedef struct sill_generated {
    uint64_t index;
    int32_t sequence;          /* 0 .. num_return_sequences - 1. Each has its own final result, a failed one too; with
                                  more than one, -1: the whole row failed, and this is its only result */
    int32_t final;             /* 0: a streamed piece; 1: the whole result */
    sill_status status;        /* of this row; the rest is empty unless SILL_OK */
    const char *error;         /* message when status is not SILL_OK */
    const char *text;          /* new text only: of this piece, or whole when final */
    size_t n_bytes;
    const int32_t *ids;        /* new ids (whole when final) */
    const float *logprobs;     /* (n_ids): log-probability of each chosen id under the raw logits */
    const sill_top *tops;      /* (n_ids, options.logprobs) or NULL */
    size_t n_ids;
    size_t n_prompt;           /* tokens in the prompt */
    const char *finish_reason; /* "stop" (end of text or stop string), "length" */
    float score;               /* with beams: transformers' sequences_scores; else 0 */
    int32_t n_drafted;         /* whole results: tokens that were guessed for it, and those of them that were right */
    int32_t n_accepted;
} sill_generated;

/* done: returns 0, or non-zero to cancel the whole call. Pointers are valid during the call only. */
typedef int (*sill_generated_fn)(void *user, const sill_generated *result);

/* Continues every row that NEXT gives. ENOFIT where the results in flight (sequences, new tokens, logprobs) would take
 * more than the session's memory limit leaves. With STREAM non-zero partial results come as they are made
 * (whole UTF-8 characters; a GPU may bring a few tokens at once, within 20 ms). A row that fails is reported through DONE
 * and does not end the call. */
SILL_USE_RESULT SILL_API sill_status sill_generate(sill_session *session,
                                                   const sill_generate_options *options,
                                                   sill_next_fn next, sill_generated_fn done, int stream,
                                                   void *user, sill_error *err);

/* One prompt, one answer: writes the new text and a NUL into text (cap bytes), *n_bytes without the
 * NUL. ERANGE if it does not fit. Greedy, 20 new tokens by default. */
SILL_USE_RESULT SILL_API sill_status sill_generate_text(sill_session *session, const char *prompt,
                                                        const sill_generate_options *options, char *text,
                                                        size_t cap, size_t *n_bytes, sill_error *err);

/* Renders a conversation with the model's chat template (ChatML and Zephyr forms, recognised by the
 * template's text; EUNSUPPORTED otherwise). roles[i] is "system", "user" or "assistant". The result ends
 * where the assistant's answer begins. Control tokens come from the template alone: what a message says is tokenized as
 * plain text. Free *out with sill_free. */
SILL_USE_RESULT SILL_API sill_status sill_chat_ids(const sill_model *model, const char *const *roles,
                                                   const char *const *contents, size_t n_messages,
                                                   int32_t **out, size_t *n_ids, sill_error *err);
enum { SILL_CHAT_NO_ANSWER = 1 /* the result ends behind the last message, no answer is begun */ };
/* The same with a tokenizer alone. */
SILL_USE_RESULT SILL_API sill_status sill_tokenizer_chat(const sill_tokenizer *tokenizer, const char *const *roles,
                                                         const char *const *contents, size_t n_messages, uint32_t flags,
                                                         int32_t **out, size_t *n_ids, sill_error *err);

/* ---- score */

typedef struct sill_score_options {
    size_t size;
    uint32_t tokenize_flags;
    int32_t bos;               /* 1: put BOS (or EOS where the model has no BOS) in front, so that the
                                  first token is scored too */
    sill_long long_policy;
    int32_t stride;            /* window: tokens that each further window adds, 1 to n_ctx; 0: n_ctx / 2. n_ctx:
                                  windows side by side, of which the first token has no log-probability (NAN) */
    int32_t boundaries;        /* 1: also the probabilities that words begin (several times as slow) */
    int32_t no_shared_prefix;  /* 1: compute a context anew for every row (the same bits, more slowly); else once for rows
                                  that follow each other with the same one, of which up to 32 are read ahead */
} sill_score_options;

typedef struct sill_scored {
    uint64_t index;
    sill_status status;
    const char *error;
    const int32_t *ids;        /* (n_ids) without the BOS */
    const float *logprobs;     /* (n_ids); logprobs[0] is NAN unless bos; also see stride */
    size_t n_ids;
    size_t n_scored;           /* tokens with a log-probability */
    double sum_logprob;        /* over the scored tokens, added in double from left to right */
    int32_t n_windows;         /* 1, or more where the long-text policy cut the text; 0: nothing to score */
    int32_t truncated;         /* 1: the end of the text, or the beginning of its context, is left out */
    size_t n_context;          /* tokens of the row's context that the text was given; ids holds none of them */
    /* (n_ids + 1) with options.boundaries, else NULL. [i]: log-probability that token i begins a word (its bytes begin with
     * white space) or ends the text (a special token), given those before it; [n_ids]: what follows the text. NAN where
     * logprobs is. They correct a word's probability for where its tokens end (Pimentel and Meister 2024, Oh and Schuler
     * 2024): log p(word) = its tokens' sum + [behind its last] - [at its first]. */
    const float *boundaries;
} sill_scored;

typedef int (*sill_scored_fn)(void *user, const sill_scored *result);

/* Log-probability of every token of every row given those before it: transformers' loss is
 * -sum_logprob / n_scored. Of a row with a context the text's tokens alone: both are tokenized as one string, of which the
 * text's are the tokens from the first on that the context alone has not, white space at the context's end among them
 * (lm-evaluation-harness's rule, where no token holds bytes of both). Too long with its context: TRUNCATE leaves out the
 * context's beginning. */
SILL_USE_RESULT SILL_API sill_status sill_score(sill_session *session, const sill_score_options *options,
                                                sill_next_fn next, sill_scored_fn done, void *user,
                                                sill_error *err);

/* ---- classify */

typedef enum sill_prob {
    SILL_PROB_NORM = 0,   /* softmax of mean log-probability per label token */
    SILL_PROB_RAW,        /* softmax of summed log-probability */
    SILL_PROB_CALIBRATED  /* raw, divided by the content-free input's, renormalized (Zhao et al. 2021) */
} sill_prob;

/* What coders are told, from a file: labels with descriptions and the words that the model says for them, examples, an
 * instruction, the prompt, paraphrases. JSON or lines of text; docs/CODEBOOK.md describes both and the prompt that results. */
typedef struct sill_codebook sill_codebook;
/* Reads PATH, or a text (NAME is what errors call it; may be NULL). Free *out with sill_codebook_free. Errors name file and
 * line: EFORMAT (a mistake in it), EIO, ENOENT, ENOMEM. */
SILL_USE_RESULT SILL_API sill_status sill_codebook_load(const char *path, sill_codebook **out, sill_error *err);
SILL_USE_RESULT SILL_API sill_status sill_codebook_parse(const char *text, size_t n_bytes, const char *name, sill_codebook **out,
                                                         sill_error *err);
SILL_API void sill_codebook_free(sill_codebook *codebook);
typedef struct sill_codebook_info {
    int32_t n_labels, n_examples, n_paraphrases, multi_label;
    const char *const *labels; /* (n_labels) their names; these and the texts live as the codebook */
    const char *instruction, *prompt; /* NULL: none, the default */
    char sha256[65];           /* of the file's bytes */
} sill_codebook_info;
/* Fills the first info_size bytes of *info (pass sizeof *info). Never fails. */
SILL_API void sill_codebook_get_info(const sill_codebook *codebook, sill_codebook_info *info, size_t info_size);

/* What becomes of a classification head's outputs, as function_to_apply of transformers' text-classification pipeline. */
typedef enum sill_head_function {
    SILL_HEAD_AUTO = 0, /* regression: none; multi_label_classification or one label: sigmoid; else softmax */
    SILL_HEAD_SOFTMAX,
    SILL_HEAD_SIGMOID,
    SILL_HEAD_NONE
} sill_head_function;

typedef struct sill_classify_options {
    size_t size;
    const char *const *labels; /* zero-shot labels; NULL: the codebook's, else the model's own head */
    size_t n_labels;
    /* Template with one {text}; NULL: the codebook's, else "Text: {text}\nThis text is" (multi-label: "Text:
     * {text}\nQuestion: Is this text {label}?\nAnswer:", where {label} and {description} stand behind {text}). A label
     * continues it with a space in front (none after a line's end). With an instruct model it is the user's message, but a last
     * line that stands wholly behind {text} begins the assistant's answer; without such a line the label is the whole answer. */
    const char *prompt;
    const char *content_free;  /* calibration input; NULL: "N/A" */
    sill_prob prob;            /* which probabilities choose the label */
    int32_t no_chat;           /* 1: never wrap in the chat template of an instruct model */
    float needs_human_below;   /* margin under which needs_human is set; 0: 0.1; negative: never */
    uint32_t tokenize_flags;
    sill_long long_policy;
    int32_t no_shared_prefix;  /* 1: recompute what prompts begin with for every row (the same bits, more slowly) */
    int32_t chat;              /* 1: the chat template or EUNSUPPORTED; 0: where the model has one that is known */
    const sill_codebook *codebook; /* NULL: none; else instead of labels */
    int32_t multi_label;       /* 1 (or the codebook says so): each label yes or no on its own; of a head the sigmoid */
    float threshold;           /* multi-label: probability from which a label is given; 0: 0.5 */
    float min_confidence;      /* needs_human is also set where the first label's probability is lower (multi-label: that of any
                                  label's yes or no); 0: never */
    sill_head_function head_function;
} sill_classify_options;

typedef struct sill_classified {
    uint64_t index;
    sill_status status;
    const char *error;
    int32_t n_labels;
    int32_t label;             /* index of the most probable label; -1 for a regression head */
    const float *probs;        /* (n_labels) by options.prob, multi-label: of yes; heads: by head_function */
    const float *raw, *norm, *calibrated; /* (n_labels) each; NULL for heads */
    const float *logits;       /* (n_labels): heads: logits; zero-shot: summed log-probabilities, multi-label: yes minus no */
    float margin, entropy;     /* p1 - p2 (multi-label: the least 2 |p - threshold|); nats (multi-label: added up); both NAN for
                                  a regression head and SILL_HEAD_NONE */
    int32_t needs_human;       /* 1: margin under needs_human_below, confidence under min_confidence, or a text of no tokens
                                  (unless needs_human_below says "never"); a regression head: 0 */
    size_t n_tokens;           /* tokens of the row's text */
    int32_t truncated;         /* 1: the end of a text that was too long is left out (where it is cut into pieces: white space,
                                  and there is but one piece) */
    const uint8_t *chosen;     /* (n_labels) multi-label: 1 for the labels that are given; else NULL */
    int32_t n_chosen;
    int32_t n_windows;         /* 1, or more where the long-text policy cut the text: probs and logits are then means over the
                                  pieces, each counted with the tokens of the text that it adds; raw, norm, calibrated too */
} sill_classified;

typedef int (*sill_classified_fn)(void *user, const sill_classified *result);

SILL_USE_RESULT SILL_API sill_status sill_classify(sill_session *session,
                                                   const sill_classify_options *options,
                                                   sill_next_fn next, sill_classified_fn done, void *user,
                                                   sill_error *err);

/* The prompt that sill_classify makes for a text, and what LABEL (an index) is scored as behind it: ids[n_prompt, n_ids), or
 * for multi-label the word yes behind that label's question. Free *ids with sill_free. Errors as of sill_classify. */
SILL_USE_RESULT SILL_API sill_status sill_classify_prompt(const sill_model *model, const sill_classify_options *options,
                                                          const char *text, size_t n_bytes, int32_t label, int32_t **ids,
                                                          size_t *n_ids, size_t *n_prompt, sill_error *err);

/* ---- embed */

typedef enum sill_pooling {
    SILL_POOLING_MEAN = 0, /* of all tokens, BOS included where the tokenizer adds it, as sentence-transformers does */
    SILL_POOLING_LAST      /* of the last token, which alone has seen the whole text */
} sill_pooling;

typedef struct sill_embed_options {
    size_t size;
    sill_pooling pooling;
    int32_t normalize;         /* 1: to length 1 (Euclidean; a vector of zeros stays) */
    uint32_t tokenize_flags;
    /* Texts longer than the session: see sill_long. Of several windows the mean is taken, each counted with the tokens
     * that it adds: with SILL_POOLING_MEAN that is the mean over all tokens. */
    sill_long long_policy;
} sill_embed_options;

typedef struct sill_embedded {
    uint64_t index;
    sill_status status;
    const char *error;
    const float *values;       /* (n_values): hidden states behind the final norm, pooled */
    int32_t n_values;          /* sill_model_info.n_embd */
    size_t n_tokens;           /* of the row's text, BOS not counted */
    int32_t n_windows;         /* 1, or more where the long-text policy cut the text */
    int32_t truncated;
} sill_embedded;

typedef int (*sill_embedded_fn)(void *user, const sill_embedded *result);

/* A vector for every row: transformers' model(...).last_hidden_state, pooled. Any model, also one with a classification
 * head. A text without tokens fails (SILL_EINVAL). */
SILL_USE_RESULT SILL_API sill_status sill_embed(sill_session *session, const sill_embed_options *options,
                                                sill_next_fn next, sill_embedded_fn done, void *user,
                                                sill_error *err);

/* ---- quantize */

typedef enum sill_quantize_to {
    SILL_QUANTIZE_Q8 = 0,  /* GGUF, Q8_0 throughout */
    SILL_QUANTIZE_Q4,      /* GGUF, Q4_1; embedding and head Q8_0 */
    SILL_QUANTIZE_INT8     /* a directory with safetensors in bitsandbytes' layout of LLM.int8, and the tokenizer's files */
} sill_quantize_to;

typedef struct sill_quantize_options {
    size_t size;
    sill_quantize_to to;
    int32_t overwrite;         /* 1: an output that is there is replaced, once the new one is whole; a directory only if it
                                  holds nothing but files with names that are written here */
    int32_t force;             /* 1: the output is kept whatever was lost */
    /* The texts that the loss is measured on, together. None: nothing is measured, and no certificate written. */
    const char *const *texts;
    const size_t *text_bytes;
    size_t n_texts;
    const char *text_name;     /* what the certificate calls them; may be NULL */
    const char *text_path;     /* the file that they are from, which is then refused as the output; may be NULL */
    int32_t max_tokens;        /* tokens that are scored at most; 0: 4096 */
    int32_t window;            /* tokens read together; 0: 256, or the model's context if that is shorter */
    double max_loss;           /* percent of perplexity that may be lost; 0: 2 (Q8, INT8), 10 (Q4); negative: any */
    double max_kl;             /* nats of divergence in the mean that are allowed; 0: 0.1 (Q8, INT8), 0.5 (Q4); negative: any */
    double min_agreement;      /* share of tokens whose first choice must stay; 0: 0.8 (Q8, INT8), 0.6 (Q4); negative: none */
    double max_changed;        /* percent of the labelled texts whose label may change; 0: 5 (Q8, INT8), 15 (Q4); negative: any */
    const char *const *labels; /* also label every text with both models, as sill_classify does */
    size_t n_labels;
    const char *prompt;        /* for the labels; NULL: sill_classify's */
    const char *device;        /* as in sill_model_options */
    int32_t n_threads;
    uint64_t memory_limit_bytes; /* for a model, its session and the logits of two windows; 0: what the system says is free */
    const char *commit;        /* of the program, for the certificate; may be NULL */
    /* Called now and then with what is being done and how much of it is; non-zero cancels. May be NULL. */
    int (*progress)(void *user, const char *stage, double share);
    void *user;
} sill_quantize_options;

/* What the tokens that were scored can say of the loss, and the texts that were labelled of the labels. LOW: what was seen is
 * within max_loss (max_changed), but its interval is not, or fewer than 100 tokens were scored, too few to trust the standard
 * error (fewer than 30 texts labelled). NONE: the interval is so wide that the limit would not even be told from no loss at
 * all, so nothing is certified; of max_changed 5 (15) with fewer than 73 (22) texts. */
typedef enum sill_certainty { SILL_CERTAINTY_HIGH = 0, SILL_CERTAINTY_LOW, SILL_CERTAINTY_NONE } sill_certainty;

/* What was lost. Standard errors (_se) take tokens as independent. Before: computed with SILL_DTYPE_F32; after: as the
 * output is computed by default. */
typedef struct sill_certificate {
    uint64_t n_texts, n_windows, n_tokens; /* read; windows; tokens scored, each given those before it in its window */
    int32_t window;
    double perplexity_before, perplexity_before_se, perplexity_after, perplexity_after_se;
    double loss_percent, loss_percent_se;  /* of perplexity; the error is that of the paired difference */
    double loss_percent_low, loss_percent_high; /* its 95 % interval: Student's t for n_tokens - 1, so wide for few tokens */
    int32_t certainty;                     /* sill_certainty: the lower of those of the loss and of the labels */
    int32_t certainty_of_loss, certainty_of_labels; /* HIGH where there were none to compare */
    double kl_mean, kl_mean_se, kl_p99, kl_max; /* Kullback-Leibler divergence of after from before, nats, whole vocabulary */
    double top1_agreement;                 /* share of tokens for which both find the same token most probable */
    uint64_t n_rows, n_rows_failed;        /* labelled before, so compared; not labelled before */
    uint64_t n_changed, n_rows_lost;       /* of the compared: another label or none after; none after */
    double changed_percent;                /* n_changed of n_rows; NAN without rows */
    double changed_percent_low, changed_percent_high; /* its 95 % interval (Wilson's) */
    double alpha;                          /* Krippendorff's, nominal, of rows that both label; NAN without such */
    double max_loss, max_kl, min_agreement, max_changed; /* the thresholds; INFINITY, INFINITY, 0, INFINITY: none */
    int32_t passed, forced;
    uint64_t bytes_before, bytes_after;    /* of the files of weights */
    char before_dtype[16], after_dtype[16];
    char before_sha256[65], after_sha256[65], text_sha256[65]; /* shards, one behind the other; texts: of one its bytes, of several
                                  each one's length (8 bytes, the lowest first) and bytes */
} sill_certificate;

/* Writes the model PATH (a floating-point checkpoint, or a GGUF) with smaller weights to OUT, a file or, for INT8, a
 * directory; measures what was lost on the texts, and writes OUT.certificate.json beside it. Where more was lost than
 * max_loss, max_kl, min_agreement or max_changed allow, where too few tokens were scored or texts labelled to tell (certainty
 * NONE), where the smaller model cannot label a row that the original labels, or where nothing could be compared:
 * ERANGE, *certificate is filled, and OUT is not there, unless forced. With too few texts to label for any outcome to pass
 * (certainty NONE) it is ERANGE before anything is written, and nothing is measured, unless forced. OUT appears when it is whole; until then it is
 * OUT.partial, locked (flock), and a directory that it replaces is OUT.old for a moment. Where only that last step fails
 * OUT.partial is kept, else nothing is. The same input gives the same bytes. CERTIFICATE may be NULL. Errors: EINVAL (OUT
 * exists, is being written by another run, is the working directory, or is what is read), EFORMAT (also a weight that is not
 * finite), EUNSUPPORTED (also a model without a tokenizer, one of LLM.int8, one that does not get smaller), EIO, ENOMEM, ENOFIT,
 * ECANCELLED. */
SILL_USE_RESULT SILL_API sill_status sill_quantize(const char *path, const char *out, const sill_quantize_options *options,
                                                   sill_certificate *certificate, sill_error *err);

typedef struct sill_convert_options {
    size_t size;
    int32_t overwrite;         /* as in sill_quantize_options */
    const char *tokenizer;     /* as in sill_model_options */
} sill_convert_options;

/* Writes the model at PATH (whatever sill_model_load takes) to OUT in another format, its weights in the types they are stored in: a
 * GGUF where OUT ends in .gguf, with the tokenizer in it; the weights alone where it ends in .safetensors; else a directory as
 * transformers has it, with config.json and the tokenizer's files. OUT gets its name when it is whole.
 * Errors: EINVAL (OUT exists, or is being read), EUNSUPPORTED (what the format cannot hold; safetensors from a GGUF), those of
 * sill_model_load, EIO. */
SILL_USE_RESULT SILL_API sill_status sill_convert(const char *path, const char *out, const sill_convert_options *options,
                                                  sill_error *err);

/* ------------------------------------------------------------------- check */

typedef struct sill_check_options {
    size_t size;
    const char *device;    /* "cpu": every instruction set of this machine (SILL_CPU_ISA: that one alone), the large cases on
                              the one that is taken; "metal", ...; NULL or "all": all devices that open */
    const char *model;     /* this model too, on a short text: the slow part for a large one; NULL: none */
    int32_t quick;         /* 1: operations only, each type once or twice; before the first use of a GPU those that the model takes */
    int32_t n_threads;     /* as in sill_model_options */
    int (*progress)(void *user, double share); /* non-zero cancels; may be NULL */
    void *user;
    int32_t full;          /* 1: the large cases on the other sets too, but for code that sets share */
} sill_check_options;

/* Whether this machine computes what it should: every operation with every type of weights and of KV cache over odd shapes,
 * and the logits of small models, against the scalar reference; and the same bits for rows alone, in company, in pieces,
 * with one thread. *json is a report (free with sill_free): for each device each check with its cases, its worst error and
 * bound. *passed: 1 when all devices that were checked pass. What is found is kept in the cache directory, and "auto" takes
 * no GPU that failed. Errors: EINVAL, EUNSUPPORTED (no such device, or it does not open), ENOMEM, ECANCELLED, and those of
 * sill_model_load; a device that computes wrong is no error, but *passed = 0. */
SILL_USE_RESULT SILL_API sill_status sill_check(const sill_check_options *options, char **json, int32_t *passed, sill_error *err);

/* --------------------------------------------------------------- agreement */

/* Levels of measurement: what the distance between two labels is. */
typedef enum sill_level {
    SILL_LEVEL_NOMINAL = 0, /* same or not */
    SILL_LEVEL_ORDINAL,     /* their order: label 0 is the lowest */
    SILL_LEVEL_INTERVAL,    /* the difference of their values */
    SILL_LEVEL_RATIO        /* the same, relative to their sum: values from 0 */
} sill_level;

typedef struct sill_agree_options {
    size_t size;
    sill_level level;
    const double *values;   /* (n_labels) of the labels, ascending, for interval and ratio; NULL: 0, 1, 2, ... */
    int32_t n_bootstrap;    /* resamples of the units for intervals; 0: 1000, negative: none */
    uint64_t seed;          /* of the resamples */
    double confidence;      /* of the intervals; 0: 0.95 */
    int32_t n_threads;      /* results do not depend on it; 0: all cores */
} sill_agree_options;

/* A statistic and its percentile interval. NAN: undefined (no unit with two labels, one label only), or no interval. */
typedef struct sill_estimate { double value, low, high; } sill_estimate;

typedef struct sill_agreement {
    uint64_t n_units, n_values; /* units with at least two labels, and their labels */
    sill_estimate percent;  /* mean over units of the share of its pairs of labels that agree */
    sill_estimate kappa;    /* Cohen's (1960); of more than two coders the mean over pairs; nominal */
    sill_estimate weighted; /* the same with quadratic weights (Cohen 1968), by values, or by order where those are NULL */
    sill_estimate fleiss;   /* Fleiss' kappa (1971), over units that all coders labelled */
    sill_estimate alpha;    /* Krippendorff's (2011), at the level of the options */
} sill_agreement;

/* How far N_CODERS (2 and more) agree on N_UNITS. CODES (n_coders, n_units), row-major: labels 0 .. n_labels - 1, -1 where a
 * coder gave none. Intervals resample units. Errors: EINVAL, ERANGE (a code, a value, an option), ENOMEM. */
SILL_USE_RESULT SILL_API sill_status sill_agree(const int32_t *codes, size_t n_coders, size_t n_units, size_t n_labels,
                                                const sill_agree_options *options, sill_agreement *out, sill_error *err);

/* ----------------------------------------------------------------- inspect */

/* A description of a model file as JSON text (family, shapes, tensors, tokenizer, metadata), headers
 * only. Free *json with sill_free. */
SILL_USE_RESULT SILL_API sill_status sill_inspect(const char *path, char **json, sill_error *err);

#ifdef __cplusplus
}
#endif
#endif
