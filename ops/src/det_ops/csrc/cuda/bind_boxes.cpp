// The operators on boxes.
#include "tensors.h"

namespace det::cuda {
namespace {

using torch::stable::detail::from;

struct Sorted {
  Tensor values, indices;
};

Sorted stable_sort(const Tensor& keys, bool descending) {
  std::array<StableIValue, 4> stack{from(keys), from(std::optional<bool>(true)), from(int64_t{0}), from(descending)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  Tensor values = torch::stable::detail::to<Tensor>(stack[0]);
  return {values, torch::stable::detail::to<Tensor>(stack[1])};
}

Tensor gather(const Tensor& values, const Tensor& indices) {
  return call("aten::index_select", "", std::array{from(values), from(int64_t{0}), from(indices)});
}

Tensor full_boxes(const Tensor& boxes) { return plain(boxes, real(boxes)); }

// In the order of scores: which box, and whether it is kept.
struct Kept {
  Tensor order, keep;
};

Kept suppress(const Place& place, const Tensor& given, const Tensor& scores, const std::optional<Tensor>& groups,
              double threshold, int64_t offset) {
  const Tensor boxes = full_boxes(given);
  const int64_t count = boxes.size(0);
  const Tensor order = stable_sort(scores, true).indices;
  Tensor walk = order;
  std::optional<Sorted> grouped;
  if (groups) {
    grouped = stable_sort(gather(to(*groups, ScalarType::Long), order), false);
    walk = gather(order, grouped->indices);
  }
  const int64_t panel_rows = nms_panel_rows(count);
  const Tensor sorted = empty({count, 4}, boxes.scalar_type(), boxes);
  const Tensor bits = empty({panel_rows, nms_words(count)}, ScalarType::Long, boxes);
  const Tensor starts = empty({groups ? count : 0}, ScalarType::Long, boxes);
  const Tensor group_count = empty({1}, ScalarType::Long, boxes);
  const Tensor alive = empty({count}, ScalarType::Byte, boxes);
  const Tensor keep = empty({count}, ScalarType::Bool, boxes);
  NmsArguments a{};
  a.boxes = data(boxes);
  a.order = data<int64_t>(walk);
  a.groups = grouped ? data<int64_t>(grouped->values) : nullptr;
  a.rank = grouped ? data<int64_t>(grouped->indices) : nullptr;
  a.count = count;
  a.threshold = threshold;
  a.offset = offset;
  a.panel_rows = panel_rows;
  a.sorted = data(sorted);
  a.bits = data<int64_t>(bits);
  a.starts = data<int64_t>(starts);
  a.group_count = data<int64_t>(group_count);
  a.alive = data<uint8_t>(alive);
  a.keep = data<uint8_t>(keep);
  check(nms(dtype_of(boxes), a, place.stream()), "nms");
  return {order, keep};
}

// How many there are decides the shape: this waits for the device.
Tensor selected(const Kept& kept) {
  return call("aten::masked_select", "", std::array{from(kept.order), from(kept.keep)});
}

Tensor nms_op(Tensor boxes, Tensor scores, double threshold, int64_t offset) {
  const Place place(boxes);
  place.check(scores, "scores");
  if (boxes.size(0) == 0) return empty({0}, ScalarType::Long, boxes);
  return selected(suppress(place, boxes, scores, std::nullopt, threshold, offset));
}

Tensor batched_nms_op(Tensor boxes, Tensor scores, Tensor groups, double threshold) {
  const Place place(boxes);
  place.check(scores, "scores");
  place.check(groups, "groups");
  if (boxes.size(0) == 0) return empty({0}, ScalarType::Long, boxes);
  return selected(suppress(place, boxes, scores, groups, threshold, 0));
}

std::tuple<Tensor, Tensor> nms_padded_op(Tensor boxes, Tensor scores, Tensor groups, double threshold,
                                         int64_t max_out) {
  const Place place(boxes);
  place.check(scores, "scores");
  place.check(groups, "groups");
  const Tensor result = empty({max_out}, ScalarType::Long, boxes);
  const Tensor number = empty({}, ScalarType::Long, boxes);
  Kept kept;
  const bool some = boxes.size(0) > 0;
  if (some) kept = suppress(place, boxes, scores, groups, threshold, 0);
  check(nms_compact_kept(some ? data<int64_t>(kept.order) : nullptr, some ? data<uint8_t>(kept.keep) : nullptr,
                         boxes.size(0), max_out, data<int64_t>(result), data<int64_t>(number), place.stream()),
        "nms_padded");
  return {result, number};
}

SoftMethod soft_method(const std::string& name) {
  if (name == "linear") return SoftMethod::kLinear;
  if (name == "gaussian") return SoftMethod::kGaussian;
  STD_TORCH_CHECK(name == "naive", "method is ", name, ", expected linear, gaussian or naive");
  return SoftMethod::kNaive;
}

std::tuple<Tensor, Tensor> soft_nms_op(Tensor boxes, Tensor scores, double threshold, double sigma, double min_score,
                                       std::string method) {
  const Place place(boxes);
  place.check(scores, "scores");
  const int64_t count = boxes.size(0);
  const Tensor all = full_boxes(boxes);
  // The kernel writes here, so never the caller's own scores.
  const Tensor left = torch::stable::clone(plain(scores, real(scores)));
  Tensor picked = empty({count}, ScalarType::Long, boxes);
  Tensor decayed = empty({count}, left.scalar_type(), boxes);
  const Tensor number = empty({1}, ScalarType::Long, boxes);
  SoftNmsArguments a{};
  a.boxes = data(all);
  a.left = data(left);
  a.count = count;
  a.threshold = threshold;
  a.sigma = sigma;
  a.min_score = min_score;
  a.method = soft_method(method);
  a.picked = data<int64_t>(picked);
  a.scores = data(decayed);
  a.number = data<int64_t>(number);
  check(soft_nms(dtype_of(all), dtype_of(left), a, place.stream()), "soft_nms");
  // How many there are decides the shape: this waits for the device.
  const Tensor known = torch::stable::to(number, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const int64_t kept = *data<int64_t>(known);
  decayed = torch::stable::clone(torch::stable::narrow(decayed, 0, 0, kept));
  return {torch::stable::clone(torch::stable::narrow(picked, 0, 0, kept)), to(decayed, scores.scalar_type())};
}

Tensor box_overlaps_op(Tensor boxes, Tensor others, std::string mode, bool aligned, int64_t offset) {
  const Place place(boxes);
  place.check(others, "others");
  const Tensor left = full_boxes(boxes), right = plain(others, left.scalar_type());
  const int64_t count = left.size(0), other_count = right.size(0);
  const Tensor result = empty(aligned ? Shape{count} : Shape{count, other_count}, left.scalar_type(), left);
  STD_TORCH_CHECK(mode == "iou" || mode == "iof" || mode == "giou", "mode is ", mode, ", expected iou, iof or giou");
  const Overlap overlap = mode == "iou" ? Overlap::kIou : mode == "iof" ? Overlap::kIof : Overlap::kGiou;
  check(box_overlaps(dtype_of(left), data(left), data(right), count, other_count, overlap, aligned, offset,
                     data(result), place.stream()),
        "box_overlaps");
  return result;
}

std::tuple<Tensor, Tensor> max_iou_assign_op(Tensor boxes, Tensor objects, double positive, double negative,
                                             double min_positive, bool low_quality, bool all_ties) {
  const Place place(boxes);
  place.check(objects, "objects");
  const Tensor left = full_boxes(boxes), right = plain(objects, left.scalar_type());
  const int64_t count = left.size(0), object_count = right.size(0);
  if (count == 0 || object_count == 0) {
    return {zeros({count}, ScalarType::Long, left), zeros({count}, left.scalar_type(), left)};
  }
  const Tensor assigned = empty({count}, ScalarType::Long, left);
  const Tensor best = empty({count}, left.scalar_type(), left);
  const Tensor best_of_object = empty({object_count}, left.scalar_type(), left);
  const Tensor first_box = empty({object_count}, ScalarType::Long, left);
  AssignArguments a{};
  a.boxes = data(left);
  a.objects = data(right);
  a.count = count;
  a.object_count = object_count;
  a.positive = positive;
  a.negative = negative;
  a.min_positive = min_positive;
  a.low_quality = low_quality;
  a.all_ties = all_ties;
  a.best_of_object = data(best_of_object);
  a.first_box = data<int64_t>(first_box);
  a.assigned = data<int64_t>(assigned);
  a.best = data(best);
  check(max_iou_assign(dtype_of(left), a, place.stream()), "max_iou_assign");
  return {assigned, best};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) {
  m.impl("nms", TORCH_BOX(&nms_op));
  m.impl("batched_nms", TORCH_BOX(&batched_nms_op));
  m.impl("nms_padded", TORCH_BOX(&nms_padded_op));
  m.impl("soft_nms", TORCH_BOX(&soft_nms_op));
  m.impl("box_overlaps", TORCH_BOX(&box_overlaps_op));
  m.impl("max_iou_assign", TORCH_BOX(&max_iou_assign_op));
}

}  // namespace det::cuda
