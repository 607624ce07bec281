// The sigmoid focal loss, for CPU tensors. Letters: N rows, C classes.
//
// Almost every logit is a negative: runs of them go to the vector kernel, positives are done one by one, as negatives
// of the opposite sign. Chunks of rows have a fixed size, so that a sum does not depend on the number of threads.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <numeric>

#include "kernels.h"
#include "tensors.h"

namespace det {
namespace {

constexpr int64_t kChunk = 4096;  // logits: their float copy stays in the first cache

struct Loss {
  int64_t rows, classes;
  const int64_t* target;
  const double* weight;  // of each class, or null
  double gamma, alpha;

  int64_t rows_per_chunk() const { return std::max<int64_t>(1, kChunk / std::max<int64_t>(1, classes)); }
  int64_t chunks() const { return (rows + rows_per_chunk() - 1) / rows_per_chunk(); }
};

// Calls negatives(first, count, factor) and positive(at, factor) so that together they cover the rows [begin, end);
// ignored(first, count) for rows without loss. Positions count from row `begin`.
template <class Negatives, class Positive, class Ignored>
void visit(const Loss& loss, int64_t begin, int64_t end, const Negatives& negatives, const Positive& positive,
           const Ignored& ignored) {
  int64_t start = 0;
  double factor = 1;
  const auto flush = [&](int64_t at) {
    if (at > start) negatives(start, at - start, factor * (1 - loss.alpha));
    start = at;
  };
  for (int64_t row = begin; row < end; ++row) {
    const int64_t t = loss.target[row], at = (row - begin) * loss.classes;
    const double mine = t >= 0 && t < loss.classes && loss.weight != nullptr ? loss.weight[t] : 1;
    if (t < 0 || mine != factor) flush(at);
    factor = mine;
    if (t < 0) {
      ignored(at, loss.classes);
      start = at + loss.classes;
    } else if (t < loss.classes) {
      flush(at + t);
      positive(at + t, mine * loss.alpha);
      start = at + t + 1;
    }
  }
  flush((end - begin) * loss.classes);
}

template <class Source, class T>
const T* widened(const Source* from, int64_t n, T* buffer) {
  if constexpr (std::is_same_v<Source, T>) {
    return from;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<T>(from[i]);
    return buffer;
  }
}

template <class Source, class T>
double sum_of(const Loss& loss, const Source* logits) {
  const auto& table = kernels<T>();
  const T gamma = static_cast<T>(loss.gamma);
  const int64_t step = loss.rows_per_chunk();
  std::vector<double> sums(loss.chunks());
  parallel(loss.chunks(), static_cast<double>(step * loss.classes) * 0.7, [&](int64_t first, int64_t last) {
    Scratch<T> buffer(step * loss.classes);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * step, end = std::min(loss.rows, begin + step);
      const T* x = widened(logits + begin * loss.classes, (end - begin) * loss.classes, buffer.get());
      double sum = 0;
      visit(
          loss, begin, end,
          [&](int64_t at, int64_t n, double factor) { sum += factor * table.focal_sum(x + at, n, gamma); },
          [&](int64_t at, double factor) {
            const T opposite = -x[at];
            sum += factor * table.focal_sum(&opposite, 1, gamma);
          },
          [](int64_t, int64_t) {});
      sums[chunk] = sum;
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// Every element's loss, or with `slope` its derivative times `grad` (one for all, or one each).
template <class Source, class T, class Out>
void each_of(const Loss& loss, const Source* logits, bool slope, const T* grad, bool one_grad, Out* out) {
  const auto& table = kernels<T>();
  const T gamma = static_cast<T>(loss.gamma);
  const int64_t step = loss.rows_per_chunk(), size = step * loss.classes;
  parallel(loss.chunks(), static_cast<double>(size) * 0.9, [&](int64_t first, int64_t last) {
    Scratch<T> buffer(size), result(size);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * step, end = std::min(loss.rows, begin + step);
      const int64_t offset = begin * loss.classes, count = (end - begin) * loss.classes;
      const T* x = widened(logits + offset, count, buffer.get());
      T* y = result.get();
      if constexpr (std::is_same_v<Out, T>) y = out + offset;
      const double scale = slope && one_grad ? static_cast<double>(*grad) : 1;
      visit(
          loss, begin, end,
          [&](int64_t at, int64_t n, double factor) {
            (slope ? table.focal_grad : table.focal_loss)(x + at, n, gamma, static_cast<T>(factor * scale), y + at);
          },
          [&](int64_t at, double factor) {
            const T opposite = -x[at];
            const double sign = slope ? -scale : scale;
            (slope ? table.focal_grad : table.focal_loss)(&opposite, 1, gamma, static_cast<T>(factor * sign), y + at);
          },
          [&](int64_t at, int64_t n) { std::fill_n(y + at, n, T(0)); });
      if (slope && !one_grad) {
        for (int64_t i = 0; i < count; ++i) y[i] *= grad[offset + i];
      }
      if constexpr (!std::is_same_v<Out, T>) {
        for (int64_t i = 0; i < count; ++i) out[offset + i] = static_cast<Out>(y[i]);
      }
    }
  });
}

// Calls body with a null pointer of the logits' own type.
template <class F>
void with_source(ScalarType dtype, const F& body) {
  if (dtype == ScalarType::Half) return body(static_cast<const torch::headeronly::Half*>(nullptr));
  if (dtype == ScalarType::BFloat16) return body(static_cast<const torch::headeronly::BFloat16*>(nullptr));
  with_real(dtype, [&](auto zero) { body(static_cast<const decltype(zero)*>(nullptr)); });
}

template <class Source>
using Real = std::conditional_t<std::is_same_v<Source, double>, double, float>;

struct Inputs {
  Tensor logits, target;
  std::optional<Tensor> weight;
  Loss loss;
};

Inputs prepare(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight, double gamma,
               double alpha) {
  Inputs in{torch::stable::contiguous(logits), cast_contiguous(target, ScalarType::Long), std::nullopt, {}};
  if (weight.has_value() && weight->numel() > 0) in.weight = cast_contiguous(weight, ScalarType::Double);
  in.loss = {logits.size(0), logits.size(1), data<int64_t>(in.target), data<double>(in.weight), gamma, alpha};
  for (int64_t row = 0; row < in.loss.rows; ++row) {
    expect(in.loss.target[row] <= in.loss.classes, "target has ", in.loss.target[row], " in row ", row,
           ", expected at most ", in.loss.classes, " (background), or a negative one to ignore the row");
  }
  return in;
}

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight, double gamma,
                          double alpha, bool summed) {
  const Inputs in = prepare(logits, target, weight, gamma, alpha);
  const ScalarType real = real_type(logits.scalar_type());
  Tensor out = summed ? empty({}, real) : empty({in.loss.rows, in.loss.classes}, real);
  with_source(logits.scalar_type(), [&](auto* null) {
    using Source = std::remove_const_t<std::remove_pointer_t<decltype(null)>>;
    using T = Real<Source>;
    const auto* x = data<Source>(in.logits);
    if (summed) {
      *mutable_data<T>(out) = static_cast<T>(sum_of<Source, T>(in.loss, x));
    } else {
      each_of<Source, T, T>(in.loss, x, false, nullptr, true, mutable_data<T>(out));
    }
  });
  return out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target,
                                   const std::optional<Tensor>& weight, double gamma, double alpha) {
  const Inputs in = prepare(logits, target, weight, gamma, alpha);
  const Tensor g = cast_contiguous(grad, real_type(logits.scalar_type()));
  Tensor out = empty({in.loss.rows, in.loss.classes}, logits.scalar_type());
  with_source(logits.scalar_type(), [&](auto* null) {
    using Source = std::remove_const_t<std::remove_pointer_t<decltype(null)>>;
    using T = Real<Source>;
    each_of<Source, T, Source>(in.loss, data<Source>(in.logits), true, data<T>(g), grad.dim() == 0,
                               mutable_data<Source>(out));
  });
  return out;
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&det::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&det::sigmoid_focal_loss_backward));
}
