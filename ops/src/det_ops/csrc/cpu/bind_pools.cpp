// RoIPool and deformable RoI pooling, for CPU tensors.
// Letters: K regions, B images, C channels, H W map size, h w output size.
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

// Maps with a number of channels that the kernels take: a multiple of 16.
Tensor padded(const Tensor& x, ScalarType real) {
  const int64_t extra = (16 - x.size(1) % 16) % 16;
  const Tensor y = cast(x, real);
  return channels_last(extra == 0 ? y : torch::stable::pad(y, {0, 0, 0, 0, 0, extra}), real);
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

Tensor in_layout_of(const Tensor& out, const Tensor& like) {
  return is_channels_last(like) ? torch::stable::contiguous(out, MemoryFormat::ChannelsLast)
                                : torch::stable::contiguous(out);
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
    return 0;
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
    return 0;
  });
  out = cast(out, grad.scalar_type());
  return last ? torch::stable::contiguous(out, MemoryFormat::ChannelsLast) : out;
}

// Deformable RoI pooling: RoIAlign bin by bin, each with a shift of its own -----------------------------------------------

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
  const Tensor o = offset.has_value() ? cast_contiguous(*offset, real) : r;
  const Deform d{features.size(0), features.size(1), features.size(2), features.size(3), size[0], size[1], sampling,
                 scale, gamma};
  const int64_t channels = maps.size(1);
  Tensor out = zeros({rois.size(0), d.channels, d.h, d.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, d.images);
    T* to = mutable_data<T>(out);
    const T* shifts = offset.has_value() ? data<T>(o) : nullptr;
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
    return 0;
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
      kernels<T>().sample_dots(map, channels, &pixels, 1, channels, grad, 0, dots);
      for (int k = 0; k < 4 && j + k < x.bin.count; ++k) total += row[i] * column[j + k] * dots[k];
    }
  }
  return total;
}

std::tuple<Tensor, Tensor> deform_roi_pool_backward(const Tensor& grad, const Tensor& features, const Tensor& rois,
                                                    const std::optional<Tensor>& offset, double scale,
                                                    int64_t sampling, double gamma) {
  const ScalarType dtype = features.scalar_type(), real = real_type(dtype);
  const Tensor maps = padded(features, real), r = cast_contiguous(rois, real), g = cast_contiguous(grad, real);
  const Tensor o = offset.has_value() ? cast_contiguous(*offset, real) : r;
  const Deform d{features.size(0), features.size(1), features.size(2), features.size(3), grad.size(2), grad.size(3),
                 sampling, scale, gamma};
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
      each_bin(d, data<T>(r) + 5 * k, offset.has_value() ? data<T>(o) : nullptr, k,
               [&](int64_t b, int64_t image, const Shifted<T>& y, const Shifted<T>& x, T share, T size_y, T size_x) {
                 for (int64_t c = 0; c < d.channels; ++c) spread[c] = data<T>(g)[(k * d.channels + c) * bins + b];
                 const int64_t base = image * channels * d.height * d.width;
                 const One<T> one(y, x);
                 kernels<T>().pool_average_backward(mutable_data<T>(map_grad) + base, channels, d.width, &one.rows,
                                                    &one.columns, 1, 1, one.weights.data(), share, channels,
                                                    spread.get());
                 if (!offset.has_value()) return;
                 const T* map = data<T>(maps) + base;
                 const T factor = share * static_cast<T>(gamma);
                 T* to = mutable_data<T>(offset_grad) + 2 * k * bins + b;
                 to[0] = factor * size_x * weighted_dots(map, channels, d.width, y, x, y.weights, x.slopes, spread.get());
                 to[bins] = factor * size_y * weighted_dots(map, channels, d.width, y, x, y.slopes, x.weights, spread.get());
               });
    }
    return 0;
  });
  const Tensor map_result = torch::stable::narrow(map_grad, 1, 0, d.channels);
  const ScalarType offset_type = offset.has_value() ? offset->scalar_type() : dtype;
  return {in_layout_of(cast(map_result, dtype), features), cast(offset_grad, offset_type)};
}

// The position-sensitive deformable pooling of 2019 ------------------------------------------------------------------------

struct Sensitive {
  int64_t images, maps, height, width, h, w, channels, group, part, samples, classes;
  double scale, gamma;
};

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
      body(Point<T>{{low_y * s.width + low_x, low_y * s.width + next_x, next_y * s.width + low_x,
                     next_y * s.width + next_x},
                    cy - static_cast<T>(low_y), cx - static_cast<T>(low_x), y >= 0 && y <= high_y,
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
  const Tensor o = offset.has_value() ? cast_contiguous(*offset, real) : r;
  const Sensitive s{features.size(0), features.size(1), features.size(2), features.size(3), size[0], size[1], channels,
                    group, part, samples, offset.has_value() ? offset->size(1) / 2 : 1, scale, gamma};
  Tensor out = empty({rois.size(0), channels, s.h, s.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, s.images);
    T* to = mutable_data<T>(out);
    const T* shifts = offset.has_value() ? data<T>(o) : nullptr;
    const double work = static_cast<double>(channels * s.h * s.w * samples * samples) * 5;
    parallel(rois.size(0), work, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        each_sensitive<T>(s, r, k, [&](int64_t c, int64_t p, int64_t q, int64_t plane) {
          T sum = 0;
          const int64_t count = each_point(s, data<T>(r) + 5 * k, shifts, k, c, p, q,
                                           [&](const Point<T>& point) { sum += value_at(data<T>(maps) + plane, point); });
          to[((k * channels + c) * s.h + p) * s.w + q] = sum / static_cast<T>(std::max<int64_t>(count, 1));
        });
      }
    });
    return 0;
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
  const Tensor o = offset.has_value() ? cast_contiguous(*offset, real) : r;
  const Sensitive s{features.size(0), features.size(1), features.size(2), features.size(3), grad.size(2), grad.size(3),
                    grad.size(1), group, part, samples, offset.has_value() ? offset->size(1) / 2 : 1, scale, gamma};
  Tensor map_grad = zeros({s.images, s.maps, s.height, s.width}, real);
  Tensor offset_grad = offset.has_value() ? zeros({rois.size(0), 2 * s.classes, part, part}, real) : empty({0}, dtype);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    check_images<T>(r, s.images);
    spread_sensitive<T>(s, maps, r, offset.has_value() ? data<T>(o) : nullptr, data<T>(g), mutable_data<T>(map_grad),
                        offset.has_value() ? mutable_data<T>(offset_grad) : nullptr);
    return 0;
  });
  const ScalarType offset_type = offset.has_value() ? offset->scalar_type() : dtype;
  return {in_layout_of(cast(map_grad, dtype), features), cast(offset_grad, offset_type)};
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&det::roi_pool));
  m.impl("roi_pool_backward", TORCH_BOX(&det::roi_pool_backward));
  m.impl("deform_roi_pool", TORCH_BOX(&det::deform_roi_pool));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&det::deform_roi_pool_backward));
  m.impl("deform_psroi_pool", TORCH_BOX(&det::deform_psroi_pool));
  m.impl("deform_psroi_pool_backward", TORCH_BOX(&det::deform_psroi_pool_backward));
}
