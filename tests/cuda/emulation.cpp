/* The emulated GPU's threads, and its kernels by name. See emulation.h. */
#include "emulation.h"

#include "lattice.h"
#include "cuda/launch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <utility>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;
int emulated_capability = 90;

extern "C" {
#define DECODER(name, suffix) void forge_decode_##name##_##suffix(const uint8_t *, void *, uint64_t);
#define ENCODER(name, ...)                                                                                          \
    void forge_encode_##name(const float *, const float *, const float *, const forge_lattice *, uint8_t *, uint64_t, \
                             uint64_t, float, forge_failure *);
#define MATVEC(name, ...) PRODUCT(name, f32, 1) PRODUCT(name, f32, 4) PRODUCT(name, f16, 1) PRODUCT(name, f16, 4)
#define PRODUCT(name, suffix, most) \
    void forge_matvec_##name##_##suffix##_##most(const uint8_t *, const void *, float *, uint64_t, uint64_t, uint64_t);
#include "kernels.def"
#undef DECODER
#undef ENCODER
#undef PRODUCT
void forge_row_mean_squares(const float *, float *, uint64_t, uint64_t);
}

namespace {

enum State { READY, AT_WARP, AT_CTA, ENDED };
constexpr size_t STACK = 256 << 10;
constexpr unsigned LANES = 32, MOST = 1024;

struct Fiber {
    ucontext_t context;
    State state;
    int says;
    uint32_t word;
    const uint32_t *a, *b;
};

Fiber fibers[MOST];
std::vector<char> stacks;
ucontext_t scheduler;
unsigned current;
void (*body)(void **);
void **arguments;

void refuse(const char *why)
{
    fprintf(stderr, "emulated GPU: %s (CTA %u, thread %u)\n", why, blockIdx.x, current);
    abort();
}

void wait(State state)
{
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

void begin()
{
    body(arguments);
    fibers[current].state = ENDED;
    swapcontext(&fibers[current].context, &scheduler);
}

void resume(unsigned i)
{
    current = i;
    threadIdx.x = i;
    swapcontext(&scheduler, &fibers[i].context);
}

/* Lets those go on whose warp, or CTA, has come together. Says whether any may. */
bool release(unsigned threads)
{
    unsigned at_cta = 0, ended = 0;
    bool any = false;
    for (unsigned i = 0; i < threads; i++) {
        at_cta += fibers[i].state == AT_CTA;
        ended += fibers[i].state == ENDED;
    }
    for (unsigned warp = 0; warp < threads; warp += LANES) {
        unsigned n = 0, waiting = 0;
        for (unsigned i = warp; i < threads && i < warp + LANES; i++, n++) {
            waiting += fibers[i].state == AT_WARP;
        }
        for (unsigned i = warp; waiting == n && i < warp + n; i++) {
            fibers[i].state = READY;
            any = true;
        }
    }
    for (unsigned i = 0; at_cta == threads && i < threads; i++) {
        fibers[i].state = READY;
        any = true;
    }
    if (!any && ended != threads) {
        refuse("threads wait at a barrier that others do not reach");
    }
    return any;
}

void run_cta(unsigned threads)
{
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = &stacks[i * STACK];
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        f.state = READY;
        makecontext(&f.context, begin, 0);
    }
    do {
        for (unsigned k = 0; k < threads; k++) {
            const unsigned i = blockIdx.x % 2 ? threads - 1 - k : k;
            if (fibers[i].state == READY) {
                resume(i);
            }
        }
    } while (release(threads));
}

template <class... A, size_t... i> void call(void (*kernel)(A...), void **args, std::index_sequence<i...>)
{
    kernel(*(A *)args[i]...);
}

template <class F> struct Unpacked;
template <class... A> struct Unpacked<void (*)(A...)> {
    template <void (*kernel)(A...)> static void run(void **args)
    {
        call(kernel, args, std::index_sequence_for<A...>());
    }
    static const size_t *sizes()
    {
        static const size_t each[] = {sizeof(A)..., 0};
        return each;
    }
};

struct Kernel {
    const char *name;
    void (*run)(void **);
    const size_t *(*sizes)();
};

#define KERNEL(name) {#name, Unpacked<decltype(&name)>::template run<&name>, Unpacked<decltype(&name)>::sizes},
const Kernel kernels[] = {
#define DECODER(name, suffix) KERNEL(forge_decode_##name##_##suffix)
#define ENCODER(name, ...) KERNEL(forge_encode_##name)
#define PRODUCT(name, suffix, most) KERNEL(forge_matvec_##name##_##suffix##_##most)
#include "kernels.def"
    KERNEL(forge_row_mean_squares)
};

} // namespace

