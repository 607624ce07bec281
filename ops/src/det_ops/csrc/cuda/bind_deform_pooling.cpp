// The two deformable poolings of regions.
#include "tensors.h"

namespace det::cuda {
namespace {

// The arguments that both have, and what keeps their memory.
struct DeformPooling {
  Tensor maps, regions;
  Optional shifts;
  DeformRoiPoolArguments arguments{};

  DeformPooling(const Place& place, const Tensor& features, const Tensor& rois, const Optional& offset, int64_t height,
                int64_t width, double scale, double gamma)
      : maps(channels_last(features)), regions(plain(rois, real(features))) {
    place.check(regions, "rois");
    shifts = plain(place, offset, "offset", real(features));
    arguments.features = data(maps);
    arguments.rois = data(regions);
    arguments.offset = data(shifts);
    arguments.regions = regions.size(0);
    arguments.images = maps.size(0);
    arguments.channels = maps.size(1);
    arguments.map_height = static_cast<int>(maps.size(2));
    arguments.map_width = static_cast<int>(maps.size(3));
    arguments.height = static_cast<int>(height);
    arguments.width = static_cast<int>(width);
    arguments.scale = scale;
    arguments.gamma = gamma;
  }

  DeformPsroiPoolArguments position_sensitive(int64_t channels, int64_t group, int64_t part, int64_t samples) const {
    DeformPsroiPoolArguments p{};
    p.common = arguments;
    p.common.channels = channels;
    p.map_channels = maps.size(1);
    p.classes = shifts ? static_cast<int>(shifts->size(1) / 2) : 1;
    p.group = static_cast<int>(group);
    p.part = static_cast<int>(part);
    p.samples = static_cast<int>(samples);
    return p;
  }
};

Tensor deform_roi_pool_op(Tensor features, Tensor rois, Optional offset, std::vector<int64_t> size, double scale,
                          int64_t sampling, double gamma) {
  const Place place(features);
  DeformPooling call(place, features, rois, offset, size[0], size[1], scale, gamma);
  DeformRoiPoolArguments& a = call.arguments;
  a.sampling = static_cast<int>(sampling);
  const Tensor pooled = empty_maps({a.regions, a.channels, size[0], size[1]}, features.scalar_type(), features);
  a.pooled = data(pooled);
  check(deform_roi_pool(dtype_of(features), a, place.stream()), "deform_roi_pool");
  return formatted(pooled, is_channels_last(features));
}

// Room for both gradients, zero where the kernels add to it.
struct Gradients {
  Tensor maps, offset;

  Gradients(const DeformPooling& call)
      : maps(zero_maps(shape_of(call.maps), real(call.maps), call.maps)),
        offset(zeros(call.shifts ? shape_of(*call.shifts) : Shape{0}, real(call.maps), call.maps)) {}

  void set(DeformRoiPoolArguments& a, const DeformPooling& call, const Tensor& pooled) const {
    a.pooled = data(pooled);
    a.features_grad = data(maps);
    a.offset_grad = call.shifts ? data(offset) : nullptr;
  }
  std::tuple<Tensor, Tensor> result(const Tensor& features, const Optional& given) const {
    return {formatted(to(maps, features.scalar_type()), is_channels_last(features)),
            to(offset, given ? given->scalar_type() : features.scalar_type())};
  }
};

std::tuple<Tensor, Tensor> deform_roi_pool_backward_op(Tensor grad, Tensor features, Tensor rois, Optional offset,
                                                       double scale, int64_t sampling, double gamma) {
  const Place place(grad);
  place.check(features, "features");
  DeformPooling call(place, features, rois, offset, grad.size(2), grad.size(3), scale, gamma);
  const Gradients gradients(call);
  const Tensor pooled = channels_last(to(grad, features.scalar_type()));
  DeformRoiPoolArguments& a = call.arguments;
  a.sampling = static_cast<int>(sampling);
  gradients.set(a, call, pooled);
  check(deform_roi_pool_backward(dtype_of(features), a, place.stream()), "deform_roi_pool_backward");
  return gradients.result(features, offset);
}

Tensor deform_psroi_pool_op(Tensor features, Tensor rois, Optional offset, std::vector<int64_t> size, double scale,
                            int64_t channels, int64_t group, int64_t part, int64_t samples, double gamma) {
  const Place place(features);
  const DeformPooling call(place, features, rois, offset, size[0], size[1], scale, gamma);
  DeformPsroiPoolArguments p = call.position_sensitive(channels, group, part, samples);
  const Tensor pooled = empty_maps({p.common.regions, channels, size[0], size[1]}, features.scalar_type(), features);
  p.common.pooled = data(pooled);
  check(deform_psroi_pool(dtype_of(features), p, place.stream()), "deform_psroi_pool");
  return formatted(pooled, is_channels_last(features));
}

std::tuple<Tensor, Tensor> deform_psroi_pool_backward_op(Tensor grad, Tensor features, Tensor rois, Optional offset,
                                                         double scale, int64_t group, int64_t part, int64_t samples,
                                                         double gamma) {
  const Place place(grad);
  place.check(features, "features");
  const DeformPooling call(place, features, rois, offset, grad.size(2), grad.size(3), scale, gamma);
  const Gradients gradients(call);
  const Tensor pooled = channels_last(to(grad, features.scalar_type()));
  DeformPsroiPoolArguments p = call.position_sensitive(grad.size(1), group, part, samples);
  gradients.set(p.common, call, pooled);
  check(deform_psroi_pool_backward(dtype_of(features), p, place.stream()), "deform_psroi_pool_backward");
  return gradients.result(features, offset);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&deform_roi_pool_op));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&deform_roi_pool_backward_op));
  m.impl("deform_psroi_pool", TORCH_BOX(&deform_psroi_pool_op));
  m.impl("deform_psroi_pool_backward", TORCH_BOX(&deform_psroi_pool_backward_op));
}

}  // namespace det::cuda
