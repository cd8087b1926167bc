#!/usr/bin/env bash
# What voc-finetune reaches on somebody's own boxes, and what each of its departures from the paper brings.
#
#   benchmarks/own_boxes.sh changes DATA WEIGHTS [SETTING...]   as it is, and with one departure undone in each run,
#                                                               tested on a quarter of the images to learn from
#   benchmarks/own_boxes.sh scratch DATA NETWORK [SETTING...]   the same detector from random weights, on that quarter
#   benchmarks/own_boxes.sh seeds DATA WEIGHTS [SETTING...]     as it is, several seeds, on the images to test on; then
#                                                               refinement, several scales, and the seeds together
#
# DATA is a folder in VOC's layout, WEIGHTS a classifier's folder, NETWORK a name as resnet18, a SETTING what --set
# takes, as data.shorter_side=400. What is given again goes on, and leaves alone what is complete.
#   OUT=DIR         where the runs are kept (runs/own-boxes/DATA's name)
#   SEEDS=N         how many (3)
#   SCALES=N,N,...  shorter sides of multi-scale testing (those of voc-finetune's training: 0.8, 1 and 4/3 times
#                   data.shorter_side, which is 600 if no SETTING says otherwise)
#   PYTHON=FILE     a Python that has residual (.venv/bin/python where there is one, else python3)
set -euo pipefail
usage() {
    sed -n "2,/^set/{/^#/s/^# \\{0,1\\}//p}" "$0"
    exit 2
}
case "${1:-}" in changes | scratch | seeds) [ $# -ge 3 ] || usage ;; *) usage ;; esac
part="$1" data="$2" weights="$3"
shift 3
SETTINGS=()
for setting in "$@"; do SETTINGS+=(--set "$setting"); done
ROOT="$(cd "$(dirname "$0")/.." && pwd)"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$ROOT/.venv/bin/python" ] && PYTHON="$ROOT/.venv/bin/python"
fi
OUT="${OUT:-runs/own-boxes/$(basename "$(realpath "$data")")}"
residual() { "$PYTHON" -m residual "$@"; }

# train NAME ARGUMENT...: one run, begun or gone on with; its settings come after those of the command line.
train() {
    local run="$OUT/$1"
    shift
    [ -e "$run/results.json" ] && return
    if [ -e "$run/recipe.yaml" ]; then
        residual detect train --resume --out "$run"
    else
        residual detect train voc-finetune --data-dir "$data" "${SETTINGS[@]}" "$@" --out "$run"
    fi
}

CHOOSING=(--set data.validation=0.25)
# As the paper's recipes for VOC have it: anchors of 128, 256 and 512 pixels, none across the edge in training and no
# proposal under 16; RoI pooling; one scale; no warm-up.
ANCHORS=(--set 'detector.anchor_sizes=[128,256,512]' --set detector.min_size=16
    --set detector.ignore_cross_boundary_anchors=true)
POOLING=(--set detector.pooling=pool)
SCALE=(--set 'data.scale_range=[1,1]')
WARMUP=(--set schedule.warmup=null)

case "$part" in
changes)
    start=("${CHOOSING[@]}" --weights "$weights")
    train changes/as-it-is "${start[@]}"
    train changes/large-anchors "${start[@]}" "${ANCHORS[@]}"
    train changes/roi-pooling "${start[@]}" "${POOLING[@]}"
    train changes/one-scale "${start[@]}" "${SCALE[@]}"
    train changes/no-warmup "${start[@]}" "${WARMUP[@]}"
    train changes/none-of-them "${start[@]}" "${ANCHORS[@]}" "${POOLING[@]}" "${SCALE[@]}" "${WARMUP[@]}"
    ;;
scratch)
    train changes/from-scratch "${CHOOSING[@]}" --set "detector.backbone.name=$weights" --set detector.freeze=0
    ;;
seeds)
    runs=()
    for ((seed = 0; seed < ${SEEDS:-3}; seed++)); do
        train "seeds/seed$seed" --weights "$weights" --set "seed=$seed"
        runs+=("$OUT/seeds/seed$seed")
    done
    # evaluate NAME ARGUMENT...
    evaluate() {
        local file="$OUT/seeds/$1.json"
        shift
        [ -e "$file" ] && return
        residual detect evaluate "$@" --data-dir "$data" --json >"$file.part" && mv "$file.part" "$file"
    }
    side=600
    for setting in "${SETTINGS[@]}"; do [[ "$setting" != data.shorter_side=* ]] || side="${setting#*=}"; done
    scales="${SCALES:-$((side * 4 / 5)),$side,$((side * 4 / 3))}"
    evaluate plain "${runs[0]}"
    evaluate refine "${runs[0]}" --refine
    evaluate scales "${runs[0]}" --scales "$scales"
    evaluate refine-scales "${runs[0]}" --refine --scales "$scales"
    [ "${#runs[@]}" -lt 2 ] || evaluate ensemble "${runs[@]}"
    ;;
esac
complete=()
for run in "$OUT/${part/scratch/changes}"/*/; do [ -e "$run/results.json" ] && complete+=("${run%/}"); done
page="$OUT/${part/scratch/changes}.html"
[ "${#complete[@]}" -lt 2 ] || { rm -f "$page" && residual compare "${complete[@]}" --out "$page"; }
