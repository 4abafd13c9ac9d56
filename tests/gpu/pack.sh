#!/usr/bin/env bash
# Prepare the GPU script for a machine without network: tests/gpu/pack.sh
#
# It fills tests/gpu/pack, which git ignores: copy the project with that folder to the machine, and
# run tests/gpu/run.sh there. features/ are those of the trainings; wheels/ are the packages that an
# image with torch, Triton, numba and pytest usually lacks, for Python $PYTHON_VERSION (3.12) on
# Linux x86-64. run.sh then uses the machine's python3 with these.
set -euo pipefail
cd "$(dirname "$0")/../.."
. utils/environment.sh
pack=tests/gpu/pack
mkdir -p "$pack/wheels"
tests/gpu/features.sh "$pack/features"
packages=(kaldiio kaldi-native-fbank soundfile soxr jiwer tensorboardX typer)
needed=(cffi pycparser rapidfuzz click annotated-doc)
pinned=()
for name in "${packages[@]}"; do
  pinned+=("$(grep -i "^$name==" requirements.txt)")
done
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2014 1; do
  platforms+=(--platform "manylinux${glibc/#2_/_2_}_x86_64")
done
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --implementation cp --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" \
  --dest "$pack/wheels" "${pinned[@]}" "${needed[@]}"
du -sh "$pack"
