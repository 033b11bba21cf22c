#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian 12 with git to a result:
#
#   cmake/bootstrap.sh experiment            the main job on a generated cohort, and its report
#   cmake/bootstrap.sh test [CMAKE OPTIONS]  every test
#   cmake/bootstrap.sh packages              only installs what the two need
#
# Debian packages that are missing are installed: as root, or with sudo, or it prints the one line
# that does it. Everything else stays in build/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '3,10s/^# \{0,1\}//p' cmake/bootstrap.sh
}
say() {
  printf '[%3d s] %s\n' "$SECONDS" "$*"
}
stop() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}

# Installs the missing ones of the packages named.
install_packages() {
  local missing=() package prefix=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not a Debian: make sure that you have what these packages hold: $*"
    return
  fi
  for package in "$@"; do
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      missing+=("$package")
    fi
  done
  if ((${#missing[@]} == 0)); then
    return
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
      stop "packages are missing; run this as root, then try again:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    fi
    prefix=(sudo)
  fi
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${prefix[@]}" apt-get update -qq &&
    "${prefix[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    stop "apt-get failed; its messages are in $log"
  fi
  rm -f "$log"
}

# One job per processor, and 2 GB of memory for each.
jobs_that_fit() {
  local jobs memory
  jobs=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 2000000) }' /proc/meminfo 2>/dev/null || echo 2)
  if ((memory < jobs)); then
    jobs=$memory
  fi
  echo $((jobs > 0 ? jobs : 1))
}

configure() {
  say "configuring build/release"
  mkdir -p build
  if ! cmake --preset release "$@" >build/configure.log 2>&1; then
    cat build/configure.log >&2
    stop "cmake did not accept this machine; see above"
  fi
  grep '^-- segmed: ' build/configure.log || true
}

compiler=(g++ cmake ninja-build)
libraries=(libeigen3-dev libnifti2-dev zlib1g-dev libpng-dev libcli11-dev)
tests=(doctest-dev)

case ${1:-} in
  experiment)
    install_packages "${compiler[@]}" "${libraries[@]}"
    configure -DSEGMED_TESTS=OFF -DSEGMED_EXAMPLES=ON
    say "building the binary 'experiments'"
    cmake --build --preset release -j "$(jobs_that_fit)" --target experiments
    out=build/demo
    program=$(find build/release -type f -name experiments -perm -u+x | head -n 1)
    [[ -n $program ]] || stop "the binary was not built; see build/configure.log"
    rm -rf "$out"
    say "generating a cohort of 24 cases in $out/abdomen"
    "$program" phantom --cases 24 --out "$out/abdomen" --seed 1
    say "comparing M_0 on D_0 with M_1 on D_0 + D_1: two models, 1.5 minutes of training each"
    "$program" gain --data "$out/abdomen" --d0 4 --d1 14 --val 6 --hide classes:5 \
      --policies supervised,partial_completion --seeds 1 --minutes 1.5 --spacing 8,8,8 \
      --patch 40,32,40 --out "$out/gain"
    say "done; open this in a browser:"
    echo "$PWD/$out/gain/report.html"
    ;;
  test)
    shift
    install_packages "${compiler[@]}" "${libraries[@]}" "${tests[@]}"
    configure -DSEGMED_TESTS=ON -DSEGMED_EXAMPLES=ON ${SEGMED_DATA:+"-DSEGMED_DATA=$SEGMED_DATA"} \
      "$@"
    say "building the tests"
    cmake --build --preset release -j "$(jobs_that_fit)"
    say "running them"
    ctest --preset release -j "$(jobs_that_fit)"
    ;;
  packages)
    install_packages "${compiler[@]}" "${libraries[@]}" "${tests[@]}"
    ;;
  -h | --help)
    usage
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
