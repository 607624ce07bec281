// Overlaps of boxes. No fused multiply-add here: every instruction set must take the same decisions, bit for bit.
#pragma once

#include <cmath>

#include "kernels.h"
#include "vec.h"

namespace det {
namespace {

constexpr double kEps = 1e-6;  // the floor of an overlap's denominator, except in suppression

template <class T>
struct One {  // one box in every lane
  Vec<T> x1, y1, x2, y2, area;
  DET_INLINE One(const Boxes<T>& b, int64_t i)
      : x1(splat(b.x1[i])), y1(splat(b.y1[i])), x2(splat(b.x2[i])), y2(splat(b.y2[i])), area(splat(b.area[i])) {}
};

template <class T>
DET_INLINE Vec<T> intersection(const One<T>& one, Vec<T> x1, Vec<T> y1, Vec<T> x2, Vec<T> y2, Vec<T> offset) {
  const Vec<T> zero{};
  const Vec<T> w = upper(lower(x2, one.x2) - upper(x1, one.x1) + offset, zero);
  const Vec<T> h = upper(lower(y2, one.y2) - upper(y1, one.y1) + offset, zero);
  return w * h;
}

// Whether any of W kept boxes suppresses the candidate. A quotient above the threshold, rounded, means
// inter >= threshold * union, rounded too (rounding is monotone), so almost always no division is needed.
template <class T>
DET_INLINE bool suppresses(const One<T>& box, Vec<T> inter, Vec<T> area, Vec<T> threshold) {
  const Vec<T> both = area + box.area - inter;
  if (!any_not_less(inter, threshold * both)) return false;
  return any_greater(inter / both, threshold);
}

// Each candidate against the list of boxes kept so far, a few registers of them at a time.
template <class T>
void suppress(Boxes<T> boxes, int64_t n, T threshold, T offset, uint8_t* keep, T* kept) {
  constexpr int64_t W = lanes<T>;
  const int64_t room = n + 64;
  T *x1 = kept, *y1 = kept + room, *x2 = kept + 2 * room, *y2 = kept + 3 * room, *area = kept + 4 * room;
  const Vec<T> limit = splat(threshold), shift = splat(offset);
  const T nan = T(NAN);  // the area of an absent box: every comparison with it fails
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const One<T> box(boxes, i);
    bool gone = false;
    for (int64_t j = 0; j < count && !gone; j += W) {
      const Vec<T> inter = intersection(box, load(x1 + j), load(y1 + j), load(x2 + j), load(y2 + j), shift);
      gone = suppresses(box, inter, load(area + j), limit);
    }
    keep[i] = !gone;
    if (gone) continue;
    if (count % W == 0) {  // a new register of the list: fill its other lanes
      for (int64_t k = count; k < count + W; ++k) x1[k] = y1[k] = x2[k] = y2[k] = 0, area[k] = nan;
    }
    x1[count] = boxes.x1[i], y1[count] = boxes.y1[i], x2[count] = boxes.x2[i], y2[count] = boxes.y2[i];
    area[count++] = boxes.area[i];
  }
}

template <class T>
DET_INLINE T upper1(T a, T b) {
  return a > b ? a : b;
}

// One overlap, of boxes i and j; the scalar twin of the vector code below, for tails.
template <class T>
DET_INLINE T overlap1(const Boxes<T>& a, int64_t i, const Boxes<T>& b, int64_t j, T offset, int mode) {
  const T left = upper1(a.x1[i], b.x1[j]), right = a.x2[i] < b.x2[j] ? a.x2[i] : b.x2[j];
  const T top = upper1(a.y1[i], b.y1[j]), bottom = a.y2[i] < b.y2[j] ? a.y2[i] : b.y2[j];
  const T inter = upper1(right - left + offset, T(0)) * upper1(bottom - top + offset, T(0));
  T both = a.area[i] + b.area[j] - inter;
  if (mode == 1) both = b.area[j] == b.area[j] ? a.area[i] : b.area[j];  // that of a box which is not a number: NaN
  const T iou = inter / upper1(T(kEps), both);                           // in this order a NaN goes through
  if (mode != 2) return iou;
  const T width = upper1(a.x2[i], b.x2[j]) - (a.x1[i] < b.x1[j] ? a.x1[i] : b.x1[j]) + offset;
  const T height = upper1(a.y2[i], b.y2[j]) - (a.y1[i] < b.y1[j] ? a.y1[i] : b.y1[j]) + offset;
  const T hull = upper1(T(kEps), upper1(T(0), width) * upper1(T(0), height));
  return iou - (hull - both) / hull;
}

template <class T>
void decay(Boxes<T> boxes, int64_t n, int64_t best, T threshold, T sigma, int method, T* scores) {
  for (int64_t i = 0; i < n; ++i) {
    const T iou = overlap1(boxes, best, boxes, i, T(0), 0);
    if (method == 1) {
      if (iou != 0) scores[i] *= std::exp(-(iou * iou) / sigma);
    } else if (iou >= threshold) {
      scores[i] *= method == 2 ? T(0) : 1 - iou;
    }
  }
}

template <class T>
void overlaps(Boxes<T> boxes, Boxes<T> others, int64_t begin, int64_t end, int64_t m, T offset, int mode, T* out) {
  constexpr int64_t W = lanes<T>;
  const Vec<T> shift = splat(offset), eps = splat(T(kEps)), zero{};
  for (int64_t i = begin; i < end; ++i) {
    const One<T> box(boxes, i);
    int64_t j = 0;
    for (; j + W <= m; j += W) {
      const Vec<T> x1 = load(others.x1 + j), y1 = load(others.y1 + j), x2 = load(others.x2 + j),
                   y2 = load(others.y2 + j);
      const Vec<T> inter = intersection(box, x1, y1, x2, y2, shift);
      const Vec<T> area = load(others.area + j);
      Vec<T> both = box.area + area - inter;
      if (mode == 1) both = area == area ? box.area : area;
      Vec<T> result = inter / upper(eps, both);  // in this order a NaN goes through
      if (mode == 2) {
        const Vec<T> width = upper(zero, upper(x2, box.x2) - lower(x1, box.x1) + shift);
        const Vec<T> height = upper(zero, upper(y2, box.y2) - lower(y1, box.y1) + shift);
        const Vec<T> hull = upper(eps, width * height);
        result = result - (hull - both) / hull;
      }
      store(out + i * m + j, result);
    }
    for (; j < m; ++j) out[i * m + j] = overlap1(boxes, i, others, j, offset, mode);
  }
}

// IoU of W boxes with an object, NaN as 0; `touches` is false where it is 0 in every lane.
template <class T>
DET_INLINE Vec<T> iou_with(const One<T>& object, const Boxes<T>& b, int64_t i, bool& touches) {
  const Vec<T> zero{};
  const Vec<T> inter = intersection(object, load(b.x1 + i), load(b.y1 + i), load(b.x2 + i), load(b.y2 + i), zero);
  touches = any_greater(inter, zero);
  if (!touches) return zero;
  const Vec<T> iou = inter / upper(splat(T(kEps)), load(b.area + i) + object.area - inter);
  return iou == iou ? iou : zero;
}

template <class T>
DET_INLINE T iou1(const Boxes<T>& boxes, int64_t i, const Boxes<T>& objects, int64_t j) {
  const T iou = overlap1(boxes, i, objects, j, T(0), 0);
  return iou == iou ? iou : T(0);
}

template <class T>
void assign_best(Boxes<T> boxes, Boxes<T> objects, int64_t begin, int64_t end, int64_t m, T* best, int64_t* index,
                 T* best_of, T* lane_best) {
  constexpr int64_t W = lanes<T>;
  for (int64_t j = 0; j < m * W; ++j) lane_best[j] = 0;
  for (int64_t j = 0; j < m; ++j) best_of[j] = 0;
  int64_t i = begin;
  for (; i + W <= end; i += W) {
    Vec<T> top{}, which{};
    for (int64_t j = 0; j < m; ++j) {
      bool touches;
      const Vec<T> iou = iou_with(One<T>(objects, j), boxes, i, touches);
      if (!touches) continue;
      which = iou > top ? splat(T(j)) : which;  // strictly greater: the first of equals stays
      top = iou > top ? iou : top;
      T* lane = lane_best + j * W;
      const Vec<T> before = load(lane);
      store(lane, iou > before ? iou : before);
    }
    store(best + i, top);
    for (int64_t k = 0; k < W; ++k) index[i + k] = int64_t(which[k]);
  }
  for (; i < end; ++i) {
    best[i] = 0, index[i] = 0;
    for (int64_t j = 0; j < m; ++j) {
      const T iou = iou1(boxes, i, objects, j);
      if (iou > best[i]) best[i] = iou, index[i] = j;
      if (iou > best_of[j]) best_of[j] = iou;
    }
  }
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t k = 0; k < W; ++k) best_of[j] = upper1(best_of[j], lane_best[j * W + k]);
  }
}

template <class T>
void assign_ties(Boxes<T> boxes, Boxes<T> objects, int64_t begin, int64_t end, int64_t m, const T* best,
                 const T* best_of, T min_positive, int64_t* assigned, int64_t* first) {
  constexpr int64_t W = lanes<T>;
  const auto note = [&](int64_t i, int64_t j) {
    if (first == nullptr) {
      assigned[i] = j + 1;
    } else if (first[j] < 0) {
      first[j] = i;
    }
  };
  int64_t i = begin;
  for (; i + W <= end; i += W) {
    const Vec<T> top = load(best + i);
    for (int64_t j = 0; j < m; ++j) {
      // A box whose best overlap is lower cannot tie.
      if (!(best_of[j] >= min_positive) || !any_not_less(top, splat(best_of[j]))) continue;
      bool touches;
      const Vec<T> iou = iou_with(One<T>(objects, j), boxes, i, touches);
      for (int64_t k = 0; k < W; ++k) {
        if (iou[k] == best_of[j]) note(i + k, j);
      }
    }
  }
  for (; i < end; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      if (best_of[j] >= min_positive && iou1(boxes, i, objects, j) == best_of[j]) note(i, j);
    }
  }
}

}  // namespace
}  // namespace det
