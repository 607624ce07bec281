// The plan of one call of RoIAlign: what every region reads, in the order in which regions are worked through.
// Letters: L levels, K regions, B images, C channels, h w output size.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "roi_plan.h"
#include "tensors.h"

namespace det {

// What one sample of the maximum reads along one axis, of all bins; `starts` gives the first of each bin.
template <class T>
struct Samples {
  std::vector<Sample<T>> all;
  std::vector<int64_t> starts;
  std::vector<bool> complete;  // whether every sample of the bin lies on the map; the others count 0
};

struct Region {
  int64_t row;  // of rois and output
  int32_t level, image;
  int64_t bins;            // the first of its h + w bins
  double count;            // samples per bin
  int32_t y1, y2, x1, x2;  // the pixels it touches
};

template <class T>
struct Plan {
  std::vector<Region> regions;  // by level, image and height, so that neighbours share the cache
  std::vector<int64_t> tasks;   // where the regions of (level, image) start
  std::vector<Bin> bins;
  std::vector<T> weights;
  std::vector<std::array<Samples<T>, 2>> samples;  // of each region, for the maximum alone
};

struct Call {
  int64_t levels, images, channels, h, w, sampling;
  Alignment alignment;
  bool maximum;
  std::vector<double> scales;
  std::vector<int64_t> heights, widths;
};

inline Alignment alignment_of(const std::string& name) {
  return name == "aligned" ? Alignment::aligned : name == "v1" ? Alignment::v1 : Alignment::unaligned;
}

template <class T>
Samples<T> samples_of(Span<T> span, int64_t bins, int64_t grid, int32_t limit) {
  Samples<T> result;
  for (int b = 0; b < bins; ++b) {
    result.starts.push_back(static_cast<int64_t>(result.all.size()));
    each_sample(span.start, span.size / static_cast<T>(bins), b, grid, limit, [&](int64_t, T position) {
      Sample<T> sample;
      if (place(position, limit, sample)) result.all.push_back(sample);
    });
    result.complete.push_back(static_cast<int64_t>(result.all.size()) - result.starts.back() == grid);
  }
  result.starts.push_back(static_cast<int64_t>(result.all.size()));
  return result;
}

// The smallest range of pixels that holds all bins.
inline void cover(const Bin* bins, int64_t count, int32_t& first, int32_t& end) {
  first = std::numeric_limits<int32_t>::max(), end = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (bins[i].count == 0) continue;
    first = std::min(first, bins[i].first);
    end = std::max(end, bins[i].first + bins[i].count);
  }
  first = std::min(first, end);
}

template <class T>
Plan<T> make_plan(const Call& call, const Tensor& rois, const Tensor& levels) {
  const T* r = data<T>(rois);
  const int64_t* level_of = data<int64_t>(levels);
  Plan<T> plan;
  check_images<T>(rois, call.images);
  for (int64_t k = 0; k < rois.size(0); ++k, r += 5) {
    const int64_t level = level_of[k];
    expect(level >= 0 && level < call.levels, "levels name one outside 0..", call.levels - 1, ": row ", k, " has ",
           level);
    const T scale = static_cast<T>(call.scales[level]);
    const Span<T> y = span_of(r[2], r[4], scale, call.alignment), x = span_of(r[1], r[3], scale, call.alignment);
    const int64_t grid_y = grid_of(y.size, call.h, call.sampling), grid_x = grid_of(x.size, call.w, call.sampling);
    const int32_t height = static_cast<int32_t>(call.heights[level]), width = static_cast<int32_t>(call.widths[level]);
    const double count = static_cast<double>(grid_y) * static_cast<double>(grid_x);
    Region region{k, static_cast<int32_t>(level), static_cast<int32_t>(r[0]), static_cast<int64_t>(plan.bins.size()),
                  count};
    plan.bins.resize(plan.bins.size() + call.h + call.w, Bin{0, 0, 0});
    Bin* bins = plan.bins.data() + region.bins;
    if (grid_y > 0 && grid_x > 0) {
      weigh(y.start, y.size / static_cast<T>(call.h), call.h, grid_y, height, bins, plan.weights);
      weigh(x.start, x.size / static_cast<T>(call.w), call.w, grid_x, width, bins + call.h, plan.weights);
    }
    cover(bins, call.h, region.y1, region.y2);
    cover(bins + call.h, call.w, region.x1, region.x2);
    plan.regions.push_back(region);
    if (call.maximum) {
      const bool some = grid_y > 0 && grid_x > 0;
      plan.samples.push_back(
          {samples_of(y, call.h, some ? grid_y : 0, height), samples_of(x, call.w, some ? grid_x : 0, width)});
    }
  }
  std::stable_sort(plan.regions.begin(), plan.regions.end(), [](const Region& a, const Region& b) {
    return std::make_tuple(a.level, a.image, a.y1) < std::make_tuple(b.level, b.image, b.y1);
  });
  size_t next = 0;
  for (int64_t task = 0; task < call.levels * call.images; ++task) {
    plan.tasks.push_back(static_cast<int64_t>(next));
    while (next < plan.regions.size() && plan.regions[next].level * call.images + plan.regions[next].image == task) {
      ++next;
    }
  }
  plan.tasks.push_back(static_cast<int64_t>(next));
  return plan;
}

}  // namespace det
