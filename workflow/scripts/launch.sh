#!/bin/bash
# launch.sh GPUS ARGUMENT...: `bcd ARGUMENT...` on so many free GPUs, as one process for each of them.
# Slurm has chosen a job's GPUs already. Elsewhere jobs choose among CUDA_VISIBLE_DEVICES, or all, and wait if too few
# are free; the locks that keep jobs apart pass to the training and end with it.
set -euo pipefail
gpus=$1
shift

fail() {
    echo "launch: $1" >&2
    exit 2
}

choose() {
    local gpu fd held=()
    chosen=
    for gpu in "${all[@]}"; do
        exec {fd}>>"$locks$gpu" || fail "$locks$gpu cannot be written; delete it, or set TMPDIR to another folder"
        if [ "${#held[@]}" -lt "$gpus" ] && flock -n "$fd"; then
            held+=("$fd")
            chosen+=${chosen:+,}$gpu
        else
            exec {fd}>&-
        fi
    done
    [ "${#held[@]}" -eq "$gpus" ] && return
    for fd in "${held[@]}"; do exec {fd}>&-; done
    return 1
}

if [ "$gpus" -gt 0 ] && [ -z "${SLURM_JOB_ID:-}" ]; then
    visible=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true)}
    read -r -a all <<<"$(tr ',\n' '  ' <<<"$visible")"
    # A TMPDIR of another machine need not exist here.
    folder=${TMPDIR:-/tmp}
    [ -d "$folder" ] && [ -w "$folder" ] || folder=/tmp
    [ -w "$folder" ] || fail "no folder for the locks that keep jobs apart; set TMPDIR to one that can be written"
    locks=$folder/bcd-gpu-$(id -u)-
    if [ "${#all[@]}" -gt 0 ]; then
        if [ "$gpus" -gt "${#all[@]}" ]; then
            fail "${#all[@]} GPUs here, $gpus are asked for; set runtime.gpus in params/recipes.yaml"
        fi
        until choose; do sleep 1; done
        export CUDA_VISIBLE_DEVICES=$chosen
    fi
fi

# `exec`, so that a scheduler's SIGTERM reaches the training and not a shell in front of it.
if [ "$gpus" -gt 1 ]; then
    exec torchrun --standalone --nproc-per-node "$gpus" -m bcd.cli "$@"
fi
exec bcd "$@"
