// Deformable and masked convolution, for CPU tensors: blocks of columns that stay in the cache, times the weights by
// torch's own matrix product.
//
// Letters: B images, C input and O output channels, G offset groups, K kernel taps, H W input and h w output size.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "kernels.h"
#include "tensors.h"
#include "transpose.h"

namespace det {
namespace {

void multiply(Tensor& out, const Tensor& a, const Tensor& b) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), a.get(), b.get()));
}
void multiply_add(Tensor& out, const Tensor& a, const Tensor& b) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(out.get(), out.get(), a.get(), b.get(), 1, 1));
}

// A matrix over memory that lives elsewhere.
template <class T>
Tensor matrix(const T* at, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride = 1) {
  const int64_t sizes[] = {rows, columns}, strides[] = {row_stride, column_stride};
  return torch::stable::from_blob(const_cast<T*>(at), {sizes, 2}, {strides, 2},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU), dtype_of<T>);
}

struct Shape {
  int64_t images, channels, height, width, outputs, kernel_h, kernel_w, h, w;
  std::vector<int64_t> stride, padding, dilation;
  int64_t groups, offset_groups;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t pixels() const { return h * w; }
  int64_t per_group() const { return channels / groups; }          // input channels of one group
  int64_t per_offset() const { return channels / offset_groups; }  // channels that share offsets
  int64_t depth() const { return taps() * per_group(); }           // length of a row of columns
};

// The bilinear tap of one output pixel, with what its gradient needs.
template <class T>
struct Place {
  Tap<T> tap;     // weights times mask
  int64_t at[4];  // pixel of each corner, -1 where it is not on the map
  T fy, fx, mask;
  bool inside;
};

// Tap (i, j) of output pixel (p, q); 0 outside the map and on the line one pixel around it.
template <class T>
Place<T> place_tap(const Shape& s, const T* offset, const T* mask, int64_t group, int64_t tap, int64_t pixel) {
  const int64_t p = pixel / s.w, q = pixel % s.w, i = tap / s.kernel_w, j = tap % s.kernel_w;
  const T* o = offset + (group * s.taps() + tap) * 2 * s.pixels() + pixel;
  const T y = static_cast<T>(p * s.stride[0] - s.padding[0] + i * s.dilation[0]) + o[0];
  const T x = static_cast<T>(q * s.stride[1] - s.padding[1] + j * s.dilation[1]) + o[s.pixels()];
  Place<T> place{};
  place.mask = mask == nullptr ? T(1) : mask[(group * s.taps() + tap) * s.pixels() + pixel];
  std::fill_n(place.at, 4, int64_t{-1});
  const T height = static_cast<T>(s.height), width = static_cast<T>(s.width);
  place.inside = y > -1 && y < height && x > -1 && x < width;
  if (!place.inside) return place;
  const T low_y = std::floor(y), low_x = std::floor(x);
  place.fy = y - low_y, place.fx = x - low_x;
  const int64_t row = static_cast<int64_t>(low_y), column = static_cast<int64_t>(low_x);
  const T weights[] = {(1 - place.fy) * (1 - place.fx), (1 - place.fy) * place.fx, place.fy * (1 - place.fx),
                       place.fy * place.fx};
  for (int k = 0; k < 4; ++k) {
    const int64_t at_y = row + k / 2, at_x = column + k % 2;
    if (at_y < 0 || at_y >= s.height || at_x < 0 || at_x >= s.width) continue;
    place.at[k] = place.tap.at[k] = at_y * s.width + at_x;
    place.tap.weight[k] = weights[k] * place.mask;
  }
  return place;
}

// Runs body(group, channel, count, column) over the channels of an offset group, cut at the borders of weight groups;
// `column` is where they start in a block laid out [group][pixel][tap][channel of the group].
template <class F>
void each_run(const Shape& s, int64_t offset_group, int64_t rows, int64_t row, int64_t tap, const F& body) {
  const int64_t end = (offset_group + 1) * s.per_offset();
  for (int64_t c = offset_group * s.per_offset(); c < end;) {
    const int64_t group = c / s.per_group(), stop = std::min(end, (group + 1) * s.per_group());
    const int64_t column = (group * rows + row) * s.depth() + tap * s.per_group() + c % s.per_group();
    body(c, stop - c, column);
    c = stop;
  }
}

