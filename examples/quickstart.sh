#!/usr/bin/env bash
# Installs what is missing, builds `flux`, draws a picture on the CPU and prints a table of latencies and bytes.
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
cmake --preset release
cmake --build --preset release --parallel "$(nproc)" --target flux

flux=build/release/examples/flux
"$flux" "${picture[@]}" --output "$output"
"$flux" "${picture[@]}" --compare --quiet
echo "The picture is in $output"
