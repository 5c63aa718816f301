// `channel` semantics: groups are pixels. A block holds a tile of all C channels × `width` neighbouring pixels; thread t has the pixels
// lane·VEC … of row t / lanes, and channels row, row + rows, …  Loads are coalesced along pixels.
//
// FITS: the tile lies in shared memory, and global memory is read once. Else it is read again for each phase.
#pragma once

#include "block.h"

// Where a pixel (column) of M = N·P lies; its channels are stride_c apart.
struct Matrix {
    long long stride_n, stride_c;
    DEVICE long long start(long long column, long long pixels) const { return column / pixels * stride_n + column % pixels; }
};

template <class T, int VEC, bool FITS>
struct ChannelForward {
    using Acc = Accumulator<T>;

    struct Arguments {
        const T* x;
        const Acc *weight, *bias;  // each may be null
        T* y;
        Acc *mean, *rstd;
        double eps;
        long long channels, pixels, columns;
        Matrix in, out;
        int width;  // pixels of a tile: a power of two, a multiple of VEC
    };

    static std::size_t shared_bytes(long long channels, int width) {
        const std::size_t tile = FITS ? static_cast<std::size_t>(channels) * width * sizeof(T) : 0;
        return sizeof(Acc) * (THREADS * VEC + 2 * width) + tile;
    }

    static DEVICE void body(const Arguments& a, long long block, long long, unsigned char* shared) {
        const int lanes = a.width / VEC, rows = THREADS / lanes, width = a.width;
        Acc* sums = reinterpret_cast<Acc*>(shared);  // rows × width
        Acc *mean = sums + THREADS * VEC, *rstd = mean + width;
        T* tile = reinterpret_cast<T*>(rstd + width);  // channels × width
        const long long first = block * width;
        const Acc count = static_cast<Acc>(a.channels);

        PHASE(t) {
            const int place = t % lanes * VEC, row = t / lanes;
            const long long column = first + place;
            Acc sum[VEC] = {};
            if (column < a.columns) {
                const T* x = a.x + a.in.start(column, a.pixels);
                for (long long c = row; c < a.channels; c += rows) {
                    const auto values = load<T, VEC>(x + c * a.in.stride_c);
                    if (FITS) store<T, VEC>(tile + c * width + place, values);
                    for (int k = 0; k < VEC; ++k) sum[k] += widen<Acc>(values.at[k]);
                }
            }
            for (int k = 0; k < VEC; ++k) sums[row * width + place + k] = sum[k];
        }
        sum_tree(sums, rows, width);
        PHASE(t) {
            if (t < width) mean[t] = sums[t] / count;
        }
        PHASE(t) {
            const int place = t % lanes * VEC, row = t / lanes;
            const long long column = first + place;
            Acc sum[VEC] = {};
            if (column < a.columns) {
                const T* x = a.x + a.in.start(column, a.pixels);
                for (long long c = row; c < a.channels; c += rows) {
                    const auto values = load<T, VEC>(FITS ? tile + c * width + place : x + c * a.in.stride_c);
                    for (int k = 0; k < VEC; ++k) {
                        const Acc d = widen<Acc>(values.at[k]) - mean[place + k];
                        sum[k] += d * d;
                    }
                }
            }
            for (int k = 0; k < VEC; ++k) sums[row * width + place + k] = sum[k];
        }
        sum_tree(sums, rows, width);
        PHASE(t) {
            if (t < width) {
                rstd[t] = Acc(1) / std::sqrt(sums[t] / count + static_cast<Acc>(a.eps));
                if (first + t < a.columns) {
                    a.mean[first + t] = mean[t];
                    a.rstd[first + t] = rstd[t];
                }
            }
        }
        PHASE(t) {
            const int place = t % lanes * VEC, row = t / lanes;
            const long long column = first + place;
            if (column < a.columns) {
                const T* x = a.x + a.in.start(column, a.pixels);
                T* y = a.y + a.out.start(column, a.pixels);
                for (long long c = row; c < a.channels; c += rows) {
                    const Acc weight = a.weight ? a.weight[c] : Acc(1), bias = a.bias ? a.bias[c] : Acc(0);
                    const auto values = load<T, VEC>(FITS ? tile + c * width + place : x + c * a.in.stride_c);
                    Vector<T, VEC> result;
                    for (int k = 0; k < VEC; ++k) {
                        const Acc normalised = (widen<Acc>(values.at[k]) - mean[place + k]) * rstd[place + k];
                        result.at[k] = narrow<T>(normalised * weight + bias);
                    }
                    store<T, VEC>(y + c * a.out.stride_c, result);
                }
            }
        }
    }
};

