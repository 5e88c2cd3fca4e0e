#!/usr/bin/env bash
# Trains both kinds of stochastic latents in small on the built-in photographs,
# and reports what they hold: forests on bits, capacity, uncertainty. Training
# resumes where it stopped.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[quickstart,plot]'
"$python" scripts/families.py stochcon_bernoulli stochcon_gaussian
for kind in bernoulli gaussian; do
  "$python" run.py --mode=latents --model_dir="runs/families/stochcon_$kind"
done
