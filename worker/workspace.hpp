#pragma once

#include <memory>

#include "common/model/memory_estimate.hpp"
#include "kernels/backend.hpp"

namespace tessera {

// The encoder's activations on one device, taken once at start; shapes in WorkspaceBytes. One batch
// uses them at a time: batches in flight follow each other on the device.
struct Workspace {
  std::unique_ptr<kernels::Buffer> x;
  std::unique_ptr<kernels::Buffer> normed;
  std::unique_ptr<kernels::Buffer> qkv;
  std::unique_ptr<kernels::Buffer> attention;
  std::unique_ptr<kernels::Buffer> mlp;
  std::unique_ptr<kernels::Buffer> x_last;
  std::unique_ptr<kernels::Buffer> h_last;
  std::unique_ptr<kernels::Buffer> q_last;
};

Workspace allocate_workspace(kernels::Backend& backend, const WorkspaceBytes& bytes);

}  // namespace tessera
