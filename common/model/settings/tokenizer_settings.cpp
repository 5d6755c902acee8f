#include "common/model/settings/tokenizer_settings.hpp"

#include "common/model/settings/settings.hpp"

namespace tessera {
namespace {

using Json = Settings::Json;

constexpr std::string_view kOtherIds =
    "this gives texts other token ids, which Tessera does not implement; serve such a model with "
    "sentence-transformers";
constexpr std::int64_t kRealLimitMax = std::int64_t{1} << 31;

// A token as a string, or as an object with its flags; null names none.
void take_token(Settings& settings, const std::string& key, const Json& value,
                std::optional<std::int32_t> id, TokenizerSettings& read) {
  if (value.is_null()) {
    return;
  }
  if (value.is_string()) {
    read.tokens.push_back({.key = key, .content = value.get<std::string>(), .id = id});
    return;
  }
  if (!value.is_object()) {
    return settings.refuse(key, "neither a token nor null");
  }
  Settings token(key, value);
  for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"}) {
    token.allow(flag, {false}, kOtherIds);
  }
  token.harmless({"special", "__type"});
  std::string content = token.text("content");
  if (auto all = token.end(); !all) {
    return settings.complain(all.error().message);
  }
  read.tokens.push_back({.key = key, .content = std::move(content), .id = id});
}

void take_token_list(Settings& settings, const char* key, TokenizerSettings& read) {
  const Json* list = settings.value(key);
  if (list == nullptr || list->is_null()) {
    return;
  }
  if (!list->is_structured()) {
    return settings.refuse(key, "not a list of tokens");
  }
  for (const Json& token : *list) {  // A list, or an object of token by name.
    take_token(settings, key, token, std::nullopt, read);
  }
}

void take_added_tokens(Settings& settings, TokenizerSettings& read) {
  const Json* added = settings.value("added_tokens_decoder");
  if (added == nullptr || added->is_null()) {
    return;
  }
  if (!added->is_object()) {
    return settings.refuse("added_tokens_decoder", "not an object of token by id");
  }
  for (const auto& [id, token] : added->items()) {
    const bool digits =
        !id.empty() && id.size() < 9 && id.find_first_not_of("0123456789") == std::string::npos;
    if (!digits) {
      return settings.refuse("added_tokens_decoder", "a key is not a token id");
    }
    if (!token.is_object()) {
      return settings.refuse("added_tokens_decoder", "a value is not a token with its flags");
    }
    take_token(settings, "added_tokens_decoder", token, std::stoi(id), read);
    ++read.decoder_tokens;
  }
}

void take_limit(Settings& settings, TokenizerSettings& read) {
  const Json* limit = settings.value("model_max_length");
  if (limit == nullptr || limit->is_null()) {
    return;
  }
  if (!limit->is_number() || limit->get<double>() < 2) {
    return settings.refuse("model_max_length", "not a number of at least 2");
  }
  if (limit->get<double>() < static_cast<double>(kRealLimitMax)) {  // 1e30 stands for none.
    read.model_max_length = static_cast<std::int64_t>(limit->get<double>());
  }
}

}  // namespace

void allow_tokenizer_class(Settings& settings) {
  settings.allow("tokenizer_class",
                 {"Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast",
                  "TokenizersBackend", nullptr},
                 "only the tokenizers of Qwen2 and Qwen3 are supported");
}

Result<TokenizerSettings> parse_tokenizer_config(std::string_view text, const std::string& file) {
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings settings(file, *object);
  TokenizerSettings read;
  allow_tokenizer_class(settings);
  for (const char* off :
       {"add_prefix_space", "split_special_tokens", "do_lower_case", "from_slow"}) {
    settings.allow(off, {false, nullptr}, kOtherIds);
  }
  settings.allow("use_fast", {true, nullptr}, kOtherIds);
  settings.allow("fast_tokenizer_files", {nullptr, Json::array({"tokenizer.json"})}, kOtherIds);
  settings.allow("auto_map", {nullptr, Json::object()},
                 "the folder brings code of its own, which Tessera does not run");
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                          "cls_token", "mask_token"}) {
    if (const Json* token = settings.value(key)) {
      take_token(settings, key, *token, std::nullopt, read);
    }
  }
  take_token_list(settings, "additional_special_tokens", read);
  take_token_list(settings, "extra_special_tokens", read);
  take_added_tokens(settings, read);
  take_limit(settings, read);
  // What the template of tokenizer.json says goes before add_bos_token and add_eos_token. The rest
  // is about padding, decoding, chats and bookkeeping.
  settings.harmless({"add_bos_token",
                     "add_eos_token",
                     "padding_side",
                     "truncation_side",
                     "max_length",
                     "stride",
                     "truncation_strategy",
                     "pad_to_multiple_of",
                     "pad_token_type_id",
                     "clean_up_tokenization_spaces",
                     "spaces_between_special_tokens",
                     "errors",
                     "chat_template",
                     "model_input_names",
                     "model_specific_special_tokens",
                     "processor_class",
                     "legacy",
                     "use_default_system_prompt",
                     "name_or_path",
                     "tokenizer_file",
                     "special_tokens_map_file",
                     "vocab_file",
                     "merges_file",
                     "backend",
                     "is_local",
                     "local_files_only",
                     "device_map",
                     "verbose",
                     "response_schema",
                     "tokenizer_type",
                     "init_inputs",
                     "trust_remote_code"});
  if (auto all = settings.end(); !all) {
    return all.error();
  }
  return read;
}

Result<TokenizerSettings> parse_added_tokens(std::string_view text, const std::string& file) {
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings settings(file, *object);
  TokenizerSettings read;
  for (const auto& [content, value] : object->items()) {
    const auto id = settings.integer(content, 0, 1 << 24);
    read.tokens.push_back(
        {.key = "an entry", .content = content, .id = static_cast<std::int32_t>(id)});
  }
  if (auto all = settings.end(); !all) {
    return all.error();
  }
  return read;
}

Result<void> check_named_tokens(const TokenizerSettings& settings, const Tokenizer& tokenizer,
                                const std::string& file) {
  for (const TokenizerSettings::NamedToken& token : settings.tokens) {
    const auto found = tokenizer.added_token(token.content);
    if (!found || (token.id && *token.id != *found)) {
      return Error{ErrorCode::kInvalidArgument,
                   file + ": " + token.key + " names the token " + shown(token.content) +
                       (token.id ? " with id " + std::to_string(*token.id) : "") +
                       ", which tokenizer.json has not among its added_tokens; save the tokenizer "
                       "again with transformers, or serve the model with sentence-transformers"};
    }
  }
  if (settings.decoder_tokens != 0 && settings.decoder_tokens != tokenizer.added_token_count()) {
    return Error{ErrorCode::kInvalidArgument,
                 file + ": added_tokens_decoder has " + std::to_string(settings.decoder_tokens) +
                     " tokens, tokenizer.json " + std::to_string(tokenizer.added_token_count()) +
                     " added_tokens, and versions of transformers differ in which ids that gives; "
                     "save the tokenizer again with transformers"};
  }
  return {};
}

}  // namespace tessera
