// Small helpers over torch's stable tensor.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace det {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Raises an error of these words (a RuntimeError in Python) where the condition fails, without the place in the source
// that torch's own macro would put before them. Never inside `parallel`: older torch loses the message there.
template <class... Words>
void expect(bool condition, const Words&... words) {
  if (condition) return;
  std::ostringstream text;
  (text << ... << words);
  throw std::runtime_error(text.str());
}

// Half precisions are computed in float.
inline ScalarType real_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor cast(const Tensor& x, ScalarType dtype) {
  return x.scalar_type() == dtype ? x : torch::stable::to(x, dtype);
}

inline Tensor cast_contiguous(const Tensor& x, ScalarType dtype) { return torch::stable::contiguous(cast(x, dtype)); }

inline std::optional<Tensor> cast_contiguous(const std::optional<Tensor>& x, ScalarType dtype) {
  return x.has_value() ? std::optional(cast_contiguous(*x, dtype)) : std::nullopt;
}

inline Tensor channels_last(const Tensor& x, ScalarType dtype) {
  return torch::stable::contiguous(cast(x, dtype), MemoryFormat::ChannelsLast);
}

// Whether a map (B, C, H, W) is stored pixel by pixel, and not plane by plane too.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4 || x.is_contiguous()) return false;
  const int64_t order[] = {1, 3, 2, 0};
  int64_t expected = 1;
  for (const int64_t dim : order) {
    if (x.size(dim) != 1 && x.stride(dim) != expected) return false;
    expected *= x.size(dim);
  }
  return true;
}

inline Tensor empty(const std::vector<int64_t>& shape, ScalarType dtype, bool last = false) {
  return torch::stable::empty(shape, dtype, std::nullopt, std::nullopt, std::nullopt,
                              last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline Tensor zeros(const std::vector<int64_t>& shape, ScalarType dtype, bool last = false) {
  Tensor x = empty(shape, dtype, last);
  return torch::stable::zero_(x);
}

template <class T>
constexpr ScalarType dtype_of = std::is_same_v<T, double>    ? ScalarType::Double
                                : std::is_same_v<T, float>   ? ScalarType::Float
                                : std::is_same_v<T, int64_t> ? ScalarType::Long
                                                             : ScalarType::Bool;

template <class T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
const T* data(const std::optional<Tensor>& x) {
  return x.has_value() ? data<T>(*x) : nullptr;
}
template <class T>
T* mutable_data(Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Calls body(T{}) with T = float or double, in which a tensor of this type is computed.
template <class F>
auto with_real(ScalarType dtype, const F& body) {
  expect(dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::Half ||
             dtype == ScalarType::BFloat16,
         "dtype ", torch::headeronly::toString(dtype),
         " is not supported: expected float32, float64, float16 or bfloat16");
  return dtype == ScalarType::Double ? body(double{}) : body(float{});
}

// Every region (image, x1, y1, x2, y2) must name an image that is there.
template <class T>
void check_images(const Tensor& rois, int64_t images) {
  const T* image = data<T>(rois);
  for (int64_t k = 0; k < rois.size(0); ++k, image += 5) {
    expect(*image >= 0 && *image < static_cast<T>(images), "rois name an image outside 0..", images - 1, ": row ", k,
           " has ", *image);
  }
}

// Maps with a number of channels that the kernels take: a multiple of 16.
inline Tensor padded(const Tensor& x, ScalarType real) {
  const int64_t extra = (16 - x.size(1) % 16) % 16;
  const Tensor y = cast(x, real);
  return channels_last(extra == 0 ? y : torch::stable::pad(y, {0, 0, 0, 0, 0, extra}), real);
}

// A result in the memory format of the maps it was made from.
inline Tensor in_layout_of(const Tensor& out, const Tensor& like) {
  return is_channels_last(like) ? torch::stable::contiguous(out, MemoryFormat::ChannelsLast)
                                : torch::stable::contiguous(out);
}

// Scratch memory, uninitialised, aligned to a cache line.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : raw_(new char[sizeof(T) * (count > 0 ? count : 1) + 64]) {
    const auto at = reinterpret_cast<uintptr_t>(raw_.get());
    data_ = reinterpret_cast<T*>((at + 63) / 64 * 64);
  }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  std::unique_ptr<char[]> raw_;
  T* data_;
};

// Runs body(begin, end) over [0, count), on several threads only if each then has enough work;
// `work` is what one index costs, in units of about a nanosecond.
template <class F>
void parallel(int64_t count, double work, const F& body) {
  constexpr double kLeast = 50e3;  // a parallel region costs a scheduler slice on a busy machine: 50 us pay for it
  if (count <= 0) return;
  const double total = work * static_cast<double>(count);
  if (total < 2 * kLeast || count == 1) {
    body(int64_t{0}, count);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kLeast / std::max(work, 1e-3)));
  torch::stable::parallel_for(0, count, grain, body);
}

}  // namespace det
