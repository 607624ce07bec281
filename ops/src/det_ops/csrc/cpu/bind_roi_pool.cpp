// RoIPool, for CPU tensors. Letters: K regions, C channels, H W map size, h w output size.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "roi_plan.h"
#include "tensors.h"
#include "transpose.h"

namespace det {
namespace {

// RoIPool: x1 * scale to (x2 + 1) * scale, unrounded; a bin covers whole pixels.
struct Window {
  int64_t first, end;
};

template <class T>
Window window_of(Span<T> span, int bin, int64_t bins, int64_t limit) {
  const T step = span.size / static_cast<T>(bins);
  const T low = std::floor(static_cast<T>(bin) * step + span.start);
  const T high = std::ceil(static_cast<T>(bin + 1) * step + span.start);
  const auto clip = [&](T x) { return x > 0 ? static_cast<int64_t>(std::min(x, static_cast<T>(limit))) : int64_t{0}; };
  return {clip(low), clip(high)};
}

template <class T>
void pool(const Tensor& maps, const Tensor& rois, int64_t channels, int64_t h, int64_t w, double scale, T* out,
          int64_t* positions) {
  const int64_t stride = maps.size(1), height = maps.size(2), width = maps.size(3), bins = h * w;
  const T *x = data<T>(maps), *roi = data<T>(rois), factor = static_cast<T>(scale);
  const auto& table = kernels<T>();
  check_images<T>(rois, maps.size(0));
  parallel(rois.size(0), static_cast<double>(channels * bins) * 2, [&](int64_t begin, int64_t end) {
    Scratch<T> best(bins * stride), at(bins * stride), where(channels * bins);
    for (int64_t k = begin; k < end; ++k) {
      const T* r = roi + 5 * k;
      const Span<T> ys = {r[2] * factor, (r[4] + 1) * factor - r[2] * factor};
      const Span<T> xs = {r[1] * factor, (r[3] + 1) * factor - r[1] * factor};
      const bool present = ys.size > 0 && xs.size > 0;
      const T* map = x + static_cast<int64_t>(r[0]) * stride * height * width;
      for (int64_t bin = 0; bin < bins; ++bin) {
        const Window rows = window_of(ys, static_cast<int>(bin / w), h, height);
        const Window columns = window_of(xs, static_cast<int>(bin % w), w, width);
        table.pool_maximum(map, stride, width, rows.first, present ? rows.end : rows.first, columns.first, columns.end,
                           stride, best.get() + bin * stride, at.get() + bin * stride);
      }
      transpose(best.get(), stride, out + k * channels * bins, bins, channels, bins);
      transpose(at.get(), stride, where.get(), bins, channels, bins);
      std::copy_n(where.get(), channels * bins, positions + k * channels * bins);
    }
  });
}

std::tuple<Tensor, Tensor> roi_pool(const Tensor& features, const Tensor& rois, const std::vector<int64_t>& size,
                                    double scale) {
  const ScalarType dtype = features.scalar_type();
  // Positions are counted in the type of the computation; a float counts 2^24 pixels.
  const bool huge = features.size(2) * features.size(3) >= (int64_t{1} << 24);
  const ScalarType real = huge ? ScalarType::Double : real_type(dtype);
  const Tensor maps = padded(features, real), r = cast_contiguous(cast(rois, real_type(dtype)), real);
  const std::vector<int64_t> shape = {rois.size(0), features.size(1), size[0], size[1]};
  Tensor out = empty(shape, real), positions = empty(shape, ScalarType::Long);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    pool<T>(maps, r, features.size(1), size[0], size[1], scale, mutable_data<T>(out), mutable_data<int64_t>(positions));
  });
  return {in_layout_of(cast(out, dtype), features), in_layout_of(positions, features)};
}

Tensor roi_pool_backward(const Tensor& grad, const Tensor& positions, const Tensor& rois,
                         const std::vector<int64_t>& shape, bool last) {
  const ScalarType real = real_type(grad.scalar_type());
  const Tensor g = cast_contiguous(grad, real), p = cast_contiguous(positions, ScalarType::Long);
  const Tensor r = cast_contiguous(rois, real);
  Tensor out = zeros(shape, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, shape[0]);
    const int64_t channels = shape[1], plane = shape[2] * shape[3], bins = grad.size(2) * grad.size(3);
    T* to = mutable_data<T>(out);
    // One channel at a time, so that no two threads write to one pixel.
    parallel(channels, static_cast<double>(rois.size(0) * bins) * 2, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t k = 0; k < rois.size(0); ++k) {
          T* map = to + (static_cast<int64_t>(data<T>(r)[5 * k]) * channels + c) * plane;
          for (int64_t b = 0; b < bins; ++b) {
            const int64_t i = (k * channels + c) * bins + b, at = data<int64_t>(p)[i];
            if (at >= 0) map[at] += data<T>(g)[i];
          }
        }
      }
    });
  });
  out = cast(out, grad.scalar_type());
  return last ? torch::stable::contiguous(out, MemoryFormat::ChannelsLast) : out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&det::roi_pool));
  m.impl("roi_pool_backward", TORCH_BOX(&det::roi_pool_backward));
}
