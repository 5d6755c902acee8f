#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "clients/cli/command.hpp"
#include "clients/cli/io/readers.hpp"
#include "clients/cli/output/npy.hpp"
#include "clients/cli/read_options.hpp"
#include "common/check.hpp"
#include "common/os/replace_file.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::ordered_json;
using client::EmbedResult;
using client::Item;
using client::ItemResult;

struct EmbedOptions {
  ConnectOptions connect;
  protocol::EmbedSpec spec;
  std::vector<std::string> texts;
  std::string ids;  // '[[1,2,3]]'
  std::string input;
  ReadOptions read{.stdin_format = "jsonl"};
  std::string format = "json";
  std::string out;
  double timeout_s = 60;
};

struct Question {
  std::vector<Item> items;
  std::vector<Error> errors;         // kOk, or why the item cannot be asked; one per item.
  std::vector<std::uint64_t> lines;  // Of the input file; 0 for items that come from elsewhere.
};

void add_item(Question& question, Record record) {
  if (record.is_ids && record.ids.empty()) {
    record.fail(ErrorCode::kEmptyText, "the list of token ids is empty");
  }
  question.items.push_back({.text = std::move(record.text), .ids = std::move(record.ids)});
  question.errors.push_back(std::move(record.error));
  question.lines.push_back(record.place.line);
}

void add_token_ids(const std::string& text, Question& question) {
  const Json lists = Json::parse(text, nullptr, false);
  if (!lists.is_array() || lists.empty()) {
    throw FatalError("--ids wants a list of lists of token ids, as in '[[1,2,3]]'");
  }
  for (const Json& list : lists) {
    Record record;
    JsonRecords().parse(Json{{"ids", list}}.dump(), {}, record);
    if (!list.is_array()) {
      record.fail(ErrorCode::kInvalidArgument, "an item of --ids is not a list");
    }
    add_item(question, std::move(record));
  }
}

Question read_question(const EmbedOptions& options) {
  Question question;
  for (const std::string& text : options.texts) {
    Record record;
    record.text = text;
    add_item(question, std::move(record));
  }
  if (!options.ids.empty()) {
    add_token_ids(options.ids, question);
  }
  if (!options.input.empty()) {
    const std::atomic<bool> stop{false};
    const auto reader = open_readers({options.input}, options.read, stop);
    for (Record record; reader->next(record);) {
      add_item(question, std::move(record));
    }
  }
  if (question.items.empty()) {
    throw FatalError("nothing to embed: give texts, --ids or --input");
  }
  return question;
}

// Only what can be asked is asked; the rest takes its place among the answers.
EmbedResult ask(client::Client& client, const EmbedOptions& options, Question& question) {
  std::vector<Item> askable;
  for (std::size_t i = 0; i < question.items.size(); ++i) {
    if (question.errors[i].code == ErrorCode::kOk) {
      askable.push_back(std::move(question.items[i]));
    }
  }
  EmbedResult answer;
  if (!askable.empty()) {
    const auto timeout = std::chrono::milliseconds(static_cast<int>(options.timeout_s * 1000));
    auto embedded = client.embed(askable, options.spec, timeout);
    if (!embedded) {
      throw FatalError(std::string(tessera::to_string(embedded.error().code)) + ": " +
                       embedded.error().message);
    }
    answer = std::move(*embedded);
  }
  std::vector<ItemResult> all;
  std::size_t next = 0;
  for (Error& error : question.errors) {
    if (error.code == ErrorCode::kOk) {
      all.push_back(std::move(answer.items[next++]));
    } else {
      all.push_back(ItemResult{.error = std::move(error)});
    }
  }
  answer.items = std::move(all);
  return answer;
}

std::string as_json(const EmbedResult& result) {
  std::string out = fmt::format(
      "{{\"dimensions\":{},\"cache_hits\":{},\"cache_joins\":{},\"cache_misses\":{},\"items\":[",
      result.dimensions, result.cache_hits, result.cache_joins, result.cache_misses);
  for (std::size_t i = 0; i < result.items.size(); ++i) {
    const ItemResult& item = result.items[i];
    out += i == 0 ? "\n" : ",\n";
    if (item.ok()) {
      out += fmt::format("{{\"index\":{},\"tokens\":{},\"tokens_cut\":{},\"vector\":[{}]}}", i,
                         item.tokens, item.tokens_cut, fmt::join(item.vector, ","));
    } else {
      out += fmt::format(
          "{{\"index\":{},\"error\":{{\"code\":\"{}\",\"message\":{}}}}}", i,
          tessera::to_string(item.error.code),
          Json(item.error.message).dump(-1, ' ', false, Json::error_handler_t::replace));
    }
  }
  return out + "\n]}\n";
}

