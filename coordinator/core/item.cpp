#include "coordinator/core/item.hpp"

#include <algorithm>

#include "common/check.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::string_view kKeyDomain = "tessera cache key 1";
constexpr std::size_t kListedBytesMax = 2000;

void absorb(crypto_generichash_state& state, const void* data, std::size_t bytes) {
  crypto_generichash_update(&state, static_cast<const unsigned char*>(data), bytes);
}

void absorb_number(crypto_generichash_state& state, std::uint64_t number) {
  absorb(state, &number, sizeof(number));
}

CacheKey finish(crypto_generichash_state& state) {
  CacheKey key;
  crypto_generichash_final(&state, reinterpret_cast<unsigned char*>(key.data()), key.size());
  return key;
}

// The code points of Unicode's White_Space property.
bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// White space lies below U+3001, so a lead byte for longer sequences already decides.
char32_t decode_short(std::string_view text, std::size_t at, std::size_t& length) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned lead = byte(at);
  if (lead < 0x80) {
    length = 1;
    return lead;
  }
  if (lead >= 0xC2 && lead < 0xE0) {
    length = 2;
    return ((lead & 0x1FU) << 6U) | (byte(at + 1) & 0x3FU);
  }
  length = 3;
  return lead < 0xF0 && at + 3 <= text.size()
             ? ((lead & 0xFU) << 12U) | ((byte(at + 1) & 0x3FU) << 6U) | (byte(at + 2) & 0x3FU)
             : 0xFFFFU;
}

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

KeyHasher::KeyHasher(std::string_view fingerprint, const ResolvedSpec& spec,
                     std::uint32_t max_tokens)
    : prefix_(spec.prefix) {
  CHECK(sodium_init() >= 0);
  crypto_generichash_init(&shared_, nullptr, 0, sizeof(CacheKey));
  absorb(shared_, kKeyDomain.data(), kKeyDomain.size());
  absorb_number(shared_, fingerprint.size());
  absorb(shared_, fingerprint.data(), fingerprint.size());
  absorb_number(shared_, static_cast<std::uint64_t>(spec.truncate));
  absorb_number(shared_, max_tokens);
}

CacheKey KeyHasher::text_key(std::string_view text) const {
  crypto_generichash_state state = shared_;
  absorb_number(state, static_cast<std::uint64_t>(protocol::ItemKind::kText));
  absorb_number(state, prefix_.size() + text.size());
  absorb(state, prefix_.data(), prefix_.size());
  absorb(state, text.data(), text.size());
  return finish(state);
}

CacheKey KeyHasher::ids_key(std::span<const std::int32_t> ids) const {
  crypto_generichash_state state = shared_;
  absorb_number(state, static_cast<std::uint64_t>(protocol::ItemKind::kTokenIds));
  absorb_number(state, ids.size());
  absorb(state, ids.data(), ids.size_bytes());
  return finish(state);
}

bool is_blank(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 1;
    if (!is_white_space(decode_short(text, at, length))) {
      return false;
    }
    at += length;
  }
  return true;
}

Result<PreparedIds> prepare_ids(std::span<const std::byte> bytes, const ServedModel& model,
                                protocol::Truncate truncate, std::uint32_t max_tokens) {
  PreparedIds prepared;
  prepared.ids.resize(bytes.size() / sizeof(std::int32_t));
  if (prepared.ids.empty()) {
    return Error{ErrorCode::kEmptyText, "the item has no token ids"};
  }
  std::memcpy(prepared.ids.data(), bytes.data(), prepared.ids.size() * sizeof(std::int32_t));
  for (const std::int32_t id : prepared.ids) {
    if (id < 0 || static_cast<std::uint32_t>(id) >= model.vocab_size) {
      return Error{ErrorCode::kInvalidTokenId, "token id " + std::to_string(id) +
                                                   " is outside the vocabulary of " +
                                                   std::to_string(model.vocab_size)};
    }
  }
  if (prepared.ids.back() != model.final_token) {
    prepared.ids.push_back(model.final_token);
  }
  if (prepared.ids.size() <= max_tokens) {
    return prepared;
  }
  if (truncate == protocol::Truncate::kNone) {
    return Error{ErrorCode::kTooLong, "the item has " + std::to_string(prepared.ids.size()) +
                                          " tokens with the final one; at most " +
                                          std::to_string(max_tokens) + " are allowed"};
  }
  const std::size_t cut = prepared.ids.size() - max_tokens;
  prepared.tokens_cut = static_cast<std::uint32_t>(cut);
  const auto first = truncate == protocol::Truncate::kLeft
                         ? prepared.ids.begin()
                         : prepared.ids.end() - static_cast<std::ptrdiff_t>(cut) - 1;
  prepared.ids.erase(first, first + static_cast<std::ptrdiff_t>(cut));
  return prepared;
}

}  // namespace tessera::coordinator
