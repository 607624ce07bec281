// Bilinear resizing of 8-bit images, for CPU tensors. Letters: P planes, C channels, H W old size, h w new size.
//
// Each old row is resampled horizontally once, and kept until the new rows have passed it. A mirrored image is one
// whose taps are in the opposite order, so flipping costs nothing.
#include <cmath>
#include <utility>

#include "kernels.h"
#include "tensors.h"

namespace det {
namespace {

// Along one axis: the first of the two old pixels of each new one (-1 before the centre of the first pixel), and the
// weight of the second.
struct Axis {
  std::vector<int64_t> first;
  std::vector<float> fraction;
};

// The positions are computed in Real and stored in float: double as in OpenCV, or float as in torch.
template <class Real>
Axis axis_of(int64_t size, int64_t old, bool flip) {
  Axis axis{std::vector<int64_t>(size), std::vector<float>(size)};
  const Real ratio = static_cast<Real>(old) / static_cast<Real>(size), half = static_cast<Real>(0.5);
  for (int64_t i = 0; i < size; ++i) {
    const float position = static_cast<float>((static_cast<Real>(i) + half) * ratio - half);
    const float first = std::floor(position);
    const int64_t to = flip ? size - 1 - i : i;
    axis.first[to] = static_cast<int64_t>(first);
    axis.fraction[to] = position - first;
  }
  return axis;
}

constexpr float kOne = 2048;  // weights of 11 bits

int32_t weight(float fraction) { return static_cast<int32_t>(std::nearbyint(fraction * kOne)); }

struct FixedPoint {
  using Value = int16_t;
  using Out = uint8_t;
  std::vector<int32_t> at, weights;
  Axis rows;
  int64_t old_height, old_width, channels;

  FixedPoint(Axis columns, Axis rows_, int64_t height, int64_t width, int64_t channels_)
      : at(columns.first.size()),
        weights(at.size()),
        rows(std::move(rows_)),
        old_height(height),
        old_width(width),
        channels(channels_) {
    for (size_t x = 0; x < at.size(); ++x) {
      const int64_t first = columns.first[x];
      // Beyond the centre of an edge pixel, that pixel has the whole weight.
      const float fraction = first < 0 || first >= width - 1 ? 0 : columns.fraction[x];
      at[x] = static_cast<int32_t>(std::min(std::max<int64_t>(first, 0), width - 1) * channels);
      weights[x] = weight(1 - fraction) | (weight(fraction) << 16);
    }
  }
  void row(const uint8_t* old, Value* out) const {
    kernels<float>().resize_row(old, old_width * channels, at.data(), weights.data(), static_cast<int64_t>(at.size()),
                                channels, out);
  }
  void combine(int64_t y, const Value* above, const Value* below, Out* out) const {
    // Vertically, the two weights are rounded separately, also where both are of one edge pixel.
    kernels<float>().resize_rows(above, below, weight(1 - rows.fraction[y]), weight(rows.fraction[y]),
                                 static_cast<int64_t>(at.size()) * channels, out);
  }
};

struct Floating {
  using Value = float;
  using Out = float;
  std::vector<int32_t> at;
  std::vector<float> weights;
  Axis rows;
  int64_t old_height, old_width, channels;

  Floating(Axis columns, Axis rows_, int64_t height, int64_t width, int64_t channels_)
      : at(columns.first.size()),
        weights(at.size()),
        rows(std::move(rows_)),
        old_height(height),
        old_width(width),
        channels(channels_) {
    for (size_t x = 0; x < at.size(); ++x) {
      const int64_t first = columns.first[x];
      at[x] = static_cast<int32_t>(std::min(std::max<int64_t>(first, 0), width - 1) * channels);
      weights[x] = first < 0 || first >= width - 1 ? 0 : columns.fraction[x];
    }
  }
  void row(const uint8_t* old, Value* out) const {
    kernels<float>().resize_row_float(old, at.data(), weights.data(), static_cast<int64_t>(at.size()), channels, out);
  }
  void combine(int64_t y, const Value* above, const Value* below, Out* out) const {
    kernels<float>().resize_rows_float(above, below, rows.fraction[y], static_cast<int64_t>(at.size()) * channels, out);
  }
};

// Two rows that were resampled last, by the number of the old row.
template <class Plan>
class Rows {
 public:
  explicit Rows(int64_t values) : a_(values), b_(values) {}

  const typename Plan::Value* get(const Plan& plan, const uint8_t* plane, int64_t number, int64_t other) {
    if (number == in_a_) return a_.get();
    if (number == in_b_) return b_.get();
    const bool into_a = in_a_ != other;
    (into_a ? in_a_ : in_b_) = number;
    auto* out = (into_a ? a_ : b_).get();
    plan.row(plane + number * plan.old_width * plan.channels, out);
    return out;
  }
  void forget() { in_a_ = in_b_ = -1; }

 private:
  Scratch<typename Plan::Value> a_, b_;
  int64_t in_a_ = -1, in_b_ = -1;
};

template <class Plan>
void resize(const Plan& plan, const uint8_t* image, int64_t planes, int64_t height, typename Plan::Out* out) {
  const int64_t values = static_cast<int64_t>(plan.at.size()) * plan.channels;
  const int64_t plane_size = plan.old_height * plan.old_width * plan.channels;
  parallel(planes * height, static_cast<double>(values) * 0.5, [&](int64_t begin, int64_t end) {
    Rows<Plan> rows(values);
    for (int64_t i = begin, plane = -1; i < end; ++i) {
      const int64_t y = i % height;
      if (i / height != plane) rows.forget();
      plane = i / height;
      const auto clamped = [&](int64_t row) { return std::min(std::max<int64_t>(row, 0), plan.old_height - 1); };
      const int64_t first = clamped(plan.rows.first[y]), second = clamped(plan.rows.first[y] + 1);
      const auto* above = rows.get(plan, image + plane * plane_size, first, second);
      const auto* below = rows.get(plan, image + plane * plane_size, second, first);
      plan.combine(y, above, below, out + i * values);
    }
  });
}

Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width, bool flip_x, bool flip_y, bool fixed_point) {
  const Tensor x = torch::stable::contiguous(image);
  const int64_t planes = x.size(0), old_height = x.size(1), old_width = x.size(2), channels = x.size(3);
  expect(old_width * channels < (int64_t{1} << 31), "image is ", old_width, " pixels wide, expected less than 2^31 / ",
         channels);
  Tensor out = empty({planes, height, width, channels}, fixed_point ? ScalarType::Byte : ScalarType::Float);
  const uint8_t* from = data<uint8_t>(x);
  if (fixed_point) {
    const FixedPoint plan(axis_of<double>(width, old_width, flip_x), axis_of<double>(height, old_height, flip_y),
                          old_height, old_width, channels);
    resize(plan, from, planes, height, mutable_data<uint8_t>(out));
  } else {
    const Floating plan(axis_of<float>(width, old_width, flip_x), axis_of<float>(height, old_height, flip_y),
                        old_height, old_width, channels);
    resize(plan, from, planes, height, mutable_data<float>(out));
  }
  return out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) { m.impl("resize_bilinear", TORCH_BOX(&det::resize_bilinear)); }
