#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# list_sources.sh ROOT [--write]: the table of docs/sources.md from the `source` rows of the headers'
# docstrings. Fails where the page says anything else, and prints how; --write renews the page.
set -euo pipefail
cd "$1"
page=docs/sources.md

rows() {
  find include/segmed -name '*.hpp' | LC_ALL=C sort | xargs awk '
    function finish() {
      gsub(/\|/, "\\|", text)
      if (text != "") print "| `" name "` | " text " | `" file "` |"
      text = ""
    }
    FNR == 1 { text = ""; reading = 0; file = FILENAME; sub("^include/", "", file) }
    /^ *\/\/\/? +source   / { sub(/^ *\/\/\/? +source +/, ""); text = $0; reading = 1; next }
    reading && /^ *\/\/\/?            [^ ]/ { sub(/^ *\/\/\/? +/, ""); text = text " " $0; next }
    { reading = 0 }
    text == "" || /^ *\/\// || /^ *template/ || /^ *requires/ { next }
    match($0, /(struct|class|using|concept) +[A-Za-z_0-9]+/) {
      name = substr($0, RSTART, RLENGTH); sub(/^[a-z]+ +/, "", name); finish()
      next
    }
    match($0, /[A-Za-z_0-9]+\(/) { name = substr($0, RSTART, RLENGTH - 1); finish() }'
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
sed '/^|---/q' "$page" >"$new"
rows >>"$new"
if [[ ${2:-} == --write ]]; then
  cp "$new" "$page"
elif ! diff "$page" "$new"; then
  echo "$page: not what the headers say; renew it by cmake/list_sources.sh . --write"
  exit 1
fi
