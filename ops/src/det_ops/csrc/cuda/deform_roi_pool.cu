// Deformable RoI pooling: RoIAlign whose bins are shifted. A team of lanes for each bin, each lane some channels.
#include "sampling.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;

// The samples of one bin: where its region lies, its shift, and which samples can be on the map.
template <class R>
struct ShiftedBin {
  Region<R> region;
  int64_t number;
  int row, column;
  R shift_y, shift_x, reach_y, reach_x;  // reach: how far an offset of 1 shifts
  Range rows, columns;
  bool empty;

  __device__ R y_at(int64_t i) const { return add(sample_at(region.y, bin_start(region.y, row), i), shift_y); }
  __device__ R x_at(int64_t j) const { return add(sample_at(region.x, bin_start(region.x, column), j), shift_x); }
  __device__ R samples() const { return R(region.y.grid) * R(region.x.grid); }
};

template <class R>
__device__ ShiftedBin<R> shifted_bin(const DeformRoiPoolArguments& a, int64_t number) {
  ShiftedBin<R> b{};
  b.number = number;
  b.column = static_cast<int>(number % a.width);
  b.row = static_cast<int>(number / a.width % a.height);
  const int64_t k = number / a.width / a.height;
  b.region = region_at(static_cast<const R*>(a.rois), k, a.images, static_cast<R>(a.scale), a.height, a.width,
                       a.sampling, Alignment::kAligned);
  b.empty = b.region.image < 0 || b.region.y.grid == 0 || b.region.x.grid == 0;
  if (a.offset) {
    const R* offset = static_cast<const R*>(a.offset) + 2 * k * a.height * a.width + b.row * a.width + b.column;
    b.reach_y = mul(R(a.gamma), b.region.y.size);
    b.reach_x = mul(R(a.gamma), b.region.x.size);
    b.shift_x = mul(b.reach_x, offset[0]);
    b.shift_y = mul(b.reach_y, offset[static_cast<int64_t>(a.height) * a.width]);
  }
  // What lies on the map before the shift is found by moving the map the other way.
  const double dy = b.shift_y, dx = b.shift_x;
  b.rows = samples_between(b.region.y, bin_start(b.region.y, b.row), -1 - dy - 1e-6 * fabs(dy),
                           a.map_height - dy + 1e-6 * fabs(dy));
  b.columns = samples_between(b.region.x, bin_start(b.region.x, b.column), -1 - dx - 1e-6 * fabs(dx),
                              a.map_width - dx + 1e-6 * fabs(dx));
  return b;
}

// Lanes that share a bin: a power of two up to a warp.
int team_of(int64_t channels) {
  int team = 1;
  while (team < kWarp && team < channels) team *= 2;
  return team;
}

template <class T>
__global__ void deform_roi_pool_kernel(DeformRoiPoolArguments a, int team) {
  using R = real_t<T>;
  const int64_t bins = a.regions * a.height * a.width;
  for (int64_t number = thread_number() / team; number < bins; number += thread_count() / team) {
    const ShiftedBin<R> bin = shifted_bin<R>(a, number);
    const int64_t plane = static_cast<int64_t>(a.map_height) * a.map_width;
    const T* map = static_cast<const T*>(a.features) + (bin.empty ? 0 : bin.region.image) * plane * a.channels;
    for (int64_t channel = threadIdx.x % team; channel < a.channels; channel += team) {
      const auto value = [&](int y, int x) {
        return widen(map[(static_cast<int64_t>(y) * a.map_width + x) * a.channels + channel]);
      };
      R sum = 0;
      for (int64_t i = bin.rows.first; i < bin.rows.last && !bin.empty; ++i) {
        const Corner<R> y = corner(bin.y_at(i), a.map_height);
        if (!y.counts) continue;
        for (int64_t j = bin.columns.first; j < bin.columns.last; ++j) {
          const Corner<R> x = corner(bin.x_at(j), a.map_width);
          if (!x.counts) continue;
          sum += blend(value(y.low, x.low), value(y.low, x.high), value(y.high, x.low), value(y.high, x.high),
                       y.fraction, x.fraction);
        }
      }
      static_cast<T*>(a.pooled)[number * a.channels + channel] = narrow<T>(bin.empty ? R(0) : sum / bin.samples());
    }
  }
}

