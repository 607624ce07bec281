// The kernels with AVX2, for machines that have it. Headers of the standard library come before the target is set:
// what they define is shared with the other translation units and must run anywhere.
#if defined(__x86_64__)
#include <cmath>
#include <cstdint>
#include <cstring>

#define DET_ISA 2
#define DET_TABLE avx2_kernels
#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "isa_table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
