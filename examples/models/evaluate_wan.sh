#!/usr/bin/env bash
# Prints how many held-out prompts Wan's demo weights show right, as a Markdown table.
#
#   examples/models/evaluate_wan.sh            the weights in examples/models/demo_wan, which are NF4: that line alone
#   examples/models/evaluate_wan.sh PIPELINE   bf16 and NF4, from the directory that `train_wan.py export` wrote
#                                              (build/demo-wan/pipeline)
#
# PROMPTS=10 takes the first ten of moving_held_out.txt; OUTPUT names another directory than build/demo-wan/score for the
# frames and for what the judge says of each video (FORMAT/NUMBER.json).
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=cmake/packages.sh
source "$root/cmake/packages.sh"

output=$(ebb_absolute "${OUTPUT:-$root/build/demo-wan/score}")
if [ $# -gt 0 ]; then
  pipeline=$(ebb_absolute "$1")
fi
cd "$root"
mapfile -t -n "${PROMPTS:-0}" prompts <examples/models/moving_held_out.txt

ebb_install_packages
preset=$(ebb_preset)
{
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$(nproc)" --target wan judge
} >&2
programs=build/$preset

printf '| | right | exact |\n|---|---|---|\n'
# row <folder> <label> <argument of wan>...
row() {
  local folder=$output/$1 label=$2 arguments=() prompt number right=0 exact=0
  shift 2
  for prompt in "${prompts[@]}"; do
    arguments+=(--prompt "$prompt")
  done
  rm -rf "$folder"
  mkdir -p "$folder"
  "$programs/examples/wan" "$@" "${arguments[@]}" --height 96 --width 96 --num-frames 17 --steps 20 --guidance 3 \
    --fps 8 --output "$folder/video.y4m" --report "$folder/report.json"
  if [ ${#prompts[@]} -eq 1 ]; then # a single video has no number in its name
    mv "$folder/video.y4m" "$folder/video-0.y4m"
  fi
  for number in "${!prompts[@]}"; do
    if "$programs/tests/judge" "$folder/video-$number.y4m" --prompt "${prompts[number]}" >"$folder/$number.json"; then
      right=$((right + 1))
    fi
    exact=$((exact + $(grep -c '"exact": true' "$folder/$number.json" || true)))
  done
  printf '| %s | %s of %s | %s |\n' "$label" "$right" "${#prompts[@]}" "$exact"
}

if [ $# -eq 0 ]; then
  row shipped "NF4, as shipped" --model examples/models/demo_wan
  exit
fi
row bf16 bf16 --model "$pipeline"
row nf4 NF4 --model "$pipeline" --quantize transformer=nf4,text_encoder=nf4
