// The position-sensitive deformable RoI pooling of 2019, for CPU tensors.
// Letters: K regions, B images, C channels, H W map size, h w output size.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "roi_plan.h"
#include "tensors.h"

namespace det {
namespace {

struct Sensitive {
  int64_t images, maps, height, width, h, w, channels, group, part, samples, classes;
  double scale, gamma;
};

Sensitive sensitive_of(const Tensor& features, const std::optional<Tensor>& offset, int64_t h, int64_t w,
                       int64_t channels, int64_t group, int64_t part, int64_t samples, double scale, double gamma) {
  const int64_t classes = offset.has_value() ? offset->size(1) / 2 : 1;
  return {features.size(0),
          features.size(1),
          features.size(2),
          features.size(3),
          h,
          w,
          channels,
          group,
          part,
          samples,
          classes,
          scale,
          gamma};
}

template <class T>
struct Point {  // one sample inside the map
  int64_t at[4];
  T fy, fx;
  bool moves_y, moves_x;
};

// Whole pixels, the last one included, and at least a tenth of a feature pixel.
template <class T>
Span<T> whole_pixels(T low, T high, double scale) {
  const T start = std::nearbyint(low) * static_cast<T>(scale) - T(0.5);
  return {start, std::max((std::nearbyint(high) + 1) * static_cast<T>(scale) - T(0.5) - start, T(0.1))};
}

// Calls body(point) for the samples of one bin of one channel that count; returns how many.
template <class T, class F>
int64_t each_point(const Sensitive& s, const T* roi, const T* offset, int64_t k, int64_t channel, int64_t p, int64_t q,
                   const F& body) {
  if (s.height < 1 || s.width < 1) return 0;
  const T gamma = static_cast<T>(s.gamma);
  const Span<T> xs = whole_pixels(roi[1], roi[3], s.scale), ys = whole_pixels(roi[2], roi[4], s.scale);
  const T step_y = ys.size / static_cast<T>(s.h), step_x = xs.size / static_cast<T>(s.w);
  T y0 = ys.start + static_cast<T>(p) * step_y, x0 = xs.start + static_cast<T>(q) * step_x;
  if (offset != nullptr) {
    const int64_t index = k * s.classes + channel / (s.channels / s.classes), cell = s.part * s.part;
    const T* o = offset + index * 2 * cell + p * s.part / s.h * s.part + q * s.part / s.w;
    x0 += gamma * xs.size * o[0];
    y0 += gamma * ys.size * o[cell];
  }
  int64_t counted = 0;
  for (int64_t i = 0; i < s.samples; ++i) {
    for (int64_t j = 0; j < s.samples; ++j) {
      const T y = y0 + static_cast<T>(i) * step_y / static_cast<T>(s.samples);
      const T x = x0 + static_cast<T>(j) * step_x / static_cast<T>(s.samples);
      const T high_y = static_cast<T>(s.height - 1), high_x = static_cast<T>(s.width - 1);
      if (!(y >= T(-0.5) && y <= high_y + T(0.5) && x >= T(-0.5) && x <= high_x + T(0.5))) continue;
      const T cy = std::min(std::max(y, T(0)), high_y), cx = std::min(std::max(x, T(0)), high_x);
      const int64_t low_y = static_cast<int64_t>(cy), low_x = static_cast<int64_t>(cx);
      const int64_t next_y = std::min(low_y + 1, s.height - 1), next_x = std::min(low_x + 1, s.width - 1);
      body(Point<T>{
          {low_y * s.width + low_x, low_y * s.width + next_x, next_y * s.width + low_x, next_y * s.width + next_x},
          cy - static_cast<T>(low_y),
          cx - static_cast<T>(low_x),
          y >= 0 && y <= high_y,
          x >= 0 && x <= high_x});
      ++counted;
    }
  }
  return counted;
}

template <class T>
T value_at(const T* map, const Point<T>& p) {
  const T top = map[p.at[0]] * (1 - p.fx) + map[p.at[1]] * p.fx, low = map[p.at[2]] * (1 - p.fx) + map[p.at[3]] * p.fx;
  return top * (1 - p.fy) + low * p.fy;
}

// Calls body(k, channel, p, q, plane) for every bin; `plane` is the map that it reads.
template <class T, class F>
void each_sensitive(const Sensitive& s, const Tensor& rois, int64_t k, const F& body) {
  const T image = data<T>(rois)[5 * k];
  for (int64_t channel = 0; channel < s.channels; ++channel) {
    for (int64_t p = 0; p < s.h; ++p) {
      for (int64_t q = 0; q < s.w; ++q) {
        const int64_t gy = std::min(p * s.group / s.h, s.group - 1), gx = std::min(q * s.group / s.w, s.group - 1);
        const int64_t source = (channel * s.group + gy) * s.group + gx;
        body(channel, p, q, (static_cast<int64_t>(image) * s.maps + source) * s.height * s.width);
      }
    }
  }
}

Tensor deform_psroi_pool(const Tensor& features, const Tensor& rois, const std::optional<Tensor>& offset,
                         const std::vector<int64_t>& size, double scale, int64_t channels, int64_t group, int64_t part,
                         int64_t samples, double gamma) {
  const ScalarType dtype = features.scalar_type(), real = real_type(dtype);
  const Tensor maps = cast_contiguous(features, real), r = cast_contiguous(rois, real);
  const auto o = cast_contiguous(offset, real);
  const Sensitive s = sensitive_of(features, offset, size[0], size[1], channels, group, part, samples, scale, gamma);
  Tensor out = empty({rois.size(0), channels, s.h, s.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, s.images);
    T* to = mutable_data<T>(out);
    const T* shifts = data<T>(o);
    const double work = static_cast<double>(channels * s.h * s.w * samples * samples) * 5;
    parallel(rois.size(0), work, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        each_sensitive<T>(s, r, k, [&](int64_t c, int64_t p, int64_t q, int64_t plane) {
          T sum = 0;
          const int64_t count = each_point(s, data<T>(r) + 5 * k, shifts, k, c, p, q, [&](const Point<T>& point) {
            sum += value_at(data<T>(maps) + plane, point);
          });
          to[((k * channels + c) * s.h + p) * s.w + q] = sum / static_cast<T>(std::max<int64_t>(count, 1));
        });
      }
    });
  });
  return in_layout_of(cast(out, dtype), features);
}

