# Sourced by the scripts that build: what they build with, how it is installed, and which preset fits.
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
    as_root=(sudo "--preserve-env=http_proxy,https_proxy,no_proxy")
  fi
  echo "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || echo "apt-get update failed; going on with the lists that are there" >&2
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}"; then
    printf '%s\n' "apt-get could not install: ${missing[*]}" >&2
    return 1
  fi
}

# The nvcc that CMake will find, if it is 12.5 or later; else returns 1 and says on stdout what is there, if anything.
ebb_nvcc() {
  local nvcc version
  nvcc=$(command -v nvcc) || nvcc=/usr/local/cuda/bin/nvcc
  [ -x "$nvcc" ] || return 1
  version=$("$nvcc" --version | sed -n 's/.* release \([0-9.]*\),.*/\1/p')
  if [ "$(printf '%s\n' 12.5 "$version" | sort --version-sort | head -n 1)" = 12.5 ]; then
    echo "$nvcc"
  else
    echo "$nvcc is $version"
    return 1
  fi
}

# The preset that fits this machine: cuda where a GPU and nvcc are there, else release. EBB_PRESET names another.
ebb_preset() {
  local found
  if [ -n "${EBB_PRESET:-}" ]; then
    echo "$EBB_PRESET"
  elif ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
    echo release
  elif found=$(ebb_nvcc); then
    echo cuda
  else
    echo "GPU found, but no nvcc 12.5 or later${found:+ ($found)}: building for the CPU" >&2
    echo release
  fi
}

# The absolute path of what the user named, before a script changes its directory. A slash at the end stays: it is part of
# the name of a directory of frames.
ebb_absolute() {
  case $1 in
    */) printf '%s/\n' "$(realpath -m -- "$1")" ;;
    *) realpath -m -- "$1" ;;
  esac
}
