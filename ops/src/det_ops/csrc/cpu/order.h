// Stable orders of scores and groups.
#pragma once

#include <cstdint>
#include <vector>

namespace det {

// Indices of the scores in stable descending order, NaN first, as torch.sort gives them.
std::vector<int32_t> descending(const float* scores, int64_t n);
std::vector<int32_t> descending(const double* scores, int64_t n);

// Reorders `order` by group, stably; returns the first position of each group and, last, the number of all.
std::vector<int64_t> bucket(const int64_t* groups, std::vector<int32_t>& order);

}  // namespace det