// Whether a position moves what is read there: not where it is clamped to the map.
template <class R>
__device__ bool moves(R position, const Corner<R>& c, int limit) {
  return position >= 0 && c.low < limit - 1;
}

// A warp for each bin, as the gradient of its offset is a sum over all channels. That of the features is added
// atomically: the order of these sums is not fixed.
template <class T>
__global__ void deform_roi_pool_gradient(DeformRoiPoolArguments a) {
  using R = real_t<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t bins = a.regions * a.height * a.width, plane = static_cast<int64_t>(a.map_height) * a.map_width;
  for (int64_t number = thread_number() / kWarp; number < bins; number += thread_count() / kWarp) {
    const ShiftedBin<R> bin = shifted_bin<R>(a, number);
    R down = 0, right = 0;
    const int64_t first = bin.empty ? 0 : bin.region.image * plane * a.channels;
    for (int64_t channel = lane; channel < a.channels && !bin.empty; channel += kWarp) {
      const T* map = static_cast<const T*>(a.features) + first + channel;
      R* map_grad = static_cast<R*>(a.features_grad) + first + channel;
      const R grad = widen(static_cast<const T*>(a.pooled)[number * a.channels + channel]) / bin.samples();
      for (int64_t i = bin.rows.first; i < bin.rows.last; ++i) {
        const R py = bin.y_at(i);
        const Corner<R> y = corner(py, a.map_height);
        if (!y.counts) continue;
        for (int64_t j = bin.columns.first; j < bin.columns.last; ++j) {
          const R px = bin.x_at(j);
          const Corner<R> x = corner(px, a.map_width);
          if (!x.counts) continue;
          R value[4];
          for (int c = 0; c < 4; ++c) {
            const int row = c / 2 ? y.high : y.low, column = c % 2 ? x.high : x.low;
            const int64_t at = (static_cast<int64_t>(row) * a.map_width + column) * a.channels;
            value[c] = widen(map[at]);
            const R share = (c / 2 ? y.fraction : 1 - y.fraction) * (c % 2 ? x.fraction : 1 - x.fraction);
            atomicAdd(map_grad + at, grad * share);
          }
          const R fx = x.fraction, fy = y.fraction;
          if (moves(py, y, a.map_height)) {
            down += grad * ((value[2] * (1 - fx) + value[3] * fx) - (value[0] * (1 - fx) + value[1] * fx));
          }
          if (moves(px, x, a.map_width)) {
            right += grad * ((value[1] * (1 - fy) + value[3] * fy) - (value[0] * (1 - fy) + value[2] * fy));
          }
        }
      }
    }
    if (!a.offset_grad) continue;
    down = warp_sum(down);
    right = warp_sum(right);
    if (lane != 0) continue;
    const int64_t cells = static_cast<int64_t>(a.height) * a.width, cell = number % cells;
    R* offset_grad = static_cast<R*>(a.offset_grad) + number / cells * 2 * cells + cell;
    offset_grad[0] = bin.empty ? R(0) : right * bin.reach_x;
    offset_grad[cells] = bin.empty ? R(0) : down * bin.reach_y;
  }
}

}  // namespace

const char* deform_roi_pool(Dtype dtype, const DeformRoiPoolArguments& a, void* stream) {
  const int64_t bins = a.regions * a.height * a.width;
  if (bins * a.channels == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = deform_roi_pool_kernel<decltype(zero)>;
    const int team = team_of(a.channels);
    DET_LAUNCH(run, blocks_for(bins * team, kThreads), kThreads, 0, stream, a, team);
    return nullptr;
  });
}

const char* deform_roi_pool_backward(Dtype dtype, const DeformRoiPoolArguments& a, void* stream) {
  const int64_t bins = a.regions * a.height * a.width;
  if (bins == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = deform_roi_pool_gradient<decltype(zero)>;
    DET_LAUNCH(run, blocks_for(bins * kWarp, kThreads), kThreads, 0, stream, a);
    return nullptr;
  });
}

}  // namespace det::cuda
