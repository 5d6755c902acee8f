#pragma once

#include <memory>

#include "common/model/memory_estimate.hpp"
#include "kernels/backend.hpp"
#include "kernels/communicator.hpp"
#include "worker/split/shard.hpp"

namespace tessera::worker {

// The encoder's activations on one device, taken once at start; shapes in WorkspaceBytes. One batch
// uses the rows of a full batch at a time, and one express batch those behind them.
struct Workspace {
  std::unique_ptr<kernels::Buffer> x;
  std::unique_ptr<kernels::Buffer> qkv;
  std::unique_ptr<kernels::Buffer> attention;
  std::unique_ptr<kernels::Buffer> mlp;
  std::unique_ptr<kernels::Buffer> x_last;
  std::unique_ptr<kernels::Buffer> q_last;
  // kTensor: [T, hidden], this rank's part of a product's sum. Then x and x_last are reached by the
  // other ranks too.
  std::unique_ptr<kernels::Buffer> partial;
  // kTensor, where the communicator measures rows: [T] float32, of x.
  std::unique_ptr<kernels::Buffer> mean_squares;
  // kTokens: [rows of the group, k | v], written by all ranks, in turns; a pass begins with the
  // first.
  std::unique_ptr<kernels::Buffer> gathered[2];
  std::unique_ptr<kernels::Buffer> express_gathered[2];
  // The first of the rows that an express batch has, behind those of a full batch.
  std::int64_t express_row = 0;       // of tokens
  std::int64_t express_last_row = 0;  // of last tokens
};

// `communicator` is null for kNone.
Workspace allocate_workspace(kernels::Backend& backend, const WorkspaceBytes& bytes,
                             GroupSplit split = GroupSplit::kNone,
                             kernels::Communicator* communicator = nullptr);

}  // namespace tessera::worker
