// What the bindings do with tensors, on torch's stable ABI alone.
#pragma once

#ifndef TORCH_TARGET_VERSION
#define TORCH_TARGET_VERSION 0x020b000000000000  // 2.11
#endif
#ifndef USE_CUDA
#define USE_CUDA  // declares the current CUDA stream
#endif

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "launch.h"

// The operators are defined in Python. Tests register the same functions elsewhere.
#ifndef DET_NAMESPACE
#define DET_NAMESPACE det
#define DET_KEY CUDA
#endif

namespace det::cuda {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;
using Shape = std::vector<int64_t>;

// The device of a tensor, current for as long as this lives, and its current stream.
class __attribute__((visibility("hidden"))) Place {
 public:
  explicit Place(const Tensor& tensor) : device_(tensor.device()), guard_(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream_));
  }
  void* stream() const { return stream_; }
  // Kernels would crash on another device's memory.
  void check(const Tensor& tensor, const char* name) const {
    STD_TORCH_CHECK(tensor.device() == device_, name, " must be on the device of the first tensor");
  }

 private:
  torch::stable::Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

inline void check(const char* error, const char* name) {
  STD_TORCH_CHECK(error == nullptr, "det_ops ", name, ": ", error);
}

inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Double:
      return Dtype::kDouble;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    default:
      STD_TORCH_CHECK(false, "expected float32, float64, float16 or bfloat16, found ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

// What a dtype is computed in.
inline ScalarType real(ScalarType dtype) { return dtype == ScalarType::Double ? dtype : ScalarType::Float; }
inline ScalarType real(const Tensor& tensor) { return real(tensor.scalar_type()); }

inline Tensor to(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

inline Tensor plain(const Tensor& tensor) { return torch::stable::contiguous(tensor); }
inline Tensor plain(const Tensor& tensor, ScalarType dtype) { return plain(to(tensor, dtype)); }
// An argument that may be missing, on the device of the first tensor.
inline Optional plain(const Place& place, const Optional& tensor, const char* name, ScalarType dtype) {
  if (!tensor) return std::nullopt;
  place.check(*tensor, name);
  return plain(*tensor, dtype);
}
inline Tensor channels_last(const Tensor& maps) { return torch::stable::contiguous(maps, MemoryFormat::ChannelsLast); }

inline Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}
inline Tensor empty(const Shape& shape, ScalarType dtype, const Tensor& like) {
  return torch::stable::empty(shape, dtype, std::nullopt, like.device());
}
inline Tensor zeros(const Shape& shape, ScalarType dtype, const Tensor& like) {
  Tensor result = empty(shape, dtype, like);
  return torch::stable::zero_(result);
}
// (B, C, H, W), stored channels last.
inline Tensor empty_maps(const Shape& shape, ScalarType dtype, const Tensor& like) {
  return torch::stable::empty(shape, dtype, std::nullopt, like.device(), std::nullopt, MemoryFormat::ChannelsLast);
}
inline Tensor zero_maps(const Shape& shape, ScalarType dtype, const Tensor& like) {
  Tensor result = empty_maps(shape, dtype, like);
  return torch::stable::zero_(result);
}

// Whether maps (B, C, H, W) are stored channels last and not otherwise too.
inline bool is_channels_last(const Tensor& maps) {
  if (maps.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int64_t axis : {1, 3, 2, 0}) {
    if (maps.size(axis) == 1) continue;
    if (maps.stride(axis) != expected) return false;
    expected *= maps.size(axis);
  }
  return true;
}
// A result that is stored channels last, in the format wanted.
inline Tensor formatted(const Tensor& maps, bool last) {
  if (last) return maps;
  if (maps.numel() > 0) return plain(maps);
  // Without numbers any strides count as contiguous, so these would stay as they are.
  return empty(shape_of(maps), maps.scalar_type(), maps);
}

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}
inline void* data(const Tensor& tensor) { return tensor.data_ptr(); }
inline void* data(const Optional& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

template <size_t N>
Tensor call(const char* name, const char* overload, std::array<StableIValue, N> stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace det::cuda
