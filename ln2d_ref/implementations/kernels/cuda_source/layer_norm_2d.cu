// LayerNorm2d on (N, C, H, W), forward and backward, `channel` and `sample` semantics: launchers with C linkage.
//
//     nvcc -O3 -std=c++17 -shared -Xcompiler -fPIC -gencode arch=compute_90,code=sm_90 -o liblayer_norm_2d.so layer_norm_2d.cu
//     g++ -O2 -std=c++17 -shared -fPIC -x c++ -o liblayer_norm_2d.so layer_norm_2d.cu       (on the CPU, for tests)
//
// dtype: 0 float16, 1 bfloat16, 2 float32, 3 float64, of x, y, dy and dx. All else is in the accumulator's: float32, or float64 for 3.
// vector: 1 where 16-byte accesses are allowed (sizes and strides are multiples of 16 bytes' worth, pointers aligned), else 0.
// Strides and sizes count elements, and every whole number is 64 bits wide. A null pointer stands for an absent argument or a result that is not wanted.
// Each returns 0, or a CUDA error as a number; -1 for a dtype that does not exist. None of them synchronises.
#include "channel.h"
#include "sample.h"

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

using Size = long long;

template <template <class, int> class Kernel, class Call>
int with_vector(Size dtype, Size vector, Call call) {
    switch (dtype * 2 + (vector ? 1 : 0)) {
        case 0: return call(Kernel<float16, 1>());
        case 1: return call(Kernel<float16, 8>());
        case 2: return call(Kernel<bfloat16, 1>());
        case 3: return call(Kernel<bfloat16, 8>());
        case 4: return call(Kernel<float, 1>());
        case 5: return call(Kernel<float, 4>());
        case 6: return call(Kernel<double, 1>());
        case 7: return call(Kernel<double, 2>());
    }
    return -1;
}

template <class T, int VEC>
using ForwardHeld = ChannelForward<T, VEC, true>;
template <class T, int VEC>
using ForwardReread = ChannelForward<T, VEC, false>;
template <class T, int VEC>
using BackwardHeld = ChannelBackward<T, VEC, true>;
template <class T, int VEC>
using BackwardReread = ChannelBackward<T, VEC, false>;

}  // namespace

// Bytes of shared memory that the channel kernels take with `held`, so that the caller can choose a width.
EXPORT Size ln2d_channel_shared_bytes(Size dtype, Size vector, Size backward, Size channels, Size width) {
    Size bytes = -1;
    const auto keep = [&](auto kernel) {
        bytes = static_cast<Size>(decltype(kernel)::shared_bytes(channels, static_cast<int>(width)));
        return 0;
    };
    backward ? with_vector<BackwardHeld>(dtype, vector, keep) : with_vector<ForwardHeld>(dtype, vector, keep);
    return bytes;
}

EXPORT int ln2d_channel_forward(Size dtype, Size vector, Size held, Size width, const void* x, const void* weight, const void* bias, void* y,
                                void* mean, void* rstd, double eps, Size channels, Size pixels, Size columns, Size x_n, Size x_c,
                                void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        typename Kernel::Arguments a{};
        a.x = static_cast<decltype(a.x)>(x);
        a.weight = static_cast<const Acc*>(weight);
        a.bias = static_cast<const Acc*>(bias);
        a.y = static_cast<decltype(a.y)>(y);
        a.mean = static_cast<Acc*>(mean);
        a.rstd = static_cast<Acc*>(rstd);
        a.eps = eps;
        a.channels = channels;
        a.pixels = pixels;
        a.columns = columns;
        a.in = {x_n, x_c};
        a.out = {channels * pixels, pixels};
        a.width = static_cast<int>(width);
        return launch<Kernel>(a, (columns + width - 1) / width, Kernel::shared_bytes(channels, static_cast<int>(width)), stream);
    };
    return held ? with_vector<ForwardHeld>(dtype, vector, call) : with_vector<ForwardReread>(dtype, vector, call);
}

