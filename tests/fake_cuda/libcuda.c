// A libcuda.so.1 in host memory, on which the real pycuda runs without a GPU.
//
// It is as lazy as a device may be: what is enqueued runs when somebody waits for it, so reading too early or
// freeing too early is seen. It keeps account of all that is alive, and fails on request.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t Address;
enum { OK, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

// ---- what tests ask for and see ----

static int devices = 1, integrated = 1, lost, failing_with, failing_sticks;
static char failing[64];
static long memory_live, handles_live, contexts_live, allocations;

void fake_set(int devices_, int integrated_) { devices = devices_, integrated = integrated_; }
void fake_fail(const char *function, int with, int sticks) {
    strncpy(failing, function, sizeof failing - 1);
    failing_with = with, failing_sticks = sticks;
}
void fake_heal(void) { lost = 0, failing[0] = 0; }
long fake_memory_live(void) { return memory_live; }
long fake_handles_live(void) { return handles_live; }
long fake_contexts_live(void) { return contexts_live; }
long fake_allocations(void) { return allocations; }

static void forget(void);
void fake_forget(void) { fake_heal(), forget(), handles_live = contexts_live = 0; }

static int failure(const char *function) {
    if (lost)
        return lost;
    if (strcmp(failing, function))
        return OK;
    failing[0] = 0;
    if (failing_sticks)
        lost = failing_with;
    return failing_with;
}
#define MAY_FAIL do { int result = failure(__func__); if (result) return result; } while (0)

// ---- contexts: one primary one, and each thread's stack ----

static char primary;
static __thread void *stack[16];
static __thread int depth;
#define NEEDS_CONTEXT do { MAY_FAIL; if (!depth) return INVALID_CONTEXT; } while (0)

// ---- memory ----

typedef struct Piece {
    char *first;
    size_t size;
    struct Piece *next;
} Piece;
static Piece *pieces;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static char *allocate(size_t size) {
    Piece *piece = malloc(sizeof *piece);
    pthread_mutex_lock(&lock);
    *piece = (Piece){calloc(1, size), size, pieces};
    pieces = piece, memory_live++, allocations++;
    pthread_mutex_unlock(&lock);
    return piece->first;
}

static int release(void *first) {
    int result = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (Piece **at = &pieces; *at; at = &(*at)->next)
        if ((*at)->first == first) {
            Piece *gone = *at;
            *at = gone->next, memory_live--, result = OK;
            free(gone->first), free(gone);
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}

static int is_alive(Address address, size_t size) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (Piece *at = pieces; at && !found; at = at->next)
        found = (Address)at->first <= address && address + size <= (Address)at->first + at->size;
    pthread_mutex_unlock(&lock);
    return found;
}

// ---- streams: queues of copies, launches and marks ----

typedef struct {
    double ms; // 0: not passed
    struct Stream *stream;
} Event;

typedef struct Work {
    enum { UPLOAD, DOWNLOAD, LAUNCH, MARK } kind;
    Address device;
    void *host;
    size_t size;
    const char *kernel;
    unsigned grid[3], block[3];
    char arguments[256];
    Event *event;
    struct Work *next;
} Work;

typedef struct {
    Work *first;
} Graph;

typedef struct Stream {
    Work *first;
    int capturing, invalidated;
    struct Stream *next;
} Stream;
static Stream *streams;

// What the driver does when a process ends: its streams are then new ones.
static void forget(void) {
    while (pieces)
        release(pieces->first);
    streams = 0, depth = 0;
}

int run_kernel(const char *name, const unsigned *grid, const unsigned *block, const void *arguments);

static void append(Work **to, const Work *work) {
    while (*to)
        to = &(*to)->next;
    *to = malloc(sizeof **to);
    **to = *work, (*to)->next = 0;
}

static void drop(Work **all) {
    while (*all) {
        Work *gone = *all;
        *all = gone->next, free(gone);
    }
}

// A device has lost what touches memory that is not there.
static int run(const Work *work) {
    switch (work->kind) {
    case UPLOAD:
    case DOWNLOAD:
        if (!is_alive(work->device, work->size))
            return ILLEGAL_ADDRESS;
        if (work->kind == UPLOAD)
            memcpy((void *)work->device, work->host, work->size);
        else
            memcpy(work->host, (void *)work->device, work->size);
        return OK;
    case LAUNCH:
        return run_kernel(work->kernel, work->grid, work->block, work->arguments) ? OK : INVALID_VALUE;
    case MARK: {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        work->event->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
    }
    }
    return OK;
}

static int finish(Stream *stream) {
    if (stream->capturing) {
        stream->invalidated = 1;
        return CAPTURE_UNSUPPORTED;
    }
    while (stream->first && !lost) {
        Work *work = stream->first;
        stream->first = work->next;
        lost = run(work);
        free(work);
    }
    return lost;
}

static int finish_all(void) {
    int result = OK;
    for (Stream *at = streams; at; at = at->next) {
        int one = finish(at);
        result = one ? one : result;
    }
    return result;
}

// Allocating and waiting are not to be captured.
static int forbidden(void) {
    int found = 0;
    for (Stream *at = streams; at; at = at->next)
        if (at->capturing)
            found = at->invalidated = 1;
    return found ? CAPTURE_UNSUPPORTED : OK;
}
#define NOT_IN_A_CAPTURE do { NEEDS_CONTEXT; if (forbidden()) return CAPTURE_UNSUPPORTED; } while (0)

static int enqueue(Stream *stream, const Work *work) {
    if (!stream)
        return INVALID_VALUE;
    append(&stream->first, work);
    return OK;
}

// ---- the driver's functions ----

int cuInit(unsigned flags) { (void)flags; MAY_FAIL; return OK; }
int cuDriverGetVersion(int *version) { MAY_FAIL; return *version = 12060, OK; }
int cuDeviceGetCount(int *count) { MAY_FAIL; return *count = devices, OK; }
int cuDeviceGet(int *device, int number) { MAY_FAIL; return *device = number, OK; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; MAY_FAIL; return strncpy(name, "Fake Orin", size), OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; return *major = 8, *minor = 7, OK; }
int cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; return *size = (size_t)8 << 30, OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    return *value = which == 18 ? integrated : which == 16 ? 8 : 0, OK; // 18: integrated, 16: multiprocessors
}
int cuGetErrorString(int error, const char **text) {
    *text = error == INVALID_CONTEXT ? "invalid device context"
          : error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
          : error == OUT_OF_MEMORY ? "out of memory" : "another error";
    return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; MAY_FAIL; return *context = &primary, contexts_live++, OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; MAY_FAIL; return contexts_live--, OK; }
