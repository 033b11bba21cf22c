#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_compile_time.sh ROOT COMPILER FLAGS...: what a user waits for, in processor seconds, with
# segmed::kernels linked and without. Machines differ and are shared, so the goals, which are
# seconds of one machine, are scaled by what three headers of others take here, just before and
# just after, and took there. Fails above a limit, twice in a row: two runs of one compilation differ
# by a fifth, more where the machine is somebody else's as well.
set -euo pipefail
root=$1
shift
TIMEFORMAT=%U
status=0
unit=$(mktemp --suffix=.cpp)
flags=(-std=c++20 -O2 -I"$root/include")

# seconds COMMAND...
seconds() { { time "$@" -o /dev/null; } 2>&1 | tail -n 1; }

yardstick() {
  local header total=0
  for header in Eigen/Core filesystem functional; do
    echo "#include <$header>" >"$unit"
    total="$total + $(seconds "$@" -c "$unit")"
  done
  awk "BEGIN { print ($total) / 1.26 }"
}

# once FILE FLAGS...: the seconds, and how slow this machine was meanwhile.
once() {
  local file=$1 before after taken
  shift
  before=$(yardstick "$@")
  taken=$(seconds "$@" -c "$file")
  after=$(yardstick "$@")
  awk "BEGIN { slowness = ($before + $after) / 2; print $taken / slowness, slowness }"
}

# measure NAME GOAL LIMIT FILE FLAGS...
measure() {
  local name=$1 goal=$2 limit=$3 taken slowness
  shift 3
  for attempt in first second; do
    read -r taken slowness < <(once "$@")
    printf '%-24s %6.1f s of the goal of %2d s (this machine takes %.2f times as long)\n' \
      "$name" "$taken" "$goal" "$slowness"
    if awk "BEGIN { exit !($taken <= $limit) }"; then return; fi
    echo "$name takes more than its limit of $limit s, for the $attempt time"
  done
  status=1
}

umbrella=$(mktemp --suffix=.cpp)
trap 'rm -f "$unit" "$umbrella"' EXIT
echo '#include <segmed/segmed.hpp>' >"$umbrella"
measure "umbrella, linked" 3 4.5 "$umbrella" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
measure "umbrella, header-only" 12 6 "$umbrella" "$@" "${flags[@]}"
measure "hello, linked" 8 13 "$root/examples/hello.cpp" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
measure "hello, header-only" 15 52 "$root/examples/hello.cpp" "$@" "${flags[@]}"
exit $status
