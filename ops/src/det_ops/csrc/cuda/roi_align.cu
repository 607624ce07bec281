// RoIAlign from all levels in one launch: a team of lanes for each bin, each lane some channels.
#include "sampling.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;

// The bin that a team works on, or pools zeros for where the region has no samples.
struct Bin {
  int64_t region;
  int y, x;
};

__device__ Bin bin_of(int64_t number, const RoiAlignArguments& a) {
  const int64_t row = number / a.width;
  return {row / a.height, static_cast<int>(row % a.height), static_cast<int>(number % a.width)};
}

// Mean or maximum of the samples of one bin for the V channels from `channel` on.
template <class T, int V, bool kMaximum>
__device__ Pack<T, V> pool(const RoiAlignArguments& a, const Region<real_t<T>>& region, const Bin& bin, int level,
                           int64_t channel) {
  using R = real_t<T>;
  const int height = a.levels.height[level], width = a.levels.width[level];
  const T* map = static_cast<const T*>(a.levels.maps[level]) + region.image * height * width * a.channels + channel;
  const R top = bin_start(region.y, bin.y), left = bin_start(region.x, bin.x);
  const Range rows = samples_between(region.y, top, -1.0, static_cast<double>(height));
  const Range columns = samples_between(region.x, left, -1.0, static_cast<double>(width));
  const auto at = [&](int y, int x) {
    return *reinterpret_cast<const Pack<T, V>*>(map + (static_cast<int64_t>(y) * width + x) * a.channels);
  };

  R sum[V];
  // Samples that are left out are 0. The first of equal values is the maximum; it matters for the gradient alone.
  const bool first_left_out = rows.first > 0 || columns.first > 0;
  for (int v = 0; v < V; ++v) sum[v] = kMaximum && !first_left_out ? -R(INFINITY) : R(0);
  for (int64_t i = rows.first; i < rows.last; ++i) {
    const Corner<R> y = corner(sample_at(region.y, top, i), height);
    for (int64_t j = columns.first; j < columns.last; ++j) {
      const Corner<R> x = corner(sample_at(region.x, left, j), width);
      R value[V] = {};
      if (y.counts && x.counts) {
        const Pack<T, V> p = at(y.low, x.low), q = at(y.low, x.high), r = at(y.high, x.low), s = at(y.high, x.high);
        for (int v = 0; v < V; ++v) {
          value[v] =
              blend(widen(p.value[v]), widen(q.value[v]), widen(r.value[v]), widen(s.value[v]), y.fraction, x.fraction);
        }
      }
      for (int v = 0; v < V; ++v) {
        if (!kMaximum) {
          sum[v] += value[v];
        } else if (value[v] > sum[v] || (value[v] != value[v] && sum[v] == sum[v])) {
          sum[v] = value[v];
        }
      }
    }
  }
  const bool left_out = first_left_out || rows.last < region.y.grid || columns.last < region.x.grid;
  Pack<T, V> result;
  for (int v = 0; v < V; ++v) {
    if (!kMaximum) {
      sum[v] /= R(region.y.grid) * R(region.x.grid);
    } else if (left_out && sum[v] < 0) {
      sum[v] = 0;
    }
    result.value[v] = narrow<T>(sum[v]);
  }
  return result;
}

template <class T, int V, bool kMaximum>
__global__ void __launch_bounds__(kThreads) roi_align_kernel(RoiAlignArguments a, int team) {
  using R = real_t<T>;
  const int lane = threadIdx.x % team;
  const int64_t bins = a.regions * a.height * a.width;
  for (int64_t number = thread_number() / team; number < bins; number += thread_count() / team) {
    const Bin bin = bin_of(number, a);
    const int64_t level = a.level_of[bin.region];
    const bool known = level >= 0 && level < a.levels.count;
    Region<R> region{};
    if (known) {
      region = region_at(static_cast<const R*>(a.rois), bin.region, a.images, static_cast<R>(a.levels.scale[level]),
                         a.height, a.width, a.sampling, a.alignment);
    }
    const bool empty = !known || region.image < 0 || region.y.grid == 0 || region.x.grid == 0;
    T* out = static_cast<T*>(a.pooled) + number * a.channels;
    for (int64_t channel = static_cast<int64_t>(lane) * V; channel < a.channels; channel += team * V) {
      Pack<T, V> result;
      if (empty) {
        for (int v = 0; v < V; ++v) result.value[v] = narrow<T>(R(0));
      } else {
        result = pool<T, V, kMaximum>(a, region, bin, static_cast<int>(level), channel);
      }
      *reinterpret_cast<Pack<T, V>*>(out + channel) = result;
    }
  }
}

template <class T, int V>
const char* launch(const RoiAlignArguments& a, void* stream) {
  int team = 1;
  while (team < kWarp && team * V < a.channels) team *= 2;
  const unsigned blocks = blocks_for(a.regions * a.height * a.width * team, kThreads);
  const auto run = a.maximum ? roi_align_kernel<T, V, true> : roi_align_kernel<T, V, false>;
  DET_LAUNCH(run, blocks, kThreads, 0, stream, a, team);
  return nullptr;
}

}  // namespace

const char* roi_align(Dtype dtype, const RoiAlignArguments& a, void* stream) {
  if (a.levels.count > kMaxLevels) return "too many levels";
  if (a.regions * a.channels * a.height * a.width == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    constexpr int V = 16 / sizeof(T);  // the widest load there is
    bool wide = a.channels % V == 0 && aligned_to(a.pooled, 16);
    for (int level = 0; level < a.levels.count; ++level) wide = wide && aligned_to(a.levels.maps[level], 16);
    return wide ? launch<T, V>(a, stream) : launch<T, 1>(a, stream);
  });
}

}  // namespace det::cuda
