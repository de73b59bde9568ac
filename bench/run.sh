#!/usr/bin/env bash
# make bench: models with random weights, then the comparisons; the tables of docs/SPEED.md come from here.
# Everything after -- goes to bench/decode.py. PYTHON names an interpreter that has the peers (build/venv/bin/python).
set -eu
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}" "${PYTHON:=build/venv/bin/python}" "${MODELS:=build/bench-models}" "${SHAPE:=small}"
[ "${1:-}" != -- ] || shift
PYTHONPATH=bench/peers "$PYTHON" bench/peers/models.py "$MODELS" "$SHAPE"
"$PYTHON" bench/decode.py --build "$BUILD" --models "$MODELS" --shape "$SHAPE" "$@"
"$PYTHON" bench/start.py --sill "$BUILD/sill" --peer
