// What the pixels of an image read of a mask that is pasted into it. Letters: S side of a mask.
//
// A mask is surrounded by zeros; a cell is the square between four neighbouring values. Most cells are far above or
// far below the threshold in all four corners: their pixels are decided without computing any.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace det {

constexpr int64_t kBorder = 2;  // zeros on each side of a mask

// Along one axis: the pixels [start, start + cell.size()) of the image, the cell of each, and the weights of the values
// at its low and high end.
template <class T>
struct PasteAxis {
  int64_t start = 0;
  std::vector<int32_t> cell;
  std::vector<T> low, high;

  int64_t count() const { return static_cast<int64_t>(cell.size()); }
  void add(T position, T first, int64_t at) {
    cell.push_back(static_cast<int32_t>(at));
    high.push_back(position - first);
    low.push_back(1 - high.back());
  }
  void mirror(int64_t size) {
    start = size - start - count();
    std::reverse(cell.begin(), cell.end());
    std::reverse(low.begin(), low.end());
    std::reverse(high.begin(), high.end());
  }
};

template <class T>
int64_t whole(T value, T least, T most) {
  return static_cast<int64_t>(std::min(std::max(value, least), most));
}

// At pixel centres, in the arithmetic of torch's grid_sample.
template <class T>
PasteAxis<T> sampled_axis(T low, T high, int64_t size, int64_t side) {
  const T limit = static_cast<T>(size), half = static_cast<T>(0.5), scale = static_cast<T>(side) / 2;
  const int64_t start = std::min(whole(std::floor(low) - 1, T(0), limit), size);
  const int64_t end = std::min(whole(std::ceil(high) + 1, T(0), limit), size);
  PasteAxis<T> axis;
  for (int64_t i = start; i < end; ++i) {
    const T grid = (static_cast<T>(i) + half - low) / (high - low) * 2 - 1;
    const T position = (grid + 1) * scale - half;
    if (!std::isfinite(position)) continue;  // only before or after all others
    if (axis.cell.empty()) axis.start = i;
    const T first = std::floor(position);
    axis.add(position, first, whole(first, static_cast<T>(-kBorder), static_cast<T>(side)) + kBorder);
  }
  return axis;
}

// Resized with one zero on each side to whole pixels, both inclusive, in the arithmetic of torch's interpolate.
template <class T>
PasteAxis<T> resized_axis(T low, T high, int64_t size, int64_t side) {
  const T far = static_cast<T>(int64_t{1} << 40), half = static_cast<T>(0.5);
  const int64_t first_pixel = whole(low, -far, far), last_pixel = whole(high, -far, far);
  const int64_t start = std::max<int64_t>(first_pixel, 0), end = std::min(last_pixel + 1, size);
  const T ratio = static_cast<T>(side + 2) / static_cast<T>(std::max<int64_t>(last_pixel - first_pixel + 1, 1));
  PasteAxis<T> axis;
  axis.start = start;
  for (int64_t i = start; i < end; ++i) {
    const T position = std::max(ratio * (static_cast<T>(i - first_pixel) + half) - half, T(0));
    const T first = std::min(std::floor(position), static_cast<T>(side + 1));
    axis.add(position, first, static_cast<int64_t>(first) + kBorder - 1);
  }
  return axis;
}

// Resized to whole pixels, from the first to the last of the box, in the arithmetic of OpenCV.
template <class T>
PasteAxis<T> quantised_axis(T low, T high, int64_t size, int64_t side) {
  const T far = static_cast<T>(int64_t{1} << 40), half = static_cast<T>(0.5);
  const int64_t first_pixel = whole(low, -far, far), last_pixel = std::max(whole(high - 1, -far, far), first_pixel);
  const int64_t start = std::max<int64_t>(first_pixel, 0), end = std::min(last_pixel + 1, size);
  const T ratio = static_cast<T>(side) / static_cast<T>(last_pixel - first_pixel + 1);
  PasteAxis<T> axis;
  axis.start = start;
  for (int64_t i = start; i < end; ++i) {
    const T exact = ratio * (static_cast<T>(i - first_pixel) + half) - half;
    const T position = std::min(std::max(exact, T(0)), static_cast<T>(side - 1));
    const T first = std::floor(position);
    axis.add(position, first, static_cast<int64_t>(first) + kBorder);
  }
  return axis;
}

