#!/usr/bin/env bash
# Build the libcuda.so.1 in host memory.
#   tests/fake_cuda/build.sh FILE PYCUDA
# PYCUDA is pycuda's extension module: what it wants of a driver and is not written here only refuses.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=$(realpath "$1") pycuda=$(realpath "$2")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
gcc -std=gnu11 -O1 -fPIC -c "$here/libcuda.c" -o libcuda.o
g++ -O2 -fPIC -ffp-contract=off -I "$here/../../edge_runtime" -c "$here/kernels.cpp" -o kernels.o
nm -D --undefined-only "$pycuda" | sed -n 's/.* \(cu[A-Z][A-Za-z0-9_]*\)$/\1/p' | sort >wanted
nm --defined-only libcuda.o | sed -n 's/.* T //p' | sort >written
# 801: not supported
comm -23 wanted written | sed 's/.*/int &(void) { return 801; }/' >rest.c
# -Bsymbolic: the kernels may be loaded a second time in the same process.
gcc -shared -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -fPIC rest.c libcuda.o kernels.o -lstdc++ -lm -lpthread -o "$to"
