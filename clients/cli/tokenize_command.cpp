#include "clients/cli/tokenize_command.hpp"

#include <simdjson.h>

#include <atomic>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clients/cli/io/byte_source.hpp"
#include "common/check.hpp"
#include "common/model/model_folder.hpp"
#include "common/tokenizer/tokenizer.hpp"

namespace tessera::cli {
namespace {

struct TokenizeArguments {
  std::string model;
  std::vector<std::string> texts;
  std::vector<std::string> files;
  bool json = false;
  bool no_template = false;
  bool plain_special = false;
  bool replace_invalid = false;
  bool counts_only = false;
  std::size_t max_tokens = 0;
  std::string truncate = "none";
  std::string encoding;
  std::string prompt_name;
  std::string prompt;  // of that name, before each text
};

// Of a model folder, checked as the servers check it; or of a tokenizer.json by itself.
Tokenizer load_tokenizer_of(const std::string& model) {
  std::filesystem::path path(model);
  if (std::filesystem::is_directory(path) && std::filesystem::exists(path / "tokenizer.json") &&
      !std::filesystem::exists(path / "config.json")) {
    path /= "tokenizer.json";
  }
  if (!std::filesystem::is_regular_file(path)) {
    Result<ModelFolder> folder = read_model_folder(path);
    if (!folder) {
      throw FatalError(folder.error().message);
    }
    Result<FolderTokenizer> loaded = load_tokenizer(*folder);
    if (!loaded) {
      throw FatalError(loaded.error().message);
    }
    return std::move(loaded->tokenizer);
  }
  Result<Tokenizer> tokenizer = Tokenizer::load(path);
  if (!tokenizer) {
    throw FatalError(tokenizer.error().message);
  }
  return std::move(*tokenizer);
}

// The folder's prompt of the name; FatalError lists those that there are.
std::string find_prompt(const std::string& model, const std::string& name) {
  const Result<ModelFolder> folder = read_model_folder(model);
  if (!folder) {
    throw FatalError(folder.error().message);
  }
  const auto& prompts = folder->prompts.by_name;
  if (const auto found = prompts.find(name); found != prompts.end()) {
    return found->second;
  }
  std::string known;
  for (const auto& [other, prompt] : prompts) {
    known.append(known.empty() ? "" : ", ").append(other);
  }
  throw FatalError(model + " has no prompt \"" + name + "\"; it has: " + known);
}

EncodeOptions encode_options(const TokenizeArguments& arguments) {
  EncodeOptions options;
  options.special_tokens_in_text = !arguments.plain_special;
  options.replace_invalid_utf8 = arguments.replace_invalid;
  options.add_template = !arguments.no_template;
  options.max_tokens = arguments.max_tokens;
  options.truncate = arguments.truncate == "left"    ? Truncate::kLeft
                     : arguments.truncate == "right" ? Truncate::kRight
                                                     : Truncate::kNone;
  return options;
}

// A piece as one line of terminal text: control characters and bytes that are no whole UTF-8
// character are written as \xNN.
std::string printable(std::string_view piece) {
  const bool whole = simdjson::validate_utf8(piece.data(), piece.size());
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char character : piece) {
    const unsigned byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !whole)) {
      out.append("\\x").append(1, kHex[byte >> 4U]).append(1, kHex[byte & 15U]);
    } else {
      out.push_back(character);
    }
  }
  return out;
}

void print_encoding(const Tokenizer& tokenizer, const Encoding& encoding, std::string_view name,
                    std::size_t bytes, bool counts_only) {
  if (!counts_only) {
    for (const std::int32_t id : encoding.ids) {
      std::cout << id << '\t' << printable(tokenizer.piece(id)) << '\n';
    }
  }
  std::cout << name << ": " << bytes << " bytes, " << encoding.ids.size() << " tokens";
  if (encoding.tokens_cut > 0) {
    std::cout << ", " << encoding.tokens_cut << " cut";
  }
  std::cout << '\n';
}

void print_json(const std::vector<std::int32_t>& ids) {
  std::string line = "[";
  for (const std::int32_t id : ids) {
    line.append(line.size() > 1 ? "," : "").append(std::to_string(id));
  }
  std::cout << line.append("]\n");
}

