// The loss.
#include "tensors.h"

namespace det::cuda {
namespace {

// The arguments of a call, and what keeps their memory.
struct Focal {
  Tensor logits, target;
  Optional weight;
  FocalArguments arguments{};

  Focal(const Place& place, const Tensor& given, const Tensor& classes, const Optional& factors, double gamma,
        double alpha)
      : logits(plain(given)), target(plain(classes, ScalarType::Long)) {
    place.check(target, "target");
    if (factors && factors->numel() > 0) weight = plain(place, factors, "weight", real(logits));
    arguments.logits = data(logits);
    arguments.target = data<int64_t>(target);
    arguments.weight = data(weight);
    arguments.rows = logits.size(0);
    arguments.classes = logits.size(1);
    arguments.gamma = gamma;
    arguments.alpha = alpha;
  }
};

Tensor focal_op(Tensor logits, Tensor target, Optional weight, double gamma, double alpha, bool summed) {
  const Place place(logits);
  const Focal call(place, logits, target, weight, gamma, alpha);
  const ScalarType dtype = real(logits);
  const Shape shape{call.arguments.rows, call.arguments.classes};
  const Tensor loss = empty(summed ? Shape{} : shape, dtype, logits);
  const Optional partials = summed ? Optional(empty({kFocalPartials}, dtype, logits)) : std::nullopt;
  check(focal(dtype_of(logits), call.arguments, data(partials), data(loss), place.stream()), "sigmoid_focal_loss");
  return loss;
}

Tensor focal_backward_op(Tensor grad, Tensor logits, Tensor target, Optional weight, double gamma, double alpha) {
  const Place place(logits);
  place.check(grad, "grad");
  const Focal call(place, logits, target, weight, gamma, alpha);
  const Tensor scale = plain(grad, real(logits));
  const Tensor result = empty({call.arguments.rows, call.arguments.classes}, logits.scalar_type(), logits);
  check(focal_backward(dtype_of(logits), call.arguments, data(scale), grad.dim() != 0, data(result), place.stream()),
        "sigmoid_focal_loss_backward");
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DET_NAMESPACE, DET_KEY, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&focal_op));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_backward_op));
}

}  // namespace det::cuda