EXPORT int ln2d_channel_backward(Size dtype, Size vector, Size held, Size width, const void* dy, const void* x, const void* weight,
                                 const void* mean, const void* rstd, void* dx, void* dweight, void* dbias, Size channels, Size pixels,
                                 Size columns, Size dy_n, Size dy_c, Size x_n, Size x_c, Size blocks, void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        typename Kernel::Arguments a{};
        a.dy = static_cast<decltype(a.dy)>(dy);
        a.x = static_cast<decltype(a.x)>(x);
        a.weight = static_cast<const Acc*>(weight);
        a.mean = static_cast<const Acc*>(mean);
        a.rstd = static_cast<const Acc*>(rstd);
        a.dx = static_cast<decltype(a.dx)>(dx);
        a.dweight = static_cast<Acc*>(dweight);
        a.dbias = static_cast<Acc*>(dbias);
        a.channels = channels;
        a.pixels = pixels;
        a.columns = columns;
        a.upstream = {dy_n, dy_c};
        a.in = {x_n, x_c};
        a.out = {channels * pixels, pixels};
        a.width = static_cast<int>(width);
        return launch<Kernel>(a, blocks, Kernel::shared_bytes(channels, static_cast<int>(width)), stream);
    };
    return held ? with_vector<BackwardHeld>(dtype, vector, call) : with_vector<BackwardReread>(dtype, vector, call);
}

EXPORT Size ln2d_sample_splits(Size size) { return (size + CHUNK - 1) / CHUNK; }

// Scratch: chunk_mean and chunk_squares of shape (N, ln2d_sample_splits(size)).
EXPORT int ln2d_sample_statistics(Size dtype, Size vector, const void* x, void* chunk_mean, void* chunk_squares, void* mean, void* rstd,
                                  double eps, Size samples, Size size, Size stride, void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        using Merge = SampleMerge<Acc>;
        const Size splits = ln2d_sample_splits(size);
        typename Kernel::Arguments a{};
        a.x = static_cast<decltype(a.x)>(x);
        a.mean = static_cast<Acc*>(chunk_mean);
        a.squares = static_cast<Acc*>(chunk_squares);
        a.size = size;
        a.stride = stride;
        a.splits = splits;
        const int error = launch<Kernel>(a, samples * splits, Kernel::shared_bytes(), stream);
        if (error) return error;
        typename Merge::Arguments m{};
        m.chunk_mean = static_cast<const Acc*>(chunk_mean);
        m.chunk_squares = static_cast<const Acc*>(chunk_squares);
        m.mean = static_cast<Acc*>(mean);
        m.rstd = static_cast<Acc*>(rstd);
        m.eps = eps;
        m.size = size;
        m.splits = splits;
        return launch<Merge>(m, samples, Merge::shared_bytes(), stream);
    };
    return with_vector<SampleStatistics>(dtype, vector, call);
}

EXPORT int ln2d_sample_normalise(Size dtype, Size vector, const void* x, const void* weight, const void* bias, void* y, const void* mean,
                                 const void* rstd, Size samples, Size size, Size stride, Size step, void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        typename Kernel::Arguments a{};
        a.x = static_cast<decltype(a.x)>(x);
        a.weight = static_cast<const Acc*>(weight);
        a.bias = static_cast<const Acc*>(bias);
        a.y = static_cast<decltype(a.y)>(y);
        a.mean = static_cast<const Acc*>(mean);
        a.rstd = static_cast<const Acc*>(rstd);
        a.size = size;
        a.stride = stride;
        a.splits = ln2d_sample_splits(size);
        a.step = step;
        return launch<Kernel>(a, samples * a.splits, Kernel::shared_bytes(), stream);
    };
    return with_vector<SampleNormalise>(dtype, vector, call);
}

template <class T, int VEC>
struct RowSums : SampleRowSums<T> {};

// sums and sums_x have shape (ceil(pixels / chunk), samples · channels); weight, of shape (C, H, W), may be null.
EXPORT int ln2d_sample_row_sums(Size dtype, const void* dy, const void* x, const void* weight, const void* mean, const void* rstd,
                                void* sums, void* sums_x, Size samples, Size channels, Size pixels, Size dy_stride, Size x_stride,
                                Size chunk, Size lanes, void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        typename Kernel::Arguments a{};
        a.dy = static_cast<decltype(a.dy)>(dy);
        a.x = static_cast<decltype(a.x)>(x);
        a.weight = static_cast<const Acc*>(weight);
        a.mean = static_cast<const Acc*>(mean);
        a.rstd = static_cast<const Acc*>(rstd);
        a.sums = static_cast<Acc*>(sums);
        a.sums_x = static_cast<Acc*>(sums_x);
        a.channels = channels;
        a.pixels = pixels;
        a.rows = samples * channels;
        a.dy_stride = dy_stride;
        a.x_stride = x_stride;
        a.splits = (pixels + chunk - 1) / chunk;
        a.chunk = chunk;
        a.lanes = static_cast<int>(lanes);
        const Size together = THREADS / lanes;
        return launch<Kernel>(a, (a.rows + together - 1) / together * a.splits, Kernel::shared_bytes(), stream);
    };
    return with_vector<RowSums>(dtype, 0, call);
}