void emulated_barrier(int of_cta) { wait(of_cta ? AT_CTA : AT_WARP); }

int emulated_any(int of_cta, int mine)
{
    fibers[current].says = mine;
    emulated_barrier(of_cta);
    const unsigned first = of_cta ? 0 : current / LANES * LANES, end = of_cta ? blockDim.x : first + LANES;
    int any = 0;
    for (unsigned i = first; i < end && i < blockDim.x; i++) {
        any |= fibers[i].says != 0;
    }
    emulated_barrier(of_cta);
    return any;
}

uint32_t emulated_shuffle(uint32_t mine, unsigned from)
{
    fibers[current].word = mine;
    emulated_barrier(0);
    const uint32_t found = fibers[current / LANES * LANES + from].word;
    emulated_barrier(0);
    return found;
}

namespace {

double value_of(uint32_t pair, unsigned i)
{
    const uint32_t bits = pair >> 16 * i << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* A sum as matrix units make it: of addends of which nothing stays that is below a 2^-24th of the largest, cut off to a
 * float. Of an A100 that is known, of others that they keep as much or more. */
float summed(const double *addends, int n)
{
    int most = -1000;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(addends[i])) {
            for (int k = 0; k < n; k++) {
                sum += addends[k];
            }
            return (float)sum;
        }
        most = addends[i] != 0 && ilogb(addends[i]) > most ? ilogb(addends[i]) : most;
    }
    for (int i = 0; i < n; i++) {
        sum += ldexp(trunc(ldexp(addends[i], 24 - most)), most - 24);
    }
    const float near = (float)sum;
    return fabs((double)near) > fabs(sum) ? nextafterf(near, 0) : near;
}

} // namespace

void emulated_multiply_tile(float *c, const uint32_t *a, const uint32_t *b)
{
    Fiber &mine = fibers[current];
    mine.a = a;
    mine.b = b;
    emulated_barrier(0);
    const Fiber *warp = fibers + current / LANES * LANES;
    const unsigned row = current % LANES / 4, column = current % 4 * 2;
    float made[4];
    for (unsigned j = 0; j < 4; j++) {
        made[j] = c[j];
        for (unsigned half = 0; half < 2; half++) { /* eight products at a time */
            double addends[9] = {made[j]};
            for (unsigned k = 0; k < 8; k++) {
                const uint32_t levels = warp[row * 4 + k / 2].a[2 * half + j / 2];
                const uint32_t numbers = warp[(column + j % 2) * 4 + k / 2].b[half];
                addends[1 + k] = value_of(levels, k % 2) * value_of(numbers, k % 2);
            }
            made[j] = summed(addends, 9);
        }
    }
    emulated_barrier(0);
    memcpy(c, made, sizeof made);
}

namespace {

const Kernel *kernel_of(const char *name)
{
    for (const Kernel &kernel : kernels) {
        if (strcmp(kernel.name, name) == 0) {
            return &kernel;
        }
    }
    return nullptr;
}

} // namespace

/* The bytes of each of a kernel's arguments, and 0 behind them; NULL for an unknown name. */
extern "C" const size_t *emulated_arguments(const char *name)
{
    const Kernel *kernel = kernel_of(name);
    return kernel ? kernel->sizes() : nullptr;
}

/* As cuLaunchKernel in one dimension, of which only the CTAs from `first` on run; -1 for an unknown name. */
extern "C" int emulated_launch(const char *name, unsigned first, unsigned grid, unsigned threads, void **args)
{
    const Kernel *kernel = kernel_of(name);
    if (kernel == nullptr) {
        return -1;
    }
    if (threads > MOST || threads == 0 || grid == 0) {
        refuse("a launch that no GPU would take");
    }
    stacks.resize(MOST * STACK);
    body = kernel->run;
    arguments = args;
    gridDim = {grid, 1, 1};
    blockDim = {threads, 1, 1};
    for (unsigned i = first; i < grid; i++) {
        blockIdx = {i, 0, 0};
        run_cta(threads);
    }
    return 0;
}
