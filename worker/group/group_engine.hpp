#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/communicator.hpp"
#include "worker/engine/engine.hpp"

namespace tessera::worker {

// What a group is made of: its ranks' devices and what connects them. Tests bring their own.
struct GroupParts {
  std::vector<std::string> names;                                           // "cuda:0", ...
  std::function<std::unique_ptr<kernels::Backend>(int rank)> make_backend;  // on the rank's thread
  std::unique_ptr<kernels::CommunicatorGroup> communicators;
  double spin_s = 0;        // see RankThreads::Options::spin
  bool halves = false;      // a backend may have two batches on their way in turns
  bool express = true;      // batches of queries overtake others
  double standstill_s = 4;  // without progress on a batch that takes less: a hang
};

// A copy of the model over several devices of this process, a thread each, as Engine describes it.
// Which split it takes: see choose_split.
std::unique_ptr<Engine> make_group_engine(const EngineOptions& options, GroupParts parts);
std::unique_ptr<Engine> make_cuda_group_engine(const EngineOptions& options,
                                               const std::vector<int>& devices);
std::unique_ptr<Engine> make_cpu_group_engine(const EngineOptions& options, int ranks);

// How a group should split its work, and one sentence that says why. Throws FatalError when what is
// asked for cannot be.
struct SplitQuestion {
  std::optional<GroupSplit> asked;
  int ranks = 1;
  bool whole_fits = true;  // all weights and a batch on each device
  bool gathers = true;     // the communicators have gather_rows
};
struct SplitChoice {
  GroupSplit split = GroupSplit::kTokens;
  std::string reason;
};
SplitChoice choose_split(const SplitQuestion& question);

// Where a batch is best cut in two for kTensor: the number of sequences in the first half, or 0
// when it should stay in one piece. `pair_cost` as in TokenSplitOptions.
std::int64_t halve_batch(std::span<const std::int32_t> cu_seqlens, double pair_cost);

}  // namespace tessera::worker