enum class PasteRule { sampled, resized, quantised };

inline PasteRule paste_rule(const std::string& name) {
  return name == "sampled" ? PasteRule::sampled : name == "resized" ? PasteRule::resized : PasteRule::quantised;
}

enum class Cell : uint8_t { empty, full, mixed };

// Pixels [begin, end) of an axis whose cells are alike.
struct Stretch {
  int64_t begin, end;
  Cell kind;
};

template <class T>
struct PastePlan {
  bool sampled;
  T threshold;
  int64_t side;            // of the mask with its border
  std::vector<T> values;   // (side, side)
  std::vector<Cell> kind;  // (side, side), of the cell whose first value it is; the last row and column have none
  PasteAxis<T> x, y;

  bool empty() const { return x.count() == 0 || y.count() == 0; }
};

template <class T>
std::vector<Cell> kinds_of(const std::vector<T>& values, int64_t side, T threshold) {
  T largest = std::abs(threshold);
  bool finite = true;
  for (const T v : values) {
    finite = finite && std::isfinite(v);
    largest = std::max(largest, std::abs(v));
  }
  // Much more than rounding can change an average of four values.
  const T margin = finite ? largest * static_cast<T>(1e-5) : std::numeric_limits<T>::infinity();
  const T enough = threshold + margin, little = threshold - margin;
  std::vector<Cell> kind(values.size(), Cell::mixed);
  for (int64_t r = 0; r + 1 < side; ++r) {
    for (int64_t c = 0; c + 1 < side; ++c) {
      const T* v = values.data() + r * side + c;
      const T most = std::max(std::max(v[0], v[1]), std::max(v[side], v[side + 1]));
      const T least = std::min(std::min(v[0], v[1]), std::min(v[side], v[side + 1]));
      kind[r * side + c] = least > enough ? Cell::full : most < little ? Cell::empty : Cell::mixed;
    }
  }
  return kind;
}

// mask (S, S), box (4,).
template <class T>
PastePlan<T> paste_plan(const T* mask, const T* box, int64_t side, bool mirrored, int64_t height, int64_t width,
                        T threshold, PasteRule rule) {
  const bool sampled = rule == PasteRule::sampled;
  PastePlan<T> plan{sampled, threshold, side + 2 * kBorder, {}, {}, {}, {}};
  T low[2], high[2];
  for (int axis = 0; axis < 2; ++axis) {
    low[axis] = box[axis];
    high[axis] = box[axis + 2];
    if (rule == PasteRule::resized) {
      const double larger = 0.5 * (static_cast<double>(side + 2) / static_cast<double>(side));
      const T middle = (low[axis] + high[axis]) * static_cast<T>(0.5);
      const T half = (high[axis] - low[axis]) * static_cast<T>(larger);
      low[axis] = middle - half;
      high[axis] = middle + half;
    }
    if (!std::isfinite(low[axis]) || !std::isfinite(high[axis])) return plan;
    if (sampled && !(high[axis] > low[axis])) return plan;
  }
  const auto axis_of = sampled ? sampled_axis<T> : rule == PasteRule::resized ? resized_axis<T> : quantised_axis<T>;
  plan.x = axis_of(low[0], high[0], width, side);
  plan.y = axis_of(low[1], high[1], height, side);
  if (plan.empty()) return plan;
  if (mirrored) plan.x.mirror(width);
  plan.values.assign(plan.side * plan.side, T(0));
  for (int64_t r = 0; r < side; ++r) {
    std::copy_n(mask + r * side, side, plan.values.data() + (r + kBorder) * plan.side + kBorder);
  }
  plan.kind = kinds_of(plan.values, plan.side, threshold);
  return plan;
}

}  // namespace det
