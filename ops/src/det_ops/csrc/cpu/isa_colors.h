// Changes of the colours of interleaved 8-bit RGB pixels, with every rounding of torchvision's functions.
//
// Colours are kept in floating point. Each step truncates its result to 8 bits: this is done before the next step, and
// when colours are stored.
#pragma once

#include <cmath>

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

using Floats = Vec<float>;
using Ints = Vec<int32_t>;
constexpr int kPixels = lanes<float>;  // pixels of a block

struct Rgb {
  Floats r, g, b;
};

// a * b + c in one rounding, on every machine: as torch adds a multiple.
DET_INLINE Floats fused(Floats a, Floats b, Floats c) {
#if DET_ISA > 0 || defined(__aarch64__)
  return fma(a, b, c);
#else
  Floats out;
  for (int i = 0; i < kPixels; ++i) out[i] = std::fma(a[i], b[i], c[i]);
  return out;
#endif
}

DET_INLINE Floats truncated(Floats x) { return __builtin_convertvector(__builtin_convertvector(x, Ints), Floats); }
DET_INLINE Floats clamped(Floats x) { return lower(upper(x, splat(0.0f)), splat(255.0f)); }

// Pixels as three vectors, and back.
#if DET_ISA == 512
DET_INLINE Rgb load_pixels(const uint8_t* in) {
  // Four pixels, 12 bytes, to each quarter of the register; then the bytes of a channel to words.
  const __m512i quarters = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 32));
  const __m512i bytes = _mm512_permutexvar_epi32(quarters, _mm512_inserti32x4(first, second, 2));
  const auto channel = [&](int c) {
    const __m128i from = _mm_setr_epi8(c, -1, -1, -1, c + 3, -1, -1, -1, c + 6, -1, -1, -1, c + 9, -1, -1, -1);
    return (Floats)_mm512_cvtepi32_ps(_mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(from)));
  };
  return {channel(0), channel(1), channel(2)};
}

DET_INLINE __m512i words(Floats x) { return _mm512_cvttps_epi32((__m512)x); }

DET_INLINE void store_pixels(const Rgb& p, uint8_t* out) {
  const __m512i both = _mm512_or_si512(words(p.r), _mm512_slli_epi32(words(p.g), 8));
  const __m512i all = _mm512_or_si512(both, _mm512_slli_epi32(words(p.b), 16));
  const __m128i three = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const __m512i joined = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 3, 3, 3);
  const __m512i quarters = _mm512_shuffle_epi8(all, _mm512_broadcast_i32x4(three));
  const __m512i packed = _mm512_permutexvar_epi32(joined, quarters);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(packed));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), _mm512_extracti32x4_epi32(packed, 2));
}
#elif DET_ISA == 2
DET_INLINE Rgb load_pixels(const uint8_t* in) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
  const __m128i second = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + 16));
  const __m256i halves = _mm256_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_set_m128i(second, first), halves);
  const auto channel = [&](int c) {
    const __m128i from = _mm_setr_epi8(c, -1, -1, -1, c + 3, -1, -1, -1, c + 6, -1, -1, -1, c + 9, -1, -1, -1);
    return (Floats)_mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(from)));
  };
  return {channel(0), channel(1), channel(2)};
}

DET_INLINE __m256i words(Floats x) { return _mm256_cvttps_epi32((__m256)x); }

DET_INLINE void store_pixels(const Rgb& p, uint8_t* out) {
  const __m256i both = _mm256_or_si256(words(p.r), _mm256_slli_epi32(words(p.g), 8));
  const __m256i all = _mm256_or_si256(both, _mm256_slli_epi32(words(p.b), 16));
  const __m128i three = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const __m256i joined = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 3);
  const __m256i halves = _mm256_shuffle_epi8(all, _mm256_broadcastsi128_si256(three));
  const __m256i packed = _mm256_permutevar8x32_epi32(halves, joined);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16), _mm256_extracti128_si256(packed, 1));
}
#else
DET_INLINE Rgb load_pixels(const uint8_t* in) {
  Rgb p;
  for (int i = 0; i < kPixels; ++i) {
    p.r[i] = in[3 * i];
    p.g[i] = in[3 * i + 1];
    p.b[i] = in[3 * i + 2];
  }
  return p;
}

DET_INLINE void store_pixels(const Rgb& p, uint8_t* out) {
  for (int i = 0; i < kPixels; ++i) {
    out[3 * i] = static_cast<uint8_t>(p.r[i]);
    out[3 * i + 1] = static_cast<uint8_t>(p.g[i]);
    out[3 * i + 2] = static_cast<uint8_t>(p.b[i]);
  }
}
#endif

DET_INLINE Floats gray_of(const Rgb& p) {
  const Floats red = p.r * splat(0.2989f);
  return truncated(fused(p.b, splat(0.114f), fused(p.g, splat(0.587f), red)));
}

// factor * colour + rest * gray
DET_INLINE Rgb blended(const Rgb& p, Floats gray, float factor, float rest) {
  const Floats f = splat(factor), g = splat(rest);
  return {clamped(fused(gray, g, p.r * f)), clamped(fused(gray, g, p.g * f)), clamped(fused(gray, g, p.b * f))};
}

