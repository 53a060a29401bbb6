#!/usr/bin/env bash
# Installs what is missing, builds `flux` and `wan`, draws a picture and a video with the demo weights and prints a table
# of latencies and bytes: on the GPU where there is one and nvcc 12.5 or later to build for it, else on the CPU.
# EBB_PRESET=cuda or EBB_PRESET=release chooses.
#
#   examples/quickstart.sh ["a prompt" ["a prompt for the video"]]
#
# examples/models/README.md and wan.md say which words the demo weights know. OUTPUT, STRIP and VIDEO name other files than
# picture.png, strip.png (the video's frames) and video.mp4 of the repository.
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck source=cmake/packages.sh
source "$root/cmake/packages.sh"

prompt=${1:-a large red heart left of a small black crescent and above a striped green star on a dotted blue background}
output=$(ebb_absolute "${OUTPUT:-$root/picture.png}")
video_prompt=${2:-a red ball bounces on a striped blue floor}
strip=$(ebb_absolute "${STRIP:-$root/strip.png}")
video=$(ebb_absolute "${VIDEO:-$root/video.mp4}")
picture=(--model examples/models/demo --prompt "$prompt" --height 128 --width 128 --max-sequence-length 40)
moving=(--model examples/models/demo_wan --prompt "$video_prompt" --height 96 --width 96 --num-frames 17 --steps 20
  --guidance 3 --fps 8)

cd "$root"
ebb_install_packages
preset=$(ebb_preset)
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)" --target flux wan contact_sheet

programs=build/$preset/examples
"$programs/flux" "${picture[@]}" --output "$output"
"$programs/flux" "${picture[@]}" --compare --quiet

frames=$(mktemp -d)
trap 'rm -rf "$frames"' EXIT
"$programs/wan" "${moving[@]}" --output "$video"
"$programs/wan" "${moving[@]}" --quiet --output "$frames/"
"$programs/contact_sheet" --columns 9 --output "$strip" "$frames"/*.png
echo "The picture is in $output, the video in $video, its frames are in $strip"
