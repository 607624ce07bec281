// Suppression, overlaps and assignment of boxes, for CPU tensors. Letters: N boxes, M objects.
#include <algorithm>
#include <limits>
#include <tuple>

#include "kernels.h"
#include "order.h"
#include "tensors.h"

namespace det {
namespace {

// N boxes as one array per coordinate, in the order of `order` if given.
template <class T>
class Columns {
 public:
  Columns(const Tensor& boxes, const int32_t* order, T offset) : n_(boxes.size(0)), values_(5 * room()) {
    const T* b = data<T>(boxes);
    T *x1 = values_.get(), *y1 = x1 + room(), *x2 = y1 + room(), *y2 = x2 + room(), *area = y2 + room();
    for (int64_t i = 0; i < n_; ++i) {
      const T* box = b + 4 * (order == nullptr ? i : order[i]);
      x1[i] = box[0], y1[i] = box[1], x2[i] = box[2], y2[i] = box[3];
      area[i] = (box[2] - box[0] + offset) * (box[3] - box[1] + offset);
    }
  }
  Boxes<T> from(int64_t i) const {
    const T* p = values_.get() + i;
    return {p, p + room(), p + 2 * room(), p + 3 * room(), p + 4 * room()};
  }

 private:
  int64_t room() const { return n_ + 64; }
  int64_t n_;
  Scratch<T> values_;
};

// Kept flags of boxes in the order given, group by group. The threshold has the precision of the computation, so that
// an overlap equal to it never suppresses.
template <class T>
std::vector<uint8_t> sweep(const Columns<T>& columns, const std::vector<int64_t>& starts, T threshold, T offset) {
  const int64_t n = starts.back(), groups = static_cast<int64_t>(starts.size()) - 1;
  std::vector<uint8_t> keep(n);
  double work = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const double size = static_cast<double>(starts[g + 1] - starts[g]);
    work += 20 * size + 0.08 * size * size;  // measured: what N boxes take, in nanoseconds
  }
  const auto& table = kernels<T>();
  parallel(groups, groups > 0 ? work / static_cast<double>(groups) : 0, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = starts[g], count = starts[g + 1] - first;
      Scratch<T> kept(5 * (count + 64));
      table.suppress(columns.from(first), count, threshold, offset, keep.data() + first, kept.get());
    }
  });
  return keep;
}

// Indices of the boxes that stay, best first, of all groups (or of one, without `groups`).
std::vector<int32_t> kept_boxes(const Tensor& boxes, const Tensor& scores, const Tensor* groups, double threshold,
                                int64_t offset) {
  const ScalarType real = real_type(boxes.scalar_type());
  const Tensor b = cast_contiguous(boxes, real), s = cast_contiguous(scores, real_type(scores.scalar_type()));
  const int64_t n = b.size(0);
  expect(n < std::numeric_limits<int32_t>::max(), "nms takes fewer than 2^31 boxes, found ", n);
  const std::vector<int32_t> by_score =
      s.scalar_type() == ScalarType::Double ? descending(data<double>(s), n) : descending(data<float>(s), n);
  std::vector<int32_t> order = by_score;
  std::vector<int64_t> starts = {0, n};
  if (groups != nullptr) {
    const Tensor g = cast_contiguous(*groups, ScalarType::Long);
    starts = bucket(data<int64_t>(g), order);
  }
  const std::vector<uint8_t> keep = with_real(real, [&](auto zero) {
    using T = decltype(zero);
    const T shift = static_cast<T>(offset);
    return sweep<T>(Columns<T>(b, order.data(), shift), starts, static_cast<T>(threshold), shift);
  });
  std::vector<uint8_t> stays(n);
  for (int64_t i = 0; i < n; ++i) stays[order[i]] = keep[i];
  std::vector<int32_t> result;
  for (const int32_t i : by_score) {
    if (stays[i]) result.push_back(i);
  }
  return result;
}

Tensor to_tensor(const std::vector<int32_t>& indices) {
  Tensor out = empty({static_cast<int64_t>(indices.size())}, ScalarType::Long);
  std::copy(indices.begin(), indices.end(), mutable_data<int64_t>(out));
  return out;
}

