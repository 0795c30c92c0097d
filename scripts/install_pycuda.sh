#!/usr/bin/env bash
# Build pycuda on a machine that has the CUDA toolkit but no driver, so that the tests of the device run there.
#   scripts/install_pycuda.sh [PYTHON]
# A Jetson needs none of this: there `pip install pycuda` finds the driver and cuRAND.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
version=$(sed -n 's/^pycuda==//p' constraints.txt)
constraints=$PWD/constraints.txt

if "$python" -c "from importlib.metadata import version; raise SystemExit(version('pycuda') != '$version')" 2>/dev/null; then
    exit 0
fi

# /usr/local/bin/nvcc may be a script that calls the real one: ask it where it lives.
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
top=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
if [ -z "$top" ]; then
    echo "no CUDA toolkit: put nvcc on the PATH and run this again" >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip download --quiet --no-deps --no-binary pycuda --dest "$scratch" "pycuda==$version"
tar -xzf "$scratch/pycuda-$version.tar.gz" -C "$scratch"
# An empty library stands in for the driver at link time. --no-as-needed keeps its name in the wheel, so that
# the real libcuda.so.1, or that of the tests, is found at run time.
gcc -shared -x c /dev/null -Wl,-soname,libcuda.so.1 -o "$scratch/libcuda.so"
cd "$scratch/pycuda-$version"
"$python" configure.py --cuda-root="$(realpath "$top")" --cudadrv-lib-dir="$scratch" --no-cuda-enable-curand
CFLAGS="-O1 -g0 -w" LDFLAGS="-Wl,--no-as-needed -s" \
    "$python" -m pip install -c "$constraints" .
