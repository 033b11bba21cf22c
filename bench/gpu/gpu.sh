#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# gpu.sh --build DIR --out DIR [--data DIR] [--seconds 460] [--dry-run]
#
# All that is asked of a GPU, with programs that were built elsewhere (docs/gpu.md says how): the
# tests of CUDA, every op beside the processor, speed and memory beside PyTorch, a small run under
# compute-sanitizer, a training on real data beside the processor's, and tuning. What is not there
# is named and left out. DIR/report.md says how it went, and is whole after each part.
#
#   --build    a build folder, or what of one is needed: bench/gpu/bench_gpu, tests/cuda/cuda_tests,
#              examples/experiments
#   --data     a folder with hippocampus_msd in it, or that folder
#   --seconds  when to have ended; with more, each part may take longer
#   --dry-run  print the commands of all parts instead
#
# Exit codes: 0 all gates hold, 1 something failed, 2 usage, 3 a gate of speed or memory does not
# hold, 77 no GPU.
set -uo pipefail

usage() {
  sed -n '3,20s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
build="" data="" out="" seconds=460 dry=""
while (($# > 0)); do
  case $1 in
    --dry-run)
      dry=yes
      shift
      continue
      ;;
    --build) build=${2:-} ;;
    --data) data=${2:-} ;;
    --out) out=${2:-} ;;
    --seconds) seconds=${2:-} ;;
    *) usage ;;
  esac
  shift $(($# > 1 ? 2 : 1))
done
[[ -n $build && -n $out && $seconds =~ ^[0-9]+$ ]] || usage
here=$(cd "$(dirname "$0")" && pwd)
bench=$build/bench/gpu/bench_gpu
tests=$build/tests/cuda/cuda_tests
experiments=$build/examples/experiments
python=${PYTHON:-python3}
if [[ ! -x $bench ]]; then
  echo "gpu.sh: $bench is not there; build it with -DSEGMED_CUDA=ON -DSEGMED_BENCH=ON" >&2
  [[ -n $dry ]] || exit 2
fi

# ---- libraries: cuDNN, and what it compiles kernels with, are the machine's, or PyTorch's
libraries=/usr/local/cuda/lib64:/usr/local/cuda/lib
wheels=$("$python" -c 'import glob, nvidia
print(":".join(sorted(p for root in nvidia.__path__ for p in glob.glob(root + "/*/lib"))))' 2>/dev/null)
libraries=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries${wheels:+:$wheels}
# For segmed's programs alone: PyTorch finds its own, and must not be given others.
ours=(env "LD_LIBRARY_PATH=$libraries")

device="a dry run" code=0
if [[ -z $dry ]]; then
  device=$("${ours[@]}" "$bench" --device 2>&1)
  code=$?
fi
if ((code == 77)); then
  echo "gpu.sh: there is no GPU here, so nothing was run"
  exit 77
elif ((code != 0)); then
  echo "gpu.sh: $bench does not start: $device" >&2
  exit 1
fi
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
head=$out/head.md table=$out/table.md speed=$out/speed.md report=$out/report.md
worst=0

left() { echo $((seconds - SECONDS)); }
# Seconds out of 460, where there is more time as many more.
share() { echo $(($1 * (seconds > 460 ? seconds : 460) / 460)); }
# part NAME LIMIT COMMAND...: runs it with its output in NAME.log; `code` is its exit status.
part() {
  local name=$1 limit=$2 from=$SECONDS
  shift 2
  ((limit > $(left))) && limit=$(left)
  if [[ -n $dry ]]; then
    echo "$name, at most $limit s: $*"
    code=0 took=0
    : >"$out/$name.log"
    return
  elif ((limit < 5)); then
    code=124
    echo "no time was left" >"$out/$name.log"
  else
    timeout -k 3 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
  fi
  took=$((SECONDS - from))
  echo "gpu.sh: $name: exit code $code after $took s" >&2
}
# What is known so far, whatever comes after.
publish() {
  {
    cat "$head" "$table"
    echo
    [[ -s $speed ]] && cat "$speed"
    echo
    echo "Ratios are PyTorch's time divided by segmed's; medians of interleaved rounds. Single ops"
    echo "are timed while the host is ahead of the GPU, whole networks as they run."
  } >"$report.new" && mv "$report.new" "$report"
}
trap publish EXIT
# line PART GATE RESULT HOLDS
line() {
  [[ -z $dry ]] || return 0
  echo "| $1 | $2 | $3 | $4 |" | tee -a "$table"
  publish
}
verdict() {
  if ((code == 0)); then
    echo yes
  elif ((code == 124)); then
    echo "no: its time was over"
  else
    echo "no"
  fi
}
fails() { ((worst == 1)) || worst=$1; }

cudnn=$("${ours[@]}" "$python" - 2>/dev/null <<'END'
import ctypes
n = ctypes.CDLL("libcudnn.so.9").cudnnGetVersion()
print(f"{n // 10000}.{n % 10000 // 100}.{n % 100}")
END
)
smi=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null |
  head -n 1)
rm -f "$speed"
{
  echo "# segmed on a GPU"
  echo
  echo "$(date -u +%Y-%m-%dT%H:%MZ), $device"
  echo
  echo "* GPU, driver, memory: ${smi:-not told by nvidia-smi}"
  echo "* cuDNN: ${cudnn:-not found}"
  echo "* $("$python" "$here/gpu_torch.py" --versions 2>/dev/null || echo "PyTorch: not told")"
  echo
} | tee "$head"
[[ -n $dry ]] || printf '| what | gate | result | holds |\n|---|---|---|---|\n' | tee "$table"
touch "$table"

# ---- (a) every op beside the processor
part parity "$(share 75)" "${ours[@]}" "$bench" --parity
((code == 0)) || fails 1
for type in float bfloat16; do
  line "ops beside the processor, $type" \
    "$(awk -v t=$type '$3 == t { print $2; exit }' "$out/parity.log")" \
    "$(awk -v t=$type '$1 != "plan:" && $3 == t { n++; bad += !($1 + 0 <= $2 + 0) || $1 ~ /nan|inf/
                                 if ($1 + 0 > worst) { worst = $1 + 0; $1 = $2 = $3 = ""; at = substr($0, 4) } }
       END { printf "%d of %d within, the worst %.2g (%s)", n - bad, n, worst, at }' \
      "$out/parity.log")" \
    "$(awk -v t=$type '$1 != "plan:" && $3 == t { n++; bad += !($1 + 0 <= $2 + 0) || $1 ~ /nan|inf/ }
       END { if (n > 0 && bad == 0) print "yes"; else print "no" }' "$out/parity.log")"
done

plans() { grep -acE "^plan: .*$1" "$out/parity.log"; }
tail='( bias| leak [-+.e0-9]+)'
line "convolutions of these ops" "" \
  "$(($(plans '') - $(plans ': in two steps'))) kinds, $(plans ': plain kernels') of them by plain \
kernels; bias or activation in the graph of $(plans "$tail: engine"), apart from that of \
$(plans ': in two steps'): parity.log" ""

# ---- (b) the tests of CUDA
if [[ -n $dry || -x $tests ]]; then
  part tests "$(share 110)" "${ours[@]}" "$tests"
  ((code == 0)) || fails 1
  line "tests of CUDA" "all pass" \
    "$(grep -a 'test cases:' "$out/tests.log" | tail -n 1 | tr -d '|' | sed 's/.*test cases/test cases/')" \
    "$(verdict)"
else
  line "tests of CUDA" "all pass" "left out: no $tests" "not known"
fi

# ---- (c) speed and memory
limit=$(($(left) - $(share 170)))
((limit > $(share 200))) && limit=$(share 200)
((limit < 30)) && limit=30
part speed $((limit + 30)) env "SEGMED_LIBRARIES=$libraries" "$python" "$here/gpu_torch.py" \
  --bench "$bench" --out "$out" --seconds "$limit"
((code == 0 || code == 4)) || fails $((code == 3 ? 3 : 1))
holds=$(verdict)
((code == 4)) && holds="not known: some rows have no ratio"
((code == 3)) && holds="no: see below"
result=below
[[ -s $speed ]] || result="no table"
line "speed and memory" "below" "$result" "$holds"

# ---- (d) wrong addresses in segmed's own kernels; teams that read what is not written yet, and
# barriers that not all threads reach
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [[ -n $sanitizer ]]; then
  for check in memcheck:run_:50 racecheck:run_teams:40 synccheck:run_teams:30; do
    IFS=: read -r tool kernels limit <<<"$check"
    pool=on more=()
    [[ $tool == memcheck ]] && pool=off more=(--report-api-errors no)
    part "$tool" "$(share "$limit")" "${ours[@]}" "SEGMED_GPU_POOL=$pool" "$sanitizer" --tool "$tool" "${more[@]}" \
      --error-exitcode 9 --kernel-regex "kns=$kernels" "$bench" --small-run
    if grep -aq "Device not supported" "$out/$tool.log"; then
      line "compute-sanitizer's $tool, a small run" "0 errors" "it refuses this device" "not known"
      continue
    fi
    ((code == 0)) || fails 1
    line "compute-sanitizer's $tool, a small run" "0 errors" \
      "$(grep -aE '(ERROR|RACECHECK) SUMMARY' "$out/$tool.log" | tail -n 1 | tr -d '=' | xargs)" \
      "$(verdict)"
  done
else
  part small_run "$(share 60)" "${ours[@]}" "$bench" --small-run
  ((code == 0)) || fails 1
  line "a small run; compute-sanitizer is not installed" "ends" "$(tail -n 1 "$out/small_run.log")" \
    "$(verdict)"
fi

# ---- (e) a training on real data
[[ -d $data/hippocampus_msd ]] && data=$data/hippocampus_msd
if [[ -z $dry && (! -f $experiments || ! -x $experiments) ]]; then
  line "training on real data" "Dice - 0.02" "left out: no $experiments" "not known"
elif [[ -z $dry && (-z $data || ! -d $data) ]]; then
  line "training on real data" "Dice - 0.02" "left out: no data" "not known"
else
  rm -rf "$out/on_gpu" "$out/on_cpu"
  common=(train --data "$data" --val 40 --policy supervised --steps 400 --quiet)
  limit=$(left)
  ((limit > 5)) || limit=5
  # Beside the GPU's, which leaves the processor idle.
  if [[ -n $dry ]]; then
    part train_cpu "$limit" "${ours[@]}" "$experiments" "${common[@]}" --device cpu --out "$out/on_cpu"
  else
    timeout -k 3 "$limit" "${ours[@]}" "$experiments" "${common[@]}" --device cpu \
      --out "$out/on_cpu" >"$out/train_cpu.log" 2>&1 &
  fi
  part train_gpu "$limit" "${ours[@]}" "$experiments" "${common[@]}" --device cuda:0 --out "$out/on_gpu"
  gpu_code=$code
  part tune "$(share 60)" "${ours[@]}" "$experiments" tune --data "$data" --val 40 --policy supervised --engines 4 \
    --quiet --device cuda:0 --out "$out/tuning.json"
  tune_code=$code tuned=$(verdict)
  wait
  of_gpu=$(sed -n 's/^mean Dice \([0-9.]*\).*/\1/p' "$out/train_gpu.log")
  of_cpu=$(sed -n 's/^mean Dice \([0-9.]*\).*/\1/p' "$out/train_cpu.log")
  minutes=$(sed -n 's/.* steps in \([0-9.]*\) minutes.*/\1/p' "$out/train_gpu.log")
  holds=$(awk -v a="${of_gpu:-x}" -v b="${of_cpu:-x}" 'BEGIN {
    if (a == "x") print "no"
    else if (b == "x") print "not known"
    else if (a + 0 >= b - 0.02) print "yes"
    else print "no" }')
  [[ $holds == no || $gpu_code != 0 ]] && fails 1
  line "training on real data, 400 steps" "Dice of the processor - 0.02" \
    "${of_gpu:-none} in ${minutes:-?} minutes; the processor ${of_cpu:-did not end in time}" "$holds"
  ((tune_code == 0)) || fails 1
  line "tuning of its convolutions, 4 engines each" "ends" \
    "$(grep -c '"graph":' "$out/tuning.json" 2>/dev/null) graphs; bias or activation in the graph of \
$(grep -acE "^[a-z_]+ bfloat16 .*$tail: engine" "$out/tune.log"), apart from that of \
$(grep -ac ': in two steps' "$out/tune.log"): tune.log" "$tuned"
fi

publish
if [[ -n $dry ]]; then
  echo "gpu.sh: nothing was run"
  exit 0
fi
echo
[[ -s $speed ]] && cat "$speed"
exit "$worst"
