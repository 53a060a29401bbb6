# Sourced by tests/run.sh, examples/quickstart.sh and .ci/run: what they build with, and how it is installed.
# shellcheck shell=bash

# Debian 12 and Ubuntu 24.04 name them alike. OpenMP comes with g++.
ebb_packages=(
  g++ cmake ninja-build pkg-config
  libeigen3-dev doctest-dev libbenchmark-dev
  nlohmann-json3-dev libcli11-dev libpng-dev libsentencepiece-dev libutf8proc-dev
  libavformat-dev libavcodec-dev libswscale-dev libavutil-dev
)

# Prints the packages that are not there. A tool from elsewhere counts, whichever package it came with.
ebb_missing_packages() {
  local package tool
  for package in "${ebb_packages[@]}"; do
    case $package in
      g++ | cmake | pkg-config) tool=$package ;;
      ninja-build) tool=ninja ;;
      *) tool= ;;
    esac
    if [ -n "$tool" ] && command -v "$tool" >/dev/null 2>&1; then
      continue
    fi
    if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      printf '%s\n' "$package"
    fi
  done
}

# Installs what is missing with apt-get. Where that is impossible it names the packages and returns 1.
# EBB_NO_INSTALL=1 trusts that everything is there, for systems whose packages have other names.
ebb_install_packages() {
  if [ "${EBB_NO_INSTALL:-0}" = 1 ]; then
    return 0
  fi
  if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-query >/dev/null 2>&1; then
    printf '%s\n' "This system has no apt-get. Install what these Debian packages hold, then run again with EBB_NO_INSTALL=1:" \
      "  ${ebb_packages[*]}" >&2
    return 1
  fi

  local list missing
  list=$(ebb_missing_packages)
  if [ -z "$list" ]; then
    return 0
  fi
  mapfile -t missing <<<"$list"

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
      printf '%s\n' "Neither root nor sudo. Have these packages installed, then run again:" \
        "  apt-get install --no-install-recommends ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  if ! "${as_root[@]}" apt-get update -qq ||
    ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${missing[@]}"; then
    printf '%s\n' "apt-get could not install: ${missing[*]}" >&2
    return 1
  fi
}

# The preset that fits this machine: cuda where a GPU and nvcc are there, else release.
ebb_preset() {
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 &&
    { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null; then
    echo cuda
  else
    echo release
  fi
}
