// Radix sorts: stable, and far quicker than comparing for the thousands of scores of a detector.
#include "order.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

namespace det {
namespace {

// Unsigned keys whose ascending order is the descending order of the scores: NaN lowest, -0 equal to 0.
uint32_t key_of(float x) {
  if (x != x) return 0;
  if (x == 0) x = 0;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

uint64_t key_of(double x) {
  if (x != x) return 0;
  if (x == 0) x = 0;
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint64_t top = uint64_t{1} << 63;
  return ~(bits & top ? ~bits : bits | top);
}

// Least significant digit first, 11 bits at a time; a digit that is the same everywhere is skipped.
template <class Key>
void radix_sort(std::vector<Key>& keys, std::vector<int32_t>& values) {
  constexpr int kBits = 11;
  constexpr int64_t kSize = 1 << kBits;
  std::vector<Key> other_keys(keys.size());
  std::vector<int32_t> other_values(values.size());
  for (unsigned shift = 0; shift < 8 * sizeof(Key); shift += kBits) {
    std::array<int64_t, kSize> start{};
    for (const Key key : keys) ++start[(key >> shift) & (kSize - 1)];
    if (start[(keys[0] >> shift) & (kSize - 1)] == static_cast<int64_t>(keys.size())) continue;
    int64_t sum = 0;
    for (int64_t& count : start) sum += std::exchange(count, sum);
    for (size_t i = 0; i < keys.size(); ++i) {
      const int64_t at = start[(keys[i] >> shift) & (kSize - 1)]++;
      other_keys[at] = keys[i];
      other_values[at] = values[i];
    }
    keys.swap(other_keys);
    values.swap(other_values);
  }
}

template <class T>
std::vector<int32_t> descending_of(const T* scores, int64_t n) {
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (n < 2) return order;
  std::vector<decltype(key_of(T{}))> keys(n);
  for (int64_t i = 0; i < n; ++i) keys[i] = key_of(scores[i]);
  if (n < 256) {  // too few to fill the digits
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] < keys[b]; });
  } else {
    radix_sort(keys, order);
  }
  return order;
}

}  // namespace

std::vector<int32_t> descending(const float* scores, int64_t n) { return descending_of(scores, n); }
std::vector<int32_t> descending(const double* scores, int64_t n) { return descending_of(scores, n); }

std::vector<int64_t> bucket(const int64_t* groups, std::vector<int32_t>& order) {
  const int64_t n = static_cast<int64_t>(order.size());
  std::vector<int64_t> starts;
  if (n == 0) return {0};
  const auto [low, high] = std::minmax_element(groups, groups + n);
  const uint64_t range = static_cast<uint64_t>(*high) - static_cast<uint64_t>(*low);
  const int64_t base = *low;
  if (range < static_cast<uint64_t>(4 * n) + 1024) {
    std::vector<int64_t> start(range + 2);
    for (int64_t i = 0; i < n; ++i) ++start[groups[i] - base + 1];
    std::partial_sum(start.begin(), start.end(), start.begin());
    std::vector<int32_t> result(n);
    std::vector<int64_t> next = start;
    for (const int32_t i : order) result[next[groups[i] - base]++] = i;
    order.swap(result);
  } else {
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return groups[a] < groups[b]; });
  }
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || groups[order[i]] != groups[order[i - 1]]) starts.push_back(i);
  }
  starts.push_back(n);
  return starts;
}

}  // namespace det
