// One source for a GPU and for a CPU: what a block of threads is on each.
//
// A kernel is a struct with Arguments and a static body(arguments, block, blocks, shared). The body is a sequence of phases:
//
//     PHASE(t) { ... }        every thread t of the block runs this; then all wait for each other
//
// and nothing outside a phase reads or writes memory. On a GPU a phase is its body followed by __syncthreads(). On a CPU it is a loop over
// the threads, upwards or downwards as asked: where both orders give the same bits, no thread reads in a phase what another writes in it.
// What threads keep from one phase to the next lies in shared memory, which a CPU fills with NaN before each block.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

constexpr int THREADS = 256;

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__
#define PHASE(t) for (int t = threadIdx.x, phase_once = 1; phase_once; phase_once = 0, __syncthreads())

using float16 = __half;
using bfloat16 = __nv_bfloat16;

template <class Acc, class T>
DEVICE Acc widen(T value) {
    return static_cast<Acc>(value);
}
template <>
DEVICE float widen<float, float16>(float16 value) {
    return __half2float(value);
}
template <>
DEVICE float widen<float, bfloat16>(bfloat16 value) {
    return __bfloat162float(value);
}
template <class T, class Acc>
DEVICE T narrow(Acc value) {
    return static_cast<T>(value);
}
template <>
DEVICE float16 narrow<float16, float>(float value) {
    return __float2half_rn(value);
}
template <>
DEVICE bfloat16 narrow<bfloat16, float>(float value) {
    return __float2bfloat16_rn(value);
}

template <class Kernel>
__global__ void __launch_bounds__(THREADS) run(const typename Kernel::Arguments arguments) {
    extern __shared__ __align__(16) unsigned char shared[];
    Kernel::body(arguments, static_cast<long long>(blockIdx.x), static_cast<long long>(gridDim.x), shared);
}

// 0, or the CUDA error as a number. Every grid is one-dimensional: x alone goes to 2^31 - 1.
template <class Kernel>
int launch(const typename Kernel::Arguments& arguments, long long blocks, std::size_t shared_bytes, void* stream) {
    if (blocks < 1 || blocks > 2147483647LL) return static_cast<int>(cudaErrorInvalidConfiguration);
    if (shared_bytes > 48 * 1024) {
        const cudaError_t error =
            cudaFuncSetAttribute(run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
        if (error != cudaSuccess) return static_cast<int>(error);
    }
    run<Kernel><<<static_cast<unsigned>(blocks), THREADS, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments);
    return static_cast<int>(cudaGetLastError());
}

#else  // a CPU

#include <cstring>
#include <vector>

#define DEVICE inline

inline bool downwards = false;  // the order in which a phase goes through its threads

#define PHASE(t) for (int phase_k = 0, t = downwards ? THREADS - 1 : 0; phase_k < THREADS; ++phase_k, t += downwards ? -1 : 1)

using float16 = _Float16;

struct bfloat16 {
    std::uint16_t bits;
};

template <class Acc, class T>
Acc widen(T value) {
    return static_cast<Acc>(value);
}
template <>
inline float widen<float, bfloat16>(bfloat16 value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}
template <class T, class Acc>
T narrow(Acc value) {
    return static_cast<T>(value);
}
template <>
inline bfloat16 narrow<bfloat16, float>(float value) {  // to nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return {0x7fc0};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <class Kernel>
int launch(const typename Kernel::Arguments& arguments, long long blocks, std::size_t shared_bytes, void*) {
    std::vector<double> shared(shared_bytes / sizeof(double) + 2);  // doubles, so that it is aligned
    for (long long block = 0; block < blocks; ++block) {
        std::memset(shared.data(), 0xff, shared.size() * sizeof(double));  // NaN in every format
        Kernel::body(arguments, block, blocks, reinterpret_cast<unsigned char*>(shared.data()));
    }
    return 0;
}

#endif

template <class T>
struct AccumulatorOf {
    using type = float;
};
template <>
struct AccumulatorOf<double> {
    using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

template <class T, int VEC>
struct alignas(sizeof(T) * VEC) Vector {
    T at[VEC];
};

template <class T, int VEC>
DEVICE Vector<T, VEC> load(const T* place) {
    return *reinterpret_cast<const Vector<T, VEC>*>(place);
}

template <class T, int VEC>
DEVICE void store(T* place, const Vector<T, VEC>& values) {
    *reinterpret_cast<Vector<T, VEC>*>(place) = values;
}

// Sums over `rows` (a power of two) rows of `width` values each, into row 0. A statement of a body, not of a phase.
template <class Acc>
DEVICE void sum_tree(Acc* values, int rows, int width) {
    for (int half = rows / 2; half > 0; half /= 2) {
        PHASE(t) {
            for (int i = t; i < half * width; i += THREADS) values[i] += values[i + half * width];
        }
    }
}