// dx, and each block's sums of dweight and dbias over its tiles block, block + blocks, …, of shape (blocks, C).
template <class T, int VEC, bool FITS>
struct ChannelBackward {
    using Acc = Accumulator<T>;
    static constexpr int PAD = 16 / sizeof(T);  // so that threads that each read a row of a tile, 16 bytes at a time, meet no bank twice

    struct Arguments {
        const T *dy, *x;
        const Acc *weight, *mean, *rstd;  // weight may be null
        T* dx;                            // null where it is not needed, as are the next two
        Acc *dweight, *dbias;
        long long channels, pixels, columns;
        Matrix upstream, in, out;
        int width;
    };

    static std::size_t shared_bytes(long long channels, int width) {
        const std::size_t each = 2 * (width + PAD) * sizeof(T) + 2 * sizeof(Acc);
        return sizeof(Acc) * (2 * THREADS * VEC + 4 * width) + (FITS ? static_cast<std::size_t>(channels) * each : 0);
    }

    static DEVICE void body(const Arguments& a, long long block, long long blocks, unsigned char* shared) {
        const int lanes = a.width / VEC, rows = THREADS / lanes, width = a.width, pitch = width + PAD;
        Acc* sums = reinterpret_cast<Acc*>(shared);  // rows × (width for g, width for g·x̂)
        Acc *mean = sums + 2 * THREADS * VEC, *rstd = mean + width, *mean_g = rstd + width, *mean_gx = mean_g + width;
        T* x_tile = reinterpret_cast<T*>(mean_gx + width);
        T* dy_tile = x_tile + (FITS ? a.channels * pitch : 0);
        Acc* kept = reinterpret_cast<Acc*>(dy_tile + (FITS ? a.channels * pitch : 0));
        Acc* dweight = FITS ? kept : a.dweight ? a.dweight + block * a.channels : nullptr;
        Acc* dbias = FITS ? kept + a.channels : a.dbias ? a.dbias + block * a.channels : nullptr;
        const bool need_x = a.dx, need_weight = a.dweight, need_bias = a.dbias, read_x = need_x || need_weight;
        const Acc count = static_cast<Acc>(a.channels);

        PHASE(t) {
            for (long long c = t; c < a.channels; c += THREADS) {
                if (need_weight) dweight[c] = 0;
                if (need_bias) dbias[c] = 0;
            }
        }
        const long long tiles = (a.columns + width - 1) / width;
        for (long long one = block; one < tiles; one += blocks) {
            const long long first = one * width;
            PHASE(t) {
                if (t < width) {
                    const bool exists = first + t < a.columns;
                    mean[t] = exists ? a.mean[first + t] : Acc(0);
                    rstd[t] = exists ? a.rstd[first + t] : Acc(0);
                }
            }
            PHASE(t) {
                const int place = t % lanes * VEC, row = t / lanes;
                const long long column = first + place;
                Acc sum[VEC] = {}, sum_x[VEC] = {};
                const bool exists = column < a.columns;
                const T* x = a.x + (exists ? a.in.start(column, a.pixels) : 0);
                const T* dy = a.dy + (exists ? a.upstream.start(column, a.pixels) : 0);
                for (long long c = row; c < a.channels; c += rows) {
                    Vector<T, VEC> values = {}, upstream = {};
                    if (exists) {
                        if (read_x) values = load<T, VEC>(x + c * a.in.stride_c);
                        upstream = load<T, VEC>(dy + c * a.upstream.stride_c);
                    }
                    if (FITS) {
                        store<T, VEC>(x_tile + c * pitch + place, values);
                        store<T, VEC>(dy_tile + c * pitch + place, upstream);
                    }
                    if (need_x) {
                        const Acc weight = a.weight ? a.weight[c] : Acc(1);
                        for (int k = 0; k < VEC; ++k) {
                            const Acc g = widen<Acc>(upstream.at[k]) * (exists ? weight : Acc(0));
                            sum[k] += g;
                            sum_x[k] += g * ((widen<Acc>(values.at[k]) - mean[place + k]) * rstd[place + k]);
                        }
                    }
                }
                for (int k = 0; k < VEC; ++k) {
                    sums[row * 2 * width + place + k] = sum[k];
                    sums[row * 2 * width + width + place + k] = sum_x[k];
                }
            }
            if (need_x) {
                sum_tree(sums, rows, 2 * width);
                PHASE(t) {
                    if (t < width) {
                        mean_g[t] = sums[t] / count;
                        mean_gx[t] = sums[width + t] / count;
                    }
                }
                PHASE(t) {
                    const int place = t % lanes * VEC, row = t / lanes;
                    const long long column = first + place;
                    if (column < a.columns) {
                        const T* x = a.x + a.in.start(column, a.pixels);
                        const T* dy = a.dy + a.upstream.start(column, a.pixels);
                        T* dx = a.dx + a.out.start(column, a.pixels);
                        for (long long c = row; c < a.channels; c += rows) {
                            const Acc weight = a.weight ? a.weight[c] : Acc(1);
                            const auto values = load<T, VEC>(FITS ? x_tile + c * pitch + place : x + c * a.in.stride_c);
                            const auto upstream = load<T, VEC>(FITS ? dy_tile + c * pitch + place : dy + c * a.upstream.stride_c);
                            Vector<T, VEC> result;
                            for (int k = 0; k < VEC; ++k) {
                                const Acc normalised = (widen<Acc>(values.at[k]) - mean[place + k]) * rstd[place + k];
                                const Acc g = widen<Acc>(upstream.at[k]) * weight;
                                // g - mean(g) is 0 for one channel, but not where g's product is fused into the difference
                                const Acc all = rstd[place + k] * (g - mean_g[place + k] - normalised * mean_gx[place + k]);
                                result.at[k] = narrow<T>(a.channels == 1 ? normalised : all);
                            }
                            store<T, VEC>(dx + c * a.out.stride_c, result);
                        }
                    }
                }
            }
            if (need_weight || need_bias) {  // a thread has whole channels now, and adds up the tile's pixels
                PHASE(t) {
                    for (long long c = t; c < a.channels; c += THREADS) {
                        Acc sum = 0, sum_x = 0;
                        for (int place = 0; place < width && first + place < a.columns; place += VEC) {
                            const long long column = first + place;
                            Vector<T, VEC> values = {};
                            if (read_x)
                                values = load<T, VEC>(FITS ? x_tile + c * pitch + place
                                                           : a.x + a.in.start(column, a.pixels) + c * a.in.stride_c);
                            const auto upstream = load<T, VEC>(
                                FITS ? dy_tile + c * pitch + place : a.dy + a.upstream.start(column, a.pixels) + c * a.upstream.stride_c);
                            for (int k = 0; k < VEC; ++k) {
                                const Acc own = widen<Acc>(upstream.at[k]);
                                sum += own;
                                sum_x += own * ((widen<Acc>(values.at[k]) - mean[place + k]) * rstd[place + k]);
                            }
                        }
                        if (need_weight) dweight[c] += sum_x;
                        if (need_bias) dbias[c] += sum;
                    }
                }
            }
        }
        if (FITS) {
            PHASE(t) {
                for (long long c = t; c < a.channels; c += THREADS) {
                    if (need_weight) a.dweight[block * a.channels + c] = dweight[c];
                    if (need_bias) a.dbias[block * a.channels + c] = dbias[c];
                }
            }
        }
    }
};
