#pragma once

#include <optional>
#include <string>
#include <variant>

#include "clients/gateway/api/openai_body.hpp"

namespace tessera::gateway {

inline constexpr std::string_view kBatchEndpoint = "/v1/embeddings";
inline constexpr std::size_t kCustomIdBytesMax = 512;

// What is wrong with an input as a whole, so that its batch is refused.
struct BatchFault {
  std::string code;
  std::string message;
  std::string param;       // May be empty.
  std::uint64_t line = 0;  // From 1; 0: not of one line.
  bool operator==(const BatchFault&) const = default;
};

// One line: {"custom_id","method","url","body"}. What is wrong with its body is in `read.problem`
// and is this line's error alone.
struct BatchLine {
  std::string custom_id;
  OpenAiRead read;
};

// Reads a line; its body by the code of POST /v1/embeddings. The fault has no line number yet.
// `line` keeps its contents. Pure, any thread.
std::variant<BatchLine, BatchFault> read_batch_line(std::string& line, std::size_t items_max);

// Judges the body for the model that it names, as the route does; fills read.problem.
void judge_batch_line(BatchLine& line, const protocol::ModelInfo& model, bool accept_token_ids);

// The items of a line in one block. Takes them.
protocol::ItemBlock take_items(ItemList& items);
// Adds the items of `more` behind those of `block`.
void append_items(protocol::ItemBlock& block, const protocol::ItemBlock& more);

}  // namespace tessera::gateway
