// Deformable and masked convolution.
#include "tensors.h"

namespace det::cuda {
namespace {

using torch::stable::detail::from;

void set_pair(int (&to)[2], const std::vector<int64_t>& pair) {
  for (int i = 0; i < 2; ++i) to[i] = static_cast<int>(pair[i]);
}

ConvShape conv_shape(const Tensor& x, const Tensor& weight, int64_t height, int64_t width) {
  ConvShape s{};
  s.images = x.size(0);
  s.channels = static_cast<int>(x.size(1));
  s.height = static_cast<int>(x.size(2));
  s.width = static_cast<int>(x.size(3));
  s.out_channels = static_cast<int>(weight.size(0));
  s.out_height = static_cast<int>(height);
  s.out_width = static_cast<int>(width);
  s.kernel_height = static_cast<int>(weight.size(2));
  s.kernel_width = static_cast<int>(weight.size(3));
  for (int i = 0; i < 2; ++i) s.stride[i] = s.dilation[i] = 1;
  s.groups = s.offset_groups = 1;
  return s;
}

// The arguments of a call, and what keeps their memory.
struct DeformConv {
  Tensor x, offset, weight;
  Optional mask, bias;
  DeformConvArguments arguments{};

  DeformConv(const Place& place, const Tensor& x_, const Tensor& offset_, const Tensor& weight_, const Optional& mask_,
             const Optional& bias_, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
             const std::vector<int64_t>& dilation, int64_t groups, int64_t offset_groups)
      : x(channels_last(x_)), offset(plain(offset_, real(x_))), weight(channels_last(to(weight_, x_.scalar_type()))) {
    place.check(offset, "offset");
    place.check(weight, "weight");
    mask = plain(place, mask_, "mask", real(x));
    bias = plain(place, bias_, "bias", real(x));
    arguments.shape = conv_shape(x, weight, offset.size(2), offset.size(3));
    set_pair(arguments.shape.stride, stride);
    set_pair(arguments.shape.padding, padding);
    set_pair(arguments.shape.dilation, dilation);
    arguments.shape.groups = static_cast<int>(groups);
    arguments.shape.offset_groups = static_cast<int>(offset_groups);
    arguments.x = data(x);
    arguments.offset = data(offset);
    arguments.mask = data(mask);
    arguments.weight = data(weight);
    arguments.bias = data(bias);
  }
};

Tensor deform_conv_op(Tensor x, Tensor offset, Tensor weight, Optional mask, Optional bias, std::vector<int64_t> stride,
                      std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                      int64_t offset_groups) {
  const Place place(x);
  DeformConv call(place, x, offset, weight, mask, bias, stride, padding, dilation, groups, offset_groups);
  const ConvShape& s = call.arguments.shape;
  const Tensor out = empty_maps({s.images, s.out_channels, s.out_height, s.out_width}, x.scalar_type(), x);
  call.arguments.out = data(out);
  check(deform_conv(dtype_of(x), call.arguments, place.stream()), "deform_conv2d");
  return formatted(out, is_channels_last(x));
}

// The gradient of the weight (O, C / groups, kh, kw) from its parts, which lie as (part, O, kh, kw, C / groups).
Tensor weight_grad_of(const Tensor& parts, ScalarType dtype) {
  const Tensor sum = torch::stable::sum(parts, Shape{0});
  return plain(call("aten::permute", "", std::array{from(to(sum, dtype)), from(Shape{0, 3, 1, 2})}));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv_backward_op(Tensor grad, Tensor x, Tensor offset, Tensor weight,
                                                                   Optional mask, std::vector<int64_t> stride,
                                                                   std::vector<int64_t> padding,
                                                                   std::vector<int64_t> dilation, int64_t groups,
                                                                   int64_t offset_groups) {
  const Place place(grad);
  place.check(x, "x");
  DeformConv call(place, x, offset, weight, mask, std::nullopt, stride, padding, dilation, groups, offset_groups);
  const ConvShape& s = call.arguments.shape;
  const ScalarType dtype = real(x);
  const Tensor out = channels_last(to(grad, x.scalar_type()));
  const Tensor x_grad = zero_maps(shape_of(x), dtype, x), offset_grad = empty(shape_of(offset), dtype, x);
  const Tensor mask_grad = empty(mask ? shape_of(*mask) : Shape{0}, dtype, x);
  const Tensor parts =
      empty({deform_conv_parts(s), s.out_channels, s.kernel_height, s.kernel_width, weight.size(1)}, dtype, x);
  call.arguments.out = data(out);
  call.arguments.x_grad = data(x_grad);
  call.arguments.offset_grad = data(offset_grad);
  call.arguments.mask_grad = mask ? data(mask_grad) : nullptr;
  call.arguments.weight_grad = data(parts);
  if (out.numel() == 0 || x.numel() == 0) {
    for (Tensor none : {parts, offset_grad, mask_grad}) torch::stable::zero_(none);
  } else {
    check(deform_conv_backward(dtype_of(x), call.arguments, place.stream()), "deform_conv2d_backward");
  }
  return {formatted(to(x_grad, x.scalar_type()), is_channels_last(x)), to(offset_grad, offset.scalar_type()),
          weight_grad_of(parts, weight.scalar_type()), to(mask_grad, mask ? mask->scalar_type() : x.scalar_type())};
}

Tensor masked_conv_op(Tensor x, Tensor mask, Tensor weight, Optional bias, std::vector<int64_t> padding) {
  const Place place(x);
  place.check(mask, "mask");
  place.check(weight, "weight");
  const Tensor maps = channels_last(x), filters = channels_last(to(weight, x.scalar_type()));
  const Tensor wanted = plain(mask, ScalarType::Double);  // holds every other number, and so its sign
  const Optional added = plain(place, bias, "bias", real(x));
  MaskedConvArguments a{};
  a.shape = conv_shape(maps, filters, mask.size(1), mask.size(2));
  set_pair(a.shape.padding, padding);
  const ConvShape& s = a.shape;
  const Tensor places = empty({mask.numel()}, ScalarType::Long, x), number = zeros({1}, ScalarType::Long, x);
  const Tensor out = zero_maps({s.images, s.out_channels, s.out_height, s.out_width}, x.scalar_type(), x);
  a.x = data(maps);
  a.mask = data<double>(wanted);
  a.weight = data(filters);
  a.bias = data(added);
  a.places = data<int64_t>(places);
  a.number = data<int64_t>(number);
  a.out = data(out);
  check(masked_conv(dtype_of(x), a, place.stream()), "masked_conv2d");
  return formatted(out, is_channels_last(x));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) {
  m.impl("deform_conv2d", TORCH_BOX(&deform_conv_op));
  m.impl("deform_conv2d_backward", TORCH_BOX(&deform_conv_backward_op));
  m.impl("masked_conv2d", TORCH_BOX(&masked_conv_op));
}

}  // namespace det::cuda
