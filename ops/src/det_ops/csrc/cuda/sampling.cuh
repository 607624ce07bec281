// Where the samples of a region lie, and which pixels each one reads. One axis at a time: the other is the same.
#pragma once

#include "common.cuh"

namespace det::cuda {

// One axis of a region, in feature pixels.
template <class R>
struct Span {
  R start, size, step;  // step: the size of a bin
  int64_t grid;         // samples per bin; 0 where the region has no extent or is not a number
};

template <class R>
__device__ inline Span<R> span_of(R low, R high, R scale, int bins, int sampling, Alignment alignment) {
  Span<R> s;
  if (alignment == Alignment::kV1) {
    s.start = mul(low, scale);
    s.size = sub(mul(add(high, R(1)), scale), s.start);
    if (s.size < 0) s.size = 0;
  } else {
    const R shift = alignment == Alignment::kAligned ? R(0.5) : R(0);
    s.start = sub(mul(low, scale), shift);
    s.size = sub(sub(mul(high, scale), shift), s.start);
    if (alignment == Alignment::kUnaligned && s.size < 1) s.size = 1;
  }
  s.step = div(s.size, R(bins));
  if (sampling > 0) {
    s.grid = sampling;
  } else {
    const R wanted = ceil(s.step), most = R(2147483648.0);
    s.grid = !(wanted > 0) || isinf(wanted) ? 0 : static_cast<int64_t>(wanted < most ? wanted : most);
  }
  return s;
}

// Both axes of region k; rois (K, 5).
template <class R>
struct Region {
  Span<R> y, x;
  int64_t image;  // -1 if it is not one of the images
};

template <class R>
__device__ inline Region<R> region_at(const R* rois, int64_t k, int64_t images, R scale, int height, int width,
                                      int sampling, Alignment alignment) {
  const R* roi = rois + 5 * k;
  Region<R> region;
  region.image = roi[0] >= 0 && roi[0] < R(images) ? static_cast<int64_t>(roi[0]) : -1;
  region.x = span_of(roi[1], roi[3], scale, width, sampling, alignment);
  region.y = span_of(roi[2], roi[4], scale, height, sampling, alignment);
  return region;
}

template <class R>
__device__ inline R bin_start(const Span<R>& s, int bin) {
  return add(s.start, mul(R(bin), s.step));
}

// Position of sample i of the bin that starts at `first`.
template <class R>
__device__ inline R sample_at(const Span<R>& s, R first, int64_t i) {
  return add(first, div(mul(add(R(i), R(0.5)), s.step), R(s.grid)));
}

struct Range {
  int64_t first, last;  // last is not in it
};

// Which samples of a bin can lie in [low, high]. A small grid is not worth the question; of a huge region's, with
// millions of samples, this leaves those on the map, and some around it to allow for rounding.
template <class R>
__device__ inline Range samples_between(const Span<R>& s, R first, double low, double high) {
  if (s.grid <= 16 || !(s.step > 0)) return {0, s.grid};
  const double spacing = static_cast<double>(s.step) / s.grid;
  const double margin = 2 + 1e-6 * (fabs(static_cast<double>(first)) + static_cast<double>(s.step));
  const double from = (low - margin - first) / spacing, to = (high + margin - first) / spacing + 2;
  const double grid = static_cast<double>(s.grid);
  return {from > 0 ? static_cast<int64_t>(from < grid ? from : grid) : 0,
          to > 0 ? static_cast<int64_t>(to < grid ? to : grid) : 0};
}

// The two pixels that a position lies between. The edge's value holds up to one pixel outside, 0 beyond.
template <class R>
struct Corner {
  int low, high;
  R fraction;   // weight of `high`
  bool counts;  // false outside
};

template <class R>
__device__ inline Corner<R> corner(R position, int limit) {
  Corner<R> c{0, 0, R(0), position >= -1 && position <= R(limit)};
  if (!c.counts) return c;
  if (position < 0) position = 0;
  c.low = smaller(static_cast<int>(position), limit - 1);
  c.high = smaller(c.low + 1, limit - 1);
  c.fraction = c.low >= limit - 1 ? R(0) : position - R(c.low);
  return c;
}

// How much of a pixel a sample at this position reads.
template <class R>
__device__ inline R share_of(R position, int pixel, int limit) {
  const Corner<R> c = corner(position, limit);
  if (!c.counts) return 0;
  return (c.low == pixel ? R(1) - c.fraction : R(0)) + (c.high == pixel ? c.fraction : R(0));
}

// The value between four pixels: rows first, then between them.
template <class R>
__device__ inline R blend(R a, R b, R c, R d, R fy, R fx) {
  const R top = a * (1 - fx) + b * fx, bottom = c * (1 - fx) + d * fx;
  return top * (1 - fy) + bottom * fy;
}

}  // namespace det::cuda