int cuCtxPushCurrent_v2(void *context) { MAY_FAIL; return stack[depth++] = context, OK; }
int cuCtxPopCurrent_v2(void **context) {
    MAY_FAIL;
    if (!depth)
        return INVALID_CONTEXT;
    *context = stack[--depth];
    return OK;
}
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; return *device = 0, OK; }
int cuCtxSynchronize(void) { NOT_IN_A_CAPTURE; return finish_all(); }

int cuMemAlloc_v2(Address *address, size_t size) {
    NOT_IN_A_CAPTURE;
    if (!size)
        return INVALID_VALUE;
    if (size > (size_t)8 << 30)
        return OUT_OF_MEMORY;
    return *address = (Address)allocate(size), OK;
}
int cuMemFree_v2(Address address) { NOT_IN_A_CAPTURE; finish_all(); return release((void *)address); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) { (void)flags; NOT_IN_A_CAPTURE; return *memory = allocate(size), OK; }
int cuMemFreeHost(void *memory) { NOT_IN_A_CAPTURE; finish_all(); return release(memory); }
int cuMemHostGetDevicePointer_v2(Address *address, void *memory, unsigned flags) {
    (void)flags;
    NEEDS_CONTEXT;
    return *address = (Address)memory, OK;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, Stream *stream) {
    NEEDS_CONTEXT;
    return enqueue(stream, &(Work){.kind = UPLOAD, .device = to, .host = (void *)from, .size = size});
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, Stream *stream) {
    NEEDS_CONTEXT;
    return enqueue(stream, &(Work){.kind = DOWNLOAD, .device = from, .host = to, .size = size});
}

