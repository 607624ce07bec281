// A small CUDA for the host: enough to run the kernels' logic where there is no GPU.
//
// Each thread of a block is a fiber; a fiber runs until it waits for its block or its warp, or ends. Blocks run one
// after the other, so a static variable serves as shared memory. Waiting for threads that cannot come aborts.
#pragma once
#define DET_EMULATED

#include <math.h>
#include <stdint.h>

#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define DET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), emulated::launch((grid), (block), [&] { (kernel)(__VA_ARGS__); }))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
void launch(dim3 grid, dim3 block, const std::function<void()>& kernel);
void wait_for_block();
void wait_for_warp(unsigned mask);
int lane();
void* slot(int lane);  // 16 bytes in which a lane of this warp shows a value to the others

template <class T>
T exchange(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= 16);
  std::memcpy(slot(lane()), &value, sizeof(T));
  wait_for_warp(mask);
  std::memcpy(&value, slot(from), sizeof(T));
  wait_for_warp(mask);
  return value;
}
}  // namespace emulated

inline void __syncthreads() { emulated::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::wait_for_warp(mask); }
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return emulated::exchange(mask, value, from & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return emulated::exchange(mask, value, emulated::lane() ^ with);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by) {
  const int from = emulated::lane() + by;
  return emulated::exchange(mask, value, from < 32 ? from : emulated::lane());
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const int shown = predicate != 0;
  std::memcpy(emulated::slot(emulated::lane()), &shown, sizeof(int));
  emulated::wait_for_warp(mask);
  unsigned all = 0;
  for (int from = 0; from < 32; ++from) all |= *static_cast<unsigned*>(emulated::slot(from)) << from;
  emulated::wait_for_warp(mask);
  return all;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Threads never run at the same time, so plain operations are atomic.
template <class T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicMax(T* at, T value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
template <class T>
T atomicMin(T* at, T value) {
  const T old = *at;
  if (value < old) *at = value;
  return old;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }

template <class To, class From>
To emulated_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
float __half2float(__half x);
__half __float2half_rn(float x);
inline float __bfloat162float(__nv_bfloat16 x) { return emulated_bits<float>(static_cast<uint32_t>(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t bits = emulated_bits<uint32_t>(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Tensor cores: every lane holds the whole 16 x 16 matrix and does the whole product.
namespace nvcuda::wmma {
struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16);
  float value[16][16];  // as a row-major matrix, whatever its layout in memory
};
inline float as_float(__half x) { return __half2float(x); }
inline float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class F>
void fill_fragment(F& f, float value) {
  for (auto& row : f.value)
    for (float& x : row) x = value;
}
template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* from, unsigned pitch) {
  constexpr bool columns = __is_same(Layout, col_major);
  emulated::wait_for_warp(0xffffffffu);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) f.value[i][j] = as_float(columns ? from[j * pitch + i] : from[i * pitch + j]);
}
template <class A, class B, class C>
void mma_sync(C& d, const A& a, const B& b, const C& c) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      float sum = c.value[i][j];
      for (int k = 0; k < 16; ++k) sum += a.value[i][k] * b.value[k][j];
      d.value[i][j] = sum;
    }
}
template <class F>
void store_matrix_sync(float* to, const F& f, unsigned pitch, layout_t) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) to[i * pitch + j] = f.value[i][j];
  emulated::wait_for_warp(0xffffffffu);
}
}  // namespace nvcuda::wmma
