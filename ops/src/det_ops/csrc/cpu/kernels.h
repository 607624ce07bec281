// The kernels that are compiled once per instruction set, as a table of functions: plain pointers and sizes, no torch.
//
// Letters: N boxes, M objects, C channels, W map width. Maps are channels-last; coordinates are those of the caller,
// who computed them once for all instruction sets, so that these agree on every decision.
#pragma once

#include <cstdint>

namespace det {

// Boxes as one array per coordinate. A pointer each to the first of N values.
template <class T>
struct Boxes {
  const T *x1, *y1, *x2, *y2, *area;
};

// The pixels that a bin reads along one axis: `count` from `first`, with weights from `weights` on (of RoiPlan).
struct Bin {
  int32_t first, count;
  int64_t weights;
};

// One sample of a bin along one axis.
template <class T>
struct Sample {
  int32_t low, high;
  T fraction;  // weight of high
};

// What bilinear sampling reads for one tap of a deformable convolution: four pixels with their weights.
template <class T>
struct Tap {
  int64_t at[4];  // pixel index y * W + x of each corner; 0 where its weight is 0
  T weight[4];    // bilinear weight times mask
};

// What the pixels of a line, a row or column of the image, read of a mask that is pasted: each two values along the
// line, at two places across it. values[0] are low and low, [1] high along the line, [2] high across it, [3] both.
template <class T>
struct PasteLine {
  const T* values[4];
  const T *low, *high;  // weights along the line
  T across_low, across_high;
};

// One change of the colours of all pixels. Numbers of kinds are those of the operator `adjust_colors`.
enum ColorKind : int32_t { kBrightness = 0, kContrast = 1, kSaturation = 2, kHue = 3 };
struct ColorStep {
  ColorKind kind;
  float factor;  // of the pixel; of hue, the shift
  float rest;    // 1 - factor, of the grey value: that of the pixel, or for contrast the mean of the image
  float mean;
};

template <class T>
struct Kernels {
  // Greedy suppression of N boxes in their order: keep[i] is set to 1 or 0. `kept` is scratch of 5 * (N + 64) values.
  void (*suppress)(Boxes<T> boxes, int64_t n, T threshold, T offset, uint8_t* keep, T* kept);

  // scores[i] *= decay for i in [0, n) by the overlap with box `best`; method 0 linear, 1 gaussian, 2 naive.
  void (*decay)(Boxes<T> boxes, int64_t n, int64_t best, T threshold, T sigma, int method, T* scores);

  // overlaps[i * m + j] for rows [begin, end); mode 0 IoU, 1 IoF, 2 GIoU.
  void (*overlaps)(Boxes<T> boxes, Boxes<T> others, int64_t begin, int64_t end, int64_t m, T offset, int mode, T* out);

  // Best overlap and object of boxes [begin, end), and the best overlap of each object among them (best_of[m]).
  // `lane_best` is scratch of m * 64 values.
  void (*assign_best)(Boxes<T> boxes, Boxes<T> objects, int64_t begin, int64_t end, int64_t m, T* best, int64_t* index,
                      T* best_of, T* lane_best);

  // assigned[i] = j + 1 where box i ties the best overlap of object j; with `first` only the lowest such i is noted.
  void (*assign_ties)(Boxes<T> boxes, Boxes<T> objects, int64_t begin, int64_t end, int64_t m, const T* best,
                      const T* best_of, T min_positive, int64_t* assigned, int64_t* first);

  // Average of the pixels of h * w bins, into out[h * w][channels]; channels is a multiple of 16.
  void (*pool_average)(const T* map, int64_t pixel_stride, int64_t width, const Bin* rows, const Bin* columns, int h,
                       int w, const T* weights, T scale, int64_t channels, T* out);
  // Its transpose: adds grad[h * w][channels] to the pixels of the map.
  void (*pool_average_backward)(T* map, int64_t pixel_stride, int64_t width, const Bin* rows, const Bin* columns, int h,
                                int w, const T* weights, T scale, int64_t channels, const T* grad);

  // Maximum of the pixels of a window (the first of equals; NaN wins) and which pixel y * W + x it was, -1 for none.
  void (*pool_maximum)(const T* map, int64_t pixel_stride, int64_t width, int64_t y1, int64_t y2, int64_t x1,
                       int64_t x2, int64_t channels, T* best, T* at);

  // out[c] = sum of four weighted pixels x[at][c], for c in [0, channels).
  void (*sample)(const T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, T* out);
  // x[at][c] += weight * grad[c], the transpose of `sample`.
  void (*sample_backward)(T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, const T* grad);
  // dots[k] = sum over c of x[at_k][c] * grad[c] for the four corners k of the tap; 0 where a corner is absent.
  void (*sample_dots)(const T* x, int64_t pixel_stride, const Tap<T>& tap, int64_t channels, const T* grad, T* dots);

  // Sum over n logits, all negatives, of p^gamma * softplus(x); a few thousand at a time, for the sake of rounding.
  double (*focal_sum)(const T* logits, int64_t n, T gamma);
  void (*focal_loss)(const T* logits, int64_t n, T gamma, T factor, T* loss);
  // grad[i] = factor * d/dx (p^gamma * softplus(x)) of n negatives.
  void (*focal_grad)(const T* logits, int64_t n, T gamma, T factor, T* grad);

  // Bilinear resampling of 8-bit pixels: one old row of `bytes` to w new pixels, and two such rows to a new row of n
  // values. Weights are out of 2048, in `weights` those of the left and, in the upper half, of the right pixel.
  void (*resize_row)(const uint8_t* row, int64_t bytes, const int32_t* at, const int32_t* weights, int64_t w,
                     int64_t channels, int16_t* out);
  void (*resize_rows)(const int16_t* above, const int16_t* below, int32_t upper_weight, int32_t lower_weight, int64_t n,
                      uint8_t* out);
  // The same in floating point, with the weights of the right pixel and of the lower row.
  void (*resize_row_float)(const uint8_t* row, const int32_t* at, const float* weights, int64_t w, int64_t channels,
                           float* out);
  void (*resize_rows_float)(const float* above, const float* below, float lower_weight, int64_t n, float* out);

  // Changes the colours of `pixels` interleaved 8-bit RGB pixels, step by step; channel c of the result is channel
  // order[c]. `out` may be `in`.
  void (*adjust_colors)(const uint8_t* in, int64_t pixels, const ColorStep* steps, int64_t count, const int32_t* order,
                        uint8_t* out);
  // The sum of the whole grey values of at most 2^24 such pixels, which are stored in `gray` unless it is null.
  int64_t (*gray_sum)(const uint8_t* in, int64_t pixels, float* gray);

  // Whether the interpolated values of n pixels are at least the threshold; without `sampled`, above it. A line goes
  // along a row, or `down` a column; the values are the same bit by bit.
  void (*paste_pixels)(const PasteLine<T>& line, bool sampled, bool down, T threshold, int64_t n, uint8_t* out);
};

template <class T>
const Kernels<T>& baseline_kernels();
#if defined(__x86_64__)
template <class T>
const Kernels<T>& avx2_kernels();
template <class T>
const Kernels<T>& avx512_kernels();
#endif

// The table for this machine, or for the instruction set that DET_OPS_ISA names.
template <class T>
const Kernels<T>& kernels();

// "baseline", "avx2" or "avx512".
const char* instruction_set();

}  // namespace det
