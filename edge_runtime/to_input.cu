// From a camera frame to the model's input: the numbers of kenpin.preprocess.to_input, one thread per pixel.
// An axis that shrinks averages over the covered area, an axis that grows is bilinear, each for itself. The
// order of the operations, the rounding and the integers are OpenCV's (INTER_AREA and INTER_LINEAR of 8 bit);
// it is to be compiled without fused multiply and add (-fmad=false).
//
// The PTX beside this file is made from it by scripts/build_ptx.sh.

typedef unsigned char byte;

// OpenCV's fixed point for bilinear weights.
#define ONE 2048

struct Image {
    const byte *first;
    long long pitch; // bytes from one row to the next
};

// What one pixel of the target covers of one axis of the source, in exact fractions: the pixel numbered
// `first` by the part `head`, `whole` pixels in full, the one after them by the part `tail`.
struct Cell {
    int first, whole;
    float head, body, tail;
};

// Two neighbours and their weights, which add up to ONE.
struct Pair {
    int near, far, near_weight, far_weight;
};

static __device__ Cell cell_of(int index, int source, int target) {
    int begin = index * source, end = begin + source;
    int cut = (target - begin % target) % target;
    Cell cell;
    cell.first = begin / target;
    cell.whole = (end - begin - cut) / target;
    cell.head = cut / (float)source;
    cell.body = target / (float)source;
    cell.tail = end % target / (float)source;
    return cell;
}

static __device__ Cell one_pixel(int index) {
    Cell cell = {index, 1, 0.0f, 1.0f, 0.0f};
    return cell;
}

static __device__ Pair pair_of(int index, int source, int target) {
    // The centre of the pixel, in halves of a target pixel; before the first and after the last: the edge.
    int centre = max((2 * index + 1) * source - target, 0);
    Pair pair;
    pair.near = centre / (2 * target);
    pair.far_weight = (centre % (2 * target) * ONE + target) / (2 * target);
    pair.near_weight = ONE - pair.far_weight;
    pair.far = min(pair.near + 1, source - 1);
    return pair;
}

static __device__ int to_byte(float value) { return min(max(__float2int_rn(value), 0), 255); }

// Weighted sum of one row of a cell.
static __device__ float row_sum(const byte *row, Cell cell) {
    float sum = 0.0f;
    if (cell.head > 0.0f) {
        sum += *row * cell.head;
        row += 3;
    }
    for (int n = 0; n < cell.whole; n++, row += 3)
        sum += *row * cell.body;
    if (cell.tail > 0.0f)
        sum += *row * cell.tail;
    return sum;
}

static __device__ int average(Image source, Cell column, Cell row, int channel) {
    const byte *at = source.first + row.first * source.pitch + 3 * column.first + channel;
    float sum = 0.0f;
    if (row.head > 0.0f) {
        sum += row_sum(at, column) * row.head;
        at += source.pitch;
    }
    for (int n = 0; n < row.whole; n++, at += source.pitch)
        sum += row_sum(at, column) * row.body;
    if (row.tail > 0.0f)
        sum += row_sum(at, column) * row.tail;
    return to_byte(sum);
}

// Where both axes shrink by a whole number, the sum is exact.
static __device__ int exact_average(Image source, Cell column, Cell row, int channel) {
    const byte *at = source.first + row.first * source.pitch + 3 * column.first + channel;
    int sum = 0;
    for (int y = 0; y < row.whole; y++, at += source.pitch)
        for (int x = 0; x < column.whole; x++)
            sum += at[3 * x];
    if (row.whole == 2 && column.whole == 2)
        return (sum + 2) >> 2;
    return to_byte(sum * (1.0f / (row.whole * column.whole)));
}

static __device__ int blend(int near, int far, Pair pair) {
    return near * pair.near_weight + far * pair.far_weight;
}

static __device__ int blend_rows(int near, int far, Pair pair) {
    return (((near >> 4) * pair.near_weight >> 16) + ((far >> 4) * pair.far_weight >> 16) + 2) >> 2;
}

// source: BGR of source_height rows, source_pitch bytes apart. target: BGR, height x width x 3, dense.
extern "C" __global__ void to_input(const byte *__restrict__ source, long long source_pitch, int source_width,
                                    int source_height, byte *__restrict__ target, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    Image image = {source, source_pitch};
    bool wider = width > source_width, higher = height > source_height;
    bool exact = source_width % width == 0 && source_height % height == 0;
    Pair columns = {x, x, ONE, 0}, rows = {y, y, ONE, 0};
    if (wider)
        columns = pair_of(x, source_width, width);
    if (higher)
        rows = pair_of(y, source_height, height);
    Cell near_column = wider ? one_pixel(columns.near) : cell_of(x, source_width, width);
    Cell far_column = wider ? one_pixel(columns.far) : near_column;
    Cell near_row = higher ? one_pixel(rows.near) : cell_of(y, source_height, height);
    Cell far_row = higher ? one_pixel(rows.far) : near_row;
    byte *to = target + 3 * ((long long)y * width + x);
    for (int channel = 0; channel < 3; channel++) {
        if (exact) {
            to[channel] = exact_average(image, near_column, near_row, channel);
            continue;
        }
        int top = average(image, near_column, near_row, channel);
        if (!wider && !higher) {
            to[channel] = top;
            continue;
        }
        int top_far = wider ? average(image, far_column, near_row, channel) : top;
        int bottom = higher ? average(image, near_column, far_row, channel) : top;
        int bottom_far = wider && higher ? average(image, far_column, far_row, channel) : wider ? top_far : bottom;
        to[channel] = blend_rows(blend(top, top_far, columns), blend(bottom, bottom_far, columns), rows);
    }
}
