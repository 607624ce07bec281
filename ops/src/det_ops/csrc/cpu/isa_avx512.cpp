// The kernels with AVX512, for machines that have it. Headers of the standard library come before the target is set:
// what they define is shared with the other translation units and must run anywhere.
#if defined(__x86_64__)
#include <cmath>
#include <cstdint>
#include <cstring>

#define DET_ISA 512
#define DET_TABLE avx512_kernels
#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma,avx2"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma,avx2")
#endif

#include "isa_table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
