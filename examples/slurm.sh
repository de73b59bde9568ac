#!/bin/bash
# A corpus shared out over a Slurm cluster, a shard a job of an array, and the parts merged when all are done:
#
#   MODEL=./gpt2 IN=texts.csv OUT=labelled.csv SHARDS=8 examples/slurm.sh
#
# A job that is ended early (its time is up, a node fails) is put into the queue again and goes on where it was. Bits are the
# same on nodes of one kind only: on a mixed cluster name one with --constraint in SBATCH_OPTIONS, or set SILL_CPU_ISA=avx2.
set -eu
: "${IN:?the input}" "${OUT:?the output}" "${SHARDS:=8}" "${SILL:=sill}" "${MODEL:=}" "${SBATCH_OPTIONS:=}"
: "${COMMAND:=score $IN --text text}"
part() { # a.csv.gz: a.part00001.csv.gz
    local packed='' name
    case $OUT in *.gz | *.zst) packed=.${OUT##*.} ;; esac
    name=${OUT%"$packed"}
    printf '%s.part%05d.%s%s' "${name%.*}" "$1" "${name##*.}" "$packed"
}

if [ "${1:-}" = shard ]; then
    # Slurm sends SIGTERM before it ends a job; status 5 means: kept, and to be gone on with.
    status=0
    # shellcheck disable=SC2086
    $SILL $COMMAND ${MODEL:+-m "$MODEL"} --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" -o "$(part "$SLURM_ARRAY_TASK_ID")" || status=$?
    if [ "$status" -eq 5 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; fi
    if [ "$status" -eq 3 ]; then status=0; fi # some rows failed: they are listed, and have their error column filled
    exit "$status"
elif [ "${1:-}" = merge ]; then
    parts=()
    for ((i = 1; i <= SHARDS; i++)); do parts+=("$(part "$i")"); done
    exec $SILL merge "${parts[@]}" -o "$OUT"
fi
export IN OUT SHARDS SILL MODEL COMMAND SBATCH_OPTIONS
# shellcheck disable=SC2086
jobs=$(sbatch --parsable --requeue --open-mode=append --array="1-$SHARDS" $SBATCH_OPTIONS "$0" shard)
# shellcheck disable=SC2086
sbatch --dependency="afterok:$jobs" $SBATCH_OPTIONS "$0" merge
