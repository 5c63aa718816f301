// `sample` semantics: a group is the n = C·P contiguous values of a sample, which several blocks share, since N may be 1.
// A parameter's index is i / step for element i: step is P for a shape of (C,), and 1 for (C, H, W).
#pragma once

#include "block.h"

constexpr long long CHUNK = 4096;  // values of a sample that one block takes

// Mean and sum of squared deviations of each chunk: (N, splits).
template <class T, int VEC>
struct SampleStatistics {
    using Acc = Accumulator<T>;

    struct Arguments {
        const T* x;
        Acc *mean, *squares;
        long long size, stride, splits;
    };

    static std::size_t shared_bytes() { return sizeof(Acc) * (THREADS + 1); }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        Acc *sums = reinterpret_cast<Acc*>(shared), *mean = sums + THREADS;
        const long long base = block % a.splits * CHUNK;
        const long long length = a.size - base < CHUNK ? a.size - base : CHUNK;
        const T* x = a.x + block / a.splits * a.stride + base;
        PHASE(t) {
            Acc sum = 0;
            for (long long i = t * VEC; i < length; i += THREADS * VEC) {
                const auto values = load<T, VEC>(x + i);
                for (int k = 0; k < VEC; ++k) sum += widen<Acc>(values.at[k]);
            }
            sums[t] = sum;
        }
        sum_tree(sums, THREADS, 1);
        PHASE(t) {
            if (t == 0) *mean = sums[0] / static_cast<Acc>(length);
        }
        PHASE(t) {
            Acc sum = 0;
            for (long long i = t * VEC; i < length; i += THREADS * VEC) {
                const auto values = load<T, VEC>(x + i);
                for (int k = 0; k < VEC; ++k) {
                    const Acc d = widen<Acc>(values.at[k]) - *mean;
                    sum += d * d;
                }
            }
            sums[t] = sum;
        }
        sum_tree(sums, THREADS, 1);
        PHASE(t) {
            if (t == 0) {
                a.mean[block] = *mean;
                a.squares[block] = sums[0];
            }
        }
    }
};

// mean and rstd of each sample from its chunks': Σ count·mean / n, then Σ (squares + count·(mean - its own)²) / n.
template <class Acc>
struct SampleMerge {
    struct Arguments {
        const Acc *chunk_mean, *chunk_squares;
        Acc *mean, *rstd;
        double eps;
        long long size, splits;
    };

    static std::size_t shared_bytes() { return sizeof(Acc) * (THREADS + 1); }

    static DEVICE Acc count(const Arguments& a, long long s) {
        return static_cast<Acc>(a.size - s * CHUNK < CHUNK ? a.size - s * CHUNK : CHUNK);
    }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        Acc *sums = reinterpret_cast<Acc*>(shared), *mean = sums + THREADS;
        PHASE(t) {
            Acc sum = 0;
            for (long long s = t; s < a.splits; s += THREADS) sum += count(a, s) * a.chunk_mean[block * a.splits + s];
            sums[t] = sum;
        }
        sum_tree(sums, THREADS, 1);
        PHASE(t) {
            if (t == 0) *mean = sums[0] / static_cast<Acc>(a.size);
        }
        PHASE(t) {
            Acc sum = 0;
            for (long long s = t; s < a.splits; s += THREADS) {
                const Acc d = a.chunk_mean[block * a.splits + s] - *mean;
                sum += count(a, s) * d * d + a.chunk_squares[block * a.splits + s];
            }
            sums[t] = sum;
        }
        sum_tree(sums, THREADS, 1);
        PHASE(t) {
            if (t == 0) {
                a.mean[block] = *mean;
                a.rstd[block] = Acc(1) / std::sqrt(sums[0] / static_cast<Acc>(a.size) + static_cast<Acc>(a.eps));
            }
        }
    }
};

template <class T, int VEC>
struct SampleNormalise {
    using Acc = Accumulator<T>;

    struct Arguments {
        const T* x;
        const Acc *weight, *bias;
        T* y;
        const Acc *mean, *rstd;
        long long size, stride, splits, step;  // VEC divides step, or step is 1
    };

