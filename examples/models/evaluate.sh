#!/usr/bin/env bash
# Prints how many held-out prompts the demo weights draw right, as a Markdown table with a line for each number format.
#
#   examples/models/evaluate.sh            the weights in examples/models/demo, which are NF4: that line alone
#   examples/models/evaluate.sh PIPELINE   every format, from the bf16 directory that `train.py export` wrote
#                                          (build/demo/pipeline), and a contact sheet of eight prompts
#
# PROMPTS=10 takes the first ten of held_out.txt; OUTPUT names another directory than build/demo/score for the pictures
# and for what is wrong in them (FORMAT/wrong.txt).
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=cmake/packages.sh
source "$root/cmake/packages.sh"

output=$(ebb_absolute "${OUTPUT:-$root/build/demo/score}")
if [ $# -gt 0 ]; then
  pipeline=$(ebb_absolute "$1")
fi
cd "$root"
mapfile -t -n "${PROMPTS:-0}" prompts <examples/models/held_out.txt

ebb_install_packages
preset=$(ebb_preset)
{
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$(nproc)" --target flux score contact_sheet
} >&2
programs=build/$preset

head=(--head)
# row <folder> <label> <argument of flux>...
row() {
  local folder=$output/$1 label=$2 arguments=() prompt pictures
  shift 2
  for prompt in "${prompts[@]}"; do
    arguments+=(--prompt "$prompt")
  done
  rm -rf "$folder"
  mkdir -p "$folder"
  "$programs/examples/flux" "$@" "${arguments[@]}" --height 128 --width 128 --max-sequence-length 40 --vae-slicing \
    --output "$folder/picture.png" --report "$folder/report.json"
  mapfile -t pictures < <(ls -v "$folder"/*.png)
  "$programs/tests/score" "${head[@]}" --label "$label" "${pictures[@]}" 2>"$folder/wrong.txt"
  head=()
}

# quantized <folder> <label> <format> <argument of flux>...: the components that ship.sh quantizes.
quantized() {
  row "$1" "$2" --model "$pipeline" --quantize "transformer=$3,text_encoder=$3,text_encoder_2=$3" "${@:4}"
}

if [ $# -eq 0 ]; then
  row shipped "NF4, as shipped" --model examples/models/demo
  exit
fi
row bf16 bf16 --model "$pipeline"
quantized nf4 NF4 nf4
quantized nf4_double "NF4, double-quantized" nf4 --double-quant
quantized fp4 FP4 fp4
quantized int8 INT8 int8
quantized fp8 FP8 fp8

# Every twelfth prompt is a column, every format but the last a line.
sheet=()
for folder in bf16 nf4 nf4_double fp4 int8; do
  for ((number = 12; number <= 96 && number <= ${#prompts[@]}; number += 12)); do
    sheet+=("$output/$folder/picture-$((number - 1)).png")
  done
done
if [ ${#sheet[@]} -eq 40 ]; then
  "$programs/examples/contact_sheet" "${sheet[@]}" --width 96 --output "$output/contact_sheet.png"
  echo "The contact sheet is in $output/contact_sheet.png" >&2
fi
