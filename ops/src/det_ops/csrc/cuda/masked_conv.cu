// A convolution at some output pixels alone: these are listed first, then computed as a matrix product.
#include "tile.cuh"

namespace det::cuda {
namespace {

// Lists the wanted pixels, in no particular order: each is computed for itself.
__global__ void masked_conv_list(const double* mask, int64_t pixels, int64_t* places, int64_t* number) {
  for (int64_t i = thread_number(); i < pixels; i += thread_count()) {
    if (!(mask[i] > 0)) continue;
    places[atomicAdd(reinterpret_cast<unsigned long long*>(number), 1ull)] = i;
  }
}

// How many are wanted only the device knows, so there are blocks for all, and most may end at once.
template <class T>
__global__ void __launch_bounds__(kTileThreads) masked_conv_kernel(MaskedConvArguments a) {
  using R = real_t<T>;
  const ConvShape& s = a.shape;
  const int64_t first_place = static_cast<int64_t>(blockIdx.x) * kTile, places = *a.number;
  if (first_place >= places) return;
  __shared__ typename Product<T>::Memory memory;
  Product<T> product(memory);
  const int taps = s.kernel_height * s.kernel_width, first_out = blockIdx.y * kTile;
  // Each thread has 8 channels of one row, of x and of the weights.
  const int row = threadIdx.x / 4, column = threadIdx.x % 4 * kRun;
  const int64_t place = first_place + row < places ? a.places[first_place + row] : -1;
  const int out_x = static_cast<int>(place % s.out_width), out_y = static_cast<int>(place / s.out_width % s.out_height);
  const int64_t image = place / s.out_width / s.out_height;
  const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(first_out + row) * taps * s.channels;
  for (int tap = 0; tap < taps; ++tap) {
    const int y = out_y - s.padding[0] + tap / s.kernel_width, x = out_x - s.padding[1] + tap % s.kernel_width;
    const bool inside = place >= 0 && y >= 0 && y < s.height && x >= 0 && x < s.width;
    const int64_t pixel = inside ? (image * s.height + y) * s.width + x : 0;
    for (int channel = column; channel - column < s.channels; channel += kDepth) {
      const int count = larger(0, smaller(kRun, s.channels - channel));
      T run[kRun];
      load_run(static_cast<const T*>(a.x) + pixel * s.channels + channel, inside ? count : 0, run);
      put_row(product.a(), row, column, run);
      load_run(weight + static_cast<int64_t>(tap) * s.channels + channel, first_out + row < s.out_channels ? count : 0,
               run);
      put_row(product.b(), row, column, run);
      product.multiply();
    }
  }

  const R* sums = product.finish();
  const R* bias = static_cast<const R*>(a.bias);
  for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
    const int64_t number = first_place + i / kTile;
    const int out = first_out + i % kTile;
    if (number >= places || out >= s.out_channels) continue;
    const R sum = sums[i / kTile * Product<T>::kSumPitch + i % kTile] + (bias ? bias[out] : R(0));
    static_cast<T*>(a.out)[a.places[number] * s.out_channels + out] = narrow<T>(sum);
  }
}

}  // namespace

const char* masked_conv(Dtype dtype, const MaskedConvArguments& a, void* stream) {
  const ConvShape& s = a.shape;
  const int64_t pixels = s.images * s.out_height * s.out_width;
  if (pixels * s.out_channels == 0) return nullptr;
  DET_LAUNCH(masked_conv_list, blocks_for(pixels, 256), 256, 0, stream, a.mask, pixels, a.places, a.number);
  return by_dtype(dtype, [&](auto zero) -> const char* {
    const auto run = masked_conv_kernel<decltype(zero)>;
    const dim3 grid(static_cast<unsigned>(ceil_div(pixels, kTile)),
                    static_cast<unsigned>(ceil_div(s.out_channels, kTile)));
    DET_LAUNCH(run, grid, kTileThreads, 0, stream, a);
    return nullptr;
  });
}

}  // namespace det::cuda