// The fraction of h + shift, which is in -1..2. That of a negative number may round to 1.
DET_INLINE Floats turned(Floats h, float shift) {
  const Floats one = splat(1.0f), sum = h + splat(shift);
  return sum >= one ? sum - one : sum < splat(0.0f) ? sum + one : sum;
}

// Hue (0 to 1), saturation and value from colours of 0 to 1 and the largest of each pixel's. Grey has hue 0.
DET_INLINE void hue_and_saturation(const Rgb& p, Floats most, Floats* hue, Floats* saturation) {
  const Floats one = splat(1.0f), least = lower(lower(p.r, p.g), p.b), range = most - least;
  const auto grey = most == least, red = most == p.r, green = most == p.g;
  *saturation = range / (grey ? one : most);
  const Floats divisor = grey ? one : range;
  // Hue is a sixth of: blue - green, 2 + red - blue or 4 + green - red, each the distance from the largest.
  const Floats plus = most - (red ? p.b : green ? p.r : p.g), minus = most - (red ? p.g : green ? p.b : p.r);
  const Floats base = red ? splat(0.0f) : green ? splat(2.0f) : splat(4.0f);
  const Floats h = (plus / divisor + base - minus / divisor) * splat(static_cast<float>(1.0 / 6.0)) + one;
  *hue = h >= one ? h - one : h;
}

DET_INLINE Rgb hue_turned(const Rgb& bytes, float shift) {
  const Floats one = splat(1.0f), unit = splat(static_cast<float>(1.0 / 255.0));
  const Rgb p{bytes.r * unit, bytes.g * unit, bytes.b * unit};
  const Floats v = upper(upper(p.r, p.g), p.b);
  Floats hue, s;
  hue_and_saturation(p, v, &hue, &s);
  const Floats six = turned(hue, shift) * splat(6.0f), sector = truncated(six), f = six - sector;
  const Floats part = s * f, rest = one - s;
  // These are in 0..1, as part <= s and part + rest <= 1 also when they are rounded.
  const Floats q = (one - part) * v, t = (part + rest) * v, w = rest * v;
  const auto is = [&](float number) { return sector == splat(number); };
  // Sector 6 is sector 0, whose hue has been rounded up to 1.
  const auto first = is(0.0f) | is(6.0f), second = is(1.0f), third = is(2.0f), fourth = is(3.0f), fifth = is(4.0f);
  const Floats r = second ? q : third | fourth ? w : fifth ? t : v;
  const Floats g = first ? t : second | third ? v : fourth ? q : w;
  const Floats b = first | second ? w : third ? t : fourth | fifth ? v : q;
  const Floats scale = splat(255.999f);
  return {r * scale, g * scale, b * scale};
}

DET_INLINE Rgb step_applied(const Rgb& p, const ColorStep& step) {
  const Floats f = splat(step.factor);
  switch (step.kind) {
    case kBrightness:
      return {clamped(p.r * f), clamped(p.g * f), clamped(p.b * f)};
    case kContrast:
      return blended(p, splat(step.mean), step.factor, step.rest);
    case kSaturation:
      return blended(p, gray_of(p), step.factor, step.rest);
    case kHue:
      return hue_turned(p, step.factor);
  }
  return p;
}

// One block of kPixels pixels.
DET_INLINE void adjust_block(const uint8_t* in, const ColorStep* steps, int64_t count, const int32_t* order,
                             uint8_t* out) {
  Rgb p = load_pixels(in);
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) p = {truncated(p.r), truncated(p.g), truncated(p.b)};
    p = step_applied(p, steps[i]);
  }
  const auto channel = [&](int32_t c) { return c == 0 ? p.r : c == 1 ? p.g : p.b; };
  store_pixels({channel(order[0]), channel(order[1]), channel(order[2])}, out);
}

inline void adjust_colors(const uint8_t* in, int64_t pixels, const ColorStep* steps, int64_t count,
                          const int32_t* order, uint8_t* out) {
  int64_t i = 0;
  for (; i + kPixels <= pixels; i += kPixels) adjust_block(in + 3 * i, steps, count, order, out + 3 * i);
  if (i == pixels) return;
  uint8_t last[3 * kPixels] = {};
  const size_t bytes = static_cast<size_t>(3 * (pixels - i));
  std::memcpy(last, in + 3 * i, bytes);
  adjust_block(last, steps, count, order, last);
  std::memcpy(out + 3 * i, last, bytes);
}

inline int64_t gray_sum(const uint8_t* in, int64_t pixels, float* gray) {
  Ints sums{};
  const auto block = [&](const uint8_t* from, float* to) {
    const Floats values = gray_of(load_pixels(from));
    sums += __builtin_convertvector(values, Ints);
    if (to != nullptr) store(to, values);
  };
  int64_t i = 0;
  for (; i + kPixels <= pixels; i += kPixels) block(in + 3 * i, gray == nullptr ? nullptr : gray + i);
  if (i < pixels) {
    uint8_t last[3 * kPixels] = {};  // what is not a pixel is black, and adds nothing
    float values[kPixels];
    std::memcpy(last, in + 3 * i, static_cast<size_t>(3 * (pixels - i)));
    block(last, values);
    if (gray != nullptr) std::memcpy(gray + i, values, sizeof(float) * static_cast<size_t>(pixels - i));
  }
  int64_t sum = 0;
  for (int lane = 0; lane < kPixels; ++lane) sum += sums[lane];
  return sum;
}

}  // namespace
}  // namespace det
