#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace tessera::kernels::cuda {

// Fills with reproducible numbers, uniform in (-scale, scale): what is timed must not be constant.
void launch_fill_random(__nv_bfloat16* values, std::int64_t count, std::uint64_t seed,
                        cudaStream_t stream, float scale = 1.0F);

// Adds to `counter` the number of elements whose bits differ.
void launch_count_different(unsigned* counter, const __nv_bfloat16* a, const __nv_bfloat16* b,
                            std::int64_t count, cudaStream_t stream);

// Only for tests of what follows: a write to an address that nobody owns; half a minute of nothing.
void launch_fault(cudaStream_t stream);
void launch_hang(cudaStream_t stream);
void load_failures();  // their code, onto the current device

}  // namespace tessera::kernels::cuda
