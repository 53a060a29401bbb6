#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests. Needs no GPU; with one, and nvcc, tests it too.
#
#   tests/run.sh                      everything, optimized
#   tests/run.sh --sanitize           tests with AddressSanitizer and UndefinedBehaviorSanitizer
#   tests/run.sh --sanitize=thread    tests of what starts threads with ThreadSanitizer
#   tests/run.sh --preset NAME        a preset of CMakePresets.json
#
# Further arguments go to ctest: tests/run.sh -R format/nf4
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=cmake/packages.sh
source cmake/packages.sh

preset=$(ebb_preset)
ctest_arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --sanitize | --sanitize=address) preset=sanitize ;;
    --sanitize=thread) preset=tsan ;;
    --preset)
      preset=${2:?--preset needs a name}
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) ctest_arguments+=("$1") ;;
  esac
  shift
done

ebb_install_packages
cores=$(nproc)

# Runs a program of one line under a sanitizer, as `$@` start it, and shows what the sanitizer says.
probe() {
  local flag=$1
  shift
  local directory
  directory=$(mktemp -d)
  printf 'int main() {}\n' >"$directory/probe.cpp"
  local status=0
  g++ -fsanitize="$flag" "$directory/probe.cpp" -o "$directory/probe" && "$@" "$directory/probe" 2>&1 || status=$?
  rm -r "$directory"
  return "$status"
}

start=()
case $preset in
  sanitize)
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
    # LeakSanitizer attaches to the process; where something traces it already, or forbids that, it ends the program.
    if ! complaint=$(probe address env) && [[ $complaint == *LeakSanitizer*ptrace* ]]; then
      echo "ptrace is not available: leaks are not looked for"
      export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
    fi
    ;;
  tsan)
    # Older ThreadSanitizers refuse the address layout of kernels that randomize more bits.
    if ! probe thread env >/dev/null; then
      start=(setarch "$(uname -m)" --addr-no-randomize)
    fi
    ;;
esac

cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$cores"
"${start[@]}" ctest --preset "$preset" --parallel "$cores" "${ctest_arguments[@]}"