// Columns of output pixels [first, first + rows) of one image.
template <class T>
void fill_columns(const Shape& s, const T* x, const T* offset, const T* mask, int64_t first, int64_t rows, T* columns) {
  const auto& table = kernels<T>();
  const double work = static_cast<double>(s.taps() * (s.channels + 40 * s.offset_groups)) * 0.15;
  parallel(rows, work, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < s.offset_groups; ++g) {
        for (int64_t tap = 0; tap < s.taps(); ++tap) {
          const Place<T> place = place_tap(s, offset, mask, g, tap, first + row);
          each_run(s, g, rows, row, tap, [&](int64_t c, int64_t count, int64_t column) {
            if (place.inside) {
              table.sample(x + c, s.channels, place.tap, count, columns + column);
            } else {
              std::fill_n(columns + column, count, T(0));
            }
          });
        }
      }
    }
  });
}

// Pixels per block: the columns of one thread fill about half of its second cache.
template <class T>
int64_t block_rows(const Shape& s) {
  const int64_t row = static_cast<int64_t>(sizeof(T)) * s.taps() * std::max<int64_t>(1, s.channels);
  const int64_t rows = std::clamp<int64_t>((int64_t{5} << 19) / std::max<int64_t>(1, row), 64, 4096);
  return std::min(rows * static_cast<int64_t>(torch::stable::get_num_threads()), std::max<int64_t>(1, s.pixels()));
}

// Weights (O, C / groups, kh, kw) as (O, K, C / groups): the order of a row of columns.
Tensor reordered(const Tensor& weight, const Shape& s, ScalarType real) {
  const Tensor w = cast_contiguous(weight, real);
  Tensor out = empty({s.outputs, s.taps() * s.per_group()}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t o = 0; o < s.outputs; ++o) {
      transpose(data<T>(w) + o * s.depth(), s.taps(), mutable_data<T>(out) + o * s.depth(), s.per_group(), s.taps(),
                s.per_group());
    }
  });
  return out;
}

// `places`: (..., h, w) for the output pixels.
Shape shape_of(const Tensor& x, const Tensor& places, const Tensor& weight, const std::vector<int64_t>& stride,
               const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t groups,
               int64_t offset_groups) {
  return {x.size(0),       x.size(1),       x.size(2), x.size(3), weight.size(0), weight.size(2), weight.size(3),
          places.size(-2), places.size(-1), stride,    padding,   dilation,       groups,         offset_groups};
}

template <class T>
void forward(const Shape& s, const T* x, const T* offset, const T* mask, const Tensor& weight, const T* bias, T* out) {
  const int64_t block = block_rows<T>(s), per_output = s.outputs / s.groups;
  Scratch<T> columns(block * s.taps() * s.channels);
  const T* filters = data<T>(weight);
  for (int64_t image = 0; image < s.images; ++image) {
    const T* m = mask == nullptr ? nullptr : mask + image * s.offset_groups * s.taps() * s.pixels();
    const T* o = offset + image * s.offset_groups * s.taps() * 2 * s.pixels();
    for (int64_t first = 0; first < s.pixels(); first += block) {
      const int64_t rows = std::min(block, s.pixels() - first);
      fill_columns(s, x + image * s.channels * s.height * s.width, o, m, first, rows, columns.get());
      for (int64_t g = 0; g < s.groups; ++g) {
        T* to = out + (image * s.outputs + g * per_output) * s.pixels() + first;
        Tensor result = matrix(to, per_output, rows, s.pixels());
        multiply(result, matrix(filters + g * per_output * s.depth(), per_output, s.depth(), s.depth()),
                 matrix(columns.get() + g * rows * s.depth(), s.depth(), rows, 1, s.depth()));
        if (bias == nullptr) continue;
        for (int64_t k = 0; k < per_output; ++k) {
          for (int64_t i = 0; i < rows; ++i) to[k * s.pixels() + i] += bias[g * per_output + k];
        }
      }
    }
  }
}

