// Boxes (n, 4) with longer sides about the same centres, for CPU tensors: a small kernel of a plugin's own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace {

using torch::stable::Tensor;

template <class T>
void enlarge_to(const T* boxes, int64_t count, T factor, T* out) {
  for (int64_t i = 0; i < count; ++i, boxes += 4, out += 4) {
    for (int axis = 0; axis < 2; ++axis) {
      const T centre = (boxes[axis] + boxes[axis + 2]) / 2, half = (boxes[axis + 2] - boxes[axis]) * (factor / 2);
      out[axis] = centre - half;
      out[axis + 2] = centre + half;
    }
  }
}

Tensor enlarge(const Tensor& boxes, double factor) {
  const Tensor in = torch::stable::contiguous(boxes);
  Tensor out = torch::stable::empty_like(in);
  const bool wide = in.scalar_type() == torch::headeronly::ScalarType::Double;
  STD_TORCH_CHECK(wide || in.scalar_type() == torch::headeronly::ScalarType::Float,
                  "expected float32 or float64 boxes");
  if (wide) {
    enlarge_to(static_cast<const double*>(in.const_data_ptr()), in.size(0), factor,
               static_cast<double*>(out.mutable_data_ptr()));
  } else {
    enlarge_to(static_cast<const float*>(in.const_data_ptr()), in.size(0), static_cast<float>(factor),
               static_cast<float*>(out.mutable_data_ptr()));
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(double_head, CPU, m) { m.impl("enlarge", TORCH_BOX(&enlarge)); }
