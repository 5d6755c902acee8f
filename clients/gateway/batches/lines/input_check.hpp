#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "clients/gateway/batches/batch_output.hpp"
#include "clients/gateway/batches/batch_record.hpp"
#include "clients/gateway/batches/lines/line_reader.hpp"
#include "clients/gateway/batches/lines/result_lines.hpp"

namespace tessera::gateway {

inline constexpr std::size_t kBatchSpecsMax = 64;

// What a check needs to know of the server.
struct CheckRules {
  std::vector<protocol::ModelInfo> models;  // That are served.
  bool accept_token_ids = false;
  std::size_t items_max = 2048;  // Of a line.
};

struct CheckedInput {
  BatchPlan plan;
  std::vector<BatchFault> faults;  // At most kBatchFaultsMax, by line; any: the batch is refused.
  std::uint64_t refused = 0;       // Lines with a bad body, written to the errors.
};

// Reads the whole input once, line by line: what is wrong with the batch, which specs its lines
// have, and an error line for each bad body. `folder` takes what does not fit the memory. Nothing
// when `go_on` said no. Throws FatalError when the disk fails.
std::optional<CheckedInput> check_input(const InputFile& input, const CheckRules& rules,
                                        const LineNames& names, const std::filesystem::path& folder,
                                        AppendFile& errors, const std::function<bool()>& go_on);

}  // namespace tessera::gateway
