// Vectors of the widest registers that this translation unit may use: DET_ISA is 0 (any machine), 2 (AVX2 and FMA) or
// 512 (AVX-512 F). The types are the compiler's own vector extension, so plain arithmetic works on them and any
// architecture compiles; only what the extension lacks (fused multiply-add, min, max, tests) is spelled out.
//
// Everything lies in an anonymous namespace: the same names are compiled once per instruction set, and must not merge.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && (DET_ISA > 0)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DET_INLINE inline __attribute__((always_inline))

namespace det {
namespace {

#if DET_ISA == 512
constexpr int kVectorBytes = 64;
#elif DET_ISA == 2
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
constexpr int lanes = kVectorBytes / sizeof(T);

template <class T>
DET_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class T>
DET_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}

template <class T>
DET_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};  // x - 0 is x, for every x
}

// a * b + c in one rounding where the hardware has it. Only for sums of features, never for coordinates.
template <class V>
DET_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}

// The smaller and the larger of each lane; which of the two a NaN yields is left open.
template <class V>
DET_INLINE V lower(V a, V b) {
  return a < b ? a : b;
}
template <class V>
DET_INLINE V upper(V a, V b) {
  return a > b ? a : b;
}

// Whether any lane of a is greater than (or equal to) b; never true for a NaN.
template <class V>
DET_INLINE bool any_greater(V a, V b) {
  const auto m = a > b;
  bool found = false;
  for (unsigned i = 0; i < sizeof(V) / sizeof(m[0]); ++i) found |= m[i] != 0;
  return found;
}
template <class V>
DET_INLINE bool any_not_less(V a, V b) {
  const auto m = a >= b;
  bool found = false;
  for (unsigned i = 0; i < sizeof(V) / sizeof(m[0]); ++i) found |= m[i] != 0;
  return found;
}

#if DET_ISA == 512
#define DET_X86_VECTOR(T, R, P)                                \
  template <>                                                  \
  DET_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {        \
    return (Vec<T>)_mm512_fmadd_##P((R)a, (R)b, (R)c);         \
  }                                                            \
  template <>                                                  \
  DET_INLINE Vec<T> lower(Vec<T> a, Vec<T> b) {                \
    return (Vec<T>)_mm512_min_##P((R)a, (R)b);                 \
  }                                                            \
  template <>                                                  \
  DET_INLINE Vec<T> upper(Vec<T> a, Vec<T> b) {                \
    return (Vec<T>)_mm512_max_##P((R)a, (R)b);                 \
  }                                                            \
  template <>                                                  \
  DET_INLINE bool any_greater(Vec<T> a, Vec<T> b) {            \
    return _mm512_cmp_##P##_mask((R)a, (R)b, _CMP_GT_OQ) != 0; \
  }                                                            \
  template <>                                                  \
  DET_INLINE bool any_not_less(Vec<T> a, Vec<T> b) {           \
    return _mm512_cmp_##P##_mask((R)a, (R)b, _CMP_GE_OQ) != 0; \
  }
DET_X86_VECTOR(float, __m512, ps)
DET_X86_VECTOR(double, __m512d, pd)
#undef DET_X86_VECTOR
#elif DET_ISA == 2
#define DET_X86_VECTOR(T, R, P)                                              \
  template <>                                                                \
  DET_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {                      \
    return (Vec<T>)_mm256_fmadd_##P((R)a, (R)b, (R)c);                       \
  }                                                                          \
  template <>                                                                \
  DET_INLINE Vec<T> lower(Vec<T> a, Vec<T> b) {                              \
    return (Vec<T>)_mm256_min_##P((R)a, (R)b);                               \
  }                                                                          \
  template <>                                                                \
  DET_INLINE Vec<T> upper(Vec<T> a, Vec<T> b) {                              \
    return (Vec<T>)_mm256_max_##P((R)a, (R)b);                               \
  }                                                                          \
  template <>                                                                \
  DET_INLINE bool any_greater(Vec<T> a, Vec<T> b) {                          \
    return _mm256_movemask_##P(_mm256_cmp_##P((R)a, (R)b, _CMP_GT_OQ)) != 0; \
  }                                                                          \
  template <>                                                                \
  DET_INLINE bool any_not_less(Vec<T> a, Vec<T> b) {                         \
    return _mm256_movemask_##P(_mm256_cmp_##P((R)a, (R)b, _CMP_GE_OQ)) != 0; \
  }
DET_X86_VECTOR(float, __m256, ps)
DET_X86_VECTOR(double, __m256d, pd)
#undef DET_X86_VECTOR
#elif defined(__aarch64__)
template <>
DET_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
template <>
DET_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#endif

}  // namespace
}  // namespace det