Tensor nms(const Tensor& boxes, const Tensor& scores, double threshold, int64_t offset) {
  return to_tensor(kept_boxes(boxes, scores, nullptr, threshold, offset));
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& groups, double threshold) {
  return to_tensor(kept_boxes(boxes, scores, &groups, threshold, 0));
}

std::tuple<Tensor, Tensor> nms_padded(const Tensor& boxes, const Tensor& scores, const Tensor& groups, double threshold,
                                      int64_t max_out) {
  std::vector<int32_t> kept = kept_boxes(boxes, scores, &groups, threshold, 0);
  const int64_t count = std::min<int64_t>(max_out, static_cast<int64_t>(kept.size()));
  kept.resize(max_out, -1);
  std::fill(kept.begin() + count, kept.end(), -1);
  Tensor total = empty({}, ScalarType::Long);
  *mutable_data<int64_t>(total) = count;
  return {to_tensor(kept), total};
}

// The boxes not picked yet lie at the front, in their first order, so that the first of equal scores is found first.
template <class T>
std::tuple<Tensor, Tensor> soft_nms_of(const Tensor& boxes, const Tensor& scores, double threshold, double sigma,
                                       T min_score, int method) {
  const int64_t n = boxes.size(0);
  std::vector<int32_t> index;
  for (int32_t i = 0; i < n; ++i) index.push_back(i);
  Columns<T> columns(boxes, nullptr, T(0));
  const Boxes<T> b = columns.from(0);
  T* column[] = {const_cast<T*>(b.x1), const_cast<T*>(b.y1), const_cast<T*>(b.x2), const_cast<T*>(b.y2),
                 const_cast<T*>(b.area)};
  std::vector<T> left(data<T>(scores), data<T>(scores) + n);
  int64_t count = n;
  const auto drop = [&](auto gone) {  // keeps the order of what stays
    int64_t to = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (gone(i)) continue;
      if (to != i) {
        for (T* c : column) c[to] = c[i];
        left[to] = left[i], index[to] = index[i];
      }
      ++to;
    }
    count = to;
  };
  drop([&](int64_t i) { return !(left[i] >= min_score); });
  std::vector<int32_t> picked;
  std::vector<T> picked_scores;
  const auto& table = kernels<T>();
  while (count > 0) {
    const int64_t best = std::max_element(left.begin(), left.begin() + count) - left.begin();
    picked.push_back(index[best]);
    picked_scores.push_back(left[best]);
    table.decay(b, count, best, static_cast<T>(threshold), static_cast<T>(sigma), method, left.data());
    drop([&](int64_t i) { return i == best || !(left[i] >= min_score); });
  }
  Tensor decayed = empty({static_cast<int64_t>(picked.size())}, dtype_of<T>);
  std::copy(picked_scores.begin(), picked_scores.end(), mutable_data<T>(decayed));
  return {to_tensor(picked), decayed};
}

std::tuple<Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, double threshold, double sigma,
                                    double min_score, const std::string& method) {
  // In the wider of the two precisions, as torch would promote them.
  const bool wide = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double;
  const ScalarType real = wide ? ScalarType::Double : ScalarType::Float;
  const Tensor b = cast_contiguous(boxes, real), s = cast_contiguous(scores, real);
  const int number = method == "gaussian" ? 1 : method == "naive" ? 2 : 0;
  auto [kept, decayed] = with_real(real, [&](auto zero) {
    using T = decltype(zero);
    return soft_nms_of<T>(b, s, threshold, sigma, static_cast<T>(min_score), number);
  });
  return {kept, cast(decayed, scores.scalar_type())};
}

