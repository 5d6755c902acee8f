#include "worker/workspace.hpp"

namespace tessera {

Workspace allocate_workspace(kernels::Backend& backend, const WorkspaceBytes& bytes) {
  return {.x = backend.allocate(bytes.x, "residual stream"),
          .normed = backend.allocate(bytes.normed, "normed"),
          .qkv = backend.allocate(bytes.qkv, "qkv"),
          .attention = backend.allocate(bytes.attention, "attention"),
          .mlp = backend.allocate(bytes.mlp, "gated intermediate"),
          .x_last = backend.allocate(bytes.x_last, "residual stream of last tokens"),
          .h_last = backend.allocate(bytes.h_last, "last tokens"),
          .q_last = backend.allocate(bytes.q_last, "queries of last tokens")};
}

}  // namespace tessera
