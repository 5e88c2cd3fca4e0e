#!/usr/bin/env bash
# One run as N worker processes on this machine:
#   bash scripts/multi_worker.sh N --preset=... --model_dir=...
# The first one is the chief and talks; the others write into files in $LOGS.
# Each gets its own of the GPUs, of those in CUDA_VISIBLE_DEVICES if that is set.
# They are stopped together, and the exit status is the chief's.
set -eu
cd "$(dirname "$0")/.."
. scripts/python.sh
n=${1:?How many workers?}
shift
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
all=$(seq -s, 0 $(($(nvidia-smi -L 2>/dev/null | grep -c ^GPU) - 1)))
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-$all}"
hosts=$("$python" - "$n" <<'END'
import contextlib
import json
import random
import socket
import sys

held = []  # Not where the system takes the near ends of connections from.
while len(held) < int(sys.argv[1]):
  with contextlib.suppress(OSError):
    at = '127.0.0.1', random.randrange(10000, 30000)
    held.append(socket.create_server(at))
print(json.dumps([f'127.0.0.1:{s.getsockname()[1]}' for s in held]))
END
)

# Before the step that makes the next checkpoint, they agree on stopping.
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
trap 'kill -9 "${pids[@]}" 2>/dev/null || true' EXIT
pids=()
work() {
  local task="{\"type\": \"worker\", \"index\": $1}"
  export TF_CONFIG="{\"cluster\": {\"worker\": $hosts}, \"task\": $task}"
  [ ${#gpus[@]} -eq 0 ] || export CUDA_VISIBLE_DEVICES=${gpus[$1]-}
  exec "$python" "${PROGRAM:-run.py}" "${@:2}"
}
echo "Workers 1 to $((n - 1)) write into $logs"
for i in $(seq $((n - 1))); do
  work "$i" "$@" >"$logs/worker$i.log" 2>&1 &
  pids+=($!)
done
work 0 "$@" &
chief=$!
pids+=("$chief")
status=0
while kill -0 "$chief" 2>/dev/null; do # A signal ends the wait, too.
  status=0
  wait "$chief" || status=$?
done
exit "$status"
