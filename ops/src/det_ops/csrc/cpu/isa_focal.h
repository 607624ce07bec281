// The sigmoid focal loss of negatives, p^gamma * softplus(x) with p = sigmoid(x), and its derivative
// p^gamma * (p + gamma * (1 - p) * softplus(x)). A positive is a negative of -x, so this is all there is.
#pragma once

#include <cmath>

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

typedef int32_t IntVec __attribute__((vector_size(kVectorBytes)));
using FloatVec = Vec<float>;

// exp(x) for x in [-87, 0], within 2 ulp, and exp(-87) = 1.6e-38 below: 2^n * e^r with |r| <= ln(2) / 2 and a
// polynomial of degree 6.
DET_INLINE FloatVec exp_negative(FloatVec x) {
  const FloatVec clamped = upper(x, splat(-87.0f));
  const FloatVec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const FloatVec shifted = fma(clamped, splat(1.44269504f), magic);
  const FloatVec n = shifted - magic;
  const FloatVec r = fma(n, splat(-1.42860677e-6f), fma(n, splat(-0.693145752f), clamped));
  FloatVec p = splat(1.38888889e-3f);
  p = fma(p, r, splat(8.33333333e-3f));
  p = fma(p, r, splat(4.16666667e-2f));
  p = fma(p, r, splat(0.166666667f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const IntVec power = ((IntVec)shifted - (IntVec)magic) << 23;
  return (FloatVec)((IntVec)p + power);
}

// log(1 + e) for e in [0, 1], within 3 ulp: e times a polynomial of degree 8, so that it stays accurate for small e.
DET_INLINE FloatVec log1p_unit(FloatVec e) {
  FloatVec p = splat(0.00512610212f);
  p = fma(p, e, splat(-0.0290740646f));
  p = fma(p, e, splat(0.0775160866f));
  p = fma(p, e, splat(-0.136022476f));
  p = fma(p, e, splat(0.190768807f));
  p = fma(p, e, splat(-0.24835399f));
  p = fma(p, e, splat(0.333181217f));
  p = fma(p, e, splat(-0.49999445f));
  p = fma(p, e, splat(0.999999966f));
  return p * e;
}

template <class V>
struct Sigmoid {
  V p, q, softplus, log_p;  // sigmoid(x), 1 - p, -log(1 - p), log(p)
};

DET_INLINE Sigmoid<FloatVec> sigmoid_of(FloatVec x) {
  const FloatVec zero{}, one = splat(1.0f);
  const FloatVec e = exp_negative(lower(x, -x));
  const FloatVec log_part = log1p_unit(e), large = one / (one + e), small = e * large;
  Sigmoid<FloatVec> s;
  s.p = x >= zero ? large : small;
  s.q = x >= zero ? small : large;
  s.softplus = upper(zero, x) + log_part;  // in this order a NaN goes through
  s.log_p = -(upper(zero, -x) + log_part);
  return s;
}

DET_INLINE Sigmoid<double> sigmoid_of(double x) {
  const double e = std::exp(-std::fabs(x)), log_part = std::log1p(e), large = 1 / (1 + e), small = e * large;
  return {x >= 0 ? large : small, x >= 0 ? small : large, (0 > x ? 0 : x) + log_part, -((0 > -x ? 0 : -x) + log_part)};
}

DET_INLINE FloatVec power_of(const Sigmoid<FloatVec>& s, float gamma) {
  return gamma == 2.0f ? s.p * s.p : exp_negative(splat(gamma) * s.log_p);
}
DET_INLINE double power_of(const Sigmoid<double>& s, double gamma) {
  return gamma == 2.0 ? s.p * s.p : std::exp(gamma * s.log_p);
}

template <class V, class T>
DET_INLINE V loss_of(V x, T gamma) {
  const auto s = sigmoid_of(x);
  return power_of(s, gamma) * s.softplus;
}
template <class V, class T>
DET_INLINE V slope_of(V x, T gamma) {
  const auto s = sigmoid_of(x);
  return power_of(s, gamma) * (s.p + gamma * s.q * s.softplus);
}

// Calls body(x, first index, how many of its lanes count) for all n values, the last few padded with zeros.
template <class Body>
DET_INLINE void each(const float* x, int64_t n, const Body& body) {
  constexpr int64_t W = lanes<float>;
  int64_t i = 0;
  for (; i + W <= n; i += W) body(load(x + i), i, W);
  if (i == n) return;
  float rest[W] = {};
  for (int64_t k = 0; i + k < n; ++k) rest[k] = x[i + k];
  body(load(rest), i, n - i);
}
template <class Body>
DET_INLINE void each(const double* x, int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; ++i) body(x[i], i, int64_t(1));
}

DET_INLINE void put(float* out, FloatVec v, int64_t count) {
  if (count == lanes<float>) {
    store(out, v);
  } else {
    for (int64_t k = 0; k < count; ++k) out[k] = v[k];
  }
}
DET_INLINE void put(double* out, double v, int64_t) { *out = v; }

DET_INLINE void add(FloatVec& sum, double& rest, FloatVec v, int64_t count) {
  if (count == lanes<float>) {
    sum += v;
  } else {
    for (int64_t k = 0; k < count; ++k) rest += v[k];
  }
}
DET_INLINE void add(double&, double& rest, double v, int64_t) { rest += v; }

template <class T>
struct SumOf {
  FloatVec lanes_sum{};
  DET_INLINE double total() const {
    double t = 0;
    for (int i = 0; i < lanes<float>; ++i) t += lanes_sum[i];
    return t;
  }
};
template <>
struct SumOf<double> {
  double lanes_sum = 0;
  DET_INLINE double total() const { return lanes_sum; }
};

template <class T>
double focal_sum(const T* logits, int64_t n, T gamma) {
  SumOf<T> sum;
  double rest = 0;
  each(logits, n, [&](auto x, int64_t, int64_t count) { add(sum.lanes_sum, rest, loss_of(x, gamma), count); });
  return sum.total() + rest;
}

template <class T>
void focal_loss(const T* logits, int64_t n, T gamma, T factor, T* loss) {
  each(logits, n, [&](auto x, int64_t i, int64_t count) { put(loss + i, loss_of(x, gamma) * factor, count); });
}

template <class T>
void focal_grad(const T* logits, int64_t n, T gamma, T factor, T* grad) {
  each(logits, n, [&](auto x, int64_t i, int64_t count) { put(grad + i, slope_of(x, gamma) * factor, count); });
}

}  // namespace
}  // namespace det