std::string as_text(const EmbedResult& result) {
  std::string out;
  for (const ItemResult& item : result.items) {
    out += item.ok() ? fmt::format("{}\n", fmt::join(item.vector, " ")) : "\n";
  }
  return out;
}

// Items without a vector have no row; stderr tells which.
std::string as_npy(const EmbedResult& result) {
  std::string rows;
  std::uint64_t count = 0;
  for (const ItemResult& item : result.items) {
    if (item.ok()) {
      rows.append(reinterpret_cast<const char*>(item.vector.data()),
                  item.vector.size() * sizeof(float));
      ++count;
    }
  }
  return npy_header(protocol::VectorType::kFloat32, count, result.dimensions) + rows;
}

int write_answer(const EmbedOptions& options, const EmbedResult& result,
                 const std::vector<std::uint64_t>& lines) {
  const std::string text = options.format == "npy"    ? as_npy(result)
                           : options.format == "text" ? as_text(result)
                                                      : as_json(result);
  if (!options.out.empty()) {
    replace_file(options.out, text);
  } else if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
             std::fflush(stdout) != 0) {
    throw FatalError("cannot write to stdout");
  }
  int exit_code = kExitOk;
  for (std::size_t i = 0; i < result.items.size(); ++i) {
    const ItemResult& item = result.items[i];
    if (!item.ok()) {
      exit_code = kExitItemErrors;
      const std::string place =
          lines[i] == 0 ? "" : fmt::format(" ({}, line {})", options.input, lines[i]);
      std::fprintf(stderr, "item %zu%s: %s: %s\n", i, place.c_str(),
                   std::string(tessera::to_string(item.error.code)).c_str(),
                   item.error.message.c_str());
    } else if (item.tokens_cut > 0) {
      std::fprintf(stderr, "item %zu: %u tokens were cut\n", i, item.tokens_cut);
    }
  }
  return exit_code;
}

void add_options(CLI::App& command, EmbedOptions& options) {
  command.add_option("TEXT", options.texts, "Texts, each embedded by itself");
  command.add_option("--ids", options.ids, "Token ids past the tokenizer: '[[1,2,3],[4,5]]'");
  command.add_option("--input", options.input,
                     "File of items, read as `tessera submit` reads it; where no name tells its "
                     "format, as of stdin (-), it is jsonl");
  add_read_options(command, options.read);
  command.add_option("--format", options.format, "json, npy or text (a vector a line)")
      ->check(CLI::IsMember({"json", "npy", "text"}))
      ->capture_default_str();
  command.add_flag_callback(
      "--json", [&options] { options.format = "json"; }, "--format json");
  command.add_option("--out", options.out, "File for the answer instead of stdout");
  command.add_option("--timeout-s", options.timeout_s, "Longest wait for the answer, seconds")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  add_spec_options(command, options.spec);
  add_connect_options(command, options.connect);
}

}  // namespace

void add_embed(CLI::App& app, Selected& selected) {
  CLI::App* command = app.add_subcommand("embed", "Embed a few texts now");
  auto options = std::make_shared<EmbedOptions>();
  add_options(*command, *options);
  command->footer(
      std::string("Examples:\n"
                  "  tessera embed \"play music in the terminal\"\n"
                  "  tessera embed --query --dimensions 64 \"edit photos\" \"send email\"\n"
                  "  tessera embed --ids '[[42, 17]]' --format text\n"
                  "  tessera embed --input texts.jsonl --format npy --out vectors.npy\n") +
      kExitCodes);
  command->callback([options, &selected] {
    selected.run = [options] {
      if (!options->out.empty()) {
        check_replaceable(options->out);
      }
      Question question = read_question(*options);
      client::Client client = connect(options->connect);
      return write_answer(*options, ask(client, *options, question), question.lines);
    };
  });
}

}  // namespace tessera::cli
