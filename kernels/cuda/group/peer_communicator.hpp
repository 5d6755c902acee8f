#pragma once

#include <memory>
#include <span>

#include "kernels/communicator.hpp"

namespace tessera::kernels::cuda {

// Thread blocks of a collective that runs among a backend's own operations: 48 fill the links of
// two to four H200s.
struct PeerBlocks {
  int alone = 48;
};

bool reach_each_other(std::span<const int> devices);

// Throws FatalError when a GPU cannot reach another's memory. Page-locked memory of all devices is
// taken here, device memory as the ranks join.
std::unique_ptr<CommunicatorGroup> make_peer_communicators(std::span<const int> devices,
                                                           const PeerBlocks& blocks = {});

}  // namespace tessera::kernels::cuda
