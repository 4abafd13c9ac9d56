#!/usr/bin/env bash
# Install what the speeds are measured against: torchaudio's and fast_rnnt's transducer losses,
# SpeechBrain's search, and three of CTC.
#
# e.g.: tests/bench/install_peers.sh DIR && . DIR/activate.sh && python3 tests/bench/bench_loss.py
#
# Run it in the environment that has the project's dependencies; DIR becomes an environment on top of
# it. Needs a C++ compiler, cmake 3.25 or newer, and minutes.
set -euo pipefail
mkdir -p "${1:?usage: install_peers.sh DIR}"
dir=$(cd "$1" && pwd)
here=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
python3 -m venv "$dir/venv"
python=$dir/venv/bin/python3
there=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$here" > "$there/beneath.pth"
cd "$dir"

# torchaudio's wheel wants CUDA's runtime, which can be installed, and six functions of a CUDA torch,
# which its CPU code never calls.
"$python" -m pip install --quiet --no-deps torchaudio==2.11.0 'nvidia-cuda-runtime==13.0.*'
mkdir -p stubs
{
  echo '#include <stdlib.h>'
  for name in aoti_torch_get_current_cuda_stream torch_c10_cuda_check_msg \
    torch_c10_cuda_free_error_msg torch_cuda_stream_synchronize torch_get_cuda_stream_from_pool \
    torch_set_current_cuda_stream; do
    echo "void *$name(void) { abort(); }"
  done
} > stubs/stubs.c
for library in torch_cuda c10_cuda; do
  gcc -shared -fPIC "-Wl,-soname,lib$library.so" -o "stubs/lib$library.so" stubs/stubs.c
done

# fast_rnnt builds with the pybind11 that torch was built with, a C++20 compiler and Python.h in reach.
"$python" -m pip download --quiet --no-deps --no-binary :all: pybind11==3.0.4
tar xzf pybind11-3.0.4.tar.gz
"$python" -m pip install --quiet wheel setuptools
CPATH=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') \
  FT_MAKE_ARGS=-j2 \
  FT_CMAKE_ARGS="-DCMAKE_BUILD_TYPE=Release -DFT_BUILD_TESTS=OFF -DFT_WITH_CUDA=OFF -DCMAKE_CXX_STANDARD=20 -DFETCHCONTENT_SOURCE_DIR_PYBIND11=$dir/pybind11-3.0.4" \
  "$python" -m pip install --quiet --no-build-isolation --no-deps fast_rnnt==1.3

"$python" -m pip install --quiet --no-deps speechbrain==1.1.2 hyperpyyaml ruamel.yaml joblib \
  huggingface_hub requests tqdm pyyaml filelock fsspec certifi charset-normalizer idna urllib3 scipy
"$python" -m pip install --quiet --no-deps fast-ctc-decode==0.3.7 flashlight-text==0.0.7 \
  pyctcdecode==0.5.0 pygtrie

echo "export LD_LIBRARY_PATH=$dir/stubs:$there/nvidia/cu13/lib PATH=$dir/venv/bin:\$PATH" > activate.sh
echo "now: . $dir/activate.sh"
