#!/usr/bin/env bash
# All that is to be measured on a GPU, in four parts of at most nine minutes each.
#
#   benchmarks/gpu_day.sh 1      tests marked gpu; our loop beside the usual one, with a profile
#   benchmarks/gpu_day.sh 2      64,000 iterations of ResNet-20, plain-20 and ResNet-56; small kernels joined
#   benchmarks/gpu_day.sh 3      64,000 iterations of ResNet-110
#   benchmarks/gpu_day.sh 4      evaluation, detection, figures
#   benchmarks/gpu_day.sh table  what was reached beside what was wanted; each part ends with it too
#
# A part that is given again goes on: runs at their checkpoints, benchmarks where their file is missing.
#   OUT=DIR         where everything is kept (runs/gpu-day)
#   DATA_DIR=DIR    where CIFAR-10 lies, or is downloaded to (data)
#   PYTHON=FILE     a Python with PyTorch and what pyproject.toml names (python3, else .venv is made)
#   PRECISION=...   of the runs, as in a recipe (tf32)
#   MINUTES=N       of a part (9)
#   REHEARSE=1      on a CPU, for a few iterations: whether every command is right; numbers mean nothing
set -uo pipefail
case "${1:-}" in 1 | 2 | 3 | 4 | table) ;; *) sed -n "2,/^set/{/^#/s/^# \\{0,1\\}//p}" "$0"; exit 2 ;; esac
ROOT="$(cd "$(dirname "$0")/.." && pwd)"
cd "$ROOT"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
OUT="${OUT:-runs/gpu-day}"
DATA_DIR="${DATA_DIR:-data}"
PYTHON="${PYTHON:-python3}"
PRECISION="${PRECISION:-tf32}"
END=$((SECONDS + 60 * ${MINUTES:-9} - 10))
if ! "$PYTHON" -c "import residual.cli, torch, torchvision, pytest, filelock" 2>/dev/null; then
    make install PYTHON="$PYTHON" || exit 1
    PYTHON=.venv/bin/python
fi
mkdir -p "$OUT"

if [ -n "${REHEARSE:-}" ]; then
    DEVICE=cpu
    RUNS=(--set data.dataset=digits --set data.pad=0 --set data.flip=false --set batch.size=64
        --set schedule.iterations=4 --set evaluate_every=2)
    TRAIN=(--depths 20 --rounds 1 --iterations 1 --workers 0 --sides ours-tf32,usual)
    COMBO=(--depths 20 --rounds 1 --iterations 1 --workers 0 --sides ours-tf32,ours-combo)
    TESTING=(--images 2 --rounds 1 --model resnet18)
    DETECTION=(--tasks inference --images 1 --passes 1 --rounds 1 --sides torchvision,ours)
else
    DEVICE=cuda
    RUNS=(--data-dir "$DATA_DIR" --set "precision=$PRECISION")
    TRAIN=(--depths 20,56,110 --rounds 1 --workers "$(nproc)")
    COMBO=(--depths 20 --rounds 1 --sides ours-tf32,ours-combo)
    TESTING=(--images 500 --rounds 1)
    DETECTION=(--images 4 --passes 30 --rounds 1)
fi
STUDY="$OUT/cifar10-$PRECISION"

# A step that fails, or that the time is over for, does not keep the others from being measured.
step() {
    local left=$((END - SECONDS))
    if [ "$left" -lt 5 ]; then
        echo "gpu_day: no time for: $*" >&2
        return
    fi
    echo "gpu_day: $*" >&2
    timeout --signal=TERM --kill-after=20 "$left" "$@" || echo "gpu_day: ended with $?: $*" >&2
}

# A benchmark whose result is there is not made again.
benchmark() {
    local name="$1" script="$2"
    shift 2
    [ -e "$OUT/$name.json" ] || step "$PYTHON" "benchmarks/$script" "$@" --device "$DEVICE" --out "$OUT/$name.json"
}

reproduce() {
    step "$PYTHON" -m residual reproduce "$@" --out "$STUDY"
}

table() {
    "$PYTHON" benchmarks/gpu_day.py "$OUT" "$STUDY"
}

case "$1" in
1)
    if [ "$DEVICE" = cuda ]; then
        step "$PYTHON" -m pytest -m gpu -p no:cacheprovider | tee "$OUT/tests.txt"
    fi
    benchmark train train_gpu.py "${TRAIN[@]}" --profile "$OUT/profile-$(date +%s).txt"
    ;;
2)
    reproduce figure6 --depths 20 "${RUNS[@]}" --device "$DEVICE"
    reproduce table6 --depths 56 "${RUNS[@]}" --device "$DEVICE"
    benchmark combo train_gpu.py "${COMBO[@]}"
    ;;
3)
    reproduce table6 --depths 110 "${RUNS[@]}" ${REHEARSE:+--set schedule.warmup=null} --device "$DEVICE"
    ;;
4)
    for run in "$STUDY"/*/seed0; do
        [ -e "$run/results.json" ] && step "$PYTHON" -m residual evaluate "$run" --device "$DEVICE"
    done
    for experiment in figure1 "figure6 --depths 20 56" "figure7 --depths 20 56 110" "signals --depths 20 56"; do
        # shellcheck disable=SC2086
        reproduce $experiment --no-train --device "$DEVICE"
    done
    reproduce table6 --depths 20 56 110 --no-train
    reproduce report
    benchmark detection detection.py "${DETECTION[@]}"
    benchmark testing testing.py "${TESTING[@]}"
    ;;
esac
table
