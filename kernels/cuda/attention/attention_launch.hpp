#pragma once

// The kernels behind launch_attention, one function each; see attention.hpp for the contract.

#include <cuda_runtime.h>

#include <source_location>

#include "kernels/cuda/attention/attention.hpp"

namespace tessera::kernels::cuda {

struct AttentionParameters;

// Throws FatalError with the error's name and the place.
void check_launch(cudaError_t error,
                  const std::source_location& where = std::source_location::current());

void launch_long_sm80(const AttentionParameters& parameters, int tiles, cudaStream_t stream);
void launch_short_sm80(const AttentionParameters& parameters, int tiles, cudaStream_t stream);
// `blocks` is at most the number of SMs.
void launch_long_sm90(const AttentionParameters& parameters, int blocks, cudaStream_t stream);
void launch_short_sm90(const AttentionParameters& parameters, int blocks, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
