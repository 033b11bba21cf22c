#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh PROGRAM COMPILER FLAGS...: succeeds when PROGRAM does not compile and the sentence after
# "// expect: " in its first line stands in one of the first five lines that say "error".
set -euo pipefail

program=$1
shift
read -r first <"$program"
if [[ $first != "// expect: "* ]]; then
  echo "$program: the first line must be '// expect: <sentence>'"
  exit 1
fi
sentence=${first#// expect: }

if output=$("$@" -S -o /dev/null "$program" 2>&1); then
  echo "$program: compiled, but '$sentence' was expected"
  exit 1
fi
errors=$(grep -F error <<<"$output" | head -n 5 || true)
if [[ $errors != *"$sentence"* ]]; then
  printf '%s: expected "%s", got\n%s\n' "$program" "$sentence" "${errors:-$output}"
  exit 1
fi
grep -F -m 1 -- "$sentence" <<<"$errors"
