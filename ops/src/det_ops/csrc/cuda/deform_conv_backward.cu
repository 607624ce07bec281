// The gradients of a deformable convolution; the columns are sampled anew, never stored.
//
// One kernel has 64 output pixels, one tap and one offset group: it finds the gradient of their columns tile by tile
// and passes it on to x (by atomic additions, as any pixel may be read from anywhere: the order of these sums is not
// fixed), and to offset and mask, which it owns. Another kernel has a tile of the weight and walks over the pixels.
#include "deform_conv.cuh"

namespace det::cuda {
namespace {

constexpr int kWarps = kTileThreads / kWarp, kPixelsOfWarp = kTile / kWarps;

// What a lane has found so far for the offset and mask of one pixel's tap.
template <class R>
struct TapGrad {
  R y = 0, x = 0, mask = 0;
};

// Gradient `grad` of the value that a tap reads from one channel.
template <class T>
__device__ void pass_on(const DeformConvArguments& a, const Tap<real_t<T>>& tap, int channel, real_t<T> grad,
                        TapGrad<real_t<T>>& found) {
  using R = real_t<T>;
  R value[4] = {};
  for (int i = 0; i < 4; ++i) {
    if (!tap.known[i]) continue;
    const int64_t at = tap.pixel[i] * a.shape.channels + channel;
    value[i] = widen(static_cast<const T*>(a.x)[at]);
    atomicAdd(static_cast<R*>(a.x_grad) + at, grad * tap.mask * tap.weight(i));
    found.mask += grad * value[i] * tap.weight(i);
  }
  const R down = (value[2] * (1 - tap.fx) + value[3] * tap.fx) - (value[0] * (1 - tap.fx) + value[1] * tap.fx);
  const R right = (value[1] * (1 - tap.fy) + value[3] * tap.fy) - (value[0] * (1 - tap.fy) + value[2] * tap.fy);
  found.y += grad * tap.mask * down;
  found.x += grad * tap.mask * right;
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) deform_conv_columns(DeformConvArguments a) {
  using R = real_t<T>;
  __shared__ typename Product<T>::Memory memory;
  const ConvShape& s = a.shape;
  const int taps = s.kernel_height * s.kernel_width, tap = blockIdx.y, offset_group = blockIdx.z;
  const int per_group = s.channels / s.groups, per_offset = s.channels / s.offset_groups;
  const int out_per_group = s.out_channels / s.groups;
  const int64_t first_pixel = static_cast<int64_t>(blockIdx.x) * kTile, pixels = out_pixels(s);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  TapGrad<R> found[kPixelsOfWarp];

  const int end = (offset_group + 1) * per_offset;
  for (int first = offset_group * per_offset; first < end;) {
    // Channels of this offset group in one group, 64 at a time.
    const int group = first / per_group, begin = group * per_group;
    const int last = smaller(smaller(end, begin + per_group), first + kTile);
    Product<T> product(memory);
    for (int out = 0; out < out_per_group; out += kDepth) {
      T run[kRun];
      const int row = threadIdx.x / 4, column = threadIdx.x % 4 * kRun;
      const int outs = larger(0, smaller(kRun, out_per_group - out - column));
      load_run(
          static_cast<const T*>(a.out) + (first_pixel + row) * s.out_channels + group * out_per_group + out + column,
          first_pixel + row < pixels ? outs : 0, run);
      put_row(product.a(), row, column, run);
      const int mine = out + threadIdx.x / 8, channel = threadIdx.x % 8 * kRun;
      const int channels = larger(0, smaller(kRun, last - first - channel));
      load_run(static_cast<const T*>(a.weight) +
                   (static_cast<int64_t>(group * out_per_group + mine) * taps + tap) * per_group + first - begin +
                   channel,
               mine < out_per_group ? channels : 0, run);
      put_column(product.b(), channel, threadIdx.x / 8, run);
      product.multiply();
    }
    const R* grads = product.finish();
    for (int i = 0; i < kPixelsOfWarp; ++i) {
      const int row = warp * kPixelsOfWarp + i;
      const Tap<R> at = tap_at<R>(a, out_pixel(s, first_pixel + row), offset_group, tap);
      if (!at.inside) continue;
      for (int channel = lane; first + channel < last; channel += kWarp) {
        pass_on<T>(a, at, first + channel, grads[row * Product<T>::kSumPitch + channel], found[i]);
      }
    }
    __syncthreads();  // before the memory is filled anew
    first = last;
  }

  for (int i = 0; i < kPixelsOfWarp; ++i) {
    const OutPixel pixel = out_pixel(s, first_pixel + warp * kPixelsOfWarp + i);
    const R y = warp_sum(found[i].y), x = warp_sum(found[i].x), mask = warp_sum(found[i].mask);
    if (pixel.image < 0 || lane != 0) continue;
    const TapPlace place = place_of(s, pixel, offset_group, tap);
    static_cast<R*>(a.offset_grad)[place.y()] = y;
    static_cast<R*>(a.offset_grad)[place.x()] = x;
    if (a.mask_grad) static_cast<R*>(a.mask_grad)[place.mask()] = mask;
  }
}

// Channels that share both group and offset group come in runs of this length.
__host__ __device__ int unit_of(const ConvShape& s) {
  int a = s.channels / s.groups, b = s.channels / s.offset_groups;
  while (b != 0) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return larger(a, 1);
}

__host__ __device__ int tiles_of_unit(const ConvShape& s) { return static_cast<int>(ceil_div(unit_of(s), kTile)); }

template <class T>
__global__ void __launch_bounds__(kTileThreads) deform_conv_weight(DeformConvArguments a, int64_t per_part) {
  using R = real_t<T>;
  __shared__ typename Product<T>::Memory memory;
  Product<T> product(memory);
  const ConvShape& s = a.shape;
  const int taps = s.kernel_height * s.kernel_width, tap = blockIdx.y % taps;
  const int per_group = s.channels / s.groups, out_per_group = s.out_channels / s.groups;
  const int unit = unit_of(s), tiles = tiles_of_unit(s);
  const int first_out = blockIdx.y / taps * kTile;
  const int first = blockIdx.x / tiles * unit + blockIdx.x % tiles * kTile;
  const int last = smaller(first + kTile, (static_cast<int>(blockIdx.x) / tiles + 1) * unit);
  const int group = first / per_group, offset_group = first / (s.channels / s.offset_groups);
  const int64_t pixels = out_pixels(s), begin = blockIdx.z * per_part, end = smaller(begin + per_part, pixels);

  // Each thread has 8 channels of one of the 32 pixels, of the gradient and of the samples.
  const int mine = threadIdx.x / 8, column = threadIdx.x % 8 * kRun;
  const int outs = larger(0, smaller(kRun, out_per_group - first_out - column));
  const int channels = larger(0, smaller(kRun, last - first - column));
  for (int64_t number = begin + mine; number - mine < end; number += kDepth) {
    T run[kRun];
    load_run(static_cast<const T*>(a.out) + number * s.out_channels + group * out_per_group + first_out + column,
             number < end ? outs : 0, run);
    put_column(product.a(), column, mine, run);
    const OutPixel pixel = number < end ? out_pixel(s, number) : OutPixel{-1, 0, 0};
    sample_run<T>(a, tap_at<R>(a, pixel, offset_group, tap), first + column, channels, run);
    put_column(product.b(), column, mine, run);
    product.multiply();
  }

  const R* sums = product.finish();
  R* result = static_cast<R*>(a.weight_grad) + static_cast<int64_t>(blockIdx.z) * s.out_channels * taps * per_group;
  for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
    const int out = first_out + i / kTile, channel = first + i % kTile;
    if (out >= out_per_group || channel >= last) continue;
    const int64_t at = static_cast<int64_t>(group * out_per_group + out) * taps + tap;
    result[at * per_group + channel - group * per_group] = sums[i / kTile * Product<T>::kSumPitch + i % kTile];
  }
}

dim3 weight_grid(const ConvShape& s) {
  const int64_t taps = static_cast<int64_t>(s.kernel_height) * s.kernel_width;
  return dim3(static_cast<unsigned>(s.channels / unit_of(s) * tiles_of_unit(s)),
              static_cast<unsigned>(ceil_div(s.out_channels / s.groups, kTile) * taps));
}

}  // namespace

