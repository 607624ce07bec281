// The position-sensitive deformable RoI pooling of 2019: a thread for each number of the result.
#include "sampling.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;

// One axis of a region, rounded to whole pixels and inclusive.
template <class R>
struct RoundedSpan {
  R start, size, step;
};

template <class R>
__device__ RoundedSpan<R> rounded_span(R low, R high, R scale, int bins) {
  RoundedSpan<R> s;
  s.start = sub(mul(rint(low), scale), R(0.5));
  s.size = sub(sub(mul(add(rint(high), R(1)), scale), R(0.5)), s.start);
  if (s.size < R(0.1)) s.size = R(0.1);
  s.step = div(s.size, R(bins));
  return s;
}

// One bin of one channel of the result.
template <class R>
struct Cell {
  int64_t image;                           // -1 if it is not one of the images
  int64_t source;                          // the map's channel
  int64_t offset_x, offset_y;              // where the bin's offset lies
  R first_y, first_x, spread_y, spread_x;  // position of the first sample, and over how much the samples spread
  R reach_y, reach_x;                      // how far an offset of 1 shifts
};

template <class R>
__device__ Cell<R> cell_at(const DeformPsroiPoolArguments& p, int64_t number) {
  const DeformRoiPoolArguments& a = p.common;
  const int64_t channel = number % a.channels, bin = number / a.channels;
  const int column = static_cast<int>(bin % a.width), row = static_cast<int>(bin / a.width % a.height);
  const int64_t k = bin / a.width / a.height;
  const R* roi = static_cast<const R*>(a.rois) + 5 * k;
  const RoundedSpan<R> x = rounded_span(roi[1], roi[3], R(a.scale), a.width);
  const RoundedSpan<R> y = rounded_span(roi[2], roi[4], R(a.scale), a.height);

  Cell<R> c{};
  c.image = roi[0] >= 0 && roi[0] < R(a.images) ? static_cast<int64_t>(roi[0]) : -1;
  const int group_y = smaller(row * p.group / a.height, p.group - 1);
  const int group_x = smaller(column * p.group / a.width, p.group - 1);
  c.source = (channel * p.group + group_y) * p.group + group_x;
  c.first_y = add(y.start, mul(R(row), y.step));
  c.first_x = add(x.start, mul(R(column), x.step));
  c.spread_y = y.step;
  c.spread_x = x.step;
  if (a.offset) {
    const int64_t kind = channel / (a.channels / p.classes), part = static_cast<int64_t>(p.part) * p.part;
    const int64_t within = static_cast<int64_t>(row * p.part / a.height) * p.part + column * p.part / a.width;
    c.offset_x = (k * p.classes + kind) * 2 * part + within;
    c.offset_y = c.offset_x + part;
    const R* offset = static_cast<const R*>(a.offset);
    c.reach_y = mul(R(a.gamma), y.size);
    c.reach_x = mul(R(a.gamma), x.size);
    c.first_x = add(c.first_x, mul(c.reach_x, offset[c.offset_x]));
    c.first_y = add(c.first_y, mul(c.reach_y, offset[c.offset_y]));
  }
  return c;
}

// A sample along one axis; it counts up to half a pixel outside, and reads the edge there.
template <class R>
struct Point {
  bool counts, moves;  // moves: not held at the edge
  int low, high;
  R fraction;
};

template <class R>
__device__ Point<R> point_at(R first, R spread, int number, int samples, int limit) {
  R position = add(first, div(mul(R(number), spread), R(samples)));
  Point<R> p{};
  p.counts = position >= R(-0.5) && position <= sub(R(limit), R(0.5));
  if (!p.counts) return p;
  p.moves = position >= 0 && position <= R(limit - 1);
  position = position < 0 ? R(0) : position > R(limit - 1) ? R(limit - 1) : position;
  p.low = static_cast<int>(position);
  p.high = smaller(p.low + 1, limit - 1);
  p.fraction = position - R(p.low);
  return p;
}

// Calls f(y, x) for each sample that counts; how many there are.
template <class R, class F>
__device__ int each_sample(const DeformPsroiPoolArguments& p, const Cell<R>& c, const F& f) {
  int counted = 0;
  for (int i = 0; i < p.samples; ++i) {
    const Point<R> y = point_at(c.first_y, c.spread_y, i, p.samples, p.common.map_height);
    if (!y.counts) continue;
    for (int j = 0; j < p.samples; ++j) {
      const Point<R> x = point_at(c.first_x, c.spread_x, j, p.samples, p.common.map_width);
      if (!x.counts) continue;
      ++counted;
      f(y, x);
    }
  }
  return counted;
}

