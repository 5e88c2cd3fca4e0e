#!/usr/bin/env bash
# The tables of docs/performance.md, on this machine. What stands beside ours
# lives in an environment of its own: 6 GB, once. Where that cannot be made, the
# tables have our rows alone.
set -eu
peers=
if bash -euc '. "$0" .venv-peers torch torchvision lightly simplejpeg \
    opencv-python-headless nvidia-dali-cuda120' "$(dirname "$0")/env.sh"; then
  peers=.venv-peers/bin/python
fi
. "$(dirname "$0")/env.sh" .venv -e '.[test]' 'tensorflow-probability>=0.25'
"$python" -m benchmarks.beside --peers="${peers:+$PWD/$peers}"
"$python" -m benchmarks.step
"$python" -m benchmarks.step --large
for precision in fp32 bf16; do
  "$python" -m benchmarks.breakdown --precision=$precision
  "$python" -m benchmarks.breakdown --precision=$precision --large
done
"$python" -m benchmarks.pipeline
"$python" -m benchmarks.pipeline --large
"$python" -m benchmarks.parts
"$python" -m benchmarks.parts --large
"$python" -m benchmarks.memory
"$python" -m benchmarks.vmf
"$python" -m benchmarks.hamming
