#include "clients/gateway/api/token_list.hpp"

#include <algorithm>

#include "clients/gateway/api/embed_call.hpp"
#include "clients/gateway/encoding/decimal.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "common/check.hpp"
#include "common/model/fingerprint.hpp"

namespace tessera::gateway {

using http::Problem;

namespace {

std::string_view view(const std::byte* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

void append_token(std::int32_t id, std::string_view text, std::optional<std::size_t> start,
                  std::string& out) {
  out += out.ends_with('[') ? R"({"id":)" : R"(,{"id":)";
  append_integer(static_cast<std::uint64_t>(id), out);
  out += R"(,"text":)";
  append_json_string(text, out);
  out += start ? R"(,"special":false,"start":)" : R"(,"special":true,"start":)";
  if (start) {
    append_integer(*start, out);
    out += R"(,"stop":)";
    append_integer(*start + text.size(), out);
  } else {
    out += R"(null,"stop":null)";
  }
  out += '}';
}

// The tokens' strings one behind the other are the normalised text; where that is the text itself
// each token has its place there.
void append_tokens(const Tokenizer& tokenizer, const Encoding& encoding, std::string_view text,
                   bool with_template, std::string& out) {
  const std::size_t from_template = with_template ? tokenizer.suffix_ids().size() : 0;
  const std::size_t own = encoding.ids.size() - std::min(from_template, encoding.ids.size());
  std::string spelled;
  for (std::size_t i = 0; i < own; ++i) {
    spelled += tokenizer.piece(encoding.ids[i]);
  }
  const bool unchanged = spelled == text;
  std::size_t at = 0;
  out += '[';
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
    const std::string_view piece = tokenizer.piece(encoding.ids[i]);
    const bool special = i >= own || tokenizer.added_token(piece) == encoding.ids[i];
    const bool placed = unchanged && !special;
    append_token(encoding.ids[i], piece, placed ? std::optional(at) : std::nullopt, out);
    at += piece.size();
  }
  out += ']';
}

}  // namespace

Tokenizers::Tokenizers(const std::vector<std::string>& folders) {
  for (const std::string& argument : folders) {
    const std::size_t equals = argument.find('=');  // NAME=DIR, as the coordinator takes it.
    const std::string dir = equals == std::string::npos ? argument : argument.substr(equals + 1);
    auto folder = read_model_folder(dir);
    if (!folder) {
      throw FatalError(folder.error().message);
    }
    auto loaded = load_tokenizer(*folder);
    auto hash = tokenizer_hash(folder->transformer_dir());
    if (!loaded || !hash) {
      throw FatalError(loaded ? hash.error().message : loaded.error().message);
    }
    NamedTokenizer named{
        .tokenizer = std::move(loaded->tokenizer),
        .prompts = {folder->prompts.by_name.begin(), folder->prompts.by_name.end()}};
    by_hash_[*hash] = std::make_shared<const NamedTokenizer>(std::move(named));
  }
}

std::shared_ptr<const NamedTokenizer> Tokenizers::find(const protocol::ModelInfo& model) const {
  const auto found = by_hash_.find(model.tokenizer_hash);
  return found == by_hash_.end() ? nullptr : found->second;
}

std::variant<std::string, Problem> token_list(const NamedTokenizer& tokenizer,
                                              const std::vector<protocol::ItemBlock>& blocks,
                                              const std::string& prompt_name,
                                              bool add_special_tokens) {
  std::string prefix;
  if (!prompt_name.empty()) {
    const auto found = tokenizer.prompts.find(prompt_name);
    if (found == tokenizer.prompts.end()) {
      return problem_of(ErrorCode::kInvalidArgument,
                        "the model has no prompt " + prompt_name.substr(0, 100));
    }
    prefix = found->second;
  }
  EncodeScratch scratch;
  std::string out = "[";
  for (const protocol::ItemBlock& block : blocks) {
    const std::byte* at = block.payload.data();
    for (const std::uint32_t size : block.sizes) {
      const std::string text = prefix + std::string(view(at, size));
      at += size;
      auto encoding =
          tokenizer.tokenizer.encode(text, {.add_template = add_special_tokens}, scratch);
      if (!encoding) {
        return problem_of(encoding.error().code, encoding.error().message);
      }
      out += out.size() > 1 ? "," : "";
      append_tokens(tokenizer.tokenizer, *encoding, text, add_special_tokens, out);
    }
  }
  return out + "]";
}

}  // namespace tessera::gateway
