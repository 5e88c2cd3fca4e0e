#!/usr/bin/env bash
# What PyTorch reads of our exports, with torchvision's and timm's ResNets.
set -eu
. "$(dirname "$0")/env.sh" .venv -e '.[test]'
. "$(dirname "$0")/env.sh" .venv torch==2.13.0 huggingface_hub pyyaml pillow
# Without its dependencies: they bring the CUDA build of torch, of several GB.
. "$(dirname "$0")/env.sh" .venv --no-deps torchvision==0.28.0 timm
"$python" -m pytest -n 2 "$@" tests/exports/test_torch.py
