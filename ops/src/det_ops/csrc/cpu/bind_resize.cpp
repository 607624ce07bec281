// Bilinear resizing of 8-bit images, for CPU tensors. Letters: P planes, C channels, H W old size, h w new size.
//
// Each old row is resampled horizontally once, and kept until the new rows have passed it. A mirrored image is one
// whose taps are in the opposite order, so flipping costs nothing. An image on a canvas is resampled as that canvas,
// of which one row at a time is made, where the image has pixels; all other rows are alike.
#include <cmath>
#include <cstring>
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

// The image that is resampled, `height` x `width`: the canvas, if there is one, of which `rows` x `columns` pixels from
// row `top` and column `left` on are stored.
struct Source {
  const uint8_t* pixels;
  int64_t planes, channels, height, width, top, left, rows, columns, row_stride, plane_stride;
  std::vector<uint8_t> fill;  // per plane and channel; empty without a canvas

  bool on_canvas() const { return !fill.empty(); }
  int64_t row_bytes() const { return width * channels; }
  const uint8_t* row(int64_t plane, int64_t number) const {
    return pixels + plane * plane_stride + (number - top) * row_stride;
  }
};

constexpr float kOne = 2048;  // weights of 11 bits

int32_t weight(float fraction) { return static_cast<int32_t>(std::nearbyint(fraction * kOne)); }

struct FixedPoint {
  using Value = int16_t;
  using Out = uint8_t;
  std::vector<int32_t> at, weights;
  Axis rows;
  int64_t bytes, channels;

  FixedPoint(Axis columns, Axis rows_, int64_t width, int64_t channels_)
      : at(columns.first.size()),
        weights(at.size()),
        rows(std::move(rows_)),
        bytes(width * channels_),
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
    kernels<float>().resize_row(old, bytes, at.data(), weights.data(), static_cast<int64_t>(at.size()), channels, out);
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
  int64_t bytes, channels;

  Floating(Axis columns, Axis rows_, int64_t width, int64_t channels_)
      : at(columns.first.size()),
        weights(at.size()),
        rows(std::move(rows_)),
        bytes(width * channels_),
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

// Rows of the source, resampled horizontally: the two last ones that have pixels, by number, and one that has none.
template <class Plan>
class Rows {
 public:
  using Value = typename Plan::Value;

  Rows(const Plan& plan, const Source& source, int64_t values)
      : plan_(plan),
        source_(source),
        a_(values),
        b_(values),
        blank_(source.on_canvas() ? values : 0),
        canvas_(source.on_canvas() ? source.row_bytes() : 0) {}

  void start(int64_t plane) {
    plane_ = plane;
    in_a_ = in_b_ = -1;
    if (!source_.on_canvas()) return;
    const uint8_t* fill = source_.fill.data() + plane * source_.channels;
    for (int64_t i = 0; i < source_.row_bytes(); ++i) canvas_[i] = fill[i % source_.channels];
    plan_.row(canvas_.get(), blank_.get());
  }

  // `other` is the row that is used beside it, and is not replaced.
  const Value* get(int64_t number, int64_t other) {
    if (number < source_.top || number >= source_.top + source_.rows) return blank_.get();
    if (number == in_a_) return a_.get();
    if (number == in_b_) return b_.get();
    const bool into_a = in_a_ != other;
    (into_a ? in_a_ : in_b_) = number;
    Value* out = (into_a ? a_ : b_).get();
    plan_.row(old_row(number), out);
    return out;
  }

 private:
  const uint8_t* old_row(int64_t number) {
    const uint8_t* row = source_.row(plane_, number);
    if (!source_.on_canvas()) return row;
    std::memcpy(canvas_.get() + source_.left * source_.channels, row,
                static_cast<size_t>(source_.columns * source_.channels));
    return canvas_.get();
  }

  const Plan& plan_;
  const Source& source_;
  Scratch<Value> a_, b_, blank_;
  Scratch<uint8_t> canvas_;
  int64_t plane_ = -1, in_a_ = -1, in_b_ = -1;
};

template <class Plan>
void resize(const Plan& plan, const Source& source, int64_t height, typename Plan::Out* out) {
  const int64_t values = static_cast<int64_t>(plan.at.size()) * source.channels;
  parallel(source.planes * height, static_cast<double>(values) * 0.5, [&](int64_t begin, int64_t end) {
    Rows<Plan> rows(plan, source, values);
    for (int64_t i = begin, plane = -1; i < end; ++i) {
      const int64_t y = i % height;
      if (i / height != plane) rows.start(i / height);
      plane = i / height;
      const auto clamped = [&](int64_t row) { return std::min(std::max<int64_t>(row, 0), source.height - 1); };
      const int64_t first = clamped(plan.rows.first[y]), second = clamped(plan.rows.first[y] + 1);
      const auto* above = rows.get(first, second);
      const auto* below = rows.get(second, first);
      plan.combine(y, above, below, out + i * values);
    }
  });
}

// Whether each row is stored pixel by pixel, without gaps. The rows themselves may be apart, as in a crop.
bool has_whole_rows(const Tensor& x) {
  return (x.size(3) == 1 || x.stride(3) == 1) && (x.size(2) == 1 || x.stride(2) == x.size(3));
}

// canvas: empty, or its height and width, and the place of the image on it, from top and left.
Source source_of(const Tensor& x, const std::vector<int64_t>& canvas, const std::vector<int64_t>& fill) {
  Source source{data<uint8_t>(x), x.size(0), x.size(3),   x.size(1),   x.size(2), 0, 0,
                x.size(1),        x.size(2), x.stride(1), x.stride(0), {}};
  if (canvas.empty()) return source;
  source.height = canvas[0], source.width = canvas[1], source.top = canvas[2], source.left = canvas[3];
  source.fill.assign(fill.begin(), fill.end());
  return source;
}

Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width, bool flip_x, bool flip_y, bool fixed_point,
                       const std::vector<int64_t>& canvas, const std::vector<int64_t>& fill) {
  const Tensor x = has_whole_rows(image) ? image : torch::stable::contiguous(image);
  const Source source = source_of(x, canvas, fill);
  expect(source.row_bytes() < (int64_t{1} << 31), "image is ", source.width, " pixels wide, expected less than 2^31 / ",
         source.channels);
  Tensor out =
      empty({source.planes, height, width, source.channels}, fixed_point ? ScalarType::Byte : ScalarType::Float);
  if (fixed_point) {
    const FixedPoint plan(axis_of<double>(width, source.width, flip_x), axis_of<double>(height, source.height, flip_y),
                          source.width, source.channels);
    resize(plan, source, height, mutable_data<uint8_t>(out));
  } else {
    const Floating plan(axis_of<float>(width, source.width, flip_x), axis_of<float>(height, source.height, flip_y),
                        source.width, source.channels);
    resize(plan, source, height, mutable_data<float>(out));
  }
  return out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) { m.impl("resize_bilinear", TORCH_BOX(&det::resize_bilinear)); }
