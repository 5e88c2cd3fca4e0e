#!/usr/bin/env bash
# Installs what a Cloud TPU host needs into the Python that is active.
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m pip install -r requirements-tpu.txt
"${PYTHON:-python3}" -m pip install --no-deps 'tf-keras>=2.20,<2.21'
