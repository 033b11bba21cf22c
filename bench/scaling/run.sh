#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BENCH_SCALING: one process with one and with all threads against one rank per processor,
# at the same batch, in turns, so that a slow moment of the machine meets all of them. Prints the
# lines of bench_scaling; docs/scaling.md says what they mean.
set -euo pipefail
program=$1
processors=${PROCESSORS:-$(nproc)}
rounds=${ROUNDS:-3}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

for ((round = 0; round < rounds; ++round)); do
  for batch in "$processors" $((2 * processors)); do
    mpirun -n 1 --bind-to none "$program" --batch "$batch" --threads 1 "${@:2}"
    mpirun -n 1 --bind-to none "$program" --batch "$batch" --threads "$processors" "${@:2}"
    mpirun -n "$processors" --bind-to core "$program" --batch "$batch" --threads 1 "${@:2}"
  done
done
