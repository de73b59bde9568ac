/* plan.c - `sill plan`: what a model will need in memory, told from its headers. */
#include <string.h>

#include "common.h"

typedef struct plan_options { cli_model_options model; bool json; } plan_options;

static void line(const char *name, uint64_t bytes, const char *what) {
    printf("%-12s %10.1f MiB  %s\n", name, (double)bytes / 1048576.0, what);
}

static void print_table(const char *path, const sill_plan_info *p, bool limited) {
    char kv[96], scratch[64];
    snprintf(kv, sizeof kv, "KV cache: contexts of %d tokens", (int)p->n_ctx);
    snprintf(scratch, sizeof scratch, "batches of %d tokens, %d texts in flight", (int)p->batch_tokens, (int)p->max_sequences);
    printf("%s\n", path);
    printf("%-12s %s\n", "device", p->device);
    if (p->passed_over[0]) printf("%-12s %s\n", "passed over", p->passed_over);
    line("weights", p->weight_bytes, "as computed with");
    line("kv", p->kv_bytes, kv);
    line("scratch", p->scratch_bytes, scratch);
    line("total", p->total_bytes, p->fits ? "fits" : "does not fit");
    line("available", p->available_bytes, limited ? "allowed by --memory" : "free now");
    if (p->advice[0]) printf("%s\n", p->advice);
}

static void print_json(const char *path, const sill_plan_info *p) {
    sill__str s;
    sill__str_init(&s, 1 << 20);
    sill__str_puts(&s, "{\"model\":");
    sill__put_json_string(&s, path, strlen(path));
    sill__str_putf(&s, ",\"weight_bytes\":%llu,\"kv_bytes\":%llu,\"scratch_bytes\":%llu,\"total_bytes\":%llu,\"available_bytes\":%llu"
                   ",\"n_ctx\":%d,\"batch_tokens\":%d,\"max_sequences\":%d,\"fits\":%s,\"advice\":",
                   (unsigned long long)p->weight_bytes, (unsigned long long)p->kv_bytes, (unsigned long long)p->scratch_bytes,
                   (unsigned long long)p->total_bytes, (unsigned long long)p->available_bytes, (int)p->n_ctx, (int)p->batch_tokens,
                   (int)p->max_sequences, p->fits ? "true" : "false");
    sill__put_json_string(&s, p->advice, strlen(p->advice));
    sill__str_puts(&s, ",\"device\":");
    sill__put_json_string(&s, p->device, strlen(p->device));
    sill__str_puts(&s, ",\"passed_over\":");
    sill__put_json_string(&s, p->passed_over, strlen(p->passed_over));
    sill__str_puts(&s, "}\n");
    fwrite(s.p ? s.p : "", 1, s.n, stdout);
    sill__str_free(&s);
}

int cli_plan(int argc, char **argv) {
    static plan_options o;
    static const arg_option own[] = {{"json", 0, ARG_FLAG, offsetof(plan_options, json), 0, 0, NULL, NULL, "as JSON"}};
    const arg_command command = {
        "plan", "[MODEL]", "What a model will need in memory with these options, before it is loaded. Ends with status 4 when it would not fit.",
        {{"plan", own, SILL_ARRAY_LEN(own), &o}, cli_model_table(&o.model), cli_general_table()}, NULL, 0, 1};
    char **args, path[1024];
    int n;
    sill_error err = {0};
    sill_model_options mo;
    sill_session_options so;
    sill_plan_info plan = {0};
    int status = args_parse(&command, argc, argv, &args, &n);
    if (status >= 0) return status;
    if (n && o.model.model) return args_usage("plan", "'%s' and -m %s both name a model", args[0], o.model.model);
    if ((status = cli_check_model("plan", &o.model)) >= 0) return status;
    cli_fill_options(&o.model, &mo, &so);
    sill_status s = cli_model_path(n ? args[0] : o.model.model, path, sizeof path, &err);
    if (s == SILL_OK) s = sill_plan(path, &mo, &so, &plan, &err);
    if (s != SILL_OK) return cli_fail_model(&err);
    if (o.json) print_json(path, &plan);
    else print_table(path, &plan, o.model.memory_mib != 0);
    status = cli_flush_stdout();
    return status == EXIT_OK && !plan.fits ? EXIT_NOFIT : status;
}
