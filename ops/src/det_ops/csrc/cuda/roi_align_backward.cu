// The gradient of RoIAlign, gathered: a block owns a tile of pixels and adds up what every region that touches it
// gives. So each pixel is written once, rounded once, and always summed in the same order.
//
// What a bin gives to a pixel is a product of a weight of its row and one of its column, each the sum over the bin's
// samples along that axis. A maximum has one sample per bin and channel instead; where it lies is found first.
#include "sampling.cuh"

namespace det::cuda {
namespace {

constexpr int kTile = 8;  // pixels along each side; a warp has a row of them
constexpr int kThreads = kTile * kWarp;
constexpr int kBins = 16;  // bins along each axis whose weights lie in shared memory at a time

// One level of the call.
struct Level {
  int number, height, width;
  double scale;
};

template <class R>
__device__ Region<R> region_of(const RoiAlignArguments& a, const Level& level, int64_t k) {
  return region_at(static_cast<const R*>(a.rois), k, a.images, static_cast<R>(level.scale), a.height, a.width,
                   a.sampling, a.alignment);
}

// Whether samples of this axis can read pixels first .. first + kTile - 1.
template <class R>
__device__ bool touches(const Span<R>& s, int first) {
  if (s.grid == 0) return false;
  const double start = s.start, end = start + s.size;
  const double margin = 2 + 1e-6 * (fabs(start) + fabs(end));
  const double low = start < end ? start : end, high = start < end ? end : start;
  return low - margin <= first + kTile && high + margin >= first;
}

// Summed share of a pixel in the samples of a bin; the mean's denominator included.
template <class R>
__device__ R weight_of(const Span<R>& s, int bin, int pixel, int limit) {
  const R first = bin_start(s, bin);
  // The edge's pixels are read from up to one pixel outside, which is in reach of any pixel anyway.
  const Range range = samples_between(s, first, pixel - 1.0, pixel + 1.0);
  R sum = 0;
  for (int64_t i = range.first; i < range.last; ++i) sum += share_of(sample_at(s, first, i), pixel, limit);
  return sum / R(s.grid);
}

// Weights of rows and columns of the tile for the next kBins bins of each axis.
template <class R>
struct Weights {
  R y[kBins][kTile], x[kBins][kTile];
};

template <class R>
__device__ void find_weights(const RoiAlignArguments& a, const Level& level, const Region<R>& region, int first_y,
                             int first_x, int top, int left, Weights<R>& weights) {
  for (int i = threadIdx.x; i < 2 * kBins * kTile; i += kThreads) {
    const bool vertical = i < kBins * kTile;
    const int bin = i / kTile % kBins, offset = i % kTile;
    if (vertical) {
      const bool present = first_y + bin < a.height && top + offset < level.height;
      weights.y[bin][offset] = present ? weight_of(region.y, first_y + bin, top + offset, level.height) : R(0);
    } else {
      const bool present = first_x + bin < a.width && left + offset < level.width;
      weights.x[bin][offset] = present ? weight_of(region.x, first_x + bin, left + offset, level.width) : R(0);
    }
  }
}

// Adds what the bins of one chunk give to the 8 pixels of this warp's row, for the V channels from `channel` on.
template <class T, int V, bool kMaximum>
__device__ void gather(const RoiAlignArguments& a, const Level& level, int64_t k, int first_y, int first_x, int top,
                       int left, int64_t channel, const Weights<real_t<T>>& weights, real_t<T> (&sum)[kTile][V]) {
  using R = real_t<T>;
  const int row = threadIdx.x / kWarp;
  const int rows = smaller(kBins, a.height - first_y), columns = smaller(kBins, a.width - first_x);
  for (int p = 0; p < rows; ++p) {
    const R wy = weights.y[p][row];
    if (wy == 0) continue;  // the whole warp
    for (int q = 0; q < columns; ++q) {
      R wx[kTile];
      bool any = false;
      for (int i = 0; i < kTile; ++i) any |= (wx[i] = weights.x[q][i]) != 0;
      if (!any) continue;
      const int64_t bin = (k * a.height + first_y + p) * a.width + first_x + q;
      const int64_t at = bin * a.channels + channel;
      const Pack<T, V> grad = *reinterpret_cast<const Pack<T, V>*>(static_cast<const T*>(a.pooled) + at);
      for (int v = 0; v < V; ++v) {
        const R g = widen(grad.value[v]);
        if (kMaximum) {
          const R* peak = static_cast<const R*>(a.peaks) + 2 * (at + v);
          const R share = share_of(peak[0], top + row, level.height);
          if (share == 0) continue;
          for (int i = 0; i < kTile; ++i) sum[i][v] += g * share * share_of(peak[1], left + i, level.width);
        } else {
          for (int i = 0; i < kTile; ++i) sum[i][v] += g * wy * wx[i];
        }
      }
    }
  }
}

template <class T, int V, bool kMaximum>
__global__ void __launch_bounds__(kThreads) roi_align_gather(RoiAlignArguments a, Level level) {
  using R = real_t<T>;
  __shared__ Weights<R> weights;
  __shared__ unsigned touching[kTile];  // a bit for each of the next kThreads regions
  const int row = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t tiles_x = ceil_div(level.width, kTile), tiles_y = ceil_div(level.height, kTile);
  const int left = static_cast<int>(blockIdx.x % tiles_x) * kTile;
  const int top = static_cast<int>(blockIdx.x / tiles_x % tiles_y) * kTile;
  const int64_t image = blockIdx.x / tiles_x / tiles_y;
  const int64_t channel = (static_cast<int64_t>(blockIdx.y) * kWarp + lane) * V;
  const bool active = channel < a.channels;

  R sum[kTile][V] = {};
  for (int64_t first = 0; first < a.regions; first += kThreads) {
    const int64_t mine = first + threadIdx.x;
    bool touched = false;
    if (mine < a.regions && a.level_of[mine] == level.number) {
      const Region<R> region = region_of<R>(a, level, mine);
      touched = region.image == image && touches(region.y, top) && touches(region.x, left);
    }
    const unsigned found = __ballot_sync(kFullWarp, touched);
    if (lane == 0) touching[row] = found;
    __syncthreads();
    for (int w = 0; w < kTile; ++w) {
      for (unsigned bits = touching[w]; bits != 0; bits &= bits - 1) {
        const int64_t k = first + w * kWarp + __ffs(static_cast<int>(bits)) - 1;
        const Region<R> region = region_of<R>(a, level, k);
        for (int first_y = 0; first_y < a.height; first_y += kBins) {
          for (int first_x = 0; first_x < a.width; first_x += kBins) {
            find_weights(a, level, region, first_y, first_x, top, left, weights);
            __syncthreads();
            if (active) {
              gather<T, V, kMaximum>(a, level, k, first_y, first_x, top, left, channel, weights, sum);
            }
            __syncthreads();
          }
        }
      }
    }
    __syncthreads();
  }

  const int y = top + row;
  if (!active || y >= level.height) return;
  T* map = static_cast<T*>(a.levels.maps[level.number]);
  for (int i = 0; i < kTile && left + i < level.width; ++i) {
    Pack<T, V> result;
    for (int v = 0; v < V; ++v) result.value[v] = narrow<T>(sum[i][v]);
    const int64_t pixel = (image * level.height + y) * level.width + left + i;
    *reinterpret_cast<Pack<T, V>*>(map + pixel * a.channels + channel) = result;
  }
}

// Where the maximum of each bin and channel lies: its y and x, or not a number for none.
template <class T>
__global__ void roi_align_peaks(RoiAlignArguments a) {
  using R = real_t<T>;
  const int64_t total = a.regions * a.height * a.width * a.channels;
  for (int64_t number = thread_number(); number < total; number += thread_count()) {
    const int64_t channel = number % a.channels, bin = number / a.channels;
    const int64_t k = bin / a.width / a.height, level = a.level_of[k];
    R* peak = static_cast<R*>(a.peaks) + 2 * number;
    peak[0] = peak[1] = R(NAN);
    if (level < 0 || level >= a.features.count) continue;
    const Level at{static_cast<int>(level), a.features.height[level], a.features.width[level], a.features.scale[level]};
    const Region<R> region = region_of<R>(a, at, k);
    if (region.image < 0 || region.y.grid == 0 || region.x.grid == 0) continue;
    const T* map =
        static_cast<const T*>(a.features.maps[level]) + region.image * at.height * at.width * a.channels + channel;
    const auto value_at = [&](int y, int x) {
      return widen(map[(static_cast<int64_t>(y) * at.width + x) * a.channels]);
    };
    const R top = bin_start(region.y, static_cast<int>(bin / a.width % a.height));
    const R left = bin_start(region.x, static_cast<int>(bin % a.width));
    const Range rows = samples_between(region.y, top, -1.0, static_cast<double>(at.height));
    const Range columns = samples_between(region.x, left, -1.0, static_cast<double>(at.width));
    // The same comparisons as forward, so that the same sample wins.
    R best = rows.first > 0 || columns.first > 0 ? R(0) : -R(INFINITY);
    for (int64_t i = rows.first; i < rows.last; ++i) {
      const R py = sample_at(region.y, top, i);
      const Corner<R> y = corner(py, at.height);
      for (int64_t j = columns.first; j < columns.last; ++j) {
        const R px = sample_at(region.x, left, j);
        const Corner<R> x = corner(px, at.width);
        const bool counts = y.counts && x.counts;
        const R value = counts ? blend(value_at(y.low, x.low), value_at(y.low, x.high), value_at(y.high, x.low),
                                       value_at(y.high, x.high), y.fraction, x.fraction)
                               : R(0);
        if (!(value > best || (value != value && best == best))) continue;
        best = value;
        peak[0] = counts ? py : R(NAN);
        peak[1] = counts ? px : R(NAN);
      }
    }
    if ((rows.last < region.y.grid || columns.last < region.x.grid) && best < 0) peak[0] = peak[1] = R(NAN);
  }
}

template <class T, int V>
const char* launch(const RoiAlignArguments& a, void* stream) {
  const auto run = a.maximum ? roi_align_gather<T, V, true> : roi_align_gather<T, V, false>;
  for (int number = 0; number < a.levels.count; ++number) {
    const Level level{number, a.levels.height[number], a.levels.width[number], a.levels.scale[number]};
    const int64_t tiles = a.images * ceil_div(level.height, kTile) * ceil_div(level.width, kTile);
    if (tiles * a.channels == 0) continue;
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(ceil_div(a.channels, kWarp * V)));
    DET_LAUNCH(run, grid, kThreads, 0, stream, a, level);
  }
  return nullptr;
}

}  // namespace

const char* roi_align_backward(Dtype dtype, const RoiAlignArguments& a, void* stream) {
  if (a.levels.count > kMaxLevels) return "too many levels";
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    const int64_t total = a.regions * a.height * a.width * a.channels;
    if (a.maximum && total > 0) {
      const auto find = roi_align_peaks<T>;
      DET_LAUNCH(find, blocks_for(total, 256), 256, 0, stream, a);
    }
    constexpr int V = sizeof(T) == 8 ? 2 : 4;
    bool wide = a.channels % V == 0 && aligned_to(a.pooled, 16);
    for (int level = 0; level < a.levels.count; ++level) wide = wide && aligned_to(a.levels.maps[level], 16);
    return wide ? launch<T, V>(a, stream) : launch<T, 1>(a, stream);
  });
}

}  // namespace det::cuda
