// Deformable RoI pooling, for CPU tensors: RoIAlign bin by bin, each with a shift of its own.
// Letters: K regions, B images, C channels, H W map size, h w output size.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "roi_plan.h"
#include "tensors.h"

namespace det {
namespace {

// One bin along one axis: its pixels with their weights, and how the weights change with the bin's position.
template <class T>
struct Shifted {
  Bin bin;
  std::vector<T> weights, slopes;
};

template <class T>
void shift_bin(T start, T step, int number, int64_t grid, int32_t limit, Shifted<T>& out) {
  std::vector<std::pair<Sample<T>, bool>> samples;
  out.bin = {0, 0, 0};
  int32_t end = 0;
  each_sample(start, step, number, grid, limit, [&](int64_t, T position) {
    Sample<T> sample;
    if (!place(position, limit, sample)) return;
    out.bin.first = samples.empty() ? sample.low : std::min(out.bin.first, sample.low);
    end = std::max(end, sample.high + 1);
    // Moving the sample changes nothing where it is clamped to the edge.
    samples.emplace_back(sample, position >= 0 && sample.high > sample.low);
  });
  out.bin.count = samples.empty() ? 0 : end - out.bin.first;
  out.weights.assign(out.bin.count, T(0));
  out.slopes.assign(out.bin.count, T(0));
  for (const auto& [sample, moves] : samples) {
    out.weights[sample.low - out.bin.first] += 1 - sample.fraction;
    out.weights[sample.high - out.bin.first] += sample.fraction;
    if (!moves) continue;
    out.slopes[sample.low - out.bin.first] -= 1;
    out.slopes[sample.high - out.bin.first] += 1;
  }
}

struct Deform {
  int64_t images, channels, height, width, h, w, sampling;
  double scale, gamma;
};

Deform deform_of(const Tensor& x, int64_t h, int64_t w, int64_t sampling, double scale, double gamma) {
  return {x.size(0), x.size(1), x.size(2), x.size(3), h, w, sampling, scale, gamma};
}

// Calls body(bin number, image, rows, columns, 1 / samples, size) for every bin of region k that has samples.
template <class T, class F>
void each_bin(const Deform& d, const T* roi, const T* offset, int64_t k, const F& body) {
  const T scale = static_cast<T>(d.scale), gamma = static_cast<T>(d.gamma);
  const Span<T> ys = span_of(roi[2], roi[4], scale, Alignment::aligned);
  const Span<T> xs = span_of(roi[1], roi[3], scale, Alignment::aligned);
  const int64_t grid_y = grid_of(ys.size, static_cast<int>(d.h), d.sampling);
  const int64_t grid_x = grid_of(xs.size, static_cast<int>(d.w), d.sampling);
  if (grid_y == 0 || grid_x == 0) return;
  const T share = static_cast<T>(1.0 / (static_cast<double>(grid_y) * static_cast<double>(grid_x)));
  Shifted<T> rows, columns;
  for (int64_t b = 0; b < d.h * d.w; ++b) {
    const T shift_x = offset == nullptr ? T(0) : gamma * xs.size * offset[(2 * k) * d.h * d.w + b];
    const T shift_y = offset == nullptr ? T(0) : gamma * ys.size * offset[(2 * k + 1) * d.h * d.w + b];
    shift_bin(ys.start + shift_y, ys.size / static_cast<T>(d.h), static_cast<int>(b / d.w), grid_y,
              static_cast<int32_t>(d.height), rows);
    shift_bin(xs.start + shift_x, xs.size / static_cast<T>(d.w), static_cast<int>(b % d.w), grid_x,
              static_cast<int32_t>(d.width), columns);
    body(b, static_cast<int64_t>(roi[0]), rows, columns, share, ys.size, xs.size);
  }
}

// The plan of one bin as the pooling kernel takes it: its row weights, then its column weights.
template <class T>
struct One {
  Bin rows, columns;
  std::vector<T> weights;
  One(const Shifted<T>& y, const Shifted<T>& x) : rows(y.bin), columns(x.bin), weights(y.weights) {
    columns.weights = static_cast<int64_t>(weights.size());
    weights.insert(weights.end(), x.weights.begin(), x.weights.end());
  }
};

Tensor deform_roi_pool(const Tensor& features, const Tensor& rois, const std::optional<Tensor>& offset,
                       const std::vector<int64_t>& size, double scale, int64_t sampling, double gamma) {
  const ScalarType dtype = features.scalar_type(), real = real_type(dtype);
  const Tensor maps = padded(features, real), r = cast_contiguous(rois, real);
  const auto o = cast_contiguous(offset, real);
  const Deform d = deform_of(features, size[0], size[1], sampling, scale, gamma);
  const int64_t channels = maps.size(1);
  Tensor out = zeros({rois.size(0), d.channels, d.h, d.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, d.images);
    T* to = mutable_data<T>(out);
    const T* shifts = data<T>(o);
    parallel(rois.size(0), static_cast<double>(channels * d.h * d.w) * 2, [&](int64_t begin, int64_t end) {
      Scratch<T> pooled(channels);
      for (int64_t k = begin; k < end; ++k) {
        each_bin(d, data<T>(r) + 5 * k, shifts, k,
                 [&](int64_t b, int64_t image, const Shifted<T>& y, const Shifted<T>& x, T share, T, T) {
                   const One<T> one(y, x);
                   kernels<T>().pool_average(data<T>(maps) + image * channels * d.height * d.width, channels, d.width,
                                             &one.rows, &one.columns, 1, 1, one.weights.data(), share, channels,
                                             pooled.get());
                   for (int64_t c = 0; c < d.channels; ++c) to[(k * d.channels + c) * d.h * d.w + b] = pooled[c];
                 });
      }
    });
  });
  return in_layout_of(cast(out, dtype), features);
}

// Sums over the pixels of a bin: row weight times column weight times dot product of pixel and gradient.
template <class T>
T weighted_dots(const T* map, int64_t channels, int64_t width, const Shifted<T>& y, const Shifted<T>& x,
                const std::vector<T>& row, const std::vector<T>& column, const T* grad) {
  T total = 0;
  for (int32_t i = 0; i < y.bin.count; ++i) {
    for (int32_t j = 0; j < x.bin.count; j += 4) {
      Tap<T> pixels{};
      T dots[4];
      for (int k = 0; k < 4; ++k) {
        pixels.at[k] = j + k < x.bin.count ? int64_t(y.bin.first + i) * width + x.bin.first + j + k : -1;
      }
      kernels<T>().sample_dots(map, channels, pixels, channels, grad, dots);
      for (int k = 0; k < 4 && j + k < x.bin.count; ++k) total += row[i] * column[j + k] * dots[k];
    }
  }
  return total;
}

std::tuple<Tensor, Tensor> deform_roi_pool_backward(const Tensor& grad, const Tensor& features, const Tensor& rois,
                                                    const std::optional<Tensor>& offset, double scale, int64_t sampling,
                                                    double gamma) {
  const ScalarType dtype = features.scalar_type(), real = real_type(dtype);
  const Tensor maps = padded(features, real), r = cast_contiguous(rois, real), g = cast_contiguous(grad, real);
  const auto o = cast_contiguous(offset, real);
  const Deform d = deform_of(features, grad.size(2), grad.size(3), sampling, scale, gamma);
  const int64_t channels = maps.size(1), bins = d.h * d.w;
  Tensor map_grad = zeros({d.images, channels, d.height, d.width}, real, true);
  Tensor offset_grad = offset.has_value() ? zeros({rois.size(0), 2, d.h, d.w}, real) : empty({0}, dtype);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, d.images);
    // In order and on one thread: bins of several regions add to the same pixels.
    Scratch<T> spread(channels);
    std::fill_n(spread.get(), channels, T(0));
    for (int64_t k = 0; k < rois.size(0); ++k) {
      each_bin(
          d, data<T>(r) + 5 * k, data<T>(o), k,
          [&](int64_t b, int64_t image, const Shifted<T>& y, const Shifted<T>& x, T share, T size_y, T size_x) {
            for (int64_t c = 0; c < d.channels; ++c) spread[c] = data<T>(g)[(k * d.channels + c) * bins + b];
            const int64_t base = image * channels * d.height * d.width;
            const One<T> one(y, x);
            kernels<T>().pool_average_backward(mutable_data<T>(map_grad) + base, channels, d.width, &one.rows,
                                               &one.columns, 1, 1, one.weights.data(), share, channels, spread.get());
            if (!offset.has_value()) return;
            const T* map = data<T>(maps) + base;
            const T factor = share * static_cast<T>(gamma);
            T* to = mutable_data<T>(offset_grad) + 2 * k * bins + b;
            to[0] = factor * size_x * weighted_dots(map, channels, d.width, y, x, y.weights, x.slopes, spread.get());
            to[bins] = factor * size_y * weighted_dots(map, channels, d.width, y, x, y.slopes, x.weights, spread.get());
          });
    }
  });
  const Tensor map_result = torch::stable::narrow(map_grad, 1, 0, d.channels);
  const ScalarType offset_type = offset.has_value() ? offset->scalar_type() : dtype;
  return {in_layout_of(cast(map_result, dtype), features), cast(offset_grad, offset_type)};
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&det::deform_roi_pool));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&det::deform_roi_pool_backward));
}
