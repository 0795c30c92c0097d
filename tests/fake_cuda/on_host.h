// Lets a C++ compiler take a .cu file: the words of CUDA that our kernels use.
#pragma once
#include <cmath>

struct Index {
    unsigned x, y, z;
};

#define __global__
#define __device__

static thread_local Index blockIdx, threadIdx, blockDim;

template <typename T> static T min(T a, T b) { return a < b ? a : b; }
template <typename T> static T max(T a, T b) { return a > b ? a : b; }

// To the nearest, ties to even, which is how a process starts.
static int __float2int_rn(float value) { return (int)std::nearbyintf(value); }
