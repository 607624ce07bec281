// Suppression by decaying scores: one block, as each pick depends on the one before.
#include "boxes.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 1024;

template <class S>
struct Candidate {
  S score;
  int64_t index;  // -1 for none
};

// The higher score, of equal ones the lower index.
template <class S>
__device__ Candidate<S> better(const Candidate<S>& a, const Candidate<S>& b) {
  if (b.index < 0) return a;
  if (a.index < 0 || b.score > a.score || (b.score == a.score && b.index < a.index)) return b;
  return a;
}

// The best candidate of the block; every thread has it.
template <class S>
__device__ Candidate<S> best_of_block(Candidate<S> mine) {
  __shared__ Candidate<S> of_warp[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const S score = __shfl_xor_sync(kFullWarp, mine.score, step);
    const long long index = __shfl_xor_sync(kFullWarp, static_cast<long long>(mine.index), step);
    mine = better(mine, Candidate<S>{score, index});
  }
  __syncthreads();  // the former ones are read
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = mine;
  __syncthreads();
  Candidate<S> best = of_warp[0];
  for (int w = 1; w < kThreads / kWarp; ++w) best = better(best, of_warp[w]);
  return best;
}

template <class R, class S>
__device__ S decay(const Box<R>& picked, const Box<R>& box, SoftMethod method, S limit, S sigma) {
  const S iou = static_cast<S>(iou_floored(picked, box));
  if (method == SoftMethod::kGaussian) return exp(div(-mul(iou, iou), sigma));
  if (!(iou >= limit)) return 1;
  return method == SoftMethod::kNaive ? S(0) : sub(S(1), iou);
}

template <class R, class S>
__global__ void __launch_bounds__(kThreads)
    soft_nms_kernel(const R* boxes, S* left, int64_t count, S limit, S sigma, S least, SoftMethod method,
                    int64_t* picked, S* scores, int64_t* number) {
  // Scores are read and written by the same thread alone; below `least`, or not a number, a box is gone.
  Candidate<S> mine{0, -1};
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    if (left[i] >= least) mine = better(mine, Candidate<S>{left[i], i});
  }
  int64_t found = 0;
  for (;; ++found) {
    const Candidate<S> best = best_of_block(mine);
    if (best.index < 0) break;
    if (threadIdx.x == 0) {
      picked[found] = best.index;
      scores[found] = best.score;
    }
    const Box<R> box = box_at(boxes, best.index);
    mine = {0, -1};
    for (int64_t i = threadIdx.x; i < count; i += kThreads) {
      if (!(left[i] >= least)) continue;
      const S score = i == best.index ? S(NAN) : mul(left[i], decay(box, box_at(boxes, i), method, limit, sigma));
      left[i] = score;
      if (score >= least) mine = better(mine, Candidate<S>{score, i});
    }
  }
  if (threadIdx.x == 0) *number = found;
}

}  // namespace

const char* soft_nms(Dtype box_dtype, Dtype score_dtype, const SoftNmsArguments& a, void* stream) {
  return by_real(box_dtype, [&](auto box_zero) -> const char* {
    return by_real(score_dtype, [&](auto score_zero) -> const char* {
      using R = decltype(box_zero);
      using S = decltype(score_zero);
      const auto run = soft_nms_kernel<R, S>;
      const S limit = static_cast<S>(static_cast<R>(a.threshold));
      DET_LAUNCH(run, 1, kThreads, 0, stream, static_cast<const R*>(a.boxes), static_cast<S*>(a.left), a.count, limit,
                 static_cast<S>(a.sigma), static_cast<S>(a.min_score), a.method, a.picked, static_cast<S*>(a.scores),
                 a.number);
      return nullptr;
    });
  });
}

}  // namespace det::cuda
