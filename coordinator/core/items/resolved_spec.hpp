#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/result.hpp"
#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"
#include "coordinator/core/items/served_model.hpp"

namespace tessera::coordinator {

// An EmbedSpec that has been checked against its model.
struct ResolvedSpec {
  ModelId model = 0;
  std::string prefix;            // Before each text; token ids are taken as they are.
  std::uint32_t dimensions = 0;  // 1..hidden_size
  protocol::VectorType vector_type = protocol::VectorType::kFloat32;
  protocol::Truncate truncate = protocol::Truncate::kNone;
  std::uint32_t max_tokens = 0;  // 0 = the model's limit

  // Of one vector in an answer.
  std::size_t row_bytes() const {
    return std::size_t{dimensions} * (vector_type == protocol::VectorType::kFloat32 ? 4 : 2);
  }
};

// kNotFound for an unknown model, kInvalidArgument for a value out of range.
Result<ResolvedSpec> resolve(const protocol::EmbedSpec& spec, std::span<const ServedModel> models);

// Whether the answer to so many items fits one message; kInvalidArgument says how many do.
Result<void> check_answer_fits(const ResolvedSpec& spec, std::size_t items);

// "Instruct: {task}\nQuery:", as the models were trained; no space after the last colon.
std::string query_prefix(std::string_view task);

}  // namespace tessera::coordinator
