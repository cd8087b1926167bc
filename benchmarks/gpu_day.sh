#!/usr/bin/env bash
# All that is to be measured on a GPU, what matters most first, in two parts of some minutes each.
#
#   benchmarks/gpu_day.sh 1      tests marked gpu; our loop beside the usual one, with a profile; detection, testing
#   benchmarks/gpu_day.sh 2      64,000 iterations of ResNet-20, ResNet-56 and plain-20; figures; ResNet-110
#   benchmarks/gpu_day.sh table  what was reached beside what was wanted; each part ends with it too
#
# A part that is given again goes on: runs at their checkpoints, all else where its result is missing. Each step
# has a file NAME.log; after each, what is to be brought home is in gpu-day.tar.gz. Where there is no network,
# have a Python that has all packages, and CIFAR-10 for the second part.
#   OUT=DIR         where everything is kept (runs/gpu-day)
#   DATA_DIR=DIR    where CIFAR-10 lies, or is downloaded to (data)
#   PYTHON=FILE     a Python with PyTorch and what pyproject.toml names (python3, else .venv is made)
#   PRECISION=...   of the runs, as in a recipe (tf32)
#   MINUTES=N       of a part (8)
#   REHEARSE=1      on a CPU, for a few iterations: whether every command is right; numbers mean nothing
set -uo pipefail
case "${1:-}" in 1 | 2 | table) ;; *) sed -n "2,/^set/{/^#/s/^# \\{0,1\\}//p}" "$0"; exit 2 ;; esac
ROOT="$(cd "$(dirname "$0")/.." && pwd)"
cd "$ROOT"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
OUT="${OUT:-runs/gpu-day}"
DATA_DIR="${DATA_DIR:-data}"
PYTHON="${PYTHON:-python3}"
PRECISION="${PRECISION:-tf32}"
# What is ended has 10 seconds to end by itself, and the table comes last.
END=$((SECONDS + 60 * ${MINUTES:-8} - 30))
if ! "$PYTHON" -c "import residual.cli, residual.data.images, torch, torchvision, pytest_timeout, xdist, filelock"; then
    make install PYTHON="$PYTHON" || exit 1
    PYTHON=.venv/bin/python
fi
mkdir -p "$OUT"

if [ -n "${REHEARSE:-}" ]; then
    DEVICE=cpu
    RUNS=(--set data.dataset=digits --set data.pad=0 --set data.flip=false --set batch.size=64
        --set schedule.iterations=4 --set evaluate_every=2 --set schedule.warmup=null)
    TRAIN=(--rounds 1 --iterations 1 --workers 0 --sides ours-tf32,usual)
    COMBO=(--depths 20 --rounds 1 --iterations 1 --workers 0 --sides ours-tf32,ours-combo)
    TESTING=(--images 2 --rounds 1 --model resnet18)
    DETECTION=(--images 1 --passes 1 --rounds 1 --variants v1 --sides torchvision,ours)
else
    DEVICE=cuda
    RUNS=(--data-dir "$DATA_DIR" --set "precision=$PRECISION")
    TRAIN=(--rounds 1 --workers "$(nproc)")
    COMBO=(--depths 20 --rounds 1 --sides ours-tf32,ours-combo)
    TESTING=(--images 200 --rounds 1)
    DETECTION=(--images 4 --passes 10 --rounds 1 --variants v1)
fi
STUDY="$OUT/cifar10-$PRECISION"
FAILED=()

# What is to be brought home: all but checkpoints, which are large, and only for going on here. tar says 1 where a
# file has changed under its hands, as one may that somebody still writes.
pack() {
    local packing
    packing="$(mktemp)"
    tar -czf "$packing" -C "$OUT" --exclude="checkpoint-*" --exclude="gpu-day.tar.gz" . 2>/dev/null
    [ $? -le 1 ] && mv "$packing" "$OUT/gpu-day.tar.gz"
}

