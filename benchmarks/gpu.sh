#!/bin/bash
# gpu.sh FOLDER [--tiny] [PART...]: what a card has to show, in nine minutes of it.
# Each part of benchmarks/gpu.py has a time limit of its own; a part that fails or takes too long does not stop the rest.
# FOLDER gets a PART.jsonl and a PART.log each, and summary.txt: the parts with exit status and seconds.
# --tiny takes small inputs, to try the script on a CPU. PYTHON names the interpreter.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: benchmarks/gpu.sh FOLDER [--tiny] [PART...]" >&2; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
shift
tiny=()
if [ "${1:-}" = --tiny ]; then
    tiny=(--tiny)
    shift
fi
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# part NAME SECONDS: runs it, notes its exit status (124: out of time) and what it took.
part() {
    local name=$1 limit=$2 begin=$SECONDS rc
    [ "${#tiny[@]}" -eq 0 ] || limit=$((limit * 10))
    echo "== $name, at most $limit s"
    timeout -k 10 "$limit" "${PYTHON:-python}" benchmarks/gpu.py "$name" --out "$out" "${tiny[@]}" 2>"$out/$name.log"
    rc=$?
    [ $rc -eq 0 ] || tail -n 5 "$out/$name.log"
    printf '%-12s %4d %6d\n' "$name" $rc $((SECONDS - begin)) >>"$out/summary.txt"
    [ $rc -eq 0 ] || failed=1
}

failed=0
printf '%-12s %4s %6s\n' part rc s >"$out/summary.txt"
# Seconds of each part, in the order of what matters most should the time run out: 540 in all.
while read -r name limit; do
    if [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; then part "$name" "$limit"; fi
done <<'PARTS'
kernels 60
rate 60
terms 75
repeatable 30
step 90
groups 40
smoke 60
training 125
PARTS
echo
cat "$out/summary.txt"
exit $failed
