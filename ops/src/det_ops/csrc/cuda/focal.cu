// The sigmoid focal loss and its gradient, one pass over the logits each.
#include "common.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;

// The factor of a row's losses; 0 for an ignored row.
template <class R>
__device__ R row_weight(const FocalArguments& a, int64_t target) {
  if (target < 0) return 0;
  return a.weight && target < a.classes ? static_cast<const R*>(a.weight)[target] : R(1);
}

// The row of an element. 64-bit division is slow, and seldom needed.
__device__ int64_t row_of(int64_t i, int64_t classes, bool small) {
  return small ? static_cast<uint32_t>(i) / static_cast<uint32_t>(classes) : i / classes;
}

template <class R>
__device__ R power(R base, R exponent) {
  return exponent == 2 ? base * base : exponent == 1 ? base : exponent == 0 ? R(1) : pow(base, exponent);
}

// With x > 0 where the prediction is right: p the probability of being right, wrong = 1 - p, surprise = -log p. All
// three keep their relative precision however large x is.
template <class R>
struct Odds {
  R p, wrong, surprise;
};

template <class R>
__device__ Odds<R> odds(R x) {
  const R e = exp(-fabs(x)), near = 1 / (1 + e), far = e / (1 + e);
  return {x >= 0 ? near : far, x >= 0 ? far : near, (x < 0 ? -x : R(0)) + log1p(e)};
}

template <class T>
__device__ real_t<T> loss_of(const FocalArguments& a, int64_t i, bool small, real_t<T> gamma, real_t<T> alpha,
                             real_t<T> rest) {
  using R = real_t<T>;
  const int64_t row = row_of(i, a.classes, small), target = a.target[row];
  const R weight = row_weight<R>(a, target);
  if (target < 0) return 0;
  const bool positive = target == i - row * a.classes;
  const R x = widen(static_cast<const T*>(a.logits)[i]);
  const Odds<R> o = odds(positive ? x : -x);
  return (positive ? alpha : rest) * power(o.wrong, gamma) * o.surprise * weight;
}

template <class T>
__global__ void focal_each(FocalArguments a, bool small, real_t<T>* loss) {
  using R = real_t<T>;
  const R gamma = R(a.gamma), alpha = R(a.alpha), rest = R(1 - a.alpha);
  for (int64_t i = thread_number(); i < a.rows * a.classes; i += thread_count()) {
    loss[i] = loss_of<T>(a, i, small, gamma, alpha, rest);
  }
}

// Sum over the block in a fixed order; thread 0 has it.
template <class R>
__device__ R block_sum(R mine) {
  __shared__ R of_warp[kThreads / kWarp];
  mine = warp_sum(mine);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = mine;
  __syncthreads();
  R sum = 0;
  for (int w = 0; w < kThreads / kWarp; ++w) sum += of_warp[w];
  return sum;
}

template <class T>
__global__ void focal_partials(FocalArguments a, bool small, real_t<T>* partials) {
  using R = real_t<T>;
  const R gamma = R(a.gamma), alpha = R(a.alpha), rest = R(1 - a.alpha);
  R sum = 0;
  for (int64_t i = thread_number(); i < a.rows * a.classes; i += thread_count()) {
    sum += loss_of<T>(a, i, small, gamma, alpha, rest);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <class R>
__global__ void focal_total(const R* partials, int64_t number, R* total) {
  R sum = 0;
  for (int64_t i = threadIdx.x; i < number; i += kThreads) sum += partials[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = sum;
}

template <class T>
__global__ void focal_gradient(FocalArguments a, bool small, const real_t<T>* grad, bool elementwise, T* result) {
  using R = real_t<T>;
  const R gamma = R(a.gamma), alpha = R(a.alpha), rest = R(1 - a.alpha);
  for (int64_t i = thread_number(); i < a.rows * a.classes; i += thread_count()) {
    const int64_t row = row_of(i, a.classes, small), target = a.target[row];
    const R weight = row_weight<R>(a, target);
    if (target < 0) {
      result[i] = narrow<T>(R(0));
      continue;
    }
    const bool positive = target == i - row * a.classes;
    const R x = widen(static_cast<const T*>(a.logits)[i]);
    const Odds<R> o = odds(positive ? x : -x);
    // With q = 1 - p: the derivative of q^gamma (-log p) in x is -q^gamma (gamma p (-log p) + q).
    const R slope = power(o.wrong, gamma) * (gamma * o.p * o.surprise + o.wrong);
    const R scaled = (positive ? -alpha : rest) * slope * weight * grad[elementwise ? i : 0];
    result[i] = narrow<T>(scaled);
  }
}

bool is_small(const FocalArguments& a) { return a.rows * a.classes <= INT32_MAX; }

}  // namespace

const char* focal(Dtype dtype, const FocalArguments& a, void* partials, void* loss, void* stream) {
  const int64_t total = a.rows * a.classes;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    using R = real_t<T>;
    const auto each = focal_each<T>;
    const auto parts = focal_partials<T>;
    const auto sum = focal_total<R>;
    if (partials) {
      const unsigned blocks = smaller(blocks_for(total, kThreads), static_cast<unsigned>(kFocalPartials));
      if (blocks > 0) DET_LAUNCH(parts, blocks, kThreads, 0, stream, a, is_small(a), static_cast<R*>(partials));
      DET_LAUNCH(sum, 1, kThreads, 0, stream, static_cast<const R*>(partials), static_cast<int64_t>(blocks),
                 static_cast<R*>(loss));
    } else if (total > 0) {
      DET_LAUNCH(each, blocks_for(total, kThreads), kThreads, 0, stream, a, is_small(a), static_cast<R*>(loss));
    }
    return nullptr;
  });
}

const char* focal_backward(Dtype dtype, const FocalArguments& a, const void* grad, bool elementwise, void* result,
                           void* stream) {
  const int64_t total = a.rows * a.classes;
  if (total == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    const auto run = focal_gradient<T>;
    DET_LAUNCH(run, blocks_for(total, kThreads), kThreads, 0, stream, a, is_small(a),
               static_cast<const real_t<T>*>(grad), elementwise, static_cast<T*>(result));
    return nullptr;
  });
}

}  // namespace det::cuda
