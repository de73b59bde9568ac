#!/usr/bin/env bash
# Builds the fuzzers of the parsers with clang and runs each for a number of seconds.
#
#   tests/fuzz/run.sh [SECONDS [NAME...]]      default 20 seconds, all of them
#
# Prints PASS, FAIL or SKIP for each and ends with status 1 when one failed. What was found interesting
# stays in $FUZZ_DIR (default build/fuzz), inputs that failed in $FUZZ_DIR/NAME-*.
set -u
cd "$(dirname "$0")/../.."
seconds=${1:-20}
[ $# -gt 0 ] && shift
all=(json safetensors gguf torch pickle llmc tensorflow csv jsonl codebook tokenizer tokenize)
names=("${@:-${all[@]}}")
: "${FUZZ_DIR:=build/fuzz}" "${FUZZ_CC:=clang}"
mkdir -p "$FUZZ_DIR"
flags=(-std=c11 -D_GNU_SOURCE -D_DARWIN_C_SOURCE -DSILL_DEBUG -O1 -g -ffp-contract=off -Iinclude -Isrc
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)
if ! echo 'int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { (void)p; (void)n; return 0; }' |
    "$FUZZ_CC" -fsanitize=fuzzer,address -x c - -o "$FUZZ_DIR/probe" 2>/dev/null; then
    for name in "${names[@]}"; do echo "SKIP fuzz_$name: $FUZZ_CC has no libFuzzer (Debian: libclang-rt-14-dev)"; done
    exit 0
fi

# Seeds: what the fixtures hold, each text of the JSON cases a file of its own.
seed_json() {
    python3 - "$1" <<'PY'
import hashlib, sys
for line in open("tests/fixtures/format/json_cases.txt"):
    if not line.startswith(("#", "-")):
        data = bytes.fromhex(line.split()[0])
        open(sys.argv[1] + "/" + hashlib.sha1(data).hexdigest(), "wb").write(data)
PY
}
seed_safetensors() { cp tests/fixtures/format/tiny.safetensors tests/fixtures/format/sharded/*.safetensors "$1"; }
seed_gguf() { cp tests/fixtures/format/*.gguf "$1"; }
seed_torch() { cp tests/fixtures/model/gpt2-torch-views/pytorch_model.bin "$1"; python3 tests/fuzz/seed_torch.py archives "$1"; }
seed_pickle() { python3 tests/fuzz/seed_torch.py pickles "$1"; }
seed_llmc() { { printf '\377\377'; head -c 1024 tests/fixtures/model/gpt2-llmc/model.bin; } >"$1/v3"; }
seed_tensorflow() { cp tests/fixtures/model/gpt2-tensorflow/model.ckpt.index "$1"; }
# The first byte of a corpus input is options, the rest the file.
seed_csv() {
    printf '\1text,n\n"a ""quoted"", text",1\nplain,2\n' >"$1/options1"
    printf '\2n,text\r\n1,"two\r\nlines"\r\n2,\r\n' >"$1/options2"
}
seed_jsonl() {
    printf '\1{"text":"one","n":1}\n{"n":2,"text":"tw\\u00f6 \\ud83d"}\n' >"$1/options1"
    printf '\2{"text":null,"x":[1,{"y":NaN}]}\n\n{"text":"\\u0000"}' >"$1/options2"
}

seed_codebook() {
    cp tests/fixtures/task/codebooks/*.json "$1"
    printf 'multi_label: no\nlabel a: one\nlabel b\nword a: A\nexample a: x\n  y\nprompt: {text}\n  z\nparaphrase: q\n' >"$1/lines"
}

# Small tokenizers of each kind; the fixtures' own are longer than what is worth mutating.
seed_tokenizer() {
    python3 - "$1" <<'PY'
import json, struct, sys
def part(kind, **more):
    return {"type": kind, **more}
level = part("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
mark = "\u2581"
def tokenizer(pre, model, **more):
    return {"version": "1.0", "added_tokens": [{"id": 9, "content": "<s>", "special": True, "lstrip": False}], "normalizer": None,
            "pre_tokenizer": pre, "post_processor": None, "decoder": None, **more,
            "model": {"type": "BPE", "unk_token": None, "fuse_unk": False, "byte_fallback": False, **model}}
small = {"vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3}, "merges": [["a", "b"]]}
spm = {"byte_fallback": True, "unk_token": "<unk>", "vocab": {"<unk>": 0, "<0x41>": 1, mark: 2, "a": 3, mark + "a": 4}, "merges": [mark + " a"]}
digits = part("Sequence", pretokenizers=[part("Digits", individual_digits=True), level])
begin = part("TemplateProcessing", single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}])
prepend = part("Sequence", normalizers=[part("Prepend", prepend=mark), part("Replace", pattern={"String": " "}, content=mark)])
strip = part("Sequence", decoders=[part("Replace", pattern={"String": mark}, content=" "), part("ByteFallback"), part("Fuse"),
                                   part("Strip", content=" ", start=1, stop=0)])
metaspace = part("Metaspace", replacement=mark, prepend_scheme="first", split=False)
for i, t in enumerate([tokenizer(level, small), tokenizer(digits, small, post_processor=begin),
                       tokenizer(None, spm, normalizer=prepend, decoder=strip), tokenizer(metaspace, spm, decoder=metaspace)]):
    json.dump(t, open(f"{sys.argv[1]}/json{i}", "w"))
open(sys.argv[1] + "/merges", "w").write("#version: 0.2\na b\nab c\n")
def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()
def array(kind, values):
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(string(v) if kind == 8 else struct.pack("<f" if kind == 6 else "<i", v) for v in values)
def gguf(name, pairs):
    body = b"".join(string(k) + v for k, v in pairs)
    open(f"{sys.argv[1]}/{name}", "wb").write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body + bytes(32))
key = "tokenizer.ggml."
def text(s):
    return struct.pack("<I", 8) + string(s)
gguf("gpt2", [(key + "model", text("gpt2")), (key + "pre", text("smollm")), (key + "tokens", array(8, ["a", "b", "ab", "<s>"])),
              (key + "token_type", array(5, [1, 1, 1, 3])), (key + "merges", array(8, ["a b"]))])
gguf("llama", [(key + "model", text("llama")), (key + "tokens", array(8, ["<unk>", "<0x41>", mark, "a", mark + "a"])),
               (key + "token_type", array(5, [2, 6, 1, 1, 1])), (key + "scores", array(6, [0, 0, -1, -2, -3]))])
PY
}
seed_tokenize() {
    for i in 0 1 2 3 4; do
        printf "\\$i"'It'"'"'s  12 \xe6\x97\xa5 \xff<s>aaaaaaa\n\n x' >"$1/text$i"
    done
}

# The parsers, compiled once.
objects=()
for f in src/base/*.c src/format/*.c src/corpus/*.c src/tokenizer/*.c src/task/codebook.c; do
    o=$FUZZ_DIR/$(echo "${f%.c}" | tr / -).o
    objects+=("$o")
    [ "$o" -nt "$f" ] && [ -z "$(find src include -name '*.h' -newer "$o" -print -quit)" ] && continue
    "$FUZZ_CC" "${flags[@]}" -fsanitize=fuzzer-no-link -c "$f" -o "$o" || { echo "FAIL fuzz: $f does not build"; exit 1; }
done

status=0
for name in "${names[@]}"; do
    corpus=$FUZZ_DIR/corpus-$name seeds=$FUZZ_DIR/seeds-$name log=$FUZZ_DIR/$name.log
    mkdir -p "$corpus" "$seeds"
    "seed_$name" "$seeds"
    if ! "$FUZZ_CC" "${flags[@]}" "tests/fuzz/fuzz_$name.c" "${objects[@]}" -lm -lpthread -o "$FUZZ_DIR/fuzz_$name" >"$log" 2>&1; then
        echo "FAIL fuzz_$name: does not build"; cat "$log"; status=1; continue
    fi
    if "$FUZZ_DIR/fuzz_$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$FUZZ_DIR/$name-" "$corpus" "$seeds" >"$log" 2>&1; then
        echo "PASS fuzz_$name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs)"
    else
        echo "FAIL fuzz_$name"; tail -n 60 "$log"; status=1
    fi
done
exit $status
