#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_compile_time.sh ROOT COMPILER FLAGS...: what a user waits for, in processor seconds, with
# segmed::kernels linked and without. Machines differ and are shared, so the goals, which are
# seconds of one machine, are scaled by what three headers of others take here and took there.
# Fails above one and a half times a goal: two runs of one compilation differ by a fifth.
set -euo pipefail
root=$1
shift
TIMEFORMAT=%U
status=0
unit=$(mktemp --suffix=.cpp)
trap 'rm -f "$unit"' EXIT
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
slowness=$(yardstick "$@" "${flags[@]}")
printf 'this machine takes %.2f times the seconds of the goals\n' "$slowness"

# measure NAME GOAL FILE FLAGS...
measure() {
  local name=$1 goal=$2 file=$3 taken
  shift 3
  taken=$(awk "BEGIN { print $(seconds "$@" -c "$file") / $slowness }")
  printf '%-24s %6.1f s of the goal of %2d s\n' "$name" "$taken" "$goal"
  if awk "BEGIN { exit !($taken > 1.5 * $goal) }"; then
    echo "$name takes more than one and a half times its goal"
    status=1
  fi
}

echo '#include <segmed/segmed.hpp>' >"$unit"
measure "umbrella, linked" 3 "$unit" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
measure "umbrella, header-only" 12 "$unit" "$@" "${flags[@]}"
measure "hello, linked" 8 "$root/examples/hello.cpp" "$@" "${flags[@]}" -DSEGMED_KERNELS_LINKED
measure "hello, header-only" 15 "$root/examples/hello.cpp" "$@" "${flags[@]}"
exit $status
