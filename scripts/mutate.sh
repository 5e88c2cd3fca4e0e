#!/usr/bin/env bash
# Changes the code in one place at a time and runs the tests of that module
# (docs/testing.md). Resumes where it was interrupted.
#   bash scripts/mutate.sh                   a sample of 150, seed 0
#   bash scripts/mutate.sh --minutes=30      begin no change after half an hour
#   bash scripts/mutate.sh --report          the score and the survivors so far
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
tests=$python
# Cosmic Ray changes source text and never imports it: it needs no TensorFlow.
. "$(dirname "$0")/env.sh" .venv-mutate 'cosmic-ray>=8.4'
"$python" scripts/mutate.py --python="$tests" "$@"
