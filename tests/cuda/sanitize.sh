#!/usr/bin/env bash
# Runs the CUDA tests under compute-sanitizer, each tool over each test case by itself, and prints a line for each pair.
#
#   tests/cuda/sanitize.sh [TEST_CUDA]      the program (build/cuda/tests/cuda/test_cuda)
#
# TOOLS and FILES choose among them, JOBS run side by side (4), LIMIT is the most seconds of one (1800), EBB_PERCENT how
# much is done of what a test repeats (5). Logs are left in build/sanitize. Ends with status 1 when a tool found something
# or a test failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

program=$(realpath "${1:-build/cuda/tests/cuda/test_cuda}")
read -ra tools <<<"${TOOLS:-racecheck memcheck initcheck synccheck}"
if [ -n "${FILES:-}" ]; then
  read -ra files <<<"$FILES"
else
  mapfile -t files < <(cd tests/cuda && printf '%s\n' *.cu *.cpp | sed 's/\..*//')
fi
export program logs=build/sanitize limit=${LIMIT:-1800} EBB_PERCENT=${EBB_PERCENT:-5}
mkdir -p "$logs"

# cases <file>: how many test cases it has.
cases() {
  "$program" --source-file="*/tests/cuda/$1.*" --count --no-colors | sed -n 's/.*passing the current filters: //p'
}

# one <tool> <file> <number of the case>
one() {
  local tool=$1 file=$2 number=$3 begin=$SECONDS status=0
  local log=$logs/$tool-$file-$number.log
  local options=(--tool "$tool" --error-exitcode 9)
  options+=(--report-api-errors no --require-cuda-init no) # some tests provoke errors, some need no GPU
  case $tool in
    initcheck) options+=(--nvtx yes) ;;      # for mark_initialized
    racecheck)
      options+=(--print-limit 0)                 # reports of cuBLASLt, see below, must not hide others
      options+=(--force-synchronization-limit 4) # or it keeps what all launches did: 174 GB for program
      options+=(--racecheck-num-workers 2)       # of the host for each of JOBS; it would take all cores for each
      ;;
    synccheck) options+=(--kernel-name-exclude "kns=cublas,kns=nvjet,kns=cutlass") ;; # what happens in them is not ours
  esac
  timeout "$limit" compute-sanitizer "${options[@]}" \
    "$program" --source-file="*/tests/cuda/$file.*" --first="$number" --last="$number" >"$log" 2>&1 || status=$?
  local summary
  summary=$(grep -h 'SUMMARY' "$log" | tail -1 | sed 's/^=* *//' || true)
  # Racecheck cannot leave cuBLASLt's kernels out (they then end with an illegal address, CUDA 13.0), nor does it follow
  # what orders their accesses.
  if [ "$tool" = racecheck ] && [ "$status" -eq 9 ] && grep -q 'Status: SUCCESS' "$log" &&
    grep -q 'access at ' "$log" && ! grep 'access at ' "$log" | grep -qvE 'access at (void )?(nvjet|cutlass|cublas)'; then
    status=0
    summary+=', all inside of kernels of cuBLASLt'
  fi
  # Initcheck keeps device memory for each allocation, so that the test finds less of it free than it expects.
  if [ "$tool" = initcheck ] && [ "$file" = memory ] && [ "$status" -eq 1 ] && grep -q 'SUMMARY: 0 errors' "$log"; then
    status=0
    summary+=', the test itself cannot pass'
  fi
  printf '%-10s %-12s %3d  status %3d, %4d s, %s\n' "$tool" "$file" "$number" "$status" $((SECONDS - begin)) \
    "$summary"
  [ "$status" -eq 0 ]
}
export -f one

# each <how many side by side> <file>...: every tool over every case of these files.
each() {
  local jobs=$1 file tool number runs=()
  local -A count
  shift
  for file; do
    count[$file]=$(cases "$file")
    if [ "${count[$file]}" -eq 0 ]; then
      echo "$file: no test case of $program is in such a file" >&2
      return 1
    fi
  done
  for tool in "${tools[@]}"; do
    for file; do
      for ((number = 1; number <= count[$file]; ++number)); do
        runs+=("$tool $file $number")
      done
    done
  done
  # shellcheck disable=SC2016 # the inner shell expands it
  printf '%s\n' "${runs[@]}" | xargs -r -P "$jobs" -L 1 bash -c 'one "$0" "$1" "$2"'
}

shared=() alone=()
for file in "${files[@]}"; do
  case $file in
    memory) alone+=("$file") ;; # takes all memory of the GPU
    *) shared+=("$file") ;;
  esac
done
status=0
[ ${#shared[@]} -eq 0 ] || each "${JOBS:-4}" "${shared[@]}" || status=1
[ ${#alone[@]} -eq 0 ] || each 1 "${alone[@]}" || status=1
[ "$status" -eq 0 ]
