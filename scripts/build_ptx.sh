#!/usr/bin/env bash
# Write the PTX of the station's kernel, for devices without nvcc.
#   scripts/build_ptx.sh [FILE]
# compute_75 is the oldest that nvcc 13 knows, and its code runs on everything newer (Orin is 8.7, Thor 11.0).
# nvcc 13 writes ".version 9.0", which the drivers of JetPack 6 refuse. The kernel uses nothing that came after
# 7.0, which all of them take. -fmad=false: the rounding of OpenCV.
set -euo pipefail
cd "$(dirname "$0")/.."
source=edge_runtime/to_input.cu
to=${1:-edge_runtime/to_input.ptx}
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
nvcc -ptx -arch=compute_75 -fmad=false -o "$raw" "$source"
{
    echo "// Made by scripts/build_ptx.sh. Do not edit."
    echo "// source: to_input.cu, SHA-256 $(sha256sum "$source" | cut -d ' ' -f 1)"
    echo "// nvcc: $(nvcc --version | sed -n 's/^Cuda compilation tools, release //p')"
    # What nvcc writes about itself is left out.
    sed -e '/^\/\//d' -e 's/^\.version .*/.version 7.0/' "$raw"
} >"$to"
