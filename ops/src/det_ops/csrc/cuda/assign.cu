// Assignment of boxes to objects by their overlap, without a matrix of overlaps.
//
// A first pass finds the best object of each box and the best overlap of each object; where objects take their best
// boxes too, a second pass computes the same overlaps again, bit for bit, and compares.
#include "boxes.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;  // also how many objects lie in shared memory at a time

// Overlaps are never negative, and such numbers order as their bits do.
__device__ void raise_to(float* at, float value) { atomicMax(reinterpret_cast<unsigned*>(at), __float_as_uint(value)); }
__device__ void raise_to(double* at, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(__double_as_longlong(value)));
}

// Not a number counts as 0, and infinity as the largest number.
template <class R>
__device__ R overlap(const Box<R>& box, const Box<R>& object) {
  const R iou = iou_floored(box, object);
  const R most = sizeof(R) == 4 ? R(3.402823466e38) : R(1.7976931348623157e308);
  return !(iou > 0) ? R(0) : iou > most ? most : iou;
}

template <class R>
__global__ void assign_prepare(int64_t objects, R* best_of_object, int64_t* first_box) {
  for (int64_t i = thread_number(); i < objects; i += thread_count()) {
    best_of_object[i] = 0;
    first_box[i] = INT64_MAX;
  }
}

// Loads the next objects for the whole block; how many there are.
template <class R>
__device__ int load_objects(const R* objects, int64_t first, int64_t count, Box<R>* shared) {
  __syncthreads();  // nobody reads the former ones any more
  const int number = static_cast<int>(smaller<int64_t>(kThreads, count - first));
  if (threadIdx.x < number) shared[threadIdx.x] = box_at(objects, first + threadIdx.x);
  __syncthreads();
  return number;
}

template <class R>
__global__ void assign_best(const R* boxes, const R* objects, int64_t count, int64_t object_count, R positive,
                            R negative, R* best_of_object, int64_t* assigned, R* best) {
  __shared__ Box<R> shared[kThreads];
  const int64_t i = thread_number();
  const Box<R> box = i < count ? box_at(boxes, i) : Box<R>{};
  R highest = -1;
  int64_t chosen = 0;
  for (int64_t first = 0; first < object_count; first += kThreads) {
    const int number = load_objects(objects, first, object_count, shared);
    for (int j = 0; j < number; ++j) {
      R iou = i < count ? overlap(box, shared[j]) : R(0);
      if (iou > highest) {
        highest = iou;
        chosen = first + j;
      }
      // Most objects are far from most warps.
      if (!__any_sync(kFullWarp, iou > 0)) continue;
      for (int step = kWarp / 2; step > 0; step /= 2) iou = upper(iou, __shfl_xor_sync(kFullWarp, iou, step));
      if (threadIdx.x % kWarp == 0) raise_to(&best_of_object[first + j], iou);
    }
  }
  if (i >= count) return;
  best[i] = highest;
  assigned[i] = highest >= positive ? chosen + 1 : highest < negative ? 0 : -1;
}

// Each object takes the boxes that have its best overlap; a later object overrides an earlier one. With one box per
// object, this only finds the first one.
template <class R>
__global__ void assign_ties(const R* boxes, const R* objects, int64_t count, int64_t object_count, R min_positive,
                            const R* best_of_object, bool all_ties, int64_t* first_box, int64_t* assigned) {
  __shared__ Box<R> shared[kThreads];
  const int64_t i = thread_number();
  const Box<R> box = i < count ? box_at(boxes, i) : Box<R>{};
  int64_t taken = 0;
  for (int64_t first = 0; first < object_count; first += kThreads) {
    const int number = load_objects(objects, first, object_count, shared);
    for (int j = 0; j < number && i < count; ++j) {
      const R needed = best_of_object[first + j];
      if (!(needed >= min_positive) || overlap(box, shared[j]) != needed) continue;
      taken = first + j + 1;
      if (!all_ties) {
        atomicMin(reinterpret_cast<unsigned long long*>(&first_box[first + j]), static_cast<unsigned long long>(i));
      }
    }
  }
  if (i < count && taken && all_ties) assigned[i] = taken;
}

// The last object whose first box this is.
__global__ void assign_first(const int64_t* first_box, int64_t count, int64_t object_count, int64_t* assigned) {
  for (int64_t i = thread_number(); i < count; i += thread_count()) {
    for (int64_t j = object_count - 1; j >= 0; --j) {
      if (first_box[j] != i) continue;
      assigned[i] = j + 1;
      break;
    }
  }
}

}  // namespace

const char* max_iou_assign(Dtype dtype, const AssignArguments& a, void* stream) {
  if (a.count == 0 || a.object_count == 0) return "there must be boxes and objects";
  return by_real(dtype, [&](auto zero) -> const char* {
    using R = decltype(zero);
    const auto prepare = assign_prepare<R>;
    const auto choose = assign_best<R>;
    const auto ties = assign_ties<R>;
    const R *boxes = static_cast<const R*>(a.boxes), *objects = static_cast<const R*>(a.objects);
    R *best_of_object = static_cast<R*>(a.best_of_object), *best = static_cast<R*>(a.best);
    const unsigned blocks = blocks_for(a.count, kThreads);
    DET_LAUNCH(prepare, blocks_for(a.object_count, kThreads), kThreads, 0, stream, a.object_count, best_of_object,
               a.first_box);
    DET_LAUNCH(choose, blocks, kThreads, 0, stream, boxes, objects, a.count, a.object_count, static_cast<R>(a.positive),
               static_cast<R>(a.negative), best_of_object, a.assigned, best);
    if (!a.low_quality) return nullptr;
    DET_LAUNCH(ties, blocks, kThreads, 0, stream, boxes, objects, a.count, a.object_count,
               static_cast<R>(a.min_positive), best_of_object, a.all_ties, a.first_box, a.assigned);
    if (!a.all_ties) {
      DET_LAUNCH(assign_first, blocks, kThreads, 0, stream, a.first_box, a.count, a.object_count, a.assigned);
    }
    return nullptr;
  });
}

}  // namespace det::cuda