    static std::size_t shared_bytes() { return 0; }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char*) {
        const long long sample = block / a.splits, base = block % a.splits * CHUNK;
        const long long end = a.size - base < CHUNK ? a.size : base + CHUNK;
        PHASE(t) {
            const Acc mean = a.mean[sample], rstd = a.rstd[sample];
            for (long long i = base + t * VEC; i < end; i += THREADS * VEC) {
                const auto values = load<T, VEC>(a.x + sample * a.stride + i);
                const long long parameter = i / a.step, next = a.step == 1 ? 1 : 0;
                Vector<T, VEC> result;
                for (int k = 0; k < VEC; ++k) {
                    const Acc weight = a.weight ? a.weight[parameter + k * next] : Acc(1);
                    const Acc bias = a.bias ? a.bias[parameter + k * next] : Acc(0);
                    result.at[k] = narrow<T>((widen<Acc>(values.at[k]) - mean) * rstd * weight + bias);
                }
                store<T, VEC>(a.y + sample * a.size + i, result);
            }
        }
    }
};

// Σ dy and Σ dy·x̂ along the pixels of each row, a row being a channel of a sample: (splits, N·C). dy is multiplied by a weight of
// shape (C, H, W) first. `lanes` threads, a power of two, share a row; a block has THREADS / lanes rows and `chunk` pixels of each.
template <class T>
struct SampleRowSums {
    using Acc = Accumulator<T>;

    struct Arguments {
        const T *dy, *x;
        const Acc *weight, *mean, *rstd;  // weight may be null
        Acc *sums, *sums_x;
        long long channels, pixels, rows, dy_stride, x_stride, splits, chunk;
        int lanes;
    };

    static std::size_t shared_bytes() { return sizeof(Acc) * 2 * THREADS; }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        Acc* sums = reinterpret_cast<Acc*>(shared);  // lanes × (rows for dy, rows for dy·x̂)
        const int together = THREADS / a.lanes;
        const long long split = block % a.splits, first_row = block / a.splits * together;
        const long long begin = split * a.chunk, end = a.pixels - begin < a.chunk ? a.pixels : begin + a.chunk;
        PHASE(t) {
            const int lane = t % a.lanes, own = t / a.lanes;
            const long long row = first_row + own;
            Acc sum = 0, sum_x = 0;
            if (row < a.rows) {
                const long long sample = row / a.channels, base = row % a.channels * a.pixels;
                const Acc mean = a.mean[sample], rstd = a.rstd[sample];
                for (long long i = base + begin + lane; i < base + end; i += a.lanes) {
                    Acc g = widen<Acc>(a.dy[sample * a.dy_stride + i]);
                    if (a.weight) g *= a.weight[i];
                    sum += g;
                    sum_x += g * ((widen<Acc>(a.x[sample * a.x_stride + i]) - mean) * rstd);
                }
            }
            sums[lane * 2 * together + own] = sum;
            sums[lane * 2 * together + together + own] = sum_x;
        }
        sum_tree(sums, a.lanes, 2 * together);
        PHASE(t) {
            if (t < together && first_row + t < a.rows) {
                a.sums[split * a.rows + first_row + t] = sums[t];
                a.sums_x[split * a.rows + first_row + t] = sums[together + t];
            }
        }
    }
};

// mean(g) and mean(g·x̂) of each sample from its rows' sums, each times its channel's weight, where there is one of shape (C,).
template <class Acc>
struct SampleMeans {
    struct Arguments {
        const Acc *sums, *sums_x, *weight;
        Acc *mean_g, *mean_gx;
        long long channels, size;
    };

    static std::size_t shared_bytes() { return sizeof(Acc) * 2 * THREADS; }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        Acc* sums = reinterpret_cast<Acc*>(shared);
        PHASE(t) {
            Acc sum = 0, sum_x = 0;
            for (long long c = t; c < a.channels; c += THREADS) {
                const Acc weight = a.weight ? a.weight[c] : Acc(1);
                sum += weight * a.sums[block * a.channels + c];
                sum_x += weight * a.sums_x[block * a.channels + c];
            }
            sums[2 * t] = sum;
            sums[2 * t + 1] = sum_x;
        }
        sum_tree(sums, THREADS, 2);
        PHASE(t) {
            if (t == 0) {
                a.mean_g[block] = sums[0] / static_cast<Acc>(a.size);
                a.mean_gx[block] = sums[1] / static_cast<Acc>(a.size);
            }
        }
    }
};

