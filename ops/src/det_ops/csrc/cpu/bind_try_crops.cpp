// The first of random crops that overlaps an object enough, for CPU tensors. Letters: n boxes.
//
// Everything is computed in float32, as by torchvision, so that the same numbers give the same crop.
#include <algorithm>
#include <cmath>

#include "tensors.h"

namespace det {
namespace {

struct Crop {
  int64_t left, top, right, bottom;
};

// Whether a box whose centre is inside the crop overlaps it enough; as with torch's maximum, not if any of those
// overlaps is NaN.
bool overlaps_enough(const float* box, int64_t n, const Crop& crop, float least) {
  const auto left = static_cast<float>(crop.left), top = static_cast<float>(crop.top);
  const auto right = static_cast<float>(crop.right), bottom = static_cast<float>(crop.bottom);
  const auto area = static_cast<float>((crop.right - crop.left) * (crop.bottom - crop.top));
  bool enough = false;
  for (int64_t i = 0; i < n; ++i, box += 4) {
    const float x = 0.5f * (box[0] + box[2]), y = 0.5f * (box[1] + box[3]);
    if (!(left < x && x < right && top < y && y < bottom)) continue;
    const float width = std::max(std::min(box[2], right) - std::max(box[0], left), 0.0f);
    const float height = std::max(std::min(box[3], bottom) - std::max(box[1], top), 0.0f);
    const float common = width * height;
    const float overlap = common / ((box[2] - box[0]) * (box[3] - box[1]) + area - common);
    if (std::isnan(overlap)) return false;
    enough |= overlap >= least;
  }
  return enough;
}

Tensor try_crops(const Tensor& boxes, const Tensor& numbers, int64_t height, int64_t width,
                 const std::vector<double>& sides, const std::vector<double>& aspects, double overlap) {
  const Tensor b = cast_contiguous(boxes, ScalarType::Float), r = cast_contiguous(numbers, ScalarType::Float);
  const float *box = data<float>(b), *number = data<float>(r);
  const auto shortest = static_cast<float>(sides[0]), extent = static_cast<float>(sides[1] - sides[0]);
  const auto part = [](int64_t length, float fraction) {
    return static_cast<int64_t>(static_cast<float>(length) * fraction);
  };
  Tensor out = zeros({5}, ScalarType::Long);
  int64_t* found = mutable_data<int64_t>(out);
  const int64_t tries = r.size(0) / 4;
  int64_t used = 0;
  for (int64_t i = 0; i < tries && found[2] == 0; ++i) {
    const float* u = number + used;
    const int64_t w = part(width, shortest + extent * u[0]), h = part(height, shortest + extent * u[1]);
    const double aspect = static_cast<double>(w) / static_cast<double>(h);
    const bool allowed = aspects[0] <= aspect && aspect <= aspects[1];
    used += allowed ? 4 : 2;
    if (!allowed || w == 0 || h == 0) continue;
    const int64_t left = part(width - w, u[2]), top = part(height - h, u[3]);
    if (!overlaps_enough(box, b.size(0), {left, top, left + w, top + h}, static_cast<float>(overlap))) continue;
    found[0] = left, found[1] = top, found[2] = left + w, found[3] = top + h;
  }
  found[4] = used;
  return out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) { m.impl("try_crops", TORCH_BOX(&det::try_crops)); }
