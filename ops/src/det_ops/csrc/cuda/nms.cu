// Greedy suppression of boxes inside groups.
//
// The boxes come sorted by group, and by score inside a group. Tiles of 64 x 64 pairs first tell in bits which box
// would suppress which; then one block per group walks over its boxes, best first. Bits of at most `nms_panel_rows`
// boxes exist at a time: more boxes are done in panels of rows, one after the other. How many groups there are, and
// where they begin, only the device knows.
#include "boxes.cuh"

#ifndef DET_NMS_PANEL_BYTES
#define DET_NMS_PANEL_BYTES (int64_t{64} << 20)  // one panel for up to 23,000 boxes; tests have smaller ones
#endif

namespace det::cuda {
namespace {

using Word = unsigned long long;
constexpr int kBits = 64;
constexpr int kScanThreads = 256;

// Boxes in the order of the walk, all of them alive, and no group known yet.
template <class R>
__global__ void nms_prepare(const R* boxes, const int64_t* order, int64_t count, R* sorted, uint8_t* alive,
                            int64_t* group_count) {
  if (thread_number() == 0) *group_count = 0;
  for (int64_t i = thread_number(); i < count; i += thread_count()) {
    for (int side = 0; side < 4; ++side) sorted[4 * i + side] = boxes[4 * order[i] + side];
    alive[i] = 1;
  }
}

// Lists where groups begin, in no particular order.
__global__ void nms_find_groups(const int64_t* groups, int64_t count, int64_t* starts, int64_t* group_count) {
  for (int64_t i = thread_number(); i < count; i += thread_count()) {
    if (i > 0 && groups[i] == groups[i - 1]) continue;
    starts[atomicAdd(reinterpret_cast<Word*>(group_count), Word{1})] = i;
  }
}

// One tile: bit j of a thread's word says that its box suppresses box j of the tile's columns.
template <class R>
__global__ void nms_tiles(const R* boxes, const int64_t* groups, int64_t count, int64_t first_row, R limit, R offset,
                          int64_t words, Word* bits) {
  const int64_t tile = blockIdx.x, row_tile = first_row / kBits + blockIdx.y;
  if (tile < row_tile) return;  // a box suppresses later ones only
  const int64_t column = tile * kBits, row = row_tile * kBits + threadIdx.x;
  const int64_t last_row = smaller(row_tile * kBits + kBits, count) - 1;
  if (groups && groups[last_row] < groups[column]) return;  // no group in common; these words are never read

  __shared__ Box<R> boxes_of[kBits];
  __shared__ R area_of[kBits];
  __shared__ int64_t group_of[kBits];
  if (column + threadIdx.x < count) {
    boxes_of[threadIdx.x] = box_at(boxes, column + threadIdx.x);
    area_of[threadIdx.x] = area(boxes_of[threadIdx.x], offset);
    group_of[threadIdx.x] = groups ? groups[column + threadIdx.x] : 0;
  }
  __syncthreads();
  if (row >= count) return;

  const Box<R> mine = box_at(boxes, row);
  const R my_area = area(mine, offset);
  const int64_t my_group = groups ? groups[row] : 0;
  const int columns = static_cast<int>(smaller<int64_t>(kBits, count - column));
  Word word = 0;
  for (int j = tile == row_tile ? threadIdx.x + 1 : 0; j < columns; ++j) {
    if (group_of[j] != my_group) continue;
    const R inter = intersection(mine, boxes_of[j], offset);
    // 0 / 0 is not a number and suppresses nothing.
    if (div(inter, sub(add(my_area, area_of[j]), inter)) > limit) word |= Word{1} << j;
  }
  bits[(row - first_row) * words + tile] = word;
}

// One past the last box of the group that begins at `begin`: doubling steps, then halving ones.
__device__ int64_t group_end(const int64_t* groups, int64_t count, int64_t begin) {
  const int64_t group = groups[begin];
  int64_t step = 1;
  while (begin + step < count && groups[begin + step] == group) step *= 2;
  int64_t inside = begin + step / 2, outside = smaller(begin + step, count);
  while (outside - inside > 1) {
    const int64_t middle = inside + (outside - inside) / 2;
    (groups[middle] == group ? inside : outside) = middle;
  }
  return outside;
}

// Which of rows [low, high) of one tile stay; the diagonal tile's words lie in the registers of one warp.
__device__ Word resolve_tile(const Word* bits, int64_t words, int64_t first_row, int64_t tile, int64_t low,
                             int64_t high, uint8_t* alive) {
  const int lane = threadIdx.x % kWarp;
  Word mine[2], stay = 0;
  for (int half = 0; half < 2; ++half) {
    const int64_t row = tile * kBits + half * kWarp + lane;
    const bool present = row >= low && row < high;
    mine[half] = present ? bits[(row - first_row) * words + tile] : 0;
    const Word found = __ballot_sync(kFullWarp, present && alive[row] != 0);
    stay |= found << (half * kWarp);
  }
  for (Word left = stay; left != 0;) {
    const int i = __ffsll(static_cast<long long>(left)) - 1;
    stay &= ~__shfl_sync(kFullWarp, i < kWarp ? mine[0] : mine[1], i % kWarp);
    left = stay & ~((Word{2} << i) - 1);  // those after i; shifting 2 by 63 leaves 0, and so none
  }
  for (int half = 0; half < 2; ++half) {
    const int64_t row = tile * kBits + half * kWarp + lane;
    if (row >= low && row < high) alive[row] = (stay >> (half * kWarp + lane)) & 1;
  }
  return stay;
}

// Walks over the groups, a block each, through the rows of one panel.
__global__ void nms_scan(const int64_t* groups, const int64_t* starts, const int64_t* group_count, int64_t count,
                         int64_t first_row, int64_t last_row, const Word* bits, int64_t words, uint8_t* alive) {
  __shared__ Word stay;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  // The warps share a tile's rows: warp 0 has rows 0, 8, 16, ...
  const Word rows_of_warp = 0x0101010101010101ull << warp;
  const int64_t total = groups ? *group_count : 1;
  for (int64_t number = blockIdx.x; number < total; number += gridDim.x) {
    const int64_t begin = groups ? starts[number] : 0;
    if (begin >= last_row) continue;
    const int64_t end = groups ? group_end(groups, count, begin) : count;
    const int64_t low = larger(begin, first_row), high = smaller(end, last_row);
    for (int64_t tile = low / kBits; tile * kBits < high; ++tile) {
      if (warp == 0) {
        const Word found = resolve_tile(bits, words, first_row, tile, low, high, alive);
        if (lane == 0) stay = found;
      }
      __syncthreads();
      for (int64_t word = tile + 1 + lane; word <= (end - 1) / kBits; word += kWarp) {
        Word gone = 0;
        for (Word left = stay & rows_of_warp; left != 0; left &= left - 1) {
          const int64_t row = tile * kBits + __ffsll(static_cast<long long>(left)) - 1;
          gone |= bits[(row - first_row) * words + word];
        }
        // Several warps may clear the same byte; they agree.
        for (; gone != 0; gone &= gone - 1) alive[word * kBits + __ffsll(static_cast<long long>(gone)) - 1] = 0;
      }
      __syncthreads();
    }
  }
}

// Flags in the order of scores again.
__global__ void nms_flags(const uint8_t* alive, const int64_t* rank, int64_t count, uint8_t* keep) {
  for (int64_t i = thread_number(); i < count; i += thread_count()) keep[rank ? rank[i] : i] = alive[i];
}

// The first max_out kept indices in order, by one block; -1 after them.
__global__ void nms_compact(const int64_t* order, const uint8_t* keep, int64_t count, int64_t max_out, int64_t* result,
                            int64_t* kept) {
  __shared__ int in_warp[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  int64_t written = 0;
  for (int64_t first = 0; first < count && written < max_out; first += blockDim.x) {
    const int64_t i = first + threadIdx.x;
    const unsigned found = __ballot_sync(kFullWarp, i < count && keep[i] != 0);
    if (lane == 0) in_warp[warp] = __popc(found);
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) before += in_warp[w];
      all += in_warp[w];
    }
    const int64_t at = written + before + __popc(found & ((1u << lane) - 1));
    if ((found >> lane & 1) && at < max_out) result[at] = order[i];
    written += all;
    __syncthreads();
  }
  written = smaller(written, max_out);
  for (int64_t i = written + threadIdx.x; i < max_out; i += blockDim.x) result[i] = -1;
  if (threadIdx.x == 0) *kept = written;
}

}  // namespace

