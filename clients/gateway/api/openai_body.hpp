#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "clients/gateway/api/embed_body.hpp"
#include "clients/gateway/api/vectors_body.hpp"

// The body of POST /v1/embeddings and its answer: for the route, and for the lines of a batch.
// Pure, any thread.
namespace tessera::gateway {

// What the fields of one body say.
struct OpenAiRead {
  EmbedCall call;
  std::string model;
  std::string vocabulary;
  std::string input_type;
  Dtype dtype = Dtype::kFloat;
  bool base64 = false;
  bool has_input = false;
  std::optional<std::uint32_t> dimensions;
  std::optional<http::Problem> problem;
};

// Takes one field; the error is told with the field's name.
Result<void> take_openai_field(std::string_view name, JsonValue& value, std::size_t items_max,
                               OpenAiRead& read);

// What the fields say together; before the model is looked up. Fills the spec.
std::optional<http::Problem> judge_openai(OpenAiRead& read);
// What they say for this model, which the spec then names.
std::optional<http::Problem> judge_openai(OpenAiRead& read, const protocol::ModelInfo& model,
                                          bool accept_token_ids);

// Whether the vectors cannot be written in the form that was asked for.
std::optional<http::Problem> judge_openai_answer(const OpenAiRead& read, const EmbedAnswer& answer);
// How the answer is written.
VectorSection openai_section(const OpenAiRead& read, const EmbedAnswer& answer,
                             const std::string& model);

}  // namespace tessera::gateway
