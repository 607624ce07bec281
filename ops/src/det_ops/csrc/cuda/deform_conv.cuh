// The taps of a deformable convolution: where they read, and how much of which pixel.
#pragma once

#include "tile.cuh"

namespace det::cuda {

// An output pixel.
struct OutPixel {
  int64_t image;  // -1 past the end
  int y, x;
};

__device__ inline int64_t out_pixels(const ConvShape& s) { return s.images * s.out_height * s.out_width; }

__device__ inline OutPixel out_pixel(const ConvShape& s, int64_t number) {
  if (number >= out_pixels(s)) return {-1, 0, 0};
  const int64_t row = number / s.out_width;
  return {row / s.out_height, static_cast<int>(row % s.out_height), static_cast<int>(number % s.out_width)};
}

// One tap of one output pixel: the four pixels around it and their weights, 0 outside the map.
template <class R>
struct Tap {
  bool inside;       // false on the line one pixel around the map, too
  int64_t pixel[4];  // (low, low), (low, high), (high, low), (high, high) as (y, x); 0 where the weight is 0
  bool known[4];
  R fy, fx, mask;

  __device__ R weight(int corner) const { return (corner / 2 ? fy : 1 - fy) * (corner % 2 ? fx : 1 - fx); }
};

// Index of a tap in mask (B, G, K, h, w); in offset (B, G, K, 2, h, w) its y has twice the planes before it.
struct TapPlace {
  int64_t plane, within, pixels;
  __device__ int64_t mask() const { return plane * pixels + within; }
  __device__ int64_t y() const { return 2 * plane * pixels + within; }
  __device__ int64_t x() const { return (2 * plane + 1) * pixels + within; }
};

__device__ inline TapPlace place_of(const ConvShape& s, const OutPixel& p, int group, int tap) {
  const int64_t taps = static_cast<int64_t>(s.kernel_height) * s.kernel_width;
  return {(p.image * s.offset_groups + group) * taps + tap, static_cast<int64_t>(p.y) * s.out_width + p.x,
          static_cast<int64_t>(s.out_height) * s.out_width};
}

template <class R>
__device__ inline Tap<R> tap_at(const DeformConvArguments& a, const OutPixel& p, int group, int tap) {
  const ConvShape& s = a.shape;
  Tap<R> t{};
  if (p.image < 0) return t;
  const TapPlace place = place_of(s, p, group, tap);
  const R* offset = static_cast<const R*>(a.offset);
  const R y = add(R(p.y * s.stride[0] - s.padding[0] + tap / s.kernel_width * s.dilation[0]), offset[place.y()]);
  const R x = add(R(p.x * s.stride[1] - s.padding[1] + tap % s.kernel_width * s.dilation[1]), offset[place.x()]);
  t.inside = y > -1 && y < R(s.height) && x > -1 && x < R(s.width);
  if (!t.inside) return t;
  t.mask = a.mask ? static_cast<const R*>(a.mask)[place.mask()] : R(1);
  const int low_y = static_cast<int>(floor(y)), low_x = static_cast<int>(floor(x));
  t.fy = y - R(low_y);
  t.fx = x - R(low_x);
  for (int i = 0; i < 4; ++i) {
    const int row = low_y + i / 2, column = low_x + i % 2;
    t.known[i] = row >= 0 && row < s.height && column >= 0 && column < s.width;
    if (t.known[i]) t.pixel[i] = (p.image * s.height + row) * s.width + column;
  }
  return t;
}

// The tap's values, mask included, for a run of channels; zeros beyond `count`.
template <class T>
__device__ inline void sample_run(const DeformConvArguments& a, const Tap<real_t<T>>& tap, int channel, int count,
                                  T (&values)[kRun]) {
  using R = real_t<T>;
  R sum[kRun] = {};
  for (int i = 0; i < 4 && tap.inside; ++i) {
    if (!tap.known[i]) continue;
    T run[kRun];
    load_run(static_cast<const T*>(a.x) + tap.pixel[i] * a.shape.channels + channel, count, run);
    const R weight = tap.weight(i);
    for (int c = 0; c < kRun; ++c) sum[c] += widen(run[c]) * weight;
  }
  // A tap outside is 0 whatever the mask, so it must not multiply by one that is not a number.
  for (int c = 0; c < kRun; ++c) values[c] = narrow<T>(tap.inside ? sum[c] * tap.mask : R(0));
}

}  // namespace det::cuda
