// RoIPool with unrounded edges: the maximum of the pixels from the floor of a bin's start to the ceiling of its end.
#include "sampling.cuh"

namespace det::cuda {
namespace {

constexpr int kThreads = 256;

// A bin's edge on the map; what is not a number lies at 0.
template <class R>
__device__ int edge(R position, int limit) {
  return position > 0 ? static_cast<int>(smaller(position, R(limit))) : 0;
}

template <class R>
__device__ R bin_edge(const Span<R>& s, int bin) {
  return add(mul(R(bin), s.step), s.start);
}

template <class T>
__global__ void roi_pool_kernel(RoiPoolArguments a) {
  using R = real_t<T>;
  const int64_t total = a.regions * a.height * a.width * a.channels;
  for (int64_t number = thread_number(); number < total; number += thread_count()) {
    const int64_t channel = number % a.channels, bin = number / a.channels;
    const int column = static_cast<int>(bin % a.width), row = static_cast<int>(bin / a.width % a.height);
    const Region<R> region = region_at(static_cast<const R*>(a.rois), bin / a.width / a.height, a.images,
                                       static_cast<R>(a.scale), a.height, a.width, 0, Alignment::kV1);
    R best = 0;
    int64_t position = -1;
    if (region.image >= 0 && region.y.size > 0 && region.x.size > 0) {
      const int top = edge(floor(bin_edge(region.y, row)), a.map_height);
      const int bottom = edge(ceil(bin_edge(region.y, row + 1)), a.map_height);
      const int left = edge(floor(bin_edge(region.x, column)), a.map_width);
      const int right = edge(ceil(bin_edge(region.x, column + 1)), a.map_width);
      const T* map =
          static_cast<const T*>(a.features) + region.image * a.map_height * a.map_width * a.channels + channel;
      for (int y = top; y < bottom; ++y) {
        for (int x = left; x < right; ++x) {
          const int64_t at = static_cast<int64_t>(y) * a.map_width + x;
          const R value = widen(map[at * a.channels]);
          // The first of equal values, and the first that is not a number, wins.
          if (position >= 0 && !(value > best) && !(value != value && best == best)) continue;
          best = value;
          position = at;
        }
      }
    }
    static_cast<T*>(a.pooled)[number] = narrow<T>(best);
    a.positions[number] = position;
  }
}

template <class T>
__global__ void roi_pool_scatter(const T* grad, const int64_t* positions, const real_t<T>* rois, int64_t regions,
                                 int64_t bins, int64_t images, int64_t pixels, int64_t channels, real_t<T>* result) {
  using R = real_t<T>;
  for (int64_t i = thread_number(); i < regions * bins * channels; i += thread_count()) {
    const int64_t position = positions[i], channel = i % channels;
    const R image = rois[5 * (i / channels / bins)];
    if (position < 0 || position >= pixels || !(image >= 0 && image < R(images))) continue;
    atomicAdd(result + (static_cast<int64_t>(image) * pixels + position) * channels + channel, widen(grad[i]));
  }
}

}  // namespace

const char* roi_pool(Dtype dtype, const RoiPoolArguments& a, void* stream) {
  const int64_t total = a.regions * a.height * a.width * a.channels;
  if (total == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = roi_pool_kernel<decltype(zero)>;
    DET_LAUNCH(run, blocks_for(total, kThreads), kThreads, 0, stream, a);
    return nullptr;
  });
}

const char* roi_pool_backward(Dtype dtype, const void* grad, const int64_t* positions, const void* rois,
                              int64_t regions, int64_t bins, int64_t images, int64_t pixels, int64_t channels,
                              void* result, void* stream) {
  const int64_t total = regions * bins * channels;
  if (total == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    const auto run = roi_pool_scatter<T>;
    DET_LAUNCH(run, blocks_for(total, kThreads), kThreads, 0, stream, static_cast<const T*>(grad), positions,
               static_cast<const real_t<T>*>(rois), regions, bins, images, pixels, channels,
               static_cast<real_t<T>*>(result));
    return nullptr;
  });
}

}  // namespace det::cuda
