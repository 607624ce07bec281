// Bilinear taps of deformable convolution and pooling: values, their spread backwards, and dot products with gradients.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

template <class T>
void sample(const T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, T* out) {
  constexpr int64_t W = lanes<T>;
  const T *a = x + tap.at[0] * pixel_stride, *b = x + tap.at[1] * pixel_stride;
  const T *d = x + tap.at[2] * pixel_stride, *e = x + tap.at[3] * pixel_stride;
  const Vec<T> wa = splat(tap.weight[0]), wb = splat(tap.weight[1]);
  const Vec<T> wd = splat(tap.weight[2]), we = splat(tap.weight[3]);
  int64_t c = 0;
  for (; c + W <= channels; c += W) {
    const Vec<T> upper_row = fma(wb, load(b + c), wa * load(a + c));
    store(out + c, fma(we, load(e + c), fma(wd, load(d + c), upper_row)));
  }
  for (; c < channels; ++c) {
    out[c] = tap.weight[0] * a[c] + tap.weight[1] * b[c] + tap.weight[2] * d[c] + tap.weight[3] * e[c];
  }
}

template <class T>
void sample_backward(T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, const T* grad) {
  constexpr int64_t W = lanes<T>;
  for (int k = 0; k < 4; ++k) {
    const T weight = tap.weight[k];
    if (weight == 0) continue;
    T* pixel = x + tap.at[k] * pixel_stride;
    int64_t c = 0;
    for (; c + W <= channels; c += W) store(pixel + c, fma(splat(weight), load(grad + c), load(pixel + c)));
    for (; c < channels; ++c) pixel[c] += weight * grad[c];
  }
}

template <class T>
DET_INLINE T sum_lanes(Vec<T> v) {
  T total = 0;
  for (int i = 0; i < lanes<T>; ++i) total += v[i];
  return total;
}

template <class T>
void sample_dots(const T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, const T* grad, T* dots) {
  constexpr int64_t W = lanes<T>;
  for (int k = 0; k < 4; ++k) {
    dots[k] = 0;
    if (tap.at[k] < 0) continue;
    const T* pixel = x + tap.at[k] * pixel_stride;
    Vec<T> sum{};
    int64_t c = 0;
    for (; c + W <= channels; c += W) sum = fma(load(pixel + c), load(grad + c), sum);
    dots[k] = sum_lanes<T>(sum);
    for (; c < channels; ++c) dots[k] += pixel[c] * grad[c];
  }
}

}  // namespace
}  // namespace det