int cuStreamCreate(Stream **stream, unsigned flags) {
    (void)flags;
    NOT_IN_A_CAPTURE;
    *stream = calloc(1, sizeof **stream);
    (*stream)->next = streams, streams = *stream, handles_live++;
    return OK;
}
int cuStreamDestroy_v2(Stream *stream) {
    NEEDS_CONTEXT;
    finish(stream);
    for (Stream **at = &streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next, handles_live--;
            drop(&stream->first), free(stream);
            return OK;
        }
    return INVALID_VALUE;
}
int cuStreamSynchronize(Stream *stream) { NEEDS_CONTEXT; return finish(stream); }
int cuStreamQuery(Stream *stream) { NEEDS_CONTEXT; return finish(stream); }

int cuEventCreate(Event **event, unsigned flags) {
    (void)flags;
    NEEDS_CONTEXT;
    return *event = calloc(1, sizeof **event), handles_live++, OK;
}
int cuEventDestroy_v2(Event *event) { NEEDS_CONTEXT; finish_all(); return free(event), handles_live--, OK; }
int cuEventRecord(Event *event, Stream *stream) {
    NEEDS_CONTEXT;
    event->stream = stream, event->ms = 0;
    return enqueue(stream, &(Work){.kind = MARK, .event = event});
}
int cuEventSynchronize(Event *event) { NEEDS_CONTEXT; return event->stream ? finish(event->stream) : OK; }
int cuEventElapsedTime_v2(float *ms, const Event *from, const Event *to) {
    NEEDS_CONTEXT;
    if (!from->ms || !to->ms)
        return NOT_READY;
    return *ms = to->ms - from->ms, OK;
}
int cuEventElapsedTime(float *ms, const Event *from, const Event *to) { return cuEventElapsedTime_v2(ms, from, to); }

// A module is its code; a function is its name.
int cuModuleLoadDataEx(char **module, const char *code, unsigned count, const int *options, void **values) {
    NEEDS_CONTEXT;
    for (unsigned n = 0; n < count; n++)
        if (options[n] == 4 || options[n] == 6) // sizes of the two logs: nothing to say
            values[n] = 0;
    int is_code = strstr(code, ".version") || !memcmp(code, "\177ELF", 4);
    if (!is_code)
        return 218; // invalid PTX
    return *module = strdup(code), handles_live++, OK;
}
int cuModuleUnload(char *module) { NEEDS_CONTEXT; return free(module), handles_live--, OK; }
int cuModuleGetFunction(const char **function, const char *module, const char *name) {
    NEEDS_CONTEXT;
    int known = !strcmp(name, "to_input") && (strstr(module, name) || !memcmp(module, "\177ELF", 4));
    return *function = "to_input", known ? OK : NOT_FOUND;
}
int cuFuncSetBlockShape(const char *function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; NEEDS_CONTEXT; return OK; }
int cuLaunchKernel(const char *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream *stream, void **parameters, void **extra) {
    (void)shared, (void)parameters;
    NEEDS_CONTEXT;
    // extra: 1, the packed arguments, 2, their size
    Work work = {.kind = LAUNCH, .kernel = function, .grid = {gx, gy, gz}, .block = {bx, by, bz}};
    memcpy(work.arguments, extra[1], *(size_t *)extra[3]);
    return enqueue(stream, &work);
}

int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    (void)mode;
    NEEDS_CONTEXT;
    finish(stream);
    return stream->capturing = 1, stream->invalidated = 0, OK;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    stream->capturing = 0, *graph = 0;
    Work *work = stream->first;
    stream->first = 0;
    int result = stream->invalidated ? CAPTURE_INVALIDATED : failure(__func__);
    if (result) {
        drop(&work);
        return result;
    }
    *graph = malloc(sizeof **graph);
    (*graph)->first = work, handles_live++;
    return OK;
}
int cuGraphInstantiateWithFlags(Graph **executable, const Graph *graph, uint64_t flags) {
    (void)flags;
    NEEDS_CONTEXT;
    *executable = calloc(1, sizeof **executable), handles_live++;
    for (const Work *at = graph->first; at; at = at->next)
        append(&(*executable)->first, at);
    return OK;
}
int cuGraphLaunch(const Graph *executable, Stream *stream) {
    NEEDS_CONTEXT;
    for (const Work *at = executable->first; at; at = at->next)
        append(&stream->first, at);
    return OK;
}
int cuGraphDestroy(Graph *graph) { return drop(&graph->first), free(graph), handles_live--, OK; }
int cuGraphExecDestroy(Graph *executable) { MAY_FAIL; return cuGraphDestroy(executable); }
