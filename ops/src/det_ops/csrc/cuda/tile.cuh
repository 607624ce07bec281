// The inner part of a matrix product C = A B^T: a block's 64 x 64 tile of C, fed with 32 columns of A and B at a time.
//
// The block fills a() and b(), 64 rows of 32 numbers each, between barriers and calls multiply(); at the end finish()
// shows the sums in the same memory. Half precisions use tensor cores and are summed in float.
#pragma once

#include <type_traits>

#include "common.cuh"

#ifndef DET_EMULATED
#include <mma.h>
#endif

namespace det::cuda {

constexpr int kTile = 64;          // rows and columns of C
constexpr int kDepth = 32;         // columns of A and B
constexpr int kTileThreads = 256;  // that work on it

// Plain multiply-adds: each thread has 4 x 4 sums, 16 rows and columns apart, so that no two lanes read one bank.
template <class T>
class PlainTile {
 public:
  using R = real_t<T>;
  static constexpr int kPitch = kDepth + 1, kSumPitch = kTile + 1;

  __device__ static void multiply(const T* a, const T* b, PlainTile& sums) {
    const int row = threadIdx.x / 16, column = threadIdx.x % 16;
    for (int k = 0; k < kDepth; ++k) {
      R left[4], right[4];
      for (int i = 0; i < 4; ++i) left[i] = widen(a[(row + 16 * i) * kPitch + k]);
      for (int j = 0; j < 4; ++j) right[j] = widen(b[(column + 16 * j) * kPitch + k]);
      for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) sums.sum_[i][j] += left[i] * right[j];
      }
    }
  }
  __device__ void store(R* to) const {
    const int row = threadIdx.x / 16, column = threadIdx.x % 16;
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) to[(row + 16 * i) * kSumPitch + column + 16 * j] = sum_[i][j];
    }
  }

 private:
  R sum_[4][4] = {};
};

// Tensor cores: each of the 8 warps has 16 rows and 32 columns.
template <class T>
class TensorTile {
 public:
  using R = float;
  static constexpr int kPitch = kDepth + 8, kSumPitch = kTile + 4;  // as aligned as the loads demand

  __device__ TensorTile() {
    for (auto& part : sum_) nvcuda::wmma::fill_fragment(part, 0.0f);
  }
  __device__ static void multiply(const T* a, const T* b, TensorTile& sums) {
    using namespace nvcuda::wmma;
    const int warp = threadIdx.x / kWarp, row = warp / 2 * 16, column = warp % 2 * 32;
    for (int k = 0; k < kDepth; k += 16) {
      fragment<matrix_a, 16, 16, 16, T, row_major> left;
      load_matrix_sync(left, a + row * kPitch + k, kPitch);
      for (int j = 0; j < 2; ++j) {
        fragment<matrix_b, 16, 16, 16, T, col_major> right;
        load_matrix_sync(right, b + (column + 16 * j) * kPitch + k, kPitch);
        mma_sync(sums.sum_[j], left, right, sums.sum_[j]);
      }
    }
  }
  __device__ void store(R* to) const {
    const int warp = threadIdx.x / kWarp, row = warp / 2 * 16, column = warp % 2 * 32;
    for (int j = 0; j < 2; ++j) {
      nvcuda::wmma::store_matrix_sync(to + row * kSumPitch + column + 16 * j, sum_[j], kSumPitch,
                                      nvcuda::wmma::mem_row_major);
    }
  }

 private:
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum_[2];
};

// Tensor cores know bfloat16 from compute capability 8.0 on; older ones take the plain way for both.
#if defined(DET_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
template <class T>
using TileOf = std::conditional_t<sizeof(T) == 2, TensorTile<T>, PlainTile<T>>;
#else
template <class T>
using TileOf = PlainTile<T>;
#endif

// A tile and its memory. Exactly one per kernel and type, as the memory is shared by the block.
template <class T>
class Product {
 public:
  using R = real_t<T>;
  static constexpr int kPitch = TileOf<T>::kPitch, kSumPitch = TileOf<T>::kSumPitch;
  static constexpr size_t kOperands = 2 * sizeof(T) * kTile * kPitch, kSums = sizeof(R) * kTile * kSumPitch;
  struct alignas(32) Memory {
    unsigned char bytes[kOperands > kSums ? kOperands : kSums];
  };

  __device__ explicit Product(Memory& memory) : memory_(memory.bytes) {}
  __device__ T* a() const { return reinterpret_cast<T*>(memory_); }
  __device__ T* b() const { return a() + kTile * kPitch; }

  // Adds the product of what every thread has put into a() and b(), which may be refilled afterwards.
  __device__ void multiply() {
    __syncthreads();
    TileOf<T>::multiply(a(), b(), sums_);
    __syncthreads();
  }
  // The sums (64, 64) with kSumPitch, over a() and b(). A caller that goes on must wait for all readers first.
  __device__ const R* finish() {
    R* shown = reinterpret_cast<R*>(memory_);
    sums_.store(shown);
    __syncthreads();
    return shown;
  }

 private:
  unsigned char* memory_;
  TileOf<T> sums_;
};

constexpr int kRun = 8;  // channels that a thread loads at a time

// `count` (at most kRun) numbers from `from`, and zeros up to kRun.
template <class T>
__device__ inline void load_run(const T* from, int count, T (&to)[kRun]) {
  constexpr int V = 16 / sizeof(T);
  if (count == kRun && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    for (int i = 0; i < kRun; i += V) {
      const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from + i);
      for (int v = 0; v < V; ++v) to[i + v] = pack.value[v];
    }
    return;
  }
  for (int i = 0; i < kRun; ++i) to[i] = i < count ? from[i] : narrow<T>(real_t<T>(0));
}

// Puts a run into row `row` of an operand, or down its column.
template <class T>
__device__ inline void put_row(T* operand, int row, int column, const T (&run)[kRun]) {
  for (int i = 0; i < kRun; ++i) operand[row * Product<T>::kPitch + column + i] = run[i];
}
template <class T>
__device__ inline void put_column(T* operand, int row, int column, const T (&run)[kRun]) {
  for (int i = 0; i < kRun; ++i) operand[(row + i) * Product<T>::kPitch + column] = run[i];
}

}  // namespace det::cuda
