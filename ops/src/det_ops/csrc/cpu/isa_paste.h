// Which pixels of a line belong to a pasted mask.
//
// The four values that a pixel reads are named by where they are: first along the line, then across it.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

template <bool kSampled, bool kDown, class T>
DET_INLINE void paste_pixels_by(const PasteLine<T>& line, T threshold, int64_t n, uint8_t* out) {
  const T* const low = line.low;
  const T* const high = line.high;
  const T across_low = line.across_low, across_high = line.across_high;
  for (int64_t i = 0; i < n; ++i) {
    T value;
    if (kSampled) {
      const T low_low = line.values[0][i] * (low[i] * across_low),
              high_low = line.values[1][i] * (high[i] * across_low);
      const T low_high = line.values[2][i] * (low[i] * across_high);
      const T high_high = line.values[3][i] * (high[i] * across_high);
      // Row by row, whichever way the line goes.
      value = kDown ? low_low + low_high + high_low + high_high : low_low + high_low + low_high + high_high;
      out[i] = value >= threshold;
    } else {
      const T first = kDown ? line.values[0][i] * across_low + line.values[2][i] * across_high
                            : line.values[0][i] * low[i] + line.values[1][i] * high[i];
      const T second = kDown ? line.values[1][i] * across_low + line.values[3][i] * across_high
                             : line.values[2][i] * low[i] + line.values[3][i] * high[i];
      value = kDown ? first * low[i] + second * high[i] : first * across_low + second * across_high;
      out[i] = value > threshold;
    }
  }
}

template <class T>
void paste_pixels(const PasteLine<T>& line, bool sampled, bool down, T threshold, int64_t n, uint8_t* out) {
  if (sampled) {
    down ? paste_pixels_by<true, true>(line, threshold, n, out) : paste_pixels_by<true, false>(line, threshold, n, out);
  } else {
    down ? paste_pixels_by<false, true>(line, threshold, n, out)
         : paste_pixels_by<false, false>(line, threshold, n, out);
  }
}

}  // namespace
}  // namespace det
