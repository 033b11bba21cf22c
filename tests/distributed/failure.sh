#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# failure.sh MPIRUN PROGRAM: a rank that fails ends all of them, soon, and says why.
set -euo pipefail

expect() {
  local code=0 said
  said=$(timeout 60 "$mpirun" -n 2 "$program" "$1" 2>&1) || code=$?
  if ((code != $2)) || [[ $said != *"$3"* ]]; then
    printf '%s: exit code %s, and it said:\n%s\n' "$1" "$code" "$said"
    exit 1
  fi
}
mpirun=$1
program=$2
expect works 0 ""
expect throws 1 "rank 1: segmed: test: rank 1 has had enough"
expect hangs 1 "rank 0: segmed: mpi: waited more than 1 s for the other 1 ranks"
expect breaks 1 "rank 1: segmed: nccl: rank 1 of 2: ncclAllReduce, by ncclCommGetAsyncError: code 6"
