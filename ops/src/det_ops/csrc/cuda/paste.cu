// Masks of regions pasted into the image, with the arithmetic of the CPU. Letters: S side of a mask.
//
// Several blocks share a mask: each writes every kParts-th row of the box, and what lies outside the box stays zero.
#include "common.cuh"

namespace det::cuda {
namespace {

constexpr int kParts = 8, kThreads = 128;

// The pixels [start, end) of the image that a box covers along one axis, and how a pixel's position in the mask is
// computed: sampled, from the edges `low` and `high`; otherwise from the first pixel and the ratio of the sizes.
template <class R>
struct Reach {
  int64_t start, end;
  R low, high, ratio;
  int64_t first_pixel;
};

// What one pixel reads along one axis: the values at `first` and `first + 1`, counted from -2 on.
template <class R>
struct Read {
  int64_t first;
  R low, high;
};

template <class R>
__device__ inline bool finite(R x) {
  return sub(x, x) == 0;
}

template <class R>
__device__ inline int64_t whole(R x, R least, R most) {
  return static_cast<int64_t>(x < least ? least : x > most ? most : x);
}

template <class R>
__device__ Reach<R> reach_of(R low, R high, int64_t size, int64_t side, PasteRule rule) {
  Reach<R> reach{0, 0, low, high, R(0), 0};
  if (rule == PasteRule::sampled) {
    if (!finite(low) || !finite(high) || !(high > low)) return reach;
    const R limit = static_cast<R>(size);
    reach.start = smaller(whole(sub(floor(low), R(1)), R(0), limit), size);
    reach.end = smaller(whole(add(ceil(high), R(1)), R(0), limit), size);
    return reach;
  }
  const bool resized = rule == PasteRule::resized;
  R first = low, last = high;
  if (resized) {
    const double larger = 0.5 * (static_cast<double>(side + 2) / static_cast<double>(side));
    const R middle = mul(add(low, high), R(0.5)), half = mul(sub(high, low), static_cast<R>(larger));
    first = sub(middle, half);
    last = add(middle, half);
  }
  const R far = static_cast<R>(int64_t{1} << 40);
  if (!finite(first) || !finite(last)) return reach;
  int64_t last_pixel = whole(resized ? last : sub(last, R(1)), -far, far);
  reach.first_pixel = whole(first, -far, far);
  if (!resized && last_pixel < reach.first_pixel) last_pixel = reach.first_pixel;
  reach.start = reach.first_pixel < 0 ? 0 : reach.first_pixel;
  reach.end = smaller(last_pixel + 1, size);
  const int64_t cells = last_pixel - reach.first_pixel + 1;
  reach.ratio = div(static_cast<R>(resized ? side + 2 : side), static_cast<R>(cells < 1 ? 1 : cells));
  return reach;
}

// What a pixel reads; its weights are not numbers if it is infinitely far away.
template <class R>
__device__ Read<R> read_of(const Reach<R>& reach, int64_t pixel, int64_t side, PasteRule rule) {
  if (rule == PasteRule::sampled) {
    const R centre = add(static_cast<R>(pixel), R(0.5));
    const R grid = sub(mul(div(sub(centre, reach.low), sub(reach.high, reach.low)), R(2)), R(1));
    const R position = sub(mul(add(grid, R(1)), div(static_cast<R>(side), R(2))), R(0.5));
    const R first = floor(position), weight = sub(position, first);
    return {whole(first, R(-2), static_cast<R>(side)), sub(R(1), weight), weight};
  }
  const R offset = add(static_cast<R>(pixel - reach.first_pixel), R(0.5));
  R position = sub(mul(reach.ratio, offset), R(0.5));
  if (position < 0) position = 0;
  if (rule == PasteRule::quantised) {
    if (position > static_cast<R>(side - 1)) position = static_cast<R>(side - 1);
    const R first = floor(position), weight = sub(position, first);
    return {static_cast<int64_t>(first), sub(R(1), weight), weight};
  }
  R first = floor(position);
  if (first > static_cast<R>(side + 1)) first = static_cast<R>(side + 1);
  const R weight = sub(position, first);
  return {static_cast<int64_t>(first) - 1, sub(R(1), weight), weight};
}

template <class R>
__device__ inline R value_at(const R* mask, int64_t y, int64_t x, int64_t side) {
  return y < 0 || y >= side || x < 0 || x >= side ? R(0) : mask[y * side + x];
}

template <class R>
__device__ R interpolated(const R* mask, const Read<R>& x, const Read<R>& y, int64_t side, bool sampled) {
  const R a = value_at(mask, y.first, x.first, side), b = value_at(mask, y.first, x.first + 1, side);
  const R c = value_at(mask, y.first + 1, x.first, side), d = value_at(mask, y.first + 1, x.first + 1, side);
  if (sampled) {
    const R above = add(mul(a, mul(x.low, y.low)), mul(b, mul(x.high, y.low)));
    return add(add(above, mul(c, mul(x.low, y.high))), mul(d, mul(x.high, y.high)));
  }
  const R above = add(mul(a, x.low), mul(b, x.high)), below = add(mul(c, x.low), mul(d, x.high));
  return add(mul(above, y.low), mul(below, y.high));
}

template <class R>
__global__ void paste_kernel(PasteArguments a) {
  const R threshold = static_cast<R>(a.threshold);
  const bool sampled = a.rule == PasteRule::sampled;
  for (int64_t part = blockIdx.x; part < a.count * kParts; part += gridDim.x) {
    const int64_t i = part / kParts;
    const R* box = static_cast<const R*>(a.boxes) + 4 * i;
    const R* mask = static_cast<const R*>(a.masks) + i * a.side * a.side;
    const Reach<R> across = reach_of(box[0], box[2], a.width, a.side, a.rule);
    const Reach<R> down = reach_of(box[1], box[3], a.height, a.side, a.rule);
    const bool mirrored = a.mirrored != nullptr && a.mirrored[i] != 0;
    for (int64_t row = down.start + part % kParts; row < down.end; row += kParts) {
      const Read<R> y = read_of(down, row, a.side, a.rule);
      uint8_t* line = a.out + (i * a.height + row) * a.width;
      for (int64_t column = across.start + threadIdx.x; column < across.end; column += blockDim.x) {
        const Read<R> x = read_of(across, column, a.side, a.rule);
        const R value = interpolated(mask, x, y, a.side, sampled);
        const bool inside = sampled ? value >= threshold : value > threshold;
        line[mirrored ? a.width - 1 - column : column] = inside ? 1 : 0;
      }
    }
  }
}

}  // namespace

const char* paste_masks(Dtype dtype, const PasteArguments& arguments, void* stream) {
  if (arguments.count == 0) return nullptr;
  return by_real(dtype, [&](auto zero) -> const char* {
    using R = decltype(zero);
    const auto run = paste_kernel<R>;
    DET_LAUNCH(run, blocks_for(arguments.count * kParts, 1), kThreads, 0, stream, arguments);
    return nullptr;
  });
}

}  // namespace det::cuda
