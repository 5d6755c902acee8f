#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/range_set.hpp"
#include "common/result.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {

// What the check of an input has found. A run goes by it, so that one that is taken up again reads
// every line as the first one did, whatever the gateway's options and the model are by then.
struct BatchPlan {
  std::string model;
  std::uint32_t hidden_size = 0;
  std::string tokenizer_hash;
  bool accept_token_ids = false;
  std::vector<protocol::EmbedSpec> specs;  // Of all sound lines, in order of their first.
  std::uint64_t lines = 0;

  // The model, as far as lines are judged by it.
  protocol::ModelInfo model_info() const;
  bool operator==(const BatchPlan&) const = default;
};

// The part of the output that one holder of the batch's lease has written, in files of its own:
// whatever a former holder that was only slow still writes, it writes into none of ours.
struct BatchSegment {
  std::uint64_t holder = 0;        // The record's version when the lease was taken.
  std::uint64_t output_bytes = 0;  // That count; what lies behind was not made safe.
  std::uint64_t error_bytes = 0;
  bool operator==(const BatchSegment&) const = default;
};

// How far a batch is: in the file progress.HOLDER.json of its work folder, which replaces the one
// before once the outputs are safe on the disk, and before results are acknowledged.
struct BatchProgress {
  BatchPlan plan;
  std::uint32_t pass = 0;  // The spec whose lines are being embedded; all before it are done.
  RangeSet done;           // Chunks of that pass whose lines are in the outputs.
  std::uint64_t completed = 0;
  std::uint64_t failed = 0;
  std::uint64_t tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::vector<BatchSegment> segments;  // In the order of their holders; the last is the writer's.
};

std::string to_json(const BatchProgress& progress);
// From to_json(); kInvalidArgument for anything else.
Result<BatchProgress> read_progress(std::string json);

std::filesystem::path progress_file(const std::filesystem::path& folder, std::uint64_t holder);
// The progress of the last holder that has written one; nothing where none has. Throws FatalError
// for one that is broken.
std::optional<BatchProgress> last_progress(const std::filesystem::path& folder);
// Makes it safe. Throws FatalError.
void save_progress(const std::filesystem::path& folder, const BatchProgress& progress);

}  // namespace tessera::gateway