# step NAME LEAST MOST COMMAND...: not begun with less than LEAST seconds left, and ended after MOST. One that fails
# does not keep the others from being measured. Its output goes into a file, not through a pipe: what a program has
# left behind could hold that open.
step() {
    local name="$1" least="$2" most="$3" left=$((END - SECONDS)) began=$SECONDS
    shift 3
    if [ "$left" -lt "$least" ]; then
        FAILED+=("$name: no time for it")
        return
    fi
    echo "gpu_day: $name: $*" | tee -a "$OUT/$name.log"
    timeout --signal=TERM --kill-after=10 "$((left < most ? left : most))" "$@" >>"$OUT/$name.log" 2>&1
    local code=$?
    tail -n 12 "$OUT/$name.log"
    echo "gpu_day: $name: $((SECONDS - began)) s"
    [ "$code" -eq 0 ] || FAILED+=("$name: ended with $code; see $OUT/$name.log")
    pack
}

# A benchmark whose result is there is not made again.
benchmark() {
    local name="$1" script="$2"
    shift 2
    [ -e "$OUT/$name.json" ] ||
        step "$name" 40 240 "$PYTHON" "benchmarks/$script" "$@" --device "$DEVICE" --out "$OUT/$name.json"
}

# Training beside the usual loop, with a profile; deeper networks are for a GPU.
train() {
    [ "$DEVICE" = cpu ] && [ "$1" -gt 20 ] ||
        benchmark "train-$1" train_gpu.py --depths "$1" "${TRAIN[@]}" \
            --profile "$OUT/profile-$1-$(date +%s).txt"
}

# reproduce NAME LEAST ARGUMENT...
reproduce() {
    local name="$1" least="$2"
    shift 2
    step "$name" "$least" 3600 "$PYTHON" -m residual reproduce "$@" --out "$STUDY"
}

case "$1" in
1)
    if [ "$DEVICE" = cuda ] &&
        ! tail -n 1 "$OUT/tests.log" 2>/dev/null | grep " passed" | grep -qv "failed\|error"; then
        # Those files alone: to import all the others takes longer than these tests. A process each, side by side:
        # most of the time is the compiler's, and what one of them does to its GPU's state ends no other.
        mapfile -t files < <(grep -rl --include="*.py" "pytest\.mark\.gpu" tests)
        step tests 30 210 "$PYTHON" -m pytest -m gpu -p no:cacheprovider -n "${#files[@]}" --dist loadfile \
            --timeout 150 --tb short --durations 0 "${files[@]}"
    fi
    train 20
    # Where compiling or recording fails on this machine, what is left of the speed without them.
    [ -e "$OUT/train-20.json" ] || benchmark eager train_gpu.py --depths 20 "${TRAIN[@]}" --sides ours-eager,usual
    train 110
    benchmark detection-inference detection.py --tasks inference "${DETECTION[@]}"
    benchmark testing testing.py "${TESTING[@]}"
    train 56
    [ "$DEVICE" = cpu ] || benchmark detection-training detection.py --tasks training "${DETECTION[@]}"
    benchmark combo train_gpu.py "${COMBO[@]}"
    ;;
2)
    reproduce resnet20 30 table6 --depths 20 "${RUNS[@]}" --device "$DEVICE"
    reproduce resnet56 30 table6 --depths 56 "${RUNS[@]}" --device "$DEVICE"
    reproduce figure6 30 figure6 --depths 20 "${RUNS[@]}" --device "$DEVICE"
    for run in "$STUDY"/*/seed0; do
        [ -e "$run/results.json" ] &&
            step "evaluate-$(basename "$(dirname "$run")")" 10 60 \
                "$PYTHON" -m residual evaluate "$run" --device "$DEVICE"
    done
    for experiment in figure1 "figure6 --depths 20 56" "figure7 --depths 20 56 110" "signals --depths 20 56"; do
        # shellcheck disable=SC2086
        reproduce "drawn-${experiment%% *}" 10 $experiment --no-train --device "$DEVICE"
    done
    reproduce drawn-table6 10 table6 --depths 20 56 110 --no-train
    reproduce report 10 report
    # The longest one last: what it leaves is gone on with when this part is given again, and drawn then.
    reproduce resnet110 60 table6 --depths 110 "${RUNS[@]}" --device "$DEVICE"
    ;;
esac
"$PYTHON" benchmarks/gpu_day.py "$OUT" "$STUDY" | tee "$OUT/table.txt"
pack
for failed in "${FAILED[@]}"; do echo "gpu_day: $failed" >&2; done
exit $((${#FAILED[@]} > 0))