int64_t nms_words(int64_t count) { return ceil_div(count, kBits); }

int64_t nms_panel_rows(int64_t count) {
  const int64_t rows = DET_NMS_PANEL_BYTES / 8 / larger<int64_t>(nms_words(count), 1) / kBits * kBits;
  return smaller(larger<int64_t>(rows, kBits), nms_words(count) * kBits);
}

const char* nms(Dtype dtype, const NmsArguments& a, void* stream) {
  if (a.count == 0) return nullptr;
  if (a.panel_rows <= 0 || a.panel_rows % kBits) return "panel_rows must be a multiple of 64";
  return by_real(dtype, [&](auto zero) -> const char* {
    using R = decltype(zero);
    const auto prepare = nms_prepare<R>;
    const auto tiles = nms_tiles<R>;
    R* sorted = static_cast<R*>(a.sorted);
    Word* bits = reinterpret_cast<Word*>(a.bits);
    const int64_t words = nms_words(a.count);
    const unsigned blocks = blocks_for(a.count, 256);
    DET_LAUNCH(prepare, blocks, 256, 0, stream, static_cast<const R*>(a.boxes), a.order, a.count, sorted, a.alive,
               a.group_count);
    if (a.groups) {
      DET_LAUNCH(nms_find_groups, blocks, 256, 0, stream, a.groups, a.count, a.starts, a.group_count);
    }
    const unsigned walkers = a.groups ? static_cast<unsigned>(smaller<int64_t>(a.count, 1024)) : 1;
    for (int64_t first = 0; first < a.count; first += a.panel_rows) {
      const int64_t last = smaller(first + a.panel_rows, a.count);
      const dim3 grid(static_cast<unsigned>(words), static_cast<unsigned>(ceil_div(last - first, kBits)));
      DET_LAUNCH(tiles, grid, kBits, 0, stream, sorted, a.groups, a.count, first, static_cast<R>(a.threshold),
                 static_cast<R>(a.offset), words, bits);
      DET_LAUNCH(nms_scan, walkers, kScanThreads, 0, stream, a.groups, a.starts, a.group_count, a.count, first, last,
                 bits, words, a.alive);
    }
    DET_LAUNCH(nms_flags, blocks, 256, 0, stream, a.alive, a.rank, a.count, a.keep);
    return nullptr;
  });
}

const char* nms_compact_kept(const int64_t* order, const uint8_t* keep, int64_t count, int64_t max_out, int64_t* result,
                             int64_t* kept, void* stream) {
  DET_LAUNCH(nms_compact, 1, 1024, 0, stream, order, keep, count, max_out, result, kept);
  return nullptr;
}

}  // namespace det::cuda
