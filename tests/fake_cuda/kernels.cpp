// The kernels of the station, compiled for the host, and how to run one over its whole grid.
#include "on_host.h"

#include "to_input.cu"

#include <cstring>

// What a launch hands over: the arguments one after the other, each at its own alignment.
struct ToInput {
    const unsigned char *source;
    long long source_pitch;
    int source_width, source_height;
    unsigned char *target;
    int width, height;
};

// Returns 0 where there is no such kernel.
extern "C" int run_kernel(const char *name, const unsigned *grid, const unsigned *block, const void *arguments) {
    if (std::strcmp(name, "to_input"))
        return 0;
    ToInput with = *(const ToInput *)arguments;
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
            for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
                for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++)
                    to_input(with.source, with.source_pitch, with.source_width, with.source_height, with.target,
                             with.width, with.height);
    return 1;
}
