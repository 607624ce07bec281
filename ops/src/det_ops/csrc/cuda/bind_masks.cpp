// The operators on masks.
#include "tensors.h"

namespace det::cuda {
namespace {

Tensor paste_masks_op(Tensor masks, Tensor boxes, Optional mirrored, int64_t height, int64_t width, double threshold,
                      std::string rule) {
  const Place place(masks);
  place.check(boxes, "boxes");
  const ScalarType dtype = real(boxes) == ScalarType::Double ? ScalarType::Double : real(masks);
  const Tensor values = plain(masks, dtype), edges = plain(boxes, dtype);
  const Optional flips = plain(place, mirrored, "mirrored", ScalarType::Bool);
  const Tensor out = zeros({masks.size(0), height, width}, ScalarType::Bool, masks);
  PasteArguments a{};
  a.masks = data(values);
  a.boxes = data(edges);
  a.mirrored = static_cast<const uint8_t*>(data(flips));
  a.count = masks.size(0);
  a.side = masks.size(2);
  a.height = height;
  a.width = width;
  a.threshold = threshold;
  a.rule = rule == "sampled" ? PasteRule::sampled : rule == "resized" ? PasteRule::resized : PasteRule::quantised;
  a.out = data<uint8_t>(out);
  check(paste_masks(dtype_of(values), a, place.stream()), "paste_masks");
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) { m.impl("paste_masks", TORCH_BOX(&paste_masks_op)); }

}  // namespace det::cuda
