// Deformable convolution as a matrix product whose columns are sampled as they are needed.
//
// A block has 64 output pixels and 64 output channels of one group. It walks over the taps, and for each over the
// channels that share the tap's offset, 32 at a time: every thread samples 8 channels of one pixel's tap into shared
// memory. In half precision the samples are rounded to it, as tensor cores want them.
#include "deform_conv.cuh"

namespace det::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kTileThreads) deform_conv_kernel(DeformConvArguments a) {
  using R = real_t<T>;
  __shared__ typename Product<T>::Memory memory;
  Product<T> product(memory);
  const ConvShape& s = a.shape;
  const int taps = s.kernel_height * s.kernel_width;
  const int per_group = s.channels / s.groups, per_offset = s.channels / s.offset_groups;
  const int out_per_group = s.out_channels / s.groups;
  const int group = blockIdx.z, first_out = blockIdx.y * kTile;
  const int64_t first_pixel = static_cast<int64_t>(blockIdx.x) * kTile;
  // Each thread has 8 channels of one row, of the samples and of the weights.
  const int row = threadIdx.x / 4, column = threadIdx.x % 4 * kRun;
  const OutPixel pixel = out_pixel(s, first_pixel + row);
  const bool has_out = first_out + row < out_per_group;
  const T* weight = static_cast<const T*>(a.weight) +
                    static_cast<int64_t>(group * out_per_group + first_out + row) * taps * per_group;

  const int begin = group * per_group, end = begin + per_group;
  for (int first = begin; first < end;) {
    // Channels of this group that share offsets.
    const int offset_group = first / per_offset;
    const int last = smaller(end, (offset_group + 1) * per_offset);
    for (int tap = 0; tap < taps; ++tap) {
      const Tap<R> at = tap_at<R>(a, pixel, offset_group, tap);
      for (int channel = first; channel < last; channel += kDepth) {
        const int mine = channel + column, count = larger(0, smaller(kRun, last - mine));
        T run[kRun];
        sample_run<T>(a, at, mine, count, run);
        put_row(product.a(), row, column, run);
        load_run(weight + static_cast<int64_t>(tap) * per_group + mine - begin, has_out ? count : 0, run);
        put_row(product.b(), row, column, run);
        product.multiply();
      }
    }
    first = last;
  }

  const R* sums = product.finish();
  const R* bias = static_cast<const R*>(a.bias);
  for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
    const int64_t number = first_pixel + i / kTile;
    const int out = first_out + i % kTile;
    if (number >= out_pixels(s) || out >= out_per_group) continue;
    const int channel = group * out_per_group + out;
    const R sum = sums[i / kTile * Product<T>::kSumPitch + i % kTile] + (bias ? bias[channel] : R(0));
    static_cast<T*>(a.out)[number * s.out_channels + channel] = narrow<T>(sum);
  }
}

}  // namespace

const char* deform_conv(Dtype dtype, const DeformConvArguments& a, void* stream) {
  const ConvShape& s = a.shape;
  const int64_t pixels = s.images * s.out_height * s.out_width;
  if (pixels * s.out_channels == 0) return nullptr;
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = deform_conv_kernel<decltype(zero)>;
    const dim3 grid(static_cast<unsigned>(ceil_div(pixels, kTile)),
                    static_cast<unsigned>(ceil_div(s.out_channels / s.groups, kTile)), static_cast<unsigned>(s.groups));
    DET_LAUNCH(run, grid, kTileThreads, 0, stream, a);
    return nullptr;
  });
}

}  // namespace det::cuda
