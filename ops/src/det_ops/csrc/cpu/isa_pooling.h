// Pooling of regions from channels-last maps. Averaging bilinear samples is separable: each bin is a weighted sum of
// the pixels of a rectangle, with the product of a row's and a column's weight.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

// R registers of channels at a time, so that a bin is summed up in registers.
template <class T, int R>
DET_INLINE void average_bin(const T* map, int64_t pixel_stride, int64_t width, const Bin& row, const Bin& column,
                            const T* weights, T scale, T* out) {
  constexpr int W = lanes<T>;
  Vec<T> sum[R] = {};
  for (int32_t y = 0; y < row.count; ++y) {
    const T row_weight = weights[row.weights + y];
    const T* pixel = map + (int64_t(row.first + y) * width + column.first) * pixel_stride;
    for (int32_t x = 0; x < column.count; ++x, pixel += pixel_stride) {
      const Vec<T> weight = splat(row_weight * weights[column.weights + x]);
      for (int r = 0; r < R; ++r) sum[r] = fma(weight, load(pixel + r * W), sum[r]);
    }
  }
  for (int r = 0; r < R; ++r) store(out + r * W, sum[r] * splat(scale));
}

template <class T, int R>
DET_INLINE void spread_bin(T* map, int64_t pixel_stride, int64_t width, const Bin& row, const Bin& column,
                           const T* weights, T scale, const T* grad) {
  constexpr int W = lanes<T>;
  Vec<T> g[R];
  for (int r = 0; r < R; ++r) g[r] = load(grad + r * W) * splat(scale);
  for (int32_t y = 0; y < row.count; ++y) {
    const T row_weight = weights[row.weights + y];
    T* pixel = map + (int64_t(row.first + y) * width + column.first) * pixel_stride;
    for (int32_t x = 0; x < column.count; ++x, pixel += pixel_stride) {
      const Vec<T> weight = splat(row_weight * weights[column.weights + x]);
      for (int r = 0; r < R; ++r) store(pixel + r * W, fma(weight, g[r], load(pixel + r * W)));
    }
  }
}

template <class T>
void pool_average(const T* map, int64_t pixel_stride, int64_t width, const Bin* rows, const Bin* columns, int h, int w,
                  const T* weights, T scale, int64_t channels, T* out) {
  constexpr int W = lanes<T>;
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x, out += channels) {
      int64_t c = 0;
      for (; c + 4 * W <= channels; c += 4 * W) {
        average_bin<T, 4>(map + c, pixel_stride, width, rows[y], columns[x], weights, scale, out + c);
      }
      for (; c < channels; c += W) {
        average_bin<T, 1>(map + c, pixel_stride, width, rows[y], columns[x], weights, scale, out + c);
      }
    }
  }
}

template <class T>
void pool_average_backward(T* map, int64_t pixel_stride, int64_t width, const Bin* rows, const Bin* columns, int h,
                           int w, const T* weights, T scale, int64_t channels, const T* grad) {
  constexpr int W = lanes<T>;
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x, grad += channels) {
      int64_t c = 0;
      for (; c + 4 * W <= channels; c += 4 * W) {
        spread_bin<T, 4>(map + c, pixel_stride, width, rows[y], columns[x], weights, scale, grad + c);
      }
      for (; c < channels; c += W) {
        spread_bin<T, 1>(map + c, pixel_stride, width, rows[y], columns[x], weights, scale, grad + c);
      }
    }
  }
}

// The position is counted in T: exact, since the caller makes sure that a map has fewer pixels than T can count.
template <class T>
void pool_maximum(const T* map, int64_t pixel_stride, int64_t width, int64_t y1, int64_t y2, int64_t x1, int64_t x2,
                  int64_t channels, T* best, T* at) {
  constexpr int W = lanes<T>;
  const bool some = y1 < y2 && x1 < x2;
  for (int64_t c = 0; c < channels; c += W) {
    Vec<T> top = some ? load(map + (y1 * width + x1) * pixel_stride + c) : Vec<T>{};
    Vec<T> where = splat(some ? T(y1 * width + x1) : T(-1));
    for (int64_t y = y1; some && y < y2; ++y) {
      const T* pixel = map + (y * width + x1) * pixel_stride + c;
      for (int64_t x = x1; x < x2; ++x, pixel += pixel_stride) {
        const Vec<T> value = load(pixel);
        const auto take = (value > top) | ((value != value) & (top == top));
        top = take ? value : top;
        where = take ? splat(T(y * width + x)) : where;
      }
    }
    store(best + c, top);
    store(at + c, where);
  }
}

}  // namespace
}  // namespace det
