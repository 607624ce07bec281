// Overlaps of all pairs of boxes, or pair by pair.
#include "boxes.cuh"

namespace det::cuda {
namespace {

template <class R>
__device__ R overlap(const Box<R>& a, const Box<R>& b, Overlap mode, R offset) {
  const R inter = intersection(a, b, offset);
  const R whole = mode == Overlap::kIof ? area(a, offset) : sub(add(area(a, offset), area(b, offset)), inter);
  const R iou = div(inter, floored(whole));
  if (mode != Overlap::kGiou) return iou;
  const R around = floored(hull(a, b, offset));
  return sub(iou, div(sub(around, whole), around));
}

template <class R>
__global__ void overlaps_kernel(const R* boxes, const R* others, int64_t pairs, int64_t per_box, Overlap mode, R offset,
                                R* result) {
  for (int64_t i = thread_number(); i < pairs; i += thread_count()) {
    // per_box is 0 where box i meets other i alone.
    const int64_t left = per_box ? i / per_box : i, right = per_box ? i % per_box : i;
    result[i] = overlap(box_at(boxes, left), box_at(others, right), mode, offset);
  }
}

}  // namespace

const char* box_overlaps(Dtype dtype, const void* boxes, const void* others, int64_t count, int64_t other_count,
                         Overlap mode, bool aligned, int64_t offset, void* result, void* stream) {
  const int64_t pairs = aligned ? count : count * other_count;
  if (pairs == 0) return nullptr;
  return by_real(dtype, [&](auto zero) -> const char* {
    using R = decltype(zero);
    const auto run = overlaps_kernel<R>;
    DET_LAUNCH(run, blocks_for(pairs, 256), 256, 0, stream, static_cast<const R*>(boxes), static_cast<const R*>(others),
               pairs, aligned ? int64_t{0} : other_count, mode, static_cast<R>(offset), static_cast<R*>(result));
    return nullptr;
  });
}

}  // namespace det::cuda
