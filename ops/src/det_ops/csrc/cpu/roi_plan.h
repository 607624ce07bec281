// Where the bins of every region lie on their maps: computed once per call, in the precision of the features, without
// fused multiply-adds, so that an adaptive number of samples never depends on the instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels.h"

namespace det {

enum class Alignment { aligned, unaligned, v1 };

// Start and size of a region along one axis, in feature pixels.
template <class T>
struct Span {
  T start, size;
};

template <class T>
Span<T> span_of(T low, T high, T scale, Alignment alignment) {
  if (alignment == Alignment::v1) {
    const T start = low * scale, size = (high + 1) * scale - start;
    return {start, size < 0 ? T(0) : size};
  }
  const T shift = alignment == Alignment::aligned ? T(0.5) : T(0);
  const T start = low * scale - shift, size = high * scale - shift - start;
  return {start, alignment == Alignment::unaligned && size < 1 ? T(1) : size};
}

// Samples per bin: as given, or as many as a bin is long; 0 where it has no length or is not a number.
template <class T>
int64_t grid_of(T size, int bins, int64_t sampling) {
  if (sampling > 0) return sampling;
  const T count = std::ceil(size / static_cast<T>(bins));
  if (!(count > 0) || std::isinf(count)) return 0;
  return count < T(2147483648.0) ? static_cast<int64_t>(count) : int64_t{2147483648};
}

// One sample along an axis: 0 beyond one pixel outside the map (false), the edge's value up to there.
template <class T>
bool place(T position, int32_t limit, Sample<T>& sample) {
  if (limit < 1 || !(position >= -1 && position <= static_cast<T>(limit))) return false;
  if (position < 0) position = 0;
  sample.low = static_cast<int32_t>(position);
  if (sample.low >= limit - 1) {
    sample.low = sample.high = limit - 1;
    sample.fraction = 0;
  } else {
    sample.high = sample.low + 1;
    sample.fraction = position - static_cast<T>(sample.low);
  }
  return true;
}

// Calls body(i, position) for the samples i of a bin that can lie within [-1, limit]. Of a huge region's millions the
// others are stepped over, with a margin for rounding; `place` has the last word.
template <class T, class Body>
void each_sample(T start, T step, int bin, int64_t grid, int32_t limit, const Body& body) {
  int64_t first = 0, last = grid;
  const T corner = start + static_cast<T>(bin) * step;
  if (grid > 64 && step > 0) {
    const double margin = 2 + 1e-6 * std::fabs(static_cast<double>(corner)) + 1e-6 * std::fabs(step);
    const double per_pixel = static_cast<double>(grid) / step;
    const double low = (-1 - margin - corner) * per_pixel - 2, high = (limit + margin - corner) * per_pixel + 2;
    if (!(high >= 0) || !(low <= static_cast<double>(grid))) return;
    first = low > 0 ? static_cast<int64_t>(low) : 0;
    last = high < static_cast<double>(grid) ? static_cast<int64_t>(high) + 1 : grid;
  }
  for (int64_t i = first; i < last; ++i) {
    body(i, corner + (static_cast<T>(i) + T(0.5)) * step / static_cast<T>(grid));
  }
}

// The weight of every pixel in each of `bins` bins along one axis, appended to `weights`.
template <class T>
void weigh(T start, T step, int bins, int64_t grid, int32_t limit, Bin* out, std::vector<T>& weights) {
  for (int b = 0; b < bins; ++b) {
    Bin& bin = out[b];
    bin = {0, 0, static_cast<int64_t>(weights.size())};
    Sample<T> sample;
    // A region turned inside out (with a given number of samples) runs backwards: find its lowest pixel first.
    each_sample(start, step, b, step < 0 ? grid : 0, limit, [&](int64_t, T position) {
      if (place(position, limit, sample)) bin.first = bin.count++ == 0 ? sample.low : std::min(bin.first, sample.low);
    });
    bool first = bin.count == 0;
    bin.count = 0;
    each_sample(start, step, b, grid, limit, [&](int64_t, T position) {
      if (!place(position, limit, sample)) return;
      if (first) bin.first = sample.low;
      first = false;
      const int32_t count = sample.high - bin.first + 1;
      if (count > bin.count) {
        bin.count = count;
        weights.resize(bin.weights + count, T(0));
      }
      weights[bin.weights + sample.low - bin.first] += 1 - sample.fraction;
      weights[bin.weights + sample.high - bin.first] += sample.fraction;
    });
  }
}

}  // namespace det
