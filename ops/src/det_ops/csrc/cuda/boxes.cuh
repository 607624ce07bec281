// Boxes as (x1, y1, x2, y2) and their overlaps, rounded operation by operation.
#pragma once

#include "common.cuh"

namespace det::cuda {

template <class R>
struct Box {
  R x1, y1, x2, y2;
};

template <class R>
__device__ inline Box<R> box_at(const R* boxes, int64_t i) {
  return {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
}

// Width times height, each one larger by `offset`.
template <class R>
__device__ inline R area(const Box<R>& b, R offset) {
  return mul(add(sub(b.x2, b.x1), offset), add(sub(b.y2, b.y1), offset));
}

template <class R>
__device__ inline R side(R low, R high, R offset) {
  const R length = add(sub(high, low), offset);
  return length < 0 ? R(0) : length;
}

template <class R>
__device__ inline R intersection(const Box<R>& a, const Box<R>& b, R offset) {
  return mul(side(upper(a.x1, b.x1), lower(a.x2, b.x2), offset), side(upper(a.y1, b.y1), lower(a.y2, b.y2), offset));
}

template <class R>
__device__ inline R hull(const Box<R>& a, const Box<R>& b, R offset) {
  return mul(side(lower(a.x1, b.x1), upper(a.x2, b.x2), offset), side(lower(a.y1, b.y1), upper(a.y2, b.y2), offset));
}

// The least denominator of an overlap.
template <class R>
__device__ inline R floored(R denominator) {
  const R least = R(1e-6);
  return denominator < least ? least : denominator;
}

// Intersection over union with a floored denominator, which nms has not.
template <class R>
__device__ inline R iou_floored(const Box<R>& a, const Box<R>& b) {
  const R inter = intersection(a, b, R(0));
  return div(inter, floored(sub(add(area(a, R(0)), area(b, R(0))), inter)));
}

}  // namespace det::cuda
