// What every kernel file needs: CUDA itself, launches that report errors, number types, exact arithmetic.
#pragma once

#ifndef DET_EMULATED  // the tests compile these files for the host, with their own small definition of CUDA
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <math.h>
#include <stdint.h>

#include "launch.h"

// Starts a kernel on a stream, never on the default one, and returns the error's text from the calling function.
#ifndef DET_LAUNCH
#define DET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                               \
  do {                                                                                           \
    kernel<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    const cudaError_t launched = cudaGetLastError();                                             \
    if (launched != cudaSuccess) return cudaGetErrorString(launched);                            \
  } while (0)
#endif

namespace det::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

// The type a value is computed in: half precisions in float.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using real_t = typename RealOf<T>::type;

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ inline T narrow(real_t<T> x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Arithmetic that the compiler must not contract to a fused multiply-add: coordinates and overlaps are compared
// exactly, so each operation rounds on its own, as it does on a CPU.
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ inline float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double sub(double a, double b) { return __dsub_rn(a, b); }
__device__ inline double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double div(double a, double b) { return __ddiv_rn(a, b); }

// Not a number if either is one, unlike fmin and fmax.
template <class R>
__device__ inline R lower(R a, R b) {
  return a < b || a != a ? a : b;
}
template <class R>
__device__ inline R upper(R a, R b) {
  return a > b || a != a ? a : b;
}

template <class I>
__host__ __device__ inline I smaller(I a, I b) {
  return a < b ? a : b;
}
template <class I>
__host__ __device__ inline I larger(I a, I b) {
  return a > b ? a : b;
}
__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Several channels that are loaded and stored as one.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T value[V];
};

inline bool aligned_to(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// The number of this thread and of all threads, of kernels that stride over their items.
__device__ inline int64_t thread_number() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// Blocks for so many items; kernels stride, so that a cap costs nothing but keeps within what a launch allows.
inline unsigned blocks_for(int64_t items, int per_block) {
  return static_cast<unsigned>(smaller<int64_t>(ceil_div(items, per_block), int64_t{1} << 30));
}

// Sum over the lanes of a full warp, in a fixed order; every lane has it.
template <class R>
__device__ inline R warp_sum(R x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

// Calls f with a zero of the type that the tag names.
template <class F>
const char* by_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kFloat:
      return f(float{});
    case Dtype::kDouble:
      return f(double{});
    case Dtype::kHalf:
      return f(__half{});
    case Dtype::kBFloat16:
      return f(__nv_bfloat16{});
  }
  return "unknown dtype";
}

template <class F>
const char* by_real(Dtype dtype, F&& f) {
  return dtype == Dtype::kDouble ? f(double{}) : f(float{});
}

}  // namespace det::cuda