// dx of THREADS·VEC neighbouring values of `together` samples, and their sums for a dweight and dbias of shape (C, H, W): (parts, n).
template <class T, int VEC>
struct SampleInputGradient {
    using Acc = Accumulator<T>;
    static constexpr long long VALUES = THREADS * VEC;  // of a sample that one block takes

    struct Arguments {
        const T *dy, *x;
        const Acc *weight, *mean, *rstd, *mean_g, *mean_gx;
        T* dx;
        Acc *dweight, *dbias;
        long long samples, size, dy_stride, x_stride, tiles, together, step;
    };

    static std::size_t shared_bytes() { return 0; }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char*) {
        const long long part = block / a.tiles, begin = part * a.together;
        const long long end = a.samples - begin < a.together ? a.samples : begin + a.together;
        PHASE(t) {
            const long long i = (block % a.tiles * THREADS + t) * VEC;
            if (i < a.size) {
                Acc weight[VEC], dweight[VEC] = {}, dbias[VEC] = {};
                for (int k = 0; k < VEC; ++k) weight[k] = a.weight ? a.weight[i / a.step + (a.step == 1 ? k : 0)] : Acc(1);
                for (long long sample = begin; sample < end; ++sample) {
                    const auto upstream = load<T, VEC>(a.dy + sample * a.dy_stride + i);
                    const auto values = load<T, VEC>(a.x + sample * a.x_stride + i);
                    const Acc mean = a.mean[sample], rstd = a.rstd[sample];
                    Vector<T, VEC> result;
                    for (int k = 0; k < VEC; ++k) {
                        const Acc own = widen<Acc>(upstream.at[k]), normalised = (widen<Acc>(values.at[k]) - mean) * rstd;
                        if (a.dx) {
                            // g - mean(g) is 0 for one value, but not where g's product is fused into the difference
                            const Acc all = rstd * (own * weight[k] - a.mean_g[sample] - normalised * a.mean_gx[sample]);
                            result.at[k] = narrow<T>(a.size == 1 ? normalised : all);
                        }
                        dweight[k] += own * normalised;
                        dbias[k] += own;
                    }
                    if (a.dx) store<T, VEC>(a.dx + sample * a.size + i, result);
                }
                for (int k = 0; k < VEC; ++k) {
                    if (a.dweight) a.dweight[part * a.size + i + k] = dweight[k];
                    if (a.dbias) a.dbias[part * a.size + i + k] = dbias[k];
                }
            }
        }
    }
};

// Sums over `chunk` rows each of an (R, K) matrix: (chunks, K). Always the same rows in the same order.
template <class Acc>
struct SumRows {
    static constexpr int ACROSS = 32;

    struct Arguments {
        const Acc* terms;
        Acc* result;
        long long rows, columns, chunk, chunks, stride_row, stride_column;
    };

    static std::size_t shared_bytes() { return sizeof(Acc) * THREADS; }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        Acc* sums = reinterpret_cast<Acc*>(shared);
        const long long part = block % a.chunks, first = block / a.chunks * ACROSS;
        const long long begin = part * a.chunk, end = a.rows - begin < a.chunk ? a.rows : begin + a.chunk;
        PHASE(t) {
            const long long column = first + t % ACROSS;
            Acc sum = 0;
            if (column < a.columns)
                for (long long r = begin + t / ACROSS; r < end; r += THREADS / ACROSS)
                    sum += a.terms[r * a.stride_row + column * a.stride_column];
            sums[t] = sum;
        }
        sum_tree(sums, THREADS / ACROSS, ACROSS);
        PHASE(t) {
            if (t < ACROSS && first + t < a.columns) a.result[part * a.columns + first + t] = sums[t];
        }
    }
};
