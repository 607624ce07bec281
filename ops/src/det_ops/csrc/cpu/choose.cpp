// Which instruction set serves, decided once when the first kernel is called.
#include <cstdlib>
#include <string>

#include "kernels.h"

namespace det {
namespace {

enum class Isa { baseline, avx2, avx512 };

Isa widest() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa decide() {
  const char* wanted = std::getenv("DET_OPS_ISA");
  const Isa most = widest();
  const std::string name = wanted == nullptr ? "" : wanted;
  const Isa limit = name == "baseline" ? Isa::baseline : name == "avx2" ? Isa::avx2 : Isa::avx512;
  return most < limit ? most : limit;
}

Isa chosen() {
  static const Isa isa = decide();
  return isa;
}

}  // namespace

const char* instruction_set() {
  static const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(chosen())];
}

template <class T>
const Kernels<T>& kernels() {
#if defined(__x86_64__)
  if (chosen() == Isa::avx512) return avx512_kernels<T>();
  if (chosen() == Isa::avx2) return avx2_kernels<T>();
#endif
  return baseline_kernels<T>();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace det
