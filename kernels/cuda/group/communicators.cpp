#include "kernels/cuda/group/nccl_communicator.hpp"
#include "kernels/cuda/group/peer_communicator.hpp"

namespace tessera::kernels {

std::unique_ptr<CommunicatorGroup> make_cuda_communicators(std::span<const int> devices,
                                                           Transport transport) {
  if (transport == Transport::kAuto) {
    transport = cuda::reach_each_other(devices) ? Transport::kPeer : Transport::kNccl;
  }
  return transport == Transport::kPeer ? cuda::make_peer_communicators(devices)
                                       : cuda::make_nccl_communicators(devices);
}

}  // namespace tessera::kernels
