#include "coordinator/core/items/resolved_spec.hpp"

#include <algorithm>

namespace tessera::coordinator {
namespace {

constexpr std::size_t kListedBytesMax = 2000;

std::uint32_t choose_dimensions(const protocol::EmbedSpec& spec, const ServedModel& model) {
  if (spec.dimensions != 0) {
    return spec.dimensions;
  }
  return model.default_dimensions != 0 ? model.default_dimensions : model.hidden_size;
}

// "it has: document, query", for whoever asked for another.
std::string list_prompts(const ServedModel& model) {
  std::string names;
  for (const auto& [name, prompt] : model.prompts) {
    names += (names.empty() ? "it has: " : ", ") + name;
  }
  return names.empty() ? "its folder names no prompts" : names.substr(0, kListedBytesMax);
}

// What goes before each text: the named prompt, the instruction's template, or the folder's own
// prompt for queries or documents.
Result<std::string> choose_prefix(const protocol::EmbedSpec& spec, const ServedModel& model) {
  const auto refuse = [](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message)};
  };
  if (spec.instruction.size() > protocol::kInstructionBytesMax) {
    return refuse("the instruction is longer than 8 KiB");
  }
  if (!spec.instruction.empty() && !spec.query) {
    return refuse("an instruction is only for queries");
  }
  if (spec.prompt_name.empty()) {
    if (!spec.query && !model.plain_refusal.empty()) {
      return refuse("model " + model.name + " cannot embed plain texts: " + model.plain_refusal);
    }
    return !spec.query                ? model.document_prefix
           : spec.instruction.empty() ? model.query_prefix
                                      : query_prefix(spec.instruction);
  }
  if (!spec.instruction.empty()) {
    return refuse("prompt_name and an instruction exclude each other: give one of them");
  }
  const auto prompt = model.prompts.find(spec.prompt_name);
  if (prompt == model.prompts.end()) {
    return refuse("model " + model.name + " has no prompt \"" +
                  spec.prompt_name.substr(0, protocol::kNameBytesMax) + "\"; " +
                  list_prompts(model));
  }
  if (spec.query && prompt->second != model.query_prefix) {
    return refuse("prompt_name \"" + spec.prompt_name +
                  "\" is not the prompt for queries: leave query or prompt_name out");
  }
  return prompt->second;
}

}  // namespace

std::string query_prefix(std::string_view task) {
  return "Instruct: " + std::string(task) + "\nQuery:";
}

Result<ResolvedSpec> resolve(const protocol::EmbedSpec& spec, std::span<const ServedModel> models) {
  auto model = models.begin();
  if (!spec.model.empty()) {
    model = std::ranges::find(models, spec.model, &ServedModel::name);
    if (model == models.end()) {
      return Error{
          ErrorCode::kNotFound,
          "no model \"" + spec.model.substr(0, protocol::kNameBytesMax) + "\" is served here"};
    }
  } else if (models.size() != 1) {
    return Error{ErrorCode::kInvalidArgument, "several models are served: name one"};
  }
  if (spec.dimensions != 0 &&
      (spec.dimensions < protocol::kDimensionsMin || spec.dimensions > model->hidden_size)) {
    return Error{
        ErrorCode::kInvalidArgument,
        "dimensions must be 32 to " + std::to_string(model->hidden_size) + " for this model"};
  }
  if (spec.max_tokens == 1 || spec.max_tokens > model->max_seqlen) {
    return Error{
        ErrorCode::kInvalidArgument,
        "max_tokens must be 2 to " + std::to_string(model->max_seqlen) + " for this model"};
  }
  auto prefix = choose_prefix(spec, *model);
  if (!prefix) {
    return prefix.error();
  }
  return ResolvedSpec{.model = static_cast<ModelId>(model - models.begin()),
                      .prefix = std::move(*prefix),
                      .dimensions = choose_dimensions(spec, *model),
                      .vector_type = spec.vector_type,
                      .truncate = spec.truncate,
                      .max_tokens = spec.max_tokens};
}

Result<void> check_answer_fits(const ResolvedSpec& spec, std::size_t items) {
  const std::size_t fitting = protocol::kPayloadBytesMax / spec.row_bytes();
  if (items > fitting) {
    return Error{ErrorCode::kInvalidArgument,
                 "at this width at most " + std::to_string(fitting) + " items fit one answer"};
  }
  return {};
}

}  // namespace tessera::coordinator
