#pragma once

#include <memory>
#include <span>

#include "kernels/communicator.hpp"

namespace tessera::kernels::cuda {

// The communicator over NCCL, for GPUs that do not reach each other's memory and to measure
// against. The library is looked up when the first group is made ("libnccl.so.2"), so a worker that
// needs none starts without it. It has no gather_rows. Throws FatalError when the library is
// missing.
std::unique_ptr<CommunicatorGroup> make_nccl_communicators(std::span<const int> devices);

}  // namespace tessera::kernels::cuda