template <class Acc>
static int means(const void* sums, const void* sums_x, const void* weight, void* mean_g, void* mean_gx, Size samples, Size channels,
                 Size size, void* stream) {
    using Kernel = SampleMeans<Acc>;
    typename Kernel::Arguments a{};
    a.sums = static_cast<const Acc*>(sums);
    a.sums_x = static_cast<const Acc*>(sums_x);
    a.weight = static_cast<const Acc*>(weight);
    a.mean_g = static_cast<Acc*>(mean_g);
    a.mean_gx = static_cast<Acc*>(mean_gx);
    a.channels = channels;
    a.size = size;
    return launch<Kernel>(a, samples, Kernel::shared_bytes(), stream);
}

// weight, of shape (C,), may be null.
EXPORT int ln2d_sample_means(Size dtype, const void* sums, const void* sums_x, const void* weight, void* mean_g, void* mean_gx,
                             Size samples, Size channels, Size size, void* stream) {
    return dtype == 3 ? means<double>(sums, sums_x, weight, mean_g, mean_gx, samples, channels, size, stream)
                      : means<float>(sums, sums_x, weight, mean_g, mean_gx, samples, channels, size, stream);
}

// dweight and dbias have shape (ceil(samples / together), size), and are null where parameters have shape (C,).
EXPORT int ln2d_sample_input_gradient(Size dtype, Size vector, const void* dy, const void* x, const void* weight, const void* mean,
                                      const void* rstd, const void* mean_g, const void* mean_gx, void* dx, void* dweight, void* dbias,
                                      Size samples, Size size, Size dy_stride, Size x_stride, Size together, Size step, void* stream) {
    const auto call = [&](auto kernel) {
        using Kernel = decltype(kernel);
        using Acc = typename Kernel::Acc;
        typename Kernel::Arguments a{};
        a.dy = static_cast<decltype(a.dy)>(dy);
        a.x = static_cast<decltype(a.x)>(x);
        a.weight = static_cast<const Acc*>(weight);
        a.mean = static_cast<const Acc*>(mean);
        a.rstd = static_cast<const Acc*>(rstd);
        a.mean_g = static_cast<const Acc*>(mean_g);
        a.mean_gx = static_cast<const Acc*>(mean_gx);
        a.dx = static_cast<decltype(a.dx)>(dx);
        a.dweight = static_cast<Acc*>(dweight);
        a.dbias = static_cast<Acc*>(dbias);
        a.samples = samples;
        a.size = size;
        a.dy_stride = dy_stride;
        a.x_stride = x_stride;
        const Size each = Kernel::VALUES;
        a.tiles = (size + each - 1) / each;
        a.together = together;
        a.step = step;
        return launch<Kernel>(a, a.tiles * ((samples + together - 1) / together), Kernel::shared_bytes(), stream);
    };
    return with_vector<SampleInputGradient>(dtype, vector, call);
}

template <class Acc>
static int sum_rows(const void* terms, void* result, Size rows, Size columns, Size chunk, Size stride_row, Size stride_column,
                    void* stream) {
    using Kernel = SumRows<Acc>;
    typename Kernel::Arguments a{};
    a.terms = static_cast<const Acc*>(terms);
    a.result = static_cast<Acc*>(result);
    a.rows = rows;
    a.columns = columns;
    a.chunk = chunk;
    a.chunks = (rows + chunk - 1) / chunk;
    a.stride_row = stride_row;
    a.stride_column = stride_column;
    return launch<Kernel>(a, (columns + Kernel::ACROSS - 1) / Kernel::ACROSS * a.chunks, Kernel::shared_bytes(), stream);
}

EXPORT int ln2d_sum_rows(Size dtype, const void* terms, void* result, Size rows, Size columns, Size chunk, Size stride_row,
                         Size stride_column, void* stream) {
    return dtype == 3 ? sum_rows<double>(terms, result, rows, columns, chunk, stride_row, stride_column, stream)
                      : sum_rows<float>(terms, result, rows, columns, chunk, stride_row, stride_column, stream);
}

#ifndef __CUDACC__
// The order in which threads run on a CPU.
EXPORT void ln2d_set_downwards(int value) { downwards = value; }
#endif
