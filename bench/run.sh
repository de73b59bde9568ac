#!/usr/bin/env bash
# make bench: models with random weights, then the comparisons of docs/SPEED.md. For numbers that are kept, nothing else
# may run on the machine.
#
#   bench/run.sh [TABLE...] [-- OPTIONS OF bench/compare.py]
#
# TABLE is any of: self (sill bench), decode, prefill, classify, start, medium, large, smollm2,
# tokenizer, sentiment, programs; without one: all but medium, large, sentiment and programs.
# decode, prefill: small shape, every type, batches 1, 8, 32. medium, large: both on these shapes (5 and 11 GB of models, more with the converters).
#   BUILD=dir (build/release)  MODELS=dir (build/bench-models)  PYTHON=an interpreter that has the peers (build/venv/bin/python)
#   CONVERT=one that has the converters of CTranslate2 and OpenVINO (build/venv-convert/bin/python)  DATA=dir for tokenizer
#   REVIEWS=reviews.csv for sentiment (bench/quality/corpora.py makes it; options after -- are then those of bench/sentiment.py)
set -eu
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}" "${PYTHON:=build/venv/bin/python}" "${MODELS:=build/bench-models}" "${CONVERT:=build/venv-convert/bin/python}" "${DATA:=}" "${REVIEWS:=}"
tables=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do tables+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ${#tables[@]} -gt 0 ] || tables=(self decode prefill classify start smollm2 tokenizer)

quantized() { # FROM TYPE OUT.gguf: made where it is missing; what it costs is not asked
    [ -e "$3" ] || "$BUILD/sill" quantize "$1" --to "$2" --force --tokens 100 -q -o "$3"
}
models() { # SHAPE OPTIONS
    if [ -x "$CONVERT" ]; then "$PYTHON" bench/peers/models.py "$MODELS" "$@" --convert "$CONVERT"
    else "$PYTHON" bench/peers/models.py "$MODELS" "$@"; fi
    quantized "$MODELS/$1-f32" q4 "$MODELS/$1-q4_1.gguf"
}
compare() { "$PYTHON" bench/compare.py --build "$BUILD" --models "$MODELS" "$@"; }

for table in "${tables[@]}"; do
    echo "== $table"
    case $table in
        self) "$BUILD/sill" bench --reps 5 ;;
        decode) models small && compare --tests decode "$@" ;;
        prefill) models small && compare --tests prefill --rounds 5 "$@" ;;
        classify) models small --head && compare --tests classify --kinds f32,bf16,q8,int8 --rounds 2 "$@" ;;
        start) models small && compare --tests start --kinds f32,bf16,q8,q4,q4_1 --rounds 5 "$@" ;;
        medium | large) models "$table" && compare --shape "$table" --tests decode,prefill --rounds 2 --new 16 "$@" ;;
        smollm2)
            stem="$MODELS/smollm2"
            [ -e "$stem-f32.gguf" ] || "$PYTHON" bench/quality/float_gguf.py "$(tools/fetch_model.sh --path)" "$stem-f32.gguf"
            quantized "$stem-f32.gguf" q8 "$stem-q8.gguf"
            compare --shape smollm2 --tests decode,prefill,start --rounds 5 "$@" ;;
        tokenizer)
            if [ -n "$DATA" ]; then BUILD=$BUILD "$PYTHON" bench/tokenizer.py "$DATA"
            else echo "left out: DATA=dir names the texts (bench/tokenizer.py says which)"; fi ;;
        sentiment)
            [ -n "$REVIEWS" ] || { echo "bench/run.sh: sentiment needs REVIEWS=reviews.csv (bench/quality/corpora.py)" >&2; exit 2; }
            models small --head && "$PYTHON" bench/sentiment.py "$REVIEWS" --build "$BUILD" --models "$MODELS" "$@" ;;
        programs) models small && models medium && models large && "$PYTHON" bench/programs.py --build "$BUILD" --models "$MODELS" "$@" ;;
        *) echo "bench/run.sh: no table '$table'" >&2; exit 2 ;;
    esac
done