Tensor deform_conv2d(const Tensor& x, const Tensor& offset, const Tensor& weight, const std::optional<Tensor>& mask,
                     const std::optional<Tensor>& bias, const std::vector<int64_t>& stride,
                     const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t groups,
                     int64_t offset_groups) {
  const ScalarType dtype = x.scalar_type(), real = real_type(dtype);
  const Shape s = shape_of(x, offset, weight, stride, padding, dilation, groups, offset_groups);
  const Tensor maps = channels_last(x, real), o = cast_contiguous(offset, real), w = reordered(weight, s, real);
  const auto m = cast_contiguous(mask, real), b = cast_contiguous(bias, real);
  Tensor out = empty({s.images, s.outputs, s.h, s.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    forward<T>(s, data<T>(maps), data<T>(o), data<T>(m), w, data<T>(b), mutable_data<T>(out));
  });
  return in_layout_of(cast(out, dtype), x);
}

template <class T>
struct Gradients {
  T *x, *offset, *weight, *mask;  // mask may be null; x is channels-last, weight (O, K, C / groups)
};

// Gradients of offset and mask at output pixels [first, first + rows), from those of the columns.
template <class T>
void offset_gradients(const Shape& s, const T* x, const T* offset, const T* mask, int64_t first, int64_t rows,
                      const T* column_grads, T* offset_grad, T* mask_grad) {
  const auto& table = kernels<T>();
  const double work = static_cast<double>(s.taps() * (s.channels + 60 * s.offset_groups)) * 0.25;
  parallel(rows, work, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < s.offset_groups; ++g) {
        for (int64_t tap = 0; tap < s.taps(); ++tap) {
          const Place<T> place = place_tap(s, offset, mask, g, tap, first + row);
          T dots[4] = {};
          if (place.inside) {
            each_run(s, g, rows, row, tap, [&](int64_t c, int64_t count, int64_t column) {
              Tap<T> corners{};
              std::copy_n(place.at, 4, corners.at);
              T part[4];
              table.sample_dots(x + c, s.channels, corners, count, column_grads + column, part);
              for (int k = 0; k < 4; ++k) dots[k] += part[k];
            });
          }
          const int64_t at = (g * s.taps() + tap) * s.pixels() + first + row;
          const T fy = place.fy, fx = place.fx;
          T* o = offset_grad + (g * s.taps() + tap) * 2 * s.pixels() + first + row;
          o[0] = place.mask * ((dots[2] - dots[0]) * (1 - fx) + (dots[3] - dots[1]) * fx);
          o[s.pixels()] = place.mask * ((dots[1] - dots[0]) * (1 - fy) + (dots[3] - dots[2]) * fy);
          if (mask_grad == nullptr) continue;
          mask_grad[at] = (1 - fy) * ((1 - fx) * dots[0] + fx * dots[1]) + fy * ((1 - fx) * dots[2] + fx * dots[3]);
        }
      }
    }
  });
}

// Adds the columns' gradients to the pixels they were read from. Each task owns a range of channels, so no two write to
// one place and sums are in one order.
template <class T>
void spread_columns(const Shape& s, const T* offset, const T* mask, int64_t first, int64_t rows, const T* column_grads,
                    T* x_grad) {
  const auto& table = kernels<T>();
  constexpr int64_t kRun = 64;
  const int64_t runs = (s.per_offset() + kRun - 1) / kRun, tasks = s.offset_groups * runs;
  const double work = static_cast<double>(rows * s.taps()) * (40 + 0.25 * static_cast<double>(s.per_offset() / runs));
  parallel(tasks, work, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t g = task / runs, low = g * s.per_offset() + task % runs * kRun;
      const int64_t high = std::min(low + kRun, (g + 1) * s.per_offset());
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t tap = 0; tap < s.taps(); ++tap) {
          const Place<T> place = place_tap(s, offset, mask, g, tap, first + row);
          if (!place.inside) continue;
          each_run(s, g, rows, row, tap, [&](int64_t c, int64_t count, int64_t column) {
            const int64_t from = std::max(c, low), to = std::min(c + count, high);
            if (from >= to) return;
            table.sample_backward(x_grad + from, s.channels, place.tap, to - from, column_grads + column + (from - c));
          });
        }
      }
    }
  });
}

