#!/usr/bin/env bash
# Writes the weights that the repository ships: text encoders and transformer in NF4 as bitsandbytes lays it out (T5's
# `wo` and what is no linear stay bf16), the VAE as it is. diffusers and flux read them.
#
#   examples/models/ship.sh [PIPELINE [OUTPUT]]
#
# PIPELINE is what `train.py export` wrote (build/demo/pipeline), OUTPUT is replaced (examples/models/demo). Nothing is
# when the files would be too large for git: 16 MB in all, 10 MB each.
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=cmake/packages.sh
source "$root/cmake/packages.sh"

pipeline=$(ebb_absolute "${1:-$root/build/demo/pipeline}")
output=$(ebb_absolute "${2:-$root/examples/models/demo}")
output=${output%/}
cd "$root"
if [ -e "$output" ] && [ ! -e "$output/model_index.json" ]; then
  echo "$output is there and no pipeline: it will not be replaced" >&2
  exit 1
fi

ebb_install_packages
preset=$(ebb_preset)
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)" --target quantize

partial=$output.partial
rm -rf "$partial"
trap 'rm -rf "$partial"' EXIT
"build/$preset/examples/quantize" --model "$pipeline" --output "$partial" --quantize nf4 --max-shard-size 8M --quiet

find "$partial" -type f -printf '%10s  %P\n' | sort -k 2
largest=$(find "$partial" -type f -printf '%s\n' | sort -n | tail -1)
total=$(find "$partial" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
echo "$total bytes in all"
if [ "$total" -gt 16000000 ] || [ "$largest" -gt 10000000 ]; then
  echo "That is too large: expected at most 16000000 bytes, at most 10000000 in a file" >&2
  exit 1
fi
rm -rf "$output"
mv "$partial" "$output"
