#include "worker/encoder/workspace.hpp"

#include "common/check.hpp"

namespace tessera::worker {

Workspace allocate_workspace(kernels::Backend& backend, const WorkspaceBytes& bytes,
                             GroupSplit split, kernels::Communicator* communicator) {
  CHECK((split == GroupSplit::kNone) == (communicator == nullptr));
  const auto own = [&](std::uint64_t size, const char* what) {
    return backend.allocate(size, what);
  };
  const auto shared = [&](std::uint64_t size, const char* what) {
    return split == GroupSplit::kTensor ? communicator->allocate(size, what) : own(size, what);
  };
  Workspace w;
  w.express_row = bytes.express_row;
  w.express_last_row = bytes.express_last_row;
  w.x = shared(bytes.x, "residual stream");
  w.qkv = own(bytes.qkv, "qkv");
  w.attention = own(bytes.attention, "attention");
  w.mlp = own(bytes.mlp, "gated intermediate");
  w.x_last = shared(bytes.x_last, "residual stream of last tokens");
  w.q_last = own(bytes.q_last, "queries of last tokens");
  if (split == GroupSplit::kTensor) {
    w.partial = shared(bytes.partial, "partial sums");
    if (communicator->measures_rows()) {
      w.mean_squares = shared(bytes.mean_squares, "mean squares of rows");
    }
    communicator->prepare_lanes(bytes.partial);
  } else if (split == GroupSplit::kTokens) {
    for (auto& gathered : w.gathered) {
      gathered = communicator->allocate(bytes.gathered, "gathered keys and values");
    }
    for (auto& gathered : w.express_gathered) {
      gathered = communicator->allocate(bytes.express_gathered, "gathered keys and values");
    }
  }
  return w;
}

}  // namespace tessera::worker
