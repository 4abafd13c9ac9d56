#!/usr/bin/env bash
# Check, measure and train on a GPU, in eight minutes at most: tests/gpu/run.sh [FOLDER]
#
#   Right   values and gradients of every Triton program against float64, the same bytes twice, the
#           kernels' tests on the device, compute-sanitizer's memcheck
#   Fast    layers, losses, training steps and search against their peers, with peak memory
#   Why     the kernels that take a step's time, and how near a sweep is to the device's latency
#   Learns  trainings by the modern regime: the loss falls as a CPU's does, also after a kill
#
# Results come into FOLDER (default: gpu_report) one by one: report.md, and the numbers as *.json.
# A part that fails or runs out of its time does not stop the next; the exit status is 1 if any did.
# Without a GPU, or with TRITON_INTERPRET=1, the same runs in Triton's interpreter on tiny shapes, in
# a minute. For a machine without network see pack.sh.
set -uo pipefail
out=${1:-gpu_report}
if [ $# -gt 1 ] || [ "${out#-}" != "$out" ]; then
  sed -n 's/^# \{0,1\}//p' "$0" | sed 1d
  exit 2
fi
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/../.." || exit 1
here=tests/gpu pack=$PWD/tests/gpu/pack
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The wheels are for one version of Python; where that is another, the environment is made as usual.
if compgen -G "$pack/wheels/*.whl" >/dev/null && python3 -c 'import torch, triton' 2>/dev/null &&
  python3 -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
    --target "$work/site" "$pack"/wheels/*.whl 2>/dev/null; then
  export PYTHONPATH=$PWD:$work/site
else
  REQUIREMENTS=requirements-dev.txt . utils/environment.sh
fi
if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  export TRITON_INTERPRET=1
fi
if [ "${TRITON_INTERPRET:-}" = 1 ]; then
  export PIPELINE_KERNELS=triton # the layers and losses too run by the programs
fi
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

rm -f "$out"/report.md "$out"/*.json
{
  echo "# Report of a GPU"
  echo
  echo "$(date '+%Y-%m-%d'), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
    "$(python3 "$here/part.py")"
} | tee "$out/report.md"
failed=0

# part NAME SECONDS COMMAND …: run it within its time and say how it ended.
part() {
  local name=$1 limit=$2 status=0 begun=$SECONDS
  shift 2
  if [ "${TRITON_INTERPRET:-}" = 1 ]; then limit=$((4 * limit)); fi # a CPU may have other work
  timeout --kill-after=5 "$limit" python3 -W ignore::RuntimeWarning "$@" || status=$?
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    printf '\n**STOPPED: %s took more than its %s s**\n' "$name" "$limit" | tee -a "$out/report.md"
  elif [ "$status" -gt 1 ]; then
    printf '\n**BROKEN: %s ended with %s**\n' "$name" "$status" | tee -a "$out/report.md"
  fi
  if [ "$status" -ne 0 ]; then failed=1; fi
  printf '\n%s: %s s\n' "$name" $((SECONDS - begun)) | tee -a "$out/report.md"
}

part right 80 "$here/right.py" "$out"
part tests 110 "$here/suite.py" "$out"
part fast 130 "$here/fast.py" "$out"
part why 40 "$here/why.py" "$out"
if [ "${TRITON_INTERPRET:-}" != 1 ] && [ ! -d "$pack/features" ]; then
  "$here/features.sh" "$work/features" || failed=1
  pack=$work
fi
part learns 110 "$here/learns.py" "$out" "$pack/features"

if [ "$failed" -eq 0 ]; then verdict="All is right."; else verdict="**Not all is right: see above.**"; fi
printf '\n%s %s s in all.\n' "$verdict" "$SECONDS" | tee -a "$out/report.md"
exit "$failed"
