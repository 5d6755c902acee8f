#include "common/model/settings/prompts.hpp"

#include "common/model/settings/settings.hpp"

namespace tessera {
namespace {

using Json = Settings::Json;

constexpr std::string_view kElsewhere =
    "Tessera does not implement this; serve such a model with sentence-transformers";

void read_named(Settings& settings, Prompts& prompts) {
  const Json* named = settings.value("prompts");
  if (named == nullptr || named->is_null()) {
    return;
  }
  if (!named->is_object() || named->size() > kPromptsMax) {
    return settings.refuse("prompts", "not an object of at most 4096 prompts");
  }
  for (const auto& [name, prompt] : named->items()) {
    if (name.empty() || name.size() > kPromptNameBytesMax ||
        !(prompt.is_string() || prompt.is_null())) {
      return settings.refuse("prompts", "a name has 1 to 256 bytes and its prompt is a string");
    }
    std::string text = prompt.is_null() ? "" : prompt.get<std::string>();
    if (text.size() > kPromptBytesMax) {
      return settings.refuse("prompts", "a prompt is longer than 64 KiB");
    }
    prompts.by_name.insert_or_assign(name, std::move(text));
  }
}

// encode_document looks for "document", "passage" and "corpus" in this order, but "document" is
// always among the prompts, so a folder that has only one of the others gets none; and encode takes
// the default prompt where encode_document does not. Who sends plain texts cannot know of either.
std::string find_refusal(const Prompts& prompts) {
  const auto ambiguous = [&](const std::string& name) {
    return "its prompt \"" + name +
           "\" may or may not be meant for plain texts: say prompt_name \"" + name +
           "\", or \"document\" for " + (prompts.document().empty() ? "no prompt" : "that prompt");
  };
  if (prompts.default_name) {
    const auto by_default = prompts.by_name.find(*prompts.default_name);
    return by_default->second == prompts.document() ? "" : ambiguous(by_default->first);
  }
  for (const char* other : {"passage", "corpus"}) {
    const auto found = prompts.by_name.find(other);
    if (prompts.document().empty() && found != prompts.by_name.end() && !found->second.empty()) {
      return ambiguous(other);
    }
  }
  return "";
}

void read_default(Settings& settings, Prompts& prompts) {
  const Json* name = settings.value("default_prompt_name");
  if (name == nullptr || name->is_null()) {
    return;
  }
  if (!name->is_string() || !prompts.by_name.contains(name->get<std::string>())) {
    return settings.refuse("default_prompt_name", "none of the file's prompts has this name");
  }
  prompts.default_name = name->get<std::string>();
}

}  // namespace

Result<Prompts> parse_prompts(std::string_view text, const std::string& file) {
  auto object = parse_settings(text, file);
  if (!object) {
    return object.error();
  }
  Settings settings(file, *object);
  Prompts prompts;
  read_named(settings, prompts);
  read_default(settings, prompts);
  settings.allow("model_type", {"SentenceTransformer"},
                 "only models of the kind SentenceTransformer give one vector a text");
  settings.allow("similarity_fn_name", {"cosine", "dot", "euclidean", "manhattan", nullptr},
                 kElsewhere);
  if (const Json* similarity = settings.value("similarity_fn_name");
      similarity != nullptr && similarity->is_string()) {
    prompts.similarity = similarity->get<std::string>();
  }
  if (const Json* width = settings.value("truncate_dim"); width != nullptr && !width->is_null()) {
    prompts.truncate_dim = settings.integer("truncate_dim", 1, 1 << 20);
  }
  settings.harmless({"__version__", "requirements"});
  if (auto all = settings.end(); !all) {
    return all.error();
  }
  prompts.plain_refusal = find_refusal(prompts);
  return prompts;
}

}  // namespace tessera
