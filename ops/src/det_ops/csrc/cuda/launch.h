// The kernels' launchers: plain pointers and sizes, so that neither side needs the other's headers.
//
// All of them return a text that says what is wrong, or nullptr; start work on the given stream and wait for nothing.
// Maps are stored channels last: (B, H, W, C), and pooled regions (K, h, w, C). Letters: N boxes, M objects, K
// regions, B images, C channels, H W feature size, h w output size, O output channels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace det::cuda {

enum class Dtype { kFloat, kDouble, kHalf, kBFloat16 };
enum class Overlap { kIou, kIof, kGiou };
enum class SoftMethod { kLinear, kGaussian, kNaive };
enum class Alignment { kAligned, kUnaligned, kV1 };

// Boxes -----------------------------------------------------------------------------------------------------------

struct NmsArguments {
  const void* boxes;      // (N, 4) float or double, as given
  const int64_t* order;   // (N,) which box is walked at each place: by group, then by score
  const int64_t* groups;  // (N,) ascending, in the order of the walk; nullptr where all are one
  const int64_t* rank;    // (N,) the place of each in the order of scores; nullptr where it is the same
  int64_t count;          // N
  double threshold;
  int64_t offset;
  int64_t panel_rows;    // how many rows of bits there is memory for, a multiple of 64
  void* sorted;          // workspace (N, 4) of the boxes' type
  int64_t* bits;         // workspace (panel_rows, nms_words(N))
  int64_t* starts;       // workspace (N,), unless groups is nullptr
  int64_t* group_count;  // workspace (1,)
  uint8_t* alive;        // workspace (N,)
  uint8_t* keep;         // result (N,) in the order of scores
};

int64_t nms_words(int64_t count);
int64_t nms_panel_rows(int64_t count);  // a choice that bounds the memory
const char* nms(Dtype dtype, const NmsArguments& arguments, void* stream);
// The first max_out of `order` (N,) whose keep is set, filled up with -1, and how many there are.
const char* nms_compact_kept(const int64_t* order, const uint8_t* keep, int64_t count, int64_t max_out, int64_t* result,
                             int64_t* kept, void* stream);

struct SoftNmsArguments {
  const void* boxes;  // (N, 4)
  void* left;         // (N,) scores, which decay in place; of their own type
  int64_t count;
  double threshold, sigma, min_score;
  SoftMethod method;
  int64_t* picked;  // (N,) indices in the order picked
  void* scores;     // (N,) their scores
  int64_t* number;  // (1,) how many
};

const char* soft_nms(Dtype box_dtype, Dtype score_dtype, const SoftNmsArguments& arguments, void* stream);

// (N, M), or (N,) where aligned.
const char* box_overlaps(Dtype dtype, const void* boxes, const void* others, int64_t count, int64_t other_count,
                         Overlap mode, bool aligned, int64_t offset, void* result, void* stream);

struct AssignArguments {
  const void* boxes;    // (N, 4)
  const void* objects;  // (M, 4)
  int64_t count, object_count;
  double positive, negative, min_positive;
  bool low_quality, all_ties;
  void* best_of_object;  // workspace (M,) of the boxes' type
  int64_t* first_box;    // workspace (M,)
  int64_t* assigned;     // result (N,)
  void* best;            // result (N,)
};

const char* max_iou_assign(Dtype dtype, const AssignArguments& arguments, void* stream);

// Loss ------------------------------------------------------------------------------------------------------------

struct FocalArguments {
  const void* logits;     // (N, C)
  const int64_t* target;  // (N,)
  const void* weight;     // (C,) in the type of the computation, or nullptr
  int64_t rows, classes;
  double gamma, alpha;
};

constexpr int64_t kFocalPartials = 1024;
// (N, C) losses; or, with a workspace partials (kFocalPartials,), one sum. Both in the type of the computation.
const char* focal(Dtype dtype, const FocalArguments& arguments, void* partials, void* loss, void* stream);
// grad: one number, or (N, C) where elementwise, in the type of the computation; result (N, C) in that of the logits.
const char* focal_backward(Dtype dtype, const FocalArguments& arguments, const void* grad, bool elementwise,
                           void* result, void* stream);

// Pooling ---------------------------------------------------------------------------------------------------------

constexpr int kMaxLevels = 8;

// Maps of one call, passed to kernels by value.
struct Levels {
  void* maps[kMaxLevels];
  int height[kMaxLevels], width[kMaxLevels];
  double scale[kMaxLevels];
  int count;
};

struct RoiAlignArguments {
  Levels levels;            // their maps (B, H, W, C): read forward, written backward
  Levels features;          // backward of the maximum only: the maps that were pooled
  const void* rois;         // (K, 5) in the type of the computation
  const int64_t* level_of;  // (K,)
  int64_t regions, images, channels;
  int height, width;  // h, w
  int sampling;
  Alignment alignment;
  bool maximum;
  void* pooled;  // (K, h, w, C): written forward, backward the gradient
  void* peaks;   // backward of the maximum only: workspace (K, h, w, C, 2) in the type of the computation
};

