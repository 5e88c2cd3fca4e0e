#!/usr/bin/env bash
# Processes that prepare the input of trainings (--data_service):
#   bash scripts/data_workers.sh [WORKERS] [PORT]
#   DISPATCHER=HOST:PORT bash scripts/data_workers.sh [WORKERS]
# The second adds workers to those of another machine. Ctrl-C stops all;
# HOST_NAME is what trainings call this machine. There are no passwords:
# anyone who reaches the ports can read what these processes can.
set -eu
cd "$(dirname "$0")/.."
. scripts/python.sh
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
serve() {
  exec "$python" -m cvr.data.service ${HOST_NAME:+--host="$HOST_NAME"} "$@"
}
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 143' INT TERM
first=
if [ -z "${DISPATCHER:-}" ]; then
  coproc serve dispatcher --port="${2:-5050}"
  first=$!
  read -r _ _ DISPATCHER <&"${COPROC[0]}"
fi
for _ in $(seq "${1:-2}"); do
  serve worker --dispatcher="$DISPATCHER" &
done
echo "--data_service=grpc://$DISPATCHER"
wait $first