template <class T>
__global__ void deform_psroi_pool_kernel(DeformPsroiPoolArguments p) {
  using R = real_t<T>;
  const DeformRoiPoolArguments& a = p.common;
  const int64_t total = a.regions * a.height * a.width * a.channels;
  for (int64_t number = thread_number(); number < total; number += thread_count()) {
    const Cell<R> c = cell_at<R>(p, number);
    R sum = 0;
    int counted = 0;
    if (c.image >= 0) {
      const T* map =
          static_cast<const T*>(a.features) + c.image * a.map_height * a.map_width * p.map_channels + c.source;
      const auto value = [&](int y, int x) {
        return widen(map[(static_cast<int64_t>(y) * a.map_width + x) * p.map_channels]);
      };
      counted = each_sample(p, c, [&](const Point<R>& y, const Point<R>& x) {
        sum += blend(value(y.low, x.low), value(y.low, x.high), value(y.high, x.low), value(y.high, x.high), y.fraction,
                     x.fraction);
      });
    }
    static_cast<T*>(a.pooled)[number] = narrow<T>(sum / R(larger(counted, 1)));
  }
}

// All gradients are added atomically, as channels share offsets and bins share pixels: the order is not fixed.
template <class T>
__global__ void deform_psroi_pool_gradient(DeformPsroiPoolArguments p) {
  using R = real_t<T>;
  const DeformRoiPoolArguments& a = p.common;
  const int64_t total = a.regions * a.height * a.width * a.channels;
  for (int64_t number = thread_number(); number < total; number += thread_count()) {
    const Cell<R> c = cell_at<R>(p, number);
    if (c.image < 0) continue;
    const int counted = each_sample(p, c, [](const Point<R>&, const Point<R>&) {});
    if (counted == 0) continue;
    const R grad = widen(static_cast<const T*>(a.pooled)[number]) / R(counted);
    const int64_t first = c.image * a.map_height * a.map_width * p.map_channels + c.source;
    R down = 0, right = 0;
    each_sample(p, c, [&](const Point<R>& y, const Point<R>& x) {
      R value[4];
      for (int i = 0; i < 4; ++i) {
        const int row = i / 2 ? y.high : y.low, column = i % 2 ? x.high : x.low;
        const int64_t at = first + (static_cast<int64_t>(row) * a.map_width + column) * p.map_channels;
        value[i] = widen(static_cast<const T*>(a.features)[at]);
        const R share = (i / 2 ? y.fraction : 1 - y.fraction) * (i % 2 ? x.fraction : 1 - x.fraction);
        atomicAdd(static_cast<R*>(a.features_grad) + at, grad * share);
      }
      const R fx = x.fraction, fy = y.fraction;
      if (y.moves) down += (value[2] * (1 - fx) + value[3] * fx) - (value[0] * (1 - fx) + value[1] * fx);
      if (x.moves) right += (value[1] * (1 - fy) + value[3] * fy) - (value[0] * (1 - fy) + value[2] * fy);
    });
    if (!a.offset_grad) continue;
    atomicAdd(static_cast<R*>(a.offset_grad) + c.offset_x, grad * right * c.reach_x);
    atomicAdd(static_cast<R*>(a.offset_grad) + c.offset_y, grad * down * c.reach_y);
  }
}

}  // namespace

const char* deform_psroi_pool(Dtype dtype, const DeformPsroiPoolArguments& p, void* stream) {
  const int64_t total = p.common.regions * p.common.height * p.common.width * p.common.channels;
  if (total == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = deform_psroi_pool_kernel<decltype(zero)>;
    DET_LAUNCH(run, blocks_for(total, kThreads), kThreads, 0, stream, p);
    return nullptr;
  });
}

const char* deform_psroi_pool_backward(Dtype dtype, const DeformPsroiPoolArguments& p, void* stream) {
  const int64_t total = p.common.regions * p.common.height * p.common.width * p.common.channels;
  if (total == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = deform_psroi_pool_gradient<decltype(zero)>;
    DET_LAUNCH(run, blocks_for(total, kThreads), kThreads, 0, stream, p);
    return nullptr;
  });
}

}  // namespace det::cuda
