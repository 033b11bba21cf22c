#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# killed.sh MPIRUN PROGRAM [TIMES]: kills one of two ranks at random moments of a training run. The
# other must end within 30 s, the checkpoint must be good to go on from, and what comes out at last
# must be what an undisturbed run gives.
set -euo pipefail
mpirun=$1
program=$2
times=${3:-3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

stop() {
  printf '%s\n' "$*"
  exit 1
}
started=$(date +%s%N)
whole=$("$mpirun" -n 2 "$program" "$folder/whole" 150)
took=$((($(date +%s%N) - started) / 1000000))
printf 'undisturbed: %s, %s ms\n' "$whole" "$took"

killed=0 finished=0 slowest=0
until ((killed >= times && finished > 0)); do
  "$mpirun" -n 2 "$program" "$folder/run" 150 >"$folder/said" 2>"$folder/errors" &
  launcher=$!
  wait_ms=$((killed < times ? RANDOM % took : 10 * took))
  sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))" &
  timer=$!
  wait -n "$launcher" "$timer" || true
  struck=0
  mapfile -t ranks < <(pgrep -P "$launcher" || true)
  if ((killed < times && ${#ranks[@]} > 0)); then
    kill -KILL "${ranks[RANDOM % ${#ranks[@]}]}" 2>/dev/null || true
    killed=$((killed + 1)) struck=1
  fi
  since=$SECONDS
  while kill -0 "$launcher" 2>/dev/null; do
    ((SECONDS - since < 30 || !struck)) || stop "a rank was killed, and the rest hangs"
    sleep 0.05
  done
  ((SECONDS - since <= slowest || !struck)) || slowest=$((SECONDS - since))
  kill "$timer" 2>/dev/null || true
  if wait "$launcher"; then
    [[ $(cat "$folder/said") == "$whole" ]] ||
      stop "after $killed kills: $(cat "$folder/said"), undisturbed: $whole"
    finished=$((finished + 1))
    rm -rf "$folder/run"
  elif grep -q segmed: "$folder/errors" && ! grep -q "waited more" "$folder/errors"; then
    stop "after $killed kills, a rank said: $(cat "$folder/errors")"
  fi
done
printf '%s kills, %s runs came to their end with the same weights; slowest end %s s\n' \
  "$killed" "$finished" "$slowest"
