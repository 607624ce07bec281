// The targets of a mask head, from run-length codes alone, for CPU tensors. Letters: n objects, p regions, H W size of
// the masks as they are stored, h w size of the image, which reads row `rows[y]` and column `columns[x]` of them.
//
// For each region the pixels that its bins read are decoded, and averaged as RoIAlign averages a map: the sums run over
// the same pixels in the same order as over a whole bitmap, so the targets are the same bit by bit.
#include <algorithm>
#include <string>

#include "align_plan.h"
#include "kernels.h"
#include "tensors.h"

namespace det {
namespace {

// Where each run of a mask ends, counted column by column; runs of background and object alternate, background first.
using Ends = std::vector<int64_t>;

// COCO's text: 5 bits a character, low ones first, with a sign; from the fourth run on, the difference to the run
// before the last.
Ends ends_of(const uint8_t* code, int64_t length, int64_t pixels, int64_t object) {
  std::vector<int64_t> runs;
  Ends ends;
  int64_t at = 0, total = 0;
  bool whole = true;
  while (at < length && whole) {
    int64_t value = 0;
    int shift = 0;
    whole = false;
    while (at < length && shift < 60) {
      const int64_t symbol = int64_t{code[at++]} - 48;
      value |= (symbol & 31) << shift;
      shift += 5;
      if ((symbol & 32) == 0) {
        if ((symbol & 16) != 0) value |= -(int64_t{1} << shift);
        whole = true;
        break;
      }
    }
    if (runs.size() > 2) value += runs[runs.size() - 2];
    runs.push_back(value);
    total += value;
    whole = whole && value >= 0 && total <= pixels;
    ends.push_back(total);
  }
  expect(whole && total == pixels, "mask ", object, " has a damaged run-length code, or one of another size");
  return ends;
}

struct Masks {
  std::vector<Ends> ends;  // empty for an object that no region has
  int64_t height;
  const int64_t *rows, *columns;
};

// The pixels of an object that a region reads, row by row, as 0 and 1.
void decode(const Masks& masks, const Ends& ends, const Region& region, std::vector<uint8_t>& column, uint8_t* patch) {
  const int64_t width = region.x2 - region.x1;
  int64_t low = masks.height, high = 0;
  for (int64_t y = region.y1; y < region.y2; ++y) {
    low = std::min(low, masks.rows[y]);
    high = std::max(high, masks.rows[y] + 1);
  }
  int64_t done = -1;
  for (int64_t x = region.x1; x < region.x2; ++x) {
    uint8_t* to = patch + (x - region.x1);
    if (masks.columns[x] != done) {
      done = masks.columns[x];
      const int64_t base = done * masks.height, first = base + low, last = base + high;
      auto run = std::upper_bound(ends.begin(), ends.end(), first);
      for (int64_t at = first; at < last; ++run) {
        const int64_t end = std::min(*run, last);
        const uint8_t inside = static_cast<uint8_t>((run - ends.begin()) & 1);
        std::fill(column.begin() + (at - base), column.begin() + (end - base), inside);
        at = end;
      }
    }
    for (int64_t y = region.y1; y < region.y2; ++y) to[(y - region.y1) * width] = column[masks.rows[y]];
  }
}

template <class T>
T average(const Plan<T>& plan, const Region& region, const Bin& row, const Bin& column, const uint8_t* patch) {
  const int64_t width = region.x2 - region.x1;
  T sum = 0;
  for (int32_t y = 0; y < row.count; ++y) {
    const T row_weight = plan.weights[row.weights + y];
    const uint8_t* pixel = patch + (row.first + y - region.y1) * width + (column.first - region.x1);
    for (int32_t x = 0; x < column.count; ++x) {
      if (pixel[x]) sum += row_weight * plan.weights[column.weights + x];
    }
  }
  return region.count > 0 ? sum * static_cast<T>(1 / region.count) : T(0);
}

template <class T>
void targets(const Call& call, const Plan<T>& plan, const Masks& masks, const int64_t* objects, T* out) {
  const int64_t number = static_cast<int64_t>(plan.regions.size()), bins = call.h * call.w;
  double pixels = 0;
  for (const Region& r : plan.regions) pixels += static_cast<double>(r.y2 - r.y1) * (r.x2 - r.x1);
  parallel(number, 1000 + 2 * pixels / static_cast<double>(std::max<int64_t>(number, 1)),
           [&](int64_t begin, int64_t end) {
             std::vector<uint8_t> column(masks.height), patch;
             for (int64_t i = begin; i < end; ++i) {
               const Region& region = plan.regions[i];
               patch.resize(static_cast<size_t>(region.y2 - region.y1) * (region.x2 - region.x1));
               if (!patch.empty()) decode(masks, masks.ends[objects[region.row]], region, column, patch.data());
               const Bin* rows = plan.bins.data() + region.bins;
               for (int64_t b = 0; b < bins; ++b) {
                 const T value = average(plan, region, rows[b / call.w], rows[call.h + b % call.w], patch.data());
                 out[region.row * bins + b] = value >= T(0.5) ? T(1) : T(0);
               }
             }
           });
}

Masks masks_of(const Tensor& codes, const Tensor& offsets, int64_t height, int64_t width, const Tensor& rows,
               const Tensor& columns, const Tensor& objects) {
  const int64_t n = offsets.size(0) - 1;
  const int64_t *start = data<int64_t>(offsets), *object = data<int64_t>(objects);
  Masks masks{std::vector<Ends>(n), height, data<int64_t>(rows), data<int64_t>(columns)};
  for (int64_t i = 0; i < objects.size(0); ++i) {
    expect(object[i] >= 0 && object[i] < n, "objects name one outside 0..", n - 1, ": row ", i, " has ", object[i]);
    Ends& ends = masks.ends[object[i]];
    if (!ends.empty()) continue;
    const int64_t from = start[object[i]], to = start[object[i] + 1];
    expect(0 <= from && from <= to && to <= codes.size(0), "offsets of mask ", object[i], " are outside the codes");
    ends = ends_of(data<uint8_t>(codes) + from, to - from, height * width, object[i]);
  }
  const auto within = [](const Tensor& map, int64_t limit) {
    const int64_t* value = data<int64_t>(map);
    return std::all_of(value, value + map.size(0), [&](int64_t v) { return v >= 0 && v < limit; });
  };
  expect(within(rows, height) && within(columns, width), "rows or columns name one outside masks of ", height, " x ",
         width);
  return masks;
}

Tensor mask_targets(const Tensor& codes, const Tensor& offsets, int64_t height, int64_t width, const Tensor& rows,
                    const Tensor& columns, const Tensor& objects, const Tensor& boxes,
                    const std::vector<int64_t>& size) {
  const ScalarType dtype = boxes.scalar_type(), real = real_type(dtype);
  const Tensor c = torch::stable::contiguous(codes), o = torch::stable::contiguous(offsets);
  const Tensor r = torch::stable::contiguous(rows), k = torch::stable::contiguous(columns);
  const Tensor j = torch::stable::contiguous(objects), b = cast_contiguous(boxes, real);
  const Masks masks = masks_of(c, o, height, width, r, k, j);
  const int64_t p = boxes.size(0);
  const Call call{1, 1, 1, size[0], size[1], 0, Alignment::aligned, false, {1.0}, {rows.size(0)}, {columns.size(0)}};
  Tensor out = empty({p, size[0], size[1]}, real), rois = zeros({p, 5}, real);
  const Tensor levels = zeros({p}, ScalarType::Long);
  with_real(real, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < p; ++i) std::copy_n(data<T>(b) + 4 * i, 4, mutable_data<T>(rois) + 5 * i + 1);
    targets(call, make_plan<T>(call, rois, levels), masks, data<int64_t>(j), mutable_data<T>(out));
    return 0;
  });
  return cast(out, dtype);
}

}  // namespace
}  // namespace det

STABLE_TORCH_LIBRARY_IMPL(det, CPU, m) { m.impl("mask_targets", TORCH_BOX(&det::mask_targets)); }
