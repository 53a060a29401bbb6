#!/usr/bin/env bash
# Installs what is missing, builds `flux`, draws a picture with the demo weights and prints a table of latencies and
# bytes: on the GPU where there is one and nvcc to build for it, else on the CPU.
#
#   examples/quickstart.sh ["a prompt"]
#
# examples/models/README.md says which words the demo weights know. OUTPUT names another file than picture.png.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=cmake/packages.sh
source cmake/packages.sh

prompt=${1:-a large red heart left of a small black crescent and above a striped green star on a dotted blue background}
output=${OUTPUT:-picture.png}
picture=(--model examples/models/demo --prompt "$prompt" --height 128 --width 128 --max-sequence-length 40)

ebb_install_packages
preset=$(ebb_preset)
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)" --target flux

flux=build/$preset/examples/flux
"$flux" "${picture[@]}" --output "$output"
"$flux" "${picture[@]}" --compare --quiet
echo "The picture is in $output"
