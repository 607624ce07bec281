// RoIAlign and RoIPool.
#include "tensors.h"

namespace det::cuda {
namespace {

Alignment alignment_of(const std::string& name) {
  if (name == "aligned") return Alignment::kAligned;
  if (name == "unaligned") return Alignment::kUnaligned;
  STD_TORCH_CHECK(name == "v1", "alignment is ", name, ", expected aligned, unaligned or v1");
  return Alignment::kV1;
}

bool is_maximum(const std::string& mode) {
  STD_TORCH_CHECK(mode == "avg" || mode == "max", "mode is ", mode, ", expected avg or max");
  return mode == "max";
}

void set_level(Levels& levels, const Tensor& maps, double scale) {
  STD_TORCH_CHECK(levels.count < kMaxLevels, "found more than ", kMaxLevels, " levels, the most that are supported");
  levels.maps[levels.count] = data(maps);
  levels.height[levels.count] = static_cast<int>(maps.size(2));
  levels.width[levels.count] = static_cast<int>(maps.size(3));
  levels.scale[levels.count++] = scale;
}

// Maps of one call, channels last.
std::vector<Tensor> stored_channels_last(const Place& place, const std::vector<Tensor>& features) {
  std::vector<Tensor> maps;
  for (const Tensor& level : features) {
    place.check(level, "features");
    STD_TORCH_CHECK(level.scalar_type() == features[0].scalar_type(), "features must all have one dtype");
    maps.push_back(channels_last(level));
  }
  return maps;
}

RoiAlignArguments arguments_of(const Tensor& rois, const Tensor& level_of, int64_t height, int64_t width,
                               int64_t sampling, const std::string& alignment, const std::string& mode) {
  RoiAlignArguments a{};
  a.rois = data(rois);
  a.level_of = data<int64_t>(level_of);
  a.regions = rois.size(0);
  a.height = static_cast<int>(height);
  a.width = static_cast<int>(width);
  a.sampling = static_cast<int>(sampling);
  a.alignment = alignment_of(alignment);
  a.maximum = is_maximum(mode);
  return a;
}

Tensor roi_align_op(std::vector<Tensor> features, Tensor rois, Tensor levels, std::vector<int64_t> size,
                    std::vector<double> scales, int64_t sampling, std::string alignment, std::string mode) {
  const Place place(features[0]);
  place.check(rois, "rois");
  place.check(levels, "levels");
  const std::vector<Tensor> maps = stored_channels_last(place, features);
  const Tensor regions = plain(rois, real(maps[0])), level_of = plain(levels, ScalarType::Long);
  RoiAlignArguments a = arguments_of(regions, level_of, size[0], size[1], sampling, alignment, mode);
  for (size_t i = 0; i < maps.size(); ++i) set_level(a.levels, maps[i], scales[i]);
  a.images = maps[0].size(0);
  a.channels = maps[0].size(1);
  const Tensor pooled = empty_maps({a.regions, a.channels, size[0], size[1]}, maps[0].scalar_type(), maps[0]);
  a.pooled = data(pooled);
  check(roi_align(dtype_of(maps[0]), a, place.stream()), "roi_align");
  return formatted(pooled, is_channels_last(features[0]));
}

std::vector<Tensor> roi_align_backward_op(Tensor grad, std::vector<Tensor> features, Tensor rois, Tensor levels,
                                          std::vector<int64_t> shapes, std::vector<double> scales, int64_t sampling,
                                          std::string alignment, std::string mode, bool last) {
  const Place place(grad);
  place.check(rois, "rois");
  place.check(levels, "levels");
  const Tensor pooled = channels_last(grad);
  const Tensor regions = plain(rois, real(grad)), level_of = plain(levels, ScalarType::Long);
  RoiAlignArguments a = arguments_of(regions, level_of, grad.size(2), grad.size(3), sampling, alignment, mode);
  std::vector<Tensor> results;
  for (size_t i = 0; i < scales.size(); ++i) {
    const Shape shape(shapes.begin() + 4 * i, shapes.begin() + 4 * i + 4);
    results.push_back(empty_maps(shape, grad.scalar_type(), grad));
    set_level(a.levels, results.back(), scales[i]);
  }
  a.images = shapes[0];
  a.channels = shapes[1];
  a.pooled = data(pooled);
  std::vector<Tensor> maps;
  Optional peaks;
  if (a.maximum) {
    STD_TORCH_CHECK(features.size() == scales.size(), "the gradient of a maximum needs the features");
    maps = stored_channels_last(place, features);
    for (Tensor& level : maps) level = to(level, grad.scalar_type());
    for (size_t i = 0; i < maps.size(); ++i) set_level(a.features, maps[i], scales[i]);
    peaks = empty({a.regions, a.height, a.width, a.channels, 2}, real(grad), grad);
    a.peaks = data(peaks);
  }
  check(roi_align_backward(dtype_of(grad), a, place.stream()), "roi_align_backward");
  for (Tensor& result : results) result = formatted(result, last);
  return results;
}

std::tuple<Tensor, Tensor> roi_pool_op(Tensor features, Tensor rois, std::vector<int64_t> size, double scale) {
  const Place place(features);
  place.check(rois, "rois");
  const Tensor maps = channels_last(features), regions = plain(rois, real(features));
  RoiPoolArguments a{};
  a.features = data(maps);
  a.rois = data(regions);
  a.regions = regions.size(0);
  a.images = maps.size(0);
  a.channels = maps.size(1);
  a.map_height = static_cast<int>(maps.size(2));
  a.map_width = static_cast<int>(maps.size(3));
  a.height = static_cast<int>(size[0]);
  a.width = static_cast<int>(size[1]);
  a.scale = scale;
  const Shape shape{a.regions, a.channels, size[0], size[1]};
  const Tensor pooled = empty_maps(shape, maps.scalar_type(), maps);
  const Tensor positions = empty_maps(shape, ScalarType::Long, maps);
  a.pooled = data(pooled);
  a.positions = data<int64_t>(positions);
  check(roi_pool(dtype_of(maps), a, place.stream()), "roi_pool");
  const bool last = is_channels_last(features);
  return {formatted(pooled, last), formatted(positions, last)};
}

Tensor roi_pool_backward_op(Tensor grad, Tensor positions, Tensor rois, std::vector<int64_t> shape, bool last) {
  const Place place(grad);
  place.check(positions, "positions");
  place.check(rois, "rois");
  const Tensor pooled = channels_last(grad), at = channels_last(to(positions, ScalarType::Long));
  const Tensor regions = plain(rois, real(grad));
  const Tensor sum = zero_maps(shape, real(grad), grad);
  check(roi_pool_backward(dtype_of(grad), data(pooled), data<int64_t>(at), data(regions), regions.size(0),
                          grad.size(2) * grad.size(3), shape[0], shape[2] * shape[3], shape[1], data(sum),
                          place.stream()),
        "roi_pool_backward");
  return formatted(to(sum, grad.scalar_type()), last);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_op));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_op));
  m.impl("roi_pool", TORCH_BOX(&roi_pool_op));
  m.impl("roi_pool_backward", TORCH_BOX(&roi_pool_backward_op));
}

}  // namespace det::cuda