const char* roi_align(Dtype dtype, const RoiAlignArguments& arguments, void* stream);
const char* roi_align_backward(Dtype dtype, const RoiAlignArguments& arguments, void* stream);

struct RoiPoolArguments {
  const void* features;  // (B, H, W, C)
  const void* rois;      // (K, 5)
  int64_t regions, images, channels;
  int map_height, map_width, height, width;
  double scale;
  void* pooled;        // (K, h, w, C)
  int64_t* positions;  // (K, h, w, C)
};

const char* roi_pool(Dtype dtype, const RoiPoolArguments& arguments, void* stream);
// grad and positions (K, h, w, C); result (B, H * W, C) in the type of the computation, zeros before.
const char* roi_pool_backward(Dtype dtype, const void* grad, const int64_t* positions, const void* rois,
                              int64_t regions, int64_t bins, int64_t images, int64_t pixels, int64_t channels,
                              void* result, void* stream);

struct DeformRoiPoolArguments {
  const void* features;  // (B, H, W, C)
  const void* rois;      // (K, 5) in the type of the computation, as the offsets
  const void* offset;    // (K, 2, h, w) as (x, y), or nullptr
  int64_t regions, images, channels;
  int map_height, map_width, height, width;
  double scale, gamma;
  int sampling;
  void* pooled;         // (K, h, w, C): written forward, backward the gradient
  void* features_grad;  // backward: (B, H, W, C) in the type of the computation, zeros before
  void* offset_grad;    // backward: as offset, or nullptr
};

const char* deform_roi_pool(Dtype dtype, const DeformRoiPoolArguments& arguments, void* stream);
const char* deform_roi_pool_backward(Dtype dtype, const DeformRoiPoolArguments& arguments, void* stream);

struct DeformPsroiPoolArguments {
  DeformRoiPoolArguments common;  // offset (K, 2 * classes, part, part); channels are those of the result
  int64_t map_channels;
  int classes, group, part, samples;
};

const char* deform_psroi_pool(Dtype dtype, const DeformPsroiPoolArguments& arguments, void* stream);
const char* deform_psroi_pool_backward(Dtype dtype, const DeformPsroiPoolArguments& arguments, void* stream);

// Convolution -----------------------------------------------------------------------------------------------------

struct ConvShape {
  int64_t images;
  int channels, height, width;  // of x
  int out_channels, out_height, out_width;
  int kernel_height, kernel_width;
  int stride[2], padding[2], dilation[2];  // (y, x)
  int groups, offset_groups;
};

struct DeformConvArguments {
  ConvShape shape;
  const void* x;       // (B, H, W, C)
  const void* offset;  // (B, G * kh * kw * 2, h, w) in the type of the computation
  const void* mask;    // (B, G * kh * kw, h, w) likewise, or nullptr
  const void* weight;  // (O, kh, kw, C / groups)
  const void* bias;    // (O,) in the type of the computation, or nullptr
  void* out;           // (B, h, w, O): written forward, backward the gradient
  void* x_grad;        // backward, all in the type of the computation: (B, H, W, C), zeros before
  void* offset_grad;   // as offset
  void* mask_grad;     // as mask, or nullptr
  void* weight_grad;   // (deform_conv_parts, O, kh, kw, C / groups), parts to be added up
};

const char* deform_conv(Dtype dtype, const DeformConvArguments& arguments, void* stream);
int64_t deform_conv_parts(const ConvShape& shape);
const char* deform_conv_backward(Dtype dtype, const DeformConvArguments& arguments, void* stream);

struct MaskedConvArguments {
  ConvShape shape;
  const void* x;       // (B, H, W, C)
  const double* mask;  // (B, h, w)
  const void* weight;  // (O, kh, kw, C)
  const void* bias;    // (O,) in the type of the computation, or nullptr
  int64_t* places;     // workspace (B * h * w,)
  int64_t* number;     // workspace (1,), zero before
  void* out;           // (B, h, w, O), zeros before
};

const char* masked_conv(Dtype dtype, const MaskedConvArguments& arguments, void* stream);

// Masks -----------------------------------------------------------------------------------------------------------

enum class PasteRule { sampled, resized, quantised };

struct PasteArguments {
  const void* masks;        // (N, side, side) float or double
  const void* boxes;        // (N, 4) of the same type
  const uint8_t* mirrored;  // (N,) or nullptr
  int64_t count, side, height, width;
  double threshold;
  PasteRule rule;
  uint8_t* out;  // (N, height, width), zeros before
};

const char* paste_masks(Dtype dtype, const PasteArguments& arguments, void* stream);

}  // namespace det::cuda
