#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_house.sh ROOT: the rules that no compiler checks. Prints every violation, and fails on any.
# shellcheck disable=SC2016,SC2094
set -euo pipefail
cd "$1"

found=$(mktemp)
trap 'rm -f "$found"' EXIT

# ---- headers: floors, third-party headers, conditions, macros, size, the umbrella
find include/segmed -name '*.hpp' | LC_ALL=C sort | xargs -r awk '
  BEGIN {
    floors = "core 1 backend 2 tensor 3 autograd 4 image 4 nn 5 losses 5 data 5 train 6 select 6 " \
             "semi 7 experiment 8 export 8 distributed 8 serve 8 segmed.hpp 9"
    n = split(floors, word, " ")
    for (i = 1; i < n; i += 2) floor[word[i]] = word[i + 1]
    may_ask["core/config.hpp"] = may_ask["backend/backend.hpp"] = may_ask["backend/targets.hpp"] = 1
    may_ask["experiment/compiled.hpp"] = may_ask["backend/cuda.hpp"] = 1
  }
  function say(text) { print FILENAME ":" FNR ": " text }
  function folder_of(path) { sub("/.*", "", path); return path }
  FNR == 1 {
    file = FILENAME
    sub("^include/segmed/", "", file)
    folder = folder_of(file)
    files[++count] = file
    path[file] = FILENAME
    if (!(folder in floor)) say("no floor is called " folder)
    if (file ~ /(^|\/)(utils?|common|detail|helpers?|misc)(\/|\.hpp$)/) say("a name that says nothing")
  }
  { lines[file] = FNR }
  /^#pragma once/ { once[file] = 1 }
  /^[ \t]*#[ \t]*include[ \t]*"/ { say("include <segmed/...>, not \"...\"") }
  /^[ \t]*#[ \t]*include[ \t]*</ {
    name = $0
    sub("^[^<]*<", "", name)
    sub(">.*", "", name)
    if (name ~ /^segmed\//) {
      sub("^segmed/", "", name)
      target = folder_of(name)
      if (!(target in floor)) say("no floor is called " target)
      else if (target != folder && floor[target] >= floor[folder])
        say(folder " (floor " floor[folder] ") includes " target " (floor " floor[target] ")")
      reaches[file] = reaches[file] " " name
    } else if (name ~ /^(regex|iostream|future|format|source_location|ranges)$/) {
      say("<" name "> is too slow to compile, or not everywhere")
    } else if (name ~ /[.\/]/ && name !~ /^(sys|linux)\/|intrin\.h$|^(unistd|fcntl|sched|pthread|errno|signal)\.h$/) {
      library = folder_of(name)
      third_party[file] = third_party[file] " " library
      if (library in home && home[library] != file)
        say("<" name "> is included by " home[library] " already")
      home[library] = file
    }
  }
  /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)/ { asks[file] = asks[file] " " FNR }
  {
    rest = $0
    while (match(rest, /SEGMED_[A-Z0-9_]+/)) {
      macro = substr(rest, RSTART, RLENGTH)
      if ($0 ~ /^[ \t]*#[ \t]*undef/) delete macros[macro]
      else if ($0 ~ /^[ \t]*#[ \t]*(define|if|ifdef|ifndef|elif)/) macros[macro] = file
      rest = substr(rest, RSTART + RLENGTH)
    }
  }
  function visit(file, k, n, next_file) {
    if (seen[file]++ || file == "backend/backend.hpp") return  # that one asks for nvcc first
    n = split(reaches[file], next_file, " ")
    for (k = 1; k <= n; ++k) {
      visit(next_file[k])
      if (next_file[k] in outside) outside[file] = outside[next_file[k]]
    }
  }
  END {
    for (i = 1; i <= count; ++i) {
      file = files[i]
      kernel = file ~ /^backend\/kernels\//
      if (lines[file] > 400 && !kernel) print path[file] ": " lines[file] " lines, the limit is 400"
      if (!(file in once) && !kernel) print path[file] ": #pragma once is missing"
      libraries = third_party[file]
      gsub(/ Eigen/, "", libraries)
      if (libraries != "") outside[file] = libraries
      if (file in asks && !(file in may_ask) && !(file in outside))
        print path[file] ": #if in line" asks[file] "; see core/config.hpp and backend/backend.hpp"
    }
    for (i = 1; i <= count; ++i) visit(files[i])
    if ("segmed.hpp" in path) {
      if ("segmed.hpp" in outside) print path["segmed.hpp"] ": reaches" outside["segmed.hpp"]
    }
    total = 0
    for (macro in macros) { ++total; names = names " " macro }
    if (total > 6) print "include/segmed: " total " macros, the limit is 6:" names
  }' >>"$found"

# ---- each file says its license in its first three lines
git_or_find() {
  if [[ -e .git ]] && command -v git >/dev/null; then
    git -c safe.directory='*' ls-files --cached --others --exclude-standard
  else
    find . -type f -not -path './build/*' -not -path './.git/*' | sed 's|^\./||'
  fi
}
while IFS= read -r file; do
  case $file in
    LICENSE | .clang-format | *.json | *.png | *.svg | *.jpg | *.gz | *.nii | *.csv | *.html | *.tex) continue ;;
  esac
  [[ -f $file ]] || continue
  if ! head -n 3 "$file" | grep -qF "SPDX-License-Identifier: Apache-2.0"; then
    echo "$file: no SPDX line"
  fi
done < <(git_or_find) >>"$found"

# ---- code in the docs is code that compiles
# block FILE N prints the N-th fenced C++ block.
block() {
  awk -v wanted="$2" '/^```cpp/ { inside = ++n == wanted; next }
                      /^```/ { inside = 0 }
                      inside' "$1"
}
if [[ -e README.md && -e examples/hello.cpp ]]; then
  if ! cmp -s <(block README.md 1) examples/hello.cpp; then
    echo "README.md: the first C++ block differs from examples/hello.cpp" >>"$found"
  fi
  lines=$(wc -l <examples/hello.cpp)
  if ((lines > 40)); then
    echo "examples/hello.cpp: $lines lines, the limit is 40" >>"$found"
  fi
fi
# A line "<!-- examples/NAME.cpp -->" before a block says that the block is that file, and
# "<!-- part of examples/NAME.cpp -->" that the file contains it.
for page in README.md docs/*.md; do
  [[ -e $page ]] || continue
  n=0
  mark=""
  while IFS= read -r line; do
    case $line in
      "<!-- "*"examples/"*" -->") mark=${line#<!-- } mark=${mark% -->} ;;
      '```cpp'*)
        n=$((n + 1))
        if [[ -n $mark ]]; then
          file=${mark#part of }
          text=$(block "$page" "$n")
          if [[ ! -e $file ]]; then
            echo "$page: $file does not exist"
          elif [[ $mark == "part of "* && $(<"$file") != *"$text"* ]]; then
            echo "$page: C++ block $n is not in $file"
          elif [[ $mark != "part of "* && $(<"$file") != "$text" ]]; then
            echo "$page: C++ block $n differs from $file"
          fi
        fi
        mark=""
        ;;
      "" | "<!--"*) ;;
      *) mark="" ;;
    esac
  done <"$page" >>"$found"
done

# ---- the page of sources says what the headers say
cmake/list_sources.sh . >>"$found" 2>&1 || true

if [[ -s $found ]]; then
  cat "$found"
  echo "$(wc -l <"$found") rules of the house are broken"
  exit 1
fi
echo "the house is in order: $(find include/segmed -name '*.hpp' | wc -l) headers"
