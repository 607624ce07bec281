// RoIAlign over any number of levels, for CPU tensors.
//
// Work is split by (block of channels, level, image): a task copies the pixels that its regions touch into a
// channels-last block, small enough for the cache, and pools all its regions from there (or spreads their gradients
// there). No two tasks write to one place, so the result does not depend on the number of threads.
//
// Letters: L levels, K regions, B images, C channels, H W map size, h w output size.
#include <algorithm>
#include <array>

#include "align_plan.h"
#include "tensors.h"
#include "transpose.h"

namespace det {
namespace {

// One map of one image, C planes or channels-last, and the part of it that a task works on.
template <class T>
struct View {
  T* base;  // of the image
  bool last;
  int64_t channels, height, width;
};

// The columns of each row that any of the regions touches.
struct Touched {
  std::vector<int32_t> first, end;
};

Touched touched_by(const Region* regions, int64_t count, int64_t height) {
  Touched t{std::vector<int32_t>(height, std::numeric_limits<int32_t>::max()), std::vector<int32_t>(height, 0)};
  for (int64_t i = 0; i < count; ++i) {
    if (regions[i].x1 >= regions[i].x2) continue;
    for (int32_t y = regions[i].y1; y < regions[i].y2; ++y) {
      t.first[y] = std::min(t.first[y], regions[i].x1);
      t.end[y] = std::max(t.end[y], regions[i].x2);
    }
  }
  for (size_t y = 0; y < t.first.size(); ++y) t.first[y] = std::min(t.first[y], t.end[y]);
  return t;
}

// Copies the touched pixels of channels [c, c + count) into a channels-last block; channels beyond are 0.
template <class T>
void gather(const View<const T>& map, const Touched& touched, int64_t c, int64_t count, T* block, int64_t stride) {
  const int64_t plane = map.height * map.width;
  for (int64_t y = 0; y < map.height; ++y) {
    const int64_t first = touched.first[y], n = touched.end[y] - first, at = y * map.width + first;
    T* to = block + at * stride;
    if (map.last) {
      for (int64_t i = 0; i < n; ++i) {
        std::copy_n(map.base + (at + i) * map.channels + c, count, to + i * stride);
      }
    } else {
      transpose(map.base + c * plane + at, plane, to, stride, n, count);
    }
    if (count < stride) {
      for (int64_t i = 0; i < n; ++i) std::fill(to + i * stride + count, to + (i + 1) * stride, T(0));
    }
  }
}

// The way back: writes the block's touched pixels, and 0 everywhere else, to channels [c, c + count) of the map.
template <class T>
void scatter(const View<T>& map, const Touched& touched, int64_t c, int64_t count, const T* block, int64_t stride) {
  const int64_t plane = map.height * map.width;
  for (int64_t y = 0; y < map.height; ++y) {
    const int64_t row = y * map.width, first = touched.first[y], end = touched.end[y];
    if (map.last) {
      for (int64_t x = 0; x < map.width; ++x) {
        T* to = map.base + (row + x) * map.channels + c;
        if (x >= first && x < end) {
          std::copy_n(block + (row + x) * stride, count, to);
        } else {
          std::fill_n(to, count, T(0));
        }
      }
      continue;
    }
    for (int64_t k = c; k < c + count; ++k) {
      std::fill_n(map.base + k * plane + row, first, T(0));
      std::fill_n(map.base + k * plane + row + end, map.width - end, T(0));
    }
    transpose(block + (row + first) * stride, stride, map.base + c * plane + row + first, plane, count, end - first);
  }
}

// The maximum of each bin's samples, and which it was (the first of equals): -1 for the 0 of a sample off the map.
template <class T>
void pool_maximum(const T* block, int64_t stride, int64_t width, const std::array<Samples<T>, 2>& samples, int64_t y,
                  int64_t x, T* best, int64_t* which) {
  const Samples<T>&rows = samples[0], &columns = samples[1];
  const bool complete = rows.complete[y] && columns.complete[x];
  bool some = false;
  for (int64_t i = rows.starts[y]; i < rows.starts[y + 1]; ++i) {
    const Sample<T>& r = rows.all[i];
    for (int64_t j = columns.starts[x]; j < columns.starts[x + 1]; ++j) {
      const Sample<T>& q = columns.all[j];
      const T *a = block + (r.low * width + q.low) * stride, *b = block + (r.low * width + q.high) * stride;
      const T *d = block + (r.high * width + q.low) * stride, *e = block + (r.high * width + q.high) * stride;
      const int64_t number = i * static_cast<int64_t>(columns.all.size()) + j;
      for (int64_t c = 0; c < stride; ++c) {
        const T top = a[c] * (1 - q.fraction) + b[c] * q.fraction, low = d[c] * (1 - q.fraction) + e[c] * q.fraction;
        const T value = top * (1 - r.fraction) + low * r.fraction;
        if (!some || value > best[c] || value != value) best[c] = value, which[c] = number;
      }
      some = true;
    }
  }
  for (int64_t c = 0; c < stride; ++c) {
    if (!some || (!complete && best[c] < 0)) best[c] = 0, which[c] = -1;
  }
}

template <class T>
void spread_maximum(T* block, int64_t stride, int64_t width, const std::array<Samples<T>, 2>& samples,
                    const int64_t* which, const T* grad) {
  const int64_t columns = static_cast<int64_t>(samples[1].all.size());
  for (int64_t c = 0; c < stride; ++c) {
    if (which[c] < 0) continue;
    const Sample<T>&r = samples[0].all[which[c] / columns], &q = samples[1].all[which[c] % columns];
    block[(r.low * width + q.low) * stride + c] += grad[c] * (1 - r.fraction) * (1 - q.fraction);
    block[(r.low * width + q.high) * stride + c] += grad[c] * (1 - r.fraction) * q.fraction;
    block[(r.high * width + q.low) * stride + c] += grad[c] * r.fraction * (1 - q.fraction);
    block[(r.high * width + q.high) * stride + c] += grad[c] * r.fraction * q.fraction;
  }
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Channels per block: 64, or fewer if that leaves threads without work.
int64_t block_size(const Call& call) {
  const int64_t threads = torch::stable::get_num_threads();
  int64_t block = std::min<int64_t>(64, round_up(std::max<int64_t>(call.channels, 1), 16));
  while (block > 16 && (call.channels + block - 1) / block * call.images < threads) block /= 2;
  return round_up(block, 16);
}

// Memory of one thread, used by one task after the other: fresh pages cost more than the work on them.
template <class T>
struct Workspace {
  Scratch<T> block, pooled, features;
  Scratch<int64_t> which;
};

// Calls body(task, first channel, channels, workspace) for every (block, level, image).
template <class T, class F>
void each_task(const Call& call, double work, bool features, const F& body) {
  const int64_t block = block_size(call), blocks = (call.channels + block - 1) / block;
  const int64_t tasks = call.levels * call.images;
  int64_t pixels = 0;
  for (int64_t i = 0; i < call.levels; ++i) pixels = std::max(pixels, call.heights[i] * call.widths[i]);
  parallel(blocks * tasks, work / static_cast<double>(std::max<int64_t>(1, blocks * tasks)),
           [&](int64_t begin, int64_t end) {
             const Workspace<T> space{Scratch<T>(pixels * block), Scratch<T>(call.h * call.w * block),
                                      Scratch<T>(features ? pixels * block : 0), Scratch<int64_t>(block)};
             for (int64_t i = begin; i < end; ++i) {
               const int64_t c = i / tasks * block;
               body(i % tasks, c, std::min(block, call.channels - c), space);
             }
           });
}

template <class T>
double cost(const Plan<T>& plan, const Call& call) {
  double pixels = 0;
  for (const Region& r : plan.regions) {
    pixels += 2.0 * (r.y2 - r.y1) * (r.x2 - r.x1) + static_cast<double>(call.h * call.w);
  }
  return pixels * static_cast<double>(call.channels) * 0.1;
}

// Writes channels [c, c + count) of one region's bins, pooled[bin][stride], to the output.
template <class T>
void put(const Call& call, const T* pooled, int64_t stride, int64_t row, int64_t c, int64_t count, bool last, T* out) {
  const int64_t bins = call.h * call.w;
  if (!last) return transpose(pooled, stride, out + (row * call.channels + c) * bins, bins, count, bins);
  for (int64_t b = 0; b < bins; ++b)
    std::copy_n(pooled + b * stride, count, out + (row * bins + b) * call.channels + c);
}

template <class T>
void average(const Call& call, const Plan<T>& plan, const Region& region, const T* map, int64_t pixel_stride,
             int64_t width, int64_t channels, T* pooled) {
  const Bin* rows = plan.bins.data() + region.bins;
  const T scale = region.count > 0 ? static_cast<T>(1 / region.count) : T(0);
  kernels<T>().pool_average(map, pixel_stride, width, rows, rows + call.h, static_cast<int>(call.h),
                            static_cast<int>(call.w), plan.weights.data(), scale, channels, pooled);
}

template <class T>
void forward(const Call& call, const Plan<T>& plan, const std::vector<View<const T>>& maps, bool last, T* out) {
  const int64_t bins = call.h * call.w;
  each_task<T>(call, cost(plan, call), false, [&](int64_t task, int64_t c, int64_t count, const Workspace<T>& space) {
    const Region* regions = plan.regions.data() + plan.tasks[task];
    const int64_t number = plan.tasks[task + 1] - plan.tasks[task];
    if (number == 0) return;
    View<const T> map = maps[task / call.images];
    const int64_t plane = map.height * map.width, stride = round_up(count, 16);
    map.base += task % call.images * call.channels * plane;
    gather(map, touched_by(regions, number, map.height), c, count, space.block.get(), stride);
    for (int64_t i = 0; i < number; ++i) {
      const Region& region = regions[i];
      if (call.maximum) {
        for (int64_t b = 0; b < bins; ++b) {
          pool_maximum(space.block.get(), stride, map.width, plan.samples[region.row], b / call.w, b % call.w,
                       space.pooled.get() + b * stride, space.which.get());
        }
      } else {
        average(call, plan, region, space.block.get(), stride, map.width, stride, space.pooled.get());
      }
      put(call, space.pooled.get(), stride, region.row, c, count, last, out);
    }
  });
}

// Whether regions can be averaged from the maps as they lie in memory.
template <class T>
bool direct(const Call& call, const std::vector<View<const T>>& maps) {
  return !call.maximum && call.channels % 16 == 0 &&
         std::all_of(maps.begin(), maps.end(), [](const View<const T>& map) { return map.last; });
}

// Channels-last maps need no copy: region by region, all channels at once.
template <class T>
void forward_direct(const Call& call, const Plan<T>& plan, const std::vector<View<const T>>& maps, bool last, T* out) {
  const int64_t number = static_cast<int64_t>(plan.regions.size());
  parallel(number, cost(plan, call) / static_cast<double>(std::max<int64_t>(1, number)),
           [&](int64_t begin, int64_t end) {
             Scratch<T> pooled(call.h * call.w * call.channels);
             for (int64_t i = begin; i < end; ++i) {
               const Region& region = plan.regions[i];
               const View<const T>& map = maps[region.level];
               average(call, plan, region, map.base + region.image * call.channels * map.height * map.width,
                       call.channels, map.width, call.channels, pooled.get());
               put(call, pooled.get(), call.channels, region.row, 0, call.channels, last, out);
             }
           });
}

template <class T>
void backward(const Call& call, const Plan<T>& plan, const std::vector<View<const T>>& maps, const T* grad,
              const std::vector<View<T>>& grads) {
  const auto& table = kernels<T>();
  const int64_t bins = call.h * call.w;
  const double work = 2 * cost(plan, call) + 1e6;
  each_task<T>(call, work, call.maximum, [&](int64_t task, int64_t c, int64_t count, const Workspace<T>& space) {
    const Region* regions = plan.regions.data() + plan.tasks[task];
    const int64_t number = plan.tasks[task + 1] - plan.tasks[task];
    View<T> map = grads[task / call.images];
    const int64_t plane = map.height * map.width, stride = round_up(count, 16);
    map.base += task % call.images * call.channels * plane;
    const Touched touched = touched_by(regions, number, map.height);
    T *block = space.block.get(), *spread = space.pooled.get(), *features = space.features.get();
    Scratch<T> best(stride);
    for (int64_t y = 0; y < map.height; ++y) {
      std::fill(block + (y * map.width + touched.first[y]) * stride, block + (y * map.width + touched.end[y]) * stride,
                T(0));
    }
    if (call.maximum) {
      View<const T> source = maps[task / call.images];
      source.base += task % call.images * call.channels * plane;
      gather(source, touched, c, count, features, stride);
    }
    std::fill_n(spread, bins * stride, T(0));
    for (int64_t i = 0; i < number; ++i) {
      const Region& region = regions[i];
      const Bin* rows = plan.bins.data() + region.bins;
      transpose(grad + (region.row * call.channels + c) * bins, bins, spread, stride, bins, count);
      if (call.maximum) {
        for (int64_t b = 0; b < bins; ++b) {
          pool_maximum(features, stride, map.width, plan.samples[region.row], b / call.w, b % call.w, best.get(),
                       space.which.get());
          spread_maximum(block, stride, map.width, plan.samples[region.row], space.which.get(), spread + b * stride);
        }
      } else {
        const T scale = region.count > 0 ? static_cast<T>(1 / region.count) : T(0);
        table.pool_average_backward(block, stride, map.width, rows, rows + call.h, static_cast<int>(call.h),
                                    static_cast<int>(call.w), plan.weights.data(), scale, stride, spread);
      }
    }
    scatter(map, touched, c, count, block, stride);
  });
}

Call make_call(const std::vector<int64_t>& shapes, int64_t h, int64_t w, const std::vector<double>& scales,
               int64_t sampling, const std::string& alignment, const std::string& mode) {
  const int64_t levels = static_cast<int64_t>(scales.size());
  Call call{levels, shapes[0], shapes[1], h, w, sampling, alignment_of(alignment), mode == "max", scales};
  for (size_t i = 0; i < shapes.size(); i += 4) {
    call.heights.push_back(shapes[i + 2]);
    call.widths.push_back(shapes[i + 3]);
  }
  return call;
}

// Maps in the precision of the computation, channels-last where they are so already, else plane by plane.
std::vector<Tensor> prepared(const std::vector<Tensor>& maps, ScalarType real) {
  std::vector<Tensor> result;
  for (const Tensor& map : maps) {
    const Tensor x = cast(map, real);
    result.push_back(is_channels_last(x) ? x : torch::stable::contiguous(x));
  }
  return result;
}

template <class T>
std::vector<View<const T>> views_of(const std::vector<Tensor>& maps) {
  std::vector<View<const T>> views;
  for (const Tensor& map : maps) {
    views.push_back({data<T>(map), is_channels_last(map), map.size(1), map.size(2), map.size(3)});
  }
  return views;
}

std::vector<int64_t> shapes_of(const std::vector<Tensor>& maps) {
  std::vector<int64_t> shapes;
  for (const Tensor& map : maps) {
    for (int64_t i = 0; i < 4; ++i) shapes.push_back(map.size(i));
  }
  return shapes;
}

Tensor roi_align(const std::vector<Tensor>& features, const Tensor& rois, const Tensor& levels,
                 const std::vector<int64_t>& size, const std::vector<double>& scales, int64_t sampling,
                 const std::string& alignment, const std::string& mode) {
  const ScalarType dtype = features[0].scalar_type(), real = real_type(dtype);
  const Call call = make_call(shapes_of(features), size[0], size[1], scales, sampling, alignment, mode);
  const std::vector<Tensor> maps = prepared(features, real);
  const Tensor r = cast_contiguous(rois, real), l = cast_contiguous(levels, ScalarType::Long);
  const bool last = is_channels_last(features[0]);
  Tensor out = empty({rois.size(0), call.channels, call.h, call.w}, real, last);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<View<const T>> views = views_of<T>(maps);
    const auto run = direct(call, views) ? forward_direct<T> : forward<T>;
    run(call, make_plan<T>(call, r, l), views, last, mutable_data<T>(out));
  });
  return cast(out, dtype);
}

std::vector<Tensor> roi_align_backward(const Tensor& grad, const std::vector<Tensor>& features, const Tensor& rois,
                                       const Tensor& levels, const std::vector<int64_t>& shapes,
                                       const std::vector<double>& scales, int64_t sampling,
                                       const std::string& alignment, const std::string& mode, bool last) {
  const ScalarType dtype = grad.scalar_type(), real = real_type(dtype);
  const Call call = make_call(shapes, grad.size(2), grad.size(3), scales, sampling, alignment, mode);
  const std::vector<Tensor> maps = prepared(features, real);
  const Tensor g = cast_contiguous(grad, real), r = cast_contiguous(rois, real);
  const Tensor l = cast_contiguous(levels, ScalarType::Long);
  std::vector<Tensor> grads;
  for (size_t i = 0; i < shapes.size(); i += 4) {
    grads.push_back(empty({shapes[i], shapes[i + 1], shapes[i + 2], shapes[i + 3]}, real, last));
  }
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    std::vector<View<T>> results;
    for (Tensor& x : grads) results.push_back({mutable_data<T>(x), last, x.size(1), x.size(2), x.size(3)});
    backward<T>(call, make_plan<T>(call, r, l), views_of<T>(maps), data<T>(g), results);
  });
  for (Tensor& x : grads) x = cast(x, dtype);
  return grads;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&det::roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&det::roi_align_backward));
}