// One JSON string a line in, one JSON list of ids a line out; a line that cannot be served gets
// {"error": ...}, so that the lines still correspond. Returns whether all were served.
bool run_json(const Tokenizer& tokenizer, const EncodeOptions& options, const std::string& prompt) {
  simdjson::dom::parser parser;
  EncodeScratch scratch;
  std::string line;
  bool all_served = true;
  while (std::getline(std::cin, line)) {
    std::string_view text;
    if (parser.parse(line).get(text) != simdjson::SUCCESS) {
      std::cout << "{\"error\":\"the line is not a JSON string\"}\n";
      all_served = false;
      continue;
    }
    const Result<Encoding> encoding =
        tokenizer.encode(prompt + std::string(text), options, scratch);
    if (encoding) {
      print_json(encoding->ids);
    } else {
      std::cout << "{\"error\":\"" << encoding.error().message << "\"}\n";
      all_served = false;
    }
  }
  return all_served;
}

// A file as one text, by the rules that `tessera submit` has for what is text.
std::string read_all(const std::string& name, const TokenizeArguments& arguments) {
  const std::atomic<bool> stop{false};
  ByteSource source(name, arguments.replace_invalid ? "utf-8" : arguments.encoding, stop);
  std::string text;
  while (!source.rest().empty()) {
    text.append(source.rest());
    source.consume(source.rest().size());
  }
  return text;
}

// The texts to show, each with the name that its count is printed under. Without any, stdin.
std::vector<std::pair<std::string, std::string>> collect(const TokenizeArguments& arguments) {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const std::string& text : arguments.texts) {
    texts.emplace_back("text " + std::to_string(texts.size() + 1), text);
  }
  for (const std::string& name : arguments.files) {
    texts.emplace_back(name, read_all(name, arguments));
  }
  if (texts.empty()) {
    texts.emplace_back("stdin", read_all("-", arguments));
  }
  return texts;
}

void run(const TokenizeArguments& arguments) {
  const Tokenizer tokenizer = load_tokenizer_of(arguments.model);
  const EncodeOptions options = encode_options(arguments);
  if (arguments.json) {
    std::ios::sync_with_stdio(false);
    if (!run_json(tokenizer, options, arguments.prompt)) {
      throw CLI::RuntimeError(1);
    }
    return;
  }
  bool all_served = true;
  for (const auto& [name, text] : collect(arguments)) {
    const Result<Encoding> encoding = tokenizer.encode(arguments.prompt + text, options);
    if (encoding) {
      print_encoding(tokenizer, *encoding, name, arguments.prompt.size() + text.size(),
                     arguments.counts_only);
    } else {
      std::cerr << name << ": " << encoding.error().message << '\n';
      all_served = false;
    }
  }
  if (!all_served) {
    throw CLI::RuntimeError(1);
  }
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  const auto arguments = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", "Show the token ids of texts or files");
  command->add_option("--model", arguments->model, "Model folder, or a tokenizer.json")->required();
  command->add_option("text", arguments->texts, "Texts; without texts and files, stdin is read");
  command->add_option("--file", arguments->files, "Read a text from this file");
  command->add_flag("--json", arguments->json,
                    "Read one JSON string a line from stdin, print one JSON list of ids a line");
  auto* encoding =
      command->add_option("--encoding", arguments->encoding,
                          "Encoding of the files; default: UTF-8, or what a byte order mark says");
  command->add_flag("--no-template", arguments->no_template,
                    "Leave out what the model's template adds, such as the final token");
  command->add_flag("--plain-special", arguments->plain_special,
                    "Treat strings such as <|im_end|> inside the text as plain text");
  command
      ->add_flag("--replace-invalid", arguments->replace_invalid,
                 "Replace invalid UTF-8 by U+FFFD instead of refusing the text")
      ->excludes(encoding);
  command->add_flag("--count", arguments->counts_only, "Print only the counts");
  command->add_option("--max-tokens", arguments->max_tokens,
                      "The most tokens, those of the template included; 0 is no limit");
  command->add_option("--truncate", arguments->truncate, "What to cut from a longer text")
      ->check(CLI::IsMember({"none", "left", "right"}));
  command->add_option("--prompt-name", arguments->prompt_name,
                      "Put the model folder's prompt of this name before each text");
  command->callback([arguments] {
    if (!arguments->prompt_name.empty()) {
      arguments->prompt = find_prompt(arguments->model, arguments->prompt_name);
    }
    run(*arguments);
  });
}

}  // namespace tessera::cli
