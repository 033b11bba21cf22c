#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_format.sh ROOT CLANG_FORMAT [-i]: names the files that clang-format 14 would change; -i
# changes them.
set -euo pipefail
cd "$1"
clang_format=$2
status=0
while IFS= read -r -d '' file; do
  if ! cmp -s "$file" <("$clang_format" "$file"); then
    echo "$file: not as $("$clang_format" --version) writes it"
    status=1
    if [[ ${3:-} == -i ]]; then
      "$clang_format" -i "$file"
    fi
  fi
done < <(find include src examples tests bench -name '*.[ch]pp' -print0)
exit $status
