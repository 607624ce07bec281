// Bilinear resampling of interleaved 8-bit pixels, a row and a pair of rows at a time.
//
// Letters: C channels, w new width. A tap is the left of the two old pixels of a new one; `at` is its first value.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

#if DET_ISA > 0 && defined(__x86_64__)
#define DET_RESIZE_THREE
constexpr int kWide = 8;  // bytes that one load of a tap reads: both pixels of up to four channels

DET_INLINE __m128i eight_bytes(const uint8_t* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }

// Four values each of two new pixels (of three channels, the last is not used): the two old pixels, interleaved by
// channel, times their weights.
DET_INLINE __m256i two_pixels(const uint8_t* first, const uint8_t* second, __m256i weights) {
  const __m256i pairs =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i both = _mm256_shuffle_epi8(_mm256_set_m128i(eight_bytes(second), eight_bytes(first)), pairs);
  return _mm256_srai_epi32(_mm256_madd_epi16(both, weights), 4);
}

// Resamples the leading pixels of three channels whose loads stay within the row; returns how many. Taps rise, or they
// fall from one whose load is within the row.
DET_INLINE int64_t resize_three(const uint8_t* row, int64_t bytes, const int32_t* at, const int32_t* weights, int64_t w,
                                int16_t* out) {
  const __m256i six =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, -1, -1, -1, -1));
  const __m256i even = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2), odd = _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3);
  int64_t within = w;
  while (within > 0 && at[within - 1] + kWide > bytes) --within;
  // A store of two pixels writes four bytes beyond them, so the last pixel is left to the caller.
  const int64_t end = within < w ? within : w - 1;
  int64_t x = 0;
  for (; x + 4 <= end; x += 4) {
    const __m256i all = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + x)));
    const __m256i zero_two = two_pixels(row + at[x], row + at[x + 2], _mm256_permutevar8x32_epi32(all, even));
    const __m256i one_three = two_pixels(row + at[x + 1], row + at[x + 3], _mm256_permutevar8x32_epi32(all, odd));
    const __m256i four = _mm256_shuffle_epi8(_mm256_packs_epi32(zero_two, one_three), six);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * x), _mm256_castsi256_si128(four));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * x + 6), _mm256_extracti128_si256(four, 1));
  }
  return x;
}
#endif

// weights[x] holds the weights of the left and, in the upper half, of the right pixel, out of 2048. out[x][c] is the
// weighted sum shifted right by 4 bits, at most 32640. `step` is the distance of the right pixel: C, or 0 at an edge
// that has no right pixel, where its weight is 0.
inline void resize_row(const uint8_t* row, int64_t bytes, const int32_t* at, const int32_t* weights, int64_t w,
                       int64_t channels, int16_t* out) {
  int64_t x = 0;
#ifdef DET_RESIZE_THREE
  if (channels == 3) {
    // Mirrored taps fall: those that are too close to the end of the row come first.
    while (x < w && at[x] + kWide > bytes && at[w - 1] < at[0]) {
      for (int64_t c = 0; c < 3; ++c) {
        const uint8_t* old = row + at[x] + c;
        const int32_t right = weights[x] >> 16;
        out[3 * x + c] = static_cast<int16_t>((old[0] * (weights[x] & 0xffff) + (right ? old[3] * right : 0)) >> 4);
      }
      ++x;
    }
    x += resize_three(row, bytes, at + x, weights + x, w - x, out + 3 * x);
  }
#endif
  for (; x < w; ++x) {
    const int32_t left = weights[x] & 0xffff, right = weights[x] >> 16;
    const uint8_t* old = row + at[x];
    const int64_t step = right ? channels : 0;
    for (int64_t c = 0; c < channels; ++c) {
      out[x * channels + c] = static_cast<int16_t>((old[c] * left + old[c + step] * right) >> 4);
    }
  }
}

// out[i] = (above[i] * upper >> 16) + (below[i] * lower >> 16), rounded to 8 bits from the 2 bits that are left.
inline void resize_rows(const int16_t* above, const int16_t* below, int32_t upper_weight, int32_t lower_weight,
                        int64_t n, uint8_t* out) {
  int64_t i = 0;
#if DET_ISA == 512
  const __m512i u = _mm512_set1_epi16(static_cast<int16_t>(upper_weight));
  const __m512i l = _mm512_set1_epi16(static_cast<int16_t>(lower_weight)), two = _mm512_set1_epi16(2);
  for (; i + 32 <= n; i += 32) {
    const __m512i sum = _mm512_add_epi16(_mm512_mulhi_epi16(_mm512_loadu_si512(above + i), u),
                                         _mm512_mulhi_epi16(_mm512_loadu_si512(below + i), l));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_cvtusepi16_epi8(_mm512_srli_epi16(_mm512_add_epi16(sum, two), 2)));
  }
#elif DET_ISA == 2
  const __m256i u = _mm256_set1_epi16(static_cast<int16_t>(upper_weight));
  const __m256i l = _mm256_set1_epi16(static_cast<int16_t>(lower_weight)), two = _mm256_set1_epi16(2);
  const auto half = [&](int64_t k) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(above + k));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(below + k));
    const __m256i sum = _mm256_add_epi16(_mm256_mulhi_epi16(a, u), _mm256_mulhi_epi16(b, l));
    return _mm256_srli_epi16(_mm256_add_epi16(sum, two), 2);
  };
  for (; i + 32 <= n; i += 32) {
    const __m256i packed = _mm256_packus_epi16(half(i), half(i + 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_permute4x64_epi64(packed, 0xd8));
  }
#endif
  for (; i < n; ++i) {
    const int32_t sum = ((above[i] * upper_weight) >> 16) + ((below[i] * lower_weight) >> 16);
    const int32_t value = (sum + 2) >> 2;
    out[i] = static_cast<uint8_t>(value > 255 ? 255 : value);
  }
}

// The same in floating point, whose weights are fractions: weights[x] of the right pixel.
inline void resize_row_float(const uint8_t* row, const int32_t* at, const float* weights, int64_t w, int64_t channels,
                             float* out) {
  for (int64_t x = 0; x < w; ++x) {
    const float right = weights[x], left = 1 - right;
    const uint8_t* old = row + at[x];
    const int64_t step = right != 0 ? channels : 0;
    for (int64_t c = 0; c < channels; ++c) out[x * channels + c] = old[c] * left + old[c + step] * right;
  }
}

inline void resize_rows_float(const float* above, const float* below, float lower_weight, int64_t n, float* out) {
  const float upper_weight = 1 - lower_weight;
  for (int64_t i = 0; i < n; ++i) out[i] = above[i] * upper_weight + below[i] * lower_weight;
}

}  // namespace
}  // namespace det