Tensor box_overlaps(const Tensor& boxes, const Tensor& others, const std::string& mode, bool aligned, int64_t offset) {
  const ScalarType real = real_type(boxes.scalar_type());
  const Tensor b = cast_contiguous(boxes, real), o = cast_contiguous(others, real);
  const int64_t n = b.size(0), m = o.size(0);
  const int number = mode == "iof" ? 1 : mode == "giou" ? 2 : 0;
  Tensor out = aligned ? empty({n}, real) : empty({n, m}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    const T shift = static_cast<T>(offset);
    const Columns<T> left(b, nullptr, shift), right(o, nullptr, shift);
    const auto& table = kernels<T>();
    T* result = mutable_data<T>(out);
    parallel(n, aligned ? 10 : 1 + 0.6 * static_cast<double>(m), [&](int64_t begin, int64_t end) {
      if (!aligned) return table.overlaps(left.from(0), right.from(0), begin, end, m, shift, number, result);
      for (int64_t i = begin; i < end; ++i) {
        table.overlaps(left.from(i), right.from(i), 0, 1, 1, shift, number, result + i);
      }
    });
  });
  return out;
}

template <class T>
void assign_of(const Tensor& boxes, const Tensor& objects, double positive, double negative, double min_positive,
               bool low_quality, bool all_ties, int64_t* assigned, T* best) {
  const int64_t n = boxes.size(0), m = objects.size(0);
  const Columns<T> columns(boxes, nullptr, T(0)), rows(objects, nullptr, T(0));
  const auto& table = kernels<T>();
  // Chunks of fixed size, so that nothing depends on how many threads there are.
  constexpr int64_t kChunk = 4096;
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  const double work = kChunk * (2 + 0.5 * static_cast<double>(m));
  std::vector<T> best_in_chunk(chunks * m), best_of(m, T(0));
  parallel(chunks, work, [&](int64_t begin, int64_t end) {
    Scratch<T> lane_best(m * 64);
    for (int64_t c = begin; c < end; ++c) {
      table.assign_best(columns.from(0), rows.from(0), c * kChunk, std::min(n, (c + 1) * kChunk), m, best, assigned,
                        best_in_chunk.data() + c * m, lane_best.get());
    }
  });
  for (int64_t c = 0; c < chunks; ++c) {
    for (int64_t j = 0; j < m; ++j) best_of[j] = std::max(best_of[j], best_in_chunk[c * m + j]);
  }
  const T high = static_cast<T>(positive), low = static_cast<T>(negative), least = static_cast<T>(min_positive);
  for (int64_t i = 0; i < n; ++i) assigned[i] = best[i] >= high ? assigned[i] + 1 : best[i] < low ? 0 : -1;
  if (!low_quality) return;
  std::vector<int64_t> first(all_ties ? 0 : chunks * m, -1);
  parallel(chunks, 0.3 * work, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      table.assign_ties(columns.from(0), rows.from(0), c * kChunk, std::min(n, (c + 1) * kChunk), m, best,
                        best_of.data(), least, assigned, all_ties ? nullptr : first.data() + c * m);
    }
  });
  if (all_ties) return;
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t c = 0; c < chunks; ++c) {
      if (first[c * m + j] < 0) continue;
      assigned[first[c * m + j]] = j + 1;
      break;
    }
  }
}

std::tuple<Tensor, Tensor> max_iou_assign(const Tensor& boxes, const Tensor& objects, double positive, double negative,
                                          double min_positive, bool low_quality, bool all_ties) {
  const ScalarType real = real_type(boxes.scalar_type());
  const Tensor b = cast_contiguous(boxes, real), o = cast_contiguous(objects, real);
  Tensor assigned = zeros({b.size(0)}, ScalarType::Long), best = zeros({b.size(0)}, real);
  if (b.size(0) == 0 || o.size(0) == 0) return {assigned, best};
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    assign_of<T>(b, o, positive, negative, min_positive, low_quality, all_ties, mutable_data<int64_t>(assigned),
                 mutable_data<T>(best));
  });
  return {assigned, best};
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("nms", TORCH_BOX(&det::nms));
  m.impl("batched_nms", TORCH_BOX(&det::batched_nms));
  m.impl("nms_padded", TORCH_BOX(&det::nms_padded));
  m.impl("soft_nms", TORCH_BOX(&det::soft_nms));
  m.impl("box_overlaps", TORCH_BOX(&det::box_overlaps));
  m.impl("max_iou_assign", TORCH_BOX(&det::max_iou_assign));
}
