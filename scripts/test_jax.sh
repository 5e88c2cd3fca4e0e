#!/usr/bin/env bash
# Our train steps as XLA programs, run by JAX without TensorFlow.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
. "$(dirname "$0")/env.sh" .venv 'jax[cpu]==0.10.2'
"$python" -m pytest "$@" tests/benchmarks/test_xla.py
