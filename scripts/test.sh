#!/usr/bin/env bash
# The test suite, in an environment of its own. Arguments go to pytest.
#   bash scripts/test.sh            all of it
#   bash scripts/test.sh --quick    what takes seconds, of every wing
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
if [ "${1-}" = --quick ]; then
  shift
  set -- tests/test_{architecture,lars_optimizer,model,objectives}.py \
    tests/{configs,numerics,scripts} \
    tests/data/test_{sources,subsets}.py \
    tests/methods/test_{contrastive,entropy_reconstruction,prototypes,towers}.py \
    tests/checkpoints/test_{locks,saving,stored}.py \
    tests/training/test_{health,loop,monitor,optimizers,watch}.py \
    tests/exports/test_torch.py \
    tests/evaluation/{card,heads} tests/evaluation/test_{statistics,store}.py "$@"
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
"$(dirname "$python")/lint-imports"
"$python" -m pytest -n 2 --dist=worksteal --durations=25 "$@"
