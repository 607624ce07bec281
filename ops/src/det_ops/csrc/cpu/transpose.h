// Between planes (channel by channel) and pixels (channels together).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace det {

// Four by four at a time, in registers.
template <class T>
inline void transpose_strip(const T* in, int64_t in_stride, T* out, int64_t out_stride, int64_t n, int64_t channels) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  typedef Index Choice __attribute__((vector_size(4 * sizeof(Index))));
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    int64_t c = 0;
    for (; c + 4 <= channels; c += 4) {
      Four a[4], b[4];
      for (int k = 0; k < 4; ++k) std::memcpy(&a[k], in + (c + k) * in_stride + i, sizeof(Four));
#if defined(__clang__)
#define DET_SHUFFLE(x, y, p, q, r, s) __builtin_shufflevector(x, y, p, q, r, s)
#else
#define DET_SHUFFLE(x, y, p, q, r, s) __builtin_shuffle(x, y, Choice{p, q, r, s})
#endif
      b[0] = DET_SHUFFLE(a[0], a[1], 0, 4, 1, 5);
      b[1] = DET_SHUFFLE(a[0], a[1], 2, 6, 3, 7);
      b[2] = DET_SHUFFLE(a[2], a[3], 0, 4, 1, 5);
      b[3] = DET_SHUFFLE(a[2], a[3], 2, 6, 3, 7);
      a[0] = DET_SHUFFLE(b[0], b[2], 0, 1, 4, 5);
      a[1] = DET_SHUFFLE(b[0], b[2], 2, 3, 6, 7);
      a[2] = DET_SHUFFLE(b[1], b[3], 0, 1, 4, 5);
      a[3] = DET_SHUFFLE(b[1], b[3], 2, 3, 6, 7);
#undef DET_SHUFFLE
      for (int k = 0; k < 4; ++k) std::memcpy(out + (i + k) * out_stride + c, &a[k], sizeof(Four));
    }
    for (; c < channels; ++c) {
      for (int k = 0; k < 4; ++k) out[(i + k) * out_stride + c] = in[c * in_stride + i + k];
    }
  }
  for (; i < n; ++i) {
    for (int64_t c = 0; c < channels; ++c) out[i * out_stride + c] = in[c * in_stride + i];
  }
}

// out[i * out_stride + c] = in[c * in_stride + i] for i in [0, n), c in [0, channels): planes to pixels, or back with
// the roles of the two changed. Sixteen channels at a time: more streams than that, and the hardware fetches none
// ahead.
template <class T>
inline void transpose(const T* in, int64_t in_stride, T* out, int64_t out_stride, int64_t n, int64_t channels) {
  constexpr int64_t kStrip = 16;
  for (int64_t c = 0; c < channels; c += kStrip) {
    const int64_t count = channels - c < kStrip ? channels - c : kStrip;
    transpose_strip(in + c * in_stride, in_stride, out + c, out_stride, n, count);
  }
}

}  // namespace det
