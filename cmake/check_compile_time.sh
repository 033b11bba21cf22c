#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_compile_time.sh ROOT COMPILER FLAGS...: what a user waits for, in processor seconds. Fails
# at twice the budget, since machines differ.
set -euo pipefail
root=$1
shift
TIMEFORMAT=%U
status=0

# budget NAME SECONDS FILE FLAGS...
budget() {
  local name=$1 limit=$2 file=$3 seconds
  shift 3
  seconds=$({ time "$@" -c "$file" -o /dev/null; } 2>&1 | tail -n 1)
  printf '%-10s %6.1f s of %s s\n' "$name" "$seconds" "$limit"
  if awk "BEGIN { exit !($seconds > 2 * $limit) }"; then
    echo "$name takes more than twice its budget"
    status=1
  fi
}

if [[ -e $root/include/segmed/segmed.hpp ]]; then
  unit=$(mktemp --suffix=.cpp)
  trap 'rm -f "$unit"' EXIT
  echo '#include <segmed/segmed.hpp>' >"$unit"
  budget umbrella 3 "$unit" "$@" -std=c++20 -O2 -I"$root/include"
fi
if [[ -e $root/examples/hello.cpp ]]; then
  budget hello 15 "$root/examples/hello.cpp" "$@" -std=c++20 -O2 -I"$root/include"
fi
exit $status