template <class T>
void spread_sensitive(const Sensitive& s, const Tensor& maps, const Tensor& rois, const T* offset, const T* grad,
                      T* map_grad, T* offset_grad) {
  for (int64_t k = 0; k < rois.size(0); ++k) {
    const T* roi = data<T>(rois) + 5 * k;
    const T width = whole_pixels(roi[1], roi[3], s.scale).size, height = whole_pixels(roi[2], roi[4], s.scale).size;
    each_sensitive<T>(s, rois, k, [&](int64_t c, int64_t p, int64_t q, int64_t plane) {
      const int64_t count = each_point(s, roi, offset, k, c, p, q, [](const Point<T>&) {});
      if (count == 0) return;
      const T g = grad[((k * s.channels + c) * s.h + p) * s.w + q] / static_cast<T>(count);
      T slope_y = 0, slope_x = 0;
      each_point(s, roi, offset, k, c, p, q, [&](const Point<T>& t) {
        T* to = map_grad + plane;
        to[t.at[0]] += g * (1 - t.fy) * (1 - t.fx), to[t.at[1]] += g * (1 - t.fy) * t.fx;
        to[t.at[2]] += g * t.fy * (1 - t.fx), to[t.at[3]] += g * t.fy * t.fx;
        const T* v = data<T>(maps) + plane;
        if (t.moves_y) slope_y += (v[t.at[2]] - v[t.at[0]]) * (1 - t.fx) + (v[t.at[3]] - v[t.at[1]]) * t.fx;
        if (t.moves_x) slope_x += (v[t.at[1]] - v[t.at[0]]) * (1 - t.fy) + (v[t.at[3]] - v[t.at[2]]) * t.fy;
      });
      if (offset == nullptr) return;
      const int64_t index = k * s.classes + c / (s.channels / s.classes), cell = s.part * s.part;
      T* o = offset_grad + index * 2 * cell + p * s.part / s.h * s.part + q * s.part / s.w;
      o[0] += g * slope_x * static_cast<T>(s.gamma) * width;
      o[cell] += g * slope_y * static_cast<T>(s.gamma) * height;
    });
  }
}

std::tuple<Tensor, Tensor> deform_psroi_pool_backward(const Tensor& grad, const Tensor& features, const Tensor& rois,
                                                      const std::optional<Tensor>& offset, double scale, int64_t group,
                                                      int64_t part, int64_t samples, double gamma) {
  const ScalarType dtype = features.scalar_type(), real = real_type(dtype);
  const Tensor maps = cast_contiguous(features, real), r = cast_contiguous(rois, real), g = cast_contiguous(grad, real);
  const auto o = cast_contiguous(offset, real);
  const Sensitive s =
      sensitive_of(features, offset, grad.size(2), grad.size(3), grad.size(1), group, part, samples, scale, gamma);
  Tensor map_grad = zeros({s.images, s.maps, s.height, s.width}, real);
  Tensor offset_grad = offset.has_value() ? zeros({rois.size(0), 2 * s.classes, part, part}, real) : empty({0}, dtype);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, s.images);
    spread_sensitive<T>(s, maps, r, data<T>(o), data<T>(g), mutable_data<T>(map_grad),
                        offset.has_value() ? mutable_data<T>(offset_grad) : nullptr);
  });
  const ScalarType offset_type = offset.has_value() ? offset->scalar_type() : dtype;
  return {in_layout_of(cast(map_grad, dtype), features), cast(offset_grad, offset_type)};
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("deform_psroi_pool", TORCH_BOX(&det::deform_psroi_pool));
  m.impl("deform_psroi_pool_backward", TORCH_BOX(&det::deform_psroi_pool_backward));
}
