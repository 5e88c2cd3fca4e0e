#!/usr/bin/env bash
# BYOL on ImageNet; CONFIG=byol_1000epochs is the long recipe.
exec "${PYTHON:-python3}" "$(dirname "$0")/../run.py" \
  --preset="${CONFIG:-byol_300epochs}" --use_tpu=true "$@"