template <class T>
void backward(const Shape& s, const T* grad, const T* x, const T* offset, const T* mask, const Tensor& weight,
              const Gradients<T>& grads) {
  const int64_t block = block_rows<T>(s), per_output = s.outputs / s.groups;
  Scratch<T> columns(block * s.taps() * s.channels);
  const T* filters = data<T>(weight);
  for (int64_t image = 0; image < s.images; ++image) {
    const int64_t masks = image * s.offset_groups * s.taps() * s.pixels(),
                  maps = image * s.channels * s.height * s.width;
    const T* m = mask == nullptr ? nullptr : mask + masks;
    const T* o = offset + 2 * masks;
    for (int64_t first = 0; first < s.pixels(); first += block) {
      const int64_t rows = std::min(block, s.pixels() - first);
      const auto grad_of = [&](int64_t g) {
        return matrix(grad + (image * s.outputs + g * per_output) * s.pixels() + first, per_output, rows, s.pixels());
      };
      fill_columns(s, x + maps, o, m, first, rows, columns.get());
      for (int64_t g = 0; g < s.groups; ++g) {
        Tensor total = matrix(grads.weight + g * per_output * s.depth(), per_output, s.depth(), s.depth());
        multiply_add(total, grad_of(g), matrix(columns.get() + g * rows * s.depth(), rows, s.depth(), s.depth()));
      }
      for (int64_t g = 0; g < s.groups; ++g) {  // the block now holds the gradients of its columns
        Tensor result = matrix(columns.get() + g * rows * s.depth(), rows, s.depth(), s.depth());
        const T* at = grad + (image * s.outputs + g * per_output) * s.pixels() + first;
        multiply(result, matrix(at, rows, per_output, 1, s.pixels()),
                 matrix(filters + g * per_output * s.depth(), per_output, s.depth(), s.depth()));
      }
      offset_gradients(s, x + maps, o, m, first, rows, columns.get(), grads.offset + 2 * masks,
                       grads.mask == nullptr ? nullptr : grads.mask + masks);
      spread_columns(s, o, m, first, rows, columns.get(), grads.x + maps);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward(
    const Tensor& grad, const Tensor& x, const Tensor& offset, const Tensor& weight, const std::optional<Tensor>& mask,
    const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
    int64_t groups, int64_t offset_groups) {
  const ScalarType real = real_type(x.scalar_type());
  const Shape s = shape_of(x, offset, weight, stride, padding, dilation, groups, offset_groups);
  const Tensor g = cast_contiguous(grad, real), maps = channels_last(x, real), o = cast_contiguous(offset, real);
  const Tensor w = reordered(weight, s, real);
  const auto m = cast_contiguous(mask, real);
  Tensor x_grad = zeros({s.images, s.channels, s.height, s.width}, real, true);
  Tensor offset_grad = empty({s.images, s.offset_groups * s.taps() * 2, s.h, s.w}, real);
  Tensor mask_grad =
      mask.has_value() ? empty({s.images, s.offset_groups * s.taps(), s.h, s.w}, real) : empty({0}, real);
  Tensor ordered = zeros({s.outputs, s.depth()}, real),
         weight_grad = empty({s.outputs, s.per_group(), s.kernel_h, s.kernel_w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    const Gradients<T> grads{mutable_data<T>(x_grad), mutable_data<T>(offset_grad), mutable_data<T>(ordered),
                             mask.has_value() ? mutable_data<T>(mask_grad) : nullptr};
    backward<T>(s, data<T>(g), data<T>(maps), data<T>(o), data<T>(m), w, grads);
    for (int64_t k = 0; k < s.outputs; ++k) {
      transpose(data<T>(ordered) + k * s.depth(), s.per_group(), mutable_data<T>(weight_grad) + k * s.depth(), s.taps(),
                s.per_group(), s.taps());
    }
  });
  return {in_layout_of(cast(x_grad, x.scalar_type()), x), cast(offset_grad, offset.scalar_type()),
          cast(weight_grad, weight.scalar_type()),
          cast(mask_grad, mask.has_value() ? mask->scalar_type() : x.scalar_type())};
}

// Masked convolution
// ---------------------------------------------------------------------------------------------------

template <class T>
void masked(const Shape& s, const T* x, const std::vector<int64_t>& wanted, const Tensor& weight, const T* bias,
            T* out) {
  const int64_t block = block_rows<T>(s), number = static_cast<int64_t>(wanted.size()), depth = s.depth();
  Scratch<T> columns(block * depth), values(block * s.outputs);
  for (int64_t first = 0; first < number; first += block) {
    const int64_t rows = std::min(block, number - first);
    parallel(rows, static_cast<double>(depth) * 0.1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t image = wanted[first + row] / s.pixels(), pixel = wanted[first + row] % s.pixels();
        T* to = columns.get() + row * depth;
        for (int64_t tap = 0; tap < s.taps(); ++tap, to += s.channels) {
          const int64_t y = pixel / s.w - s.padding[0] + tap / s.kernel_w;
          const int64_t q = pixel % s.w - s.padding[1] + tap % s.kernel_w;
          if (y < 0 || y >= s.height || q < 0 || q >= s.width) {
            std::fill_n(to, s.channels, T(0));
          } else {
            std::copy_n(x + ((image * s.height + y) * s.width + q) * s.channels, s.channels, to);
          }
        }
      }
    });
    Tensor result = matrix(values.get(), rows, s.outputs, s.outputs);
    multiply(result, matrix(columns.get(), rows, depth, depth), matrix(data<T>(weight), depth, s.outputs, 1, depth));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t image = wanted[first + row] / s.pixels(), pixel = wanted[first + row] % s.pixels();
      for (int64_t k = 0; k < s.outputs; ++k) {
        out[(image * s.outputs + k) * s.pixels() + pixel] =
            values[row * s.outputs + k] + (bias == nullptr ? T(0) : bias[k]);
      }
    }
  }
}

