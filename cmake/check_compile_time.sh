#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_compile_time.sh ROOT COMPILER FLAGS...: what a user waits for, in processor seconds, with the
# kernels linked from segmed::kernels and without. Prints the goal beside each figure; the goals are
# not reached yet (docs/benchmarks.md), so what fails is a figure above the bar that stands today,
# which leaves a slower or busier machine twice the time that was measured.
set -euo pipefail
root=$1
shift
TIMEFORMAT=%U
status=0

# measure NAME GOAL BAR FILE FLAGS...
measure() {
  local name=$1 goal=$2 bar=$3 file=$4 seconds
  shift 4
  seconds=$({ time "$@" -c "$file" -o /dev/null; } 2>&1 | tail -n 1)
  printf '%-24s %6.1f s, goal %s s\n' "$name" "$seconds" "$goal"
  if awk "BEGIN { exit !($seconds > $bar) }"; then
    echo "$name takes more than $bar s"
    status=1
  fi
}

unit=$(mktemp --suffix=.cpp)
trap 'rm -f "$unit"' EXIT
echo '#include <segmed/segmed.hpp>' >"$unit"
flags=(-std=c++20 -O2 -I"$root/include")
measure "umbrella, linked" 3 12 "$unit" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
measure "umbrella, header-only" 12 35 "$unit" "$@" "${flags[@]}"
measure "hello, linked" 8 90 "$root/examples/hello.cpp" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
exit $status
