#!/usr/bin/env bash
# Installs what is missing, builds `flux`, draws a picture and prints a table of latencies and bytes: on the GPU where
# there is one and nvcc to build for it, else on the CPU.
#
#   examples/quickstart.sh ["a prompt"]
#
# MODEL names another directory of a FluxPipeline, OUTPUT another file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=cmake/packages.sh
source cmake/packages.sh

prompt=${1:-a lighthouse at low tide}
model=${MODEL:-tests/golden/data/pipelines/dev} # small, with random weights: its pictures are noise
output=${OUTPUT:-picture.png}
picture=(--model "$model" --prompt "$prompt" --height 256 --width 256 --steps 8 --quantize nf4)

ebb_install_packages
preset=$(ebb_preset)
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)" --target flux

flux=build/$preset/examples/flux
"$flux" "${picture[@]}" --output "$output"
"$flux" "${picture[@]}" --compare --quiet
echo "The picture is in $output"
