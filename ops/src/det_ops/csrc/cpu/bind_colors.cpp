// Changes of brightness, contrast, saturation and hue of 8-bit RGB images, for CPU tensors. Letters: H W image size.
//
// All steps are one pass over the image, except that contrast needs the mean of the image before it: the steps before
// it are a pass of their own, which also adds the grey values.
#include <algorithm>
#include <atomic>

#include "kernels.h"
#include "tensors.h"

namespace det {
namespace {

constexpr int64_t kChunk = 4096;  // pixels that stay in the cache between two passes; a multiple of all lanes
constexpr int64_t kExact = int64_t{1} << 24;  // whole numbers below are exact in float32

class Painter {
 public:
  Painter(const uint8_t* from, uint8_t* out, int64_t height, int64_t width)
      : from_(from), out_(out), height_(height), width_(width) {}

  void add(ColorKind kind, double factor) {
    ColorStep step{kind, static_cast<float>(factor), static_cast<float>(1.0 - factor), 0};
    if (kind == kContrast) step.mean = mean_so_far();
    steps_.push_back(step);
  }

  void finish(const std::vector<int64_t>& channels) {
    int32_t order[3];
    std::copy_n(channels.begin(), 3, order);
    in_chunks([&](int64_t at, int64_t pixels) { apply(at, pixels, order); });
  }

 private:
  // The mean grey value after the steps so far, which are applied for it.
  float mean_so_far() {
    std::atomic<int64_t> sum{0};
    const int32_t same[] = {0, 1, 2};
    const bool changed = !steps_.empty();
    in_chunks([&](int64_t at, int64_t pixels) {
      if (changed) apply(at, pixels, same);
      sum += kernels<float>().gray_sum((changed ? out_ : from_) + 3 * at, pixels, nullptr);
    });
    if (changed) from_ = out_;
    steps_.clear();
    const int64_t total = sum;
    return (total < kExact ? static_cast<float>(total) : rounded_sum()) / static_cast<float>(height_ * width_);
  }

  // The sum of the grey values, which float32 rounds: by torch, so that it is rounded as in the reference.
  float rounded_sum() const {
    Tensor gray = empty({1, height_, width_}, ScalarType::Float);
    float* to = mutable_data<float>(gray);
    in_chunks([&](int64_t at, int64_t pixels) { kernels<float>().gray_sum(from_ + 3 * at, pixels, to + at); });
    const std::vector<int64_t> all = {0, 1, 2};
    return *data<float>(torch::stable::sum(gray, all, true));
  }

  void apply(int64_t at, int64_t pixels, const int32_t* order) const {
    kernels<float>().adjust_colors(from_ + 3 * at, pixels, steps_.data(), static_cast<int64_t>(steps_.size()), order,
                                   out_ + 3 * at);
  }

  template <class F>
  void in_chunks(const F& body) const {
    const int64_t total = height_ * width_, chunks = (total + kChunk - 1) / kChunk;
    parallel(chunks, static_cast<double>(kChunk * (1 + steps_.size())), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i * kChunk, std::min(kChunk, total - i * kChunk));
    });
  }

  const uint8_t* from_;
  uint8_t* out_;
  int64_t height_, width_;
  std::vector<ColorStep> steps_;  // not yet applied
};

Tensor adjust_colors(const Tensor& image, const std::vector<int64_t>& steps, const std::vector<double>& factors,
                     const std::vector<int64_t>& channels) {
  const Tensor x = torch::stable::contiguous(image);
  Tensor out = empty({x.size(0), x.size(1), 3}, ScalarType::Byte);
  Painter painter(data<uint8_t>(x), mutable_data<uint8_t>(out), x.size(0), x.size(1));
  for (size_t i = 0; i < steps.size(); ++i) painter.add(static_cast<ColorKind>(steps[i]), factors[i]);
  painter.finish(channels);
  return out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) { m.impl("adjust_colors", TORCH_BOX(&det::adjust_colors)); }
