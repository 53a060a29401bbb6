#!/usr/bin/env bash
# FLUX.1-dev or Wan 2.1 14B at its real size, ebb and diffusers on the same random weights, one after the other on one GPU:
# every number of bench/results/h200_flux.md and h200_wan.md. Needs a GPU of 80 GB or more, what flux.py and wan.py need, and
# 70 GB of disk (flux: 40).
#
#   bench/end_to_end/rows.sh flux|wan DIRECTORY      DIRECTORY gets the weights, unless they are there, and the outputs
#
# PROGRAMS names another directory of flux and wan than build/cuda/examples, ROWS other rows of diffusers ("" for none).
# Prints logs as they come and keeps them in DIRECTORY/logs. Ends with status 1 when two offload policies differ in a bit.
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")

model=${1:?flux or wan} directory=$(realpath -m -- "${2:?a directory}")
programs=$(realpath -m -- "${PROGRAMS:-$root/build/cuda/examples}")
cd "$root"
logs=$directory/logs
mkdir -p "$logs"

# log <name> <command>...: runs it, prints what it prints and how long it took.
log() {
  local name=$1
  shift
  echo "== $name"
  { time "$@"; } 2>&1 | tee "$logs/$name.txt"
}
peer() { python3 "bench/end_to_end/$model.py" "$@"; }

common=(--model "$directory" --latents "$directory/inputs.safetensors" --device cuda --quiet)
given=(--prompt-embeds "$directory/inputs.safetensors")
case $model in
  flux)
    common+=(--quantize "transformer=nf4,text_encoder_2=nf4")
    [ -e "$directory/inputs.safetensors" ] || log make peer make "$directory" examples/models/demo
    policies=(none model block leaf budget:6G)
    steps=(--steps 28)
    one=(--steps 1)
    file=png
    rows=${ROWS-eager compile model-offload group-offload}
    ;;
  wan)
    common+=(--quantize "transformer=nf4,text_encoder=nf4")
    [ -e "$directory/inputs.safetensors" ] || log make peer make "$directory" examples/models/demo_wan/tokenizer
    policies=(none leaf)
    steps=(--steps 3)
    one=(--steps 1 --guidance 1)
    file=y4m
    rows=${ROWS-eager group-offload}
    ;;
  *)
    echo "$model: expected flux or wan" >&2
    exit 1
    ;;
esac

# ebb <name> <argument>...: a run with its report, $name.FILE and $name.safetensors in the directory.
ebb() {
  local name=$1
  shift
  log "$name" "$programs/$model" "${common[@]}" "${given[@]}" "$@" --output "$directory/$name.$file" \
    --output-latents "$directory/$name.safetensors" --report "$logs/$name.json"
  cat "$logs/$name.json"
}

different=0
for policy in "${policies[@]}"; do
  name=${policy%%:*}
  ebb "$name" "${steps[@]}" --offload "$policy"
  cmp "$directory/none.safetensors" "$directory/$name.safetensors" || different=1
  cmp "$directory/none.$file" "$directory/$name.$file" || different=1
  [ "$name" = none ] || rm "$directory/$name.$file"
done
if [ "$model" = flux ]; then
  log compare "$programs/flux" "${common[@]}" "${given[@]}" "${steps[@]}" --compare
else
  ebb tiled "${one[@]}" --vae-tiling
  ebb tiled-leaf "${one[@]}" --vae-tiling --offload leaf
  cmp "$directory/tiled.$file" "$directory/tiled-leaf.$file" || different=1
  log vae peer vae "$directory" whole tiled
fi
ebb one "${one[@]}"
given=(--prompt "a large red heart above a striped green star on a dotted blue background") # reads the text encoders too
ebb text "${one[@]}" --offload leaf
log forward peer forward "$directory"
log error peer error "$directory" "$directory/one.safetensors"
# shellcheck disable=SC2086 # several rows
[ -z "$rows" ] || log rows peer rows "$directory" $rows
[ "$different" -eq 0 ] || { echo "policies differ"; exit 1; }