Tensor masked_conv2d(const Tensor& x, const Tensor& mask, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::vector<int64_t>& padding) {
  const ScalarType dtype = x.scalar_type(), real = real_type(dtype);
  const Shape s = shape_of(x, mask, weight, {1, 1}, padding, {1, 1}, 1, 1);
  const Tensor positive = cast_contiguous(mask, real_type(mask.scalar_type()));
  std::vector<int64_t> wanted;
  with_real(positive.scalar_type(), [&](auto zero) {
    const auto* p = data<decltype(zero)>(positive);
    for (int64_t i = 0; i < positive.numel(); ++i) {
      if (p[i] > 0) wanted.push_back(i);
    }
  });
  const Tensor maps = channels_last(x, real), w = reordered(weight, s, real);
  const auto b = cast_contiguous(bias, real);
  Tensor out = zeros({s.images, s.outputs, s.h, s.w}, real);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    masked<T>(s, data<T>(maps), wanted, w, data<T>(b), mutable_data<T>(out));
  });
  return in_layout_of(cast(out, dtype), x);
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&det::deform_conv2d));
  m.impl("deform_conv2d_backward", TORCH_BOX(&det::deform_conv2d_backward));
  m.impl("masked_conv2d", TORCH_BOX(&det::masked_conv2d));
}