// The pixels are split where the weight has too few tiles to fill a GPU. The parts are added up in a fixed order.
int64_t deform_conv_parts(const ConvShape& s) {
  const dim3 grid = weight_grid(s);
  const int64_t pixels = s.images * s.out_height * s.out_width, tiles = static_cast<int64_t>(grid.x) * grid.y;
  return larger<int64_t>(1, smaller(ceil_div(512, larger<int64_t>(tiles, 1)), pixels / 1024));
}

const char* deform_conv_backward(Dtype dtype, const DeformConvArguments& a, void* stream) {
  const ConvShape& s = a.shape;
  const int64_t pixels = s.images * s.out_height * s.out_width;
  if (pixels * s.out_channels * s.channels == 0) return "there must be pixels and channels";
  return by_dtype(dtype, [&](auto zero) -> const char* {
    using T = decltype(zero);
    const auto columns = deform_conv_columns<T>;
    const auto weight = deform_conv_weight<T>;
    const dim3 grid(static_cast<unsigned>(ceil_div(pixels, kTile)),
                    static_cast<unsigned>(s.kernel_height * s.kernel_width), static_cast<unsigned>(s.offset_groups));
    DET_LAUNCH(columns, grid, kTileThreads, 0, stream, a);
    const int64_t parts = deform_conv_parts(s);
    dim3 tiles = weight_grid(s);
    tiles.z = static_cast<unsigned>(parts);
    DET_LAUNCH(weight, tiles, kTileThreads, 0, stream, a, ceil_div(pixels, parts));
    return nullptr;
  });
}

}  // namespace det::cuda
