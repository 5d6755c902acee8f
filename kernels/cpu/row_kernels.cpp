#include "kernels/cpu/row_kernels.hpp"

#include <vector>

namespace tessera::kernels::cpu {

#if defined(TESSERA_HAVE_AVX512_BF16)
extern const RowKernels row_kernels_avx512_bf16;
#endif
#if defined(__x86_64__)
extern const RowKernels row_kernels_avx512;
extern const RowKernels row_kernels_avx2;
#endif
extern const RowKernels row_kernels_generic;

namespace {

std::vector<const RowKernels*> find_usable() {
  std::vector<const RowKernels*> usable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
#if defined(TESSERA_HAVE_AVX512_BF16)
  if (avx512 && __builtin_cpu_supports("avx512bf16")) {
    usable.push_back(&row_kernels_avx512_bf16);
  }
#endif
  if (avx512) {
    usable.push_back(&row_kernels_avx512);
  }
  if (avx2) {
    usable.push_back(&row_kernels_avx2);
  }
#endif
  usable.push_back(&row_kernels_generic);
  return usable;
}

}  // namespace

std::span<const RowKernels* const> usable_row_kernels() {
  static const std::vector<const RowKernels*> usable = find_usable();
  return usable;
}

const RowKernels& best_row_kernels(DType weight_type) {
  for (const RowKernels* kernels : usable_row_kernels()) {
    if (weight_type == DType::kBFloat16 || kernels->activation == DType::kFloat32) {
      return *kernels;
    }
  }
  return row_kernels_generic;
}

}  // namespace tessera::kernels::cpu
