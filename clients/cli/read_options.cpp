#include "clients/cli/read_options.hpp"

#include <string>

namespace tessera::cli {
namespace {

// One byte, or the name of one that is hard to type; '\0' for anything else.
char to_separator(const std::string& text) {
  if (text == "tab" || text == "\\t") {
    return '\t';
  }
  if (text == "space") {
    return ' ';
  }
  const bool one = text.size() == 1 && static_cast<unsigned char>(text[0]) < 0x80;
  return one && text[0] != '\n' && text[0] != '\r' ? text[0] : '\0';
}

}  // namespace

void add_encoding_option(CLI::App& command, std::string& encoding) {
  command.add_option("--encoding", encoding,
                     "Encoding of the text, any that iconv knows; default: UTF-8, or what a byte "
                     "order mark says. utf-8 takes the text as it is, with an error for each item "
                     "that is not valid");
}

void add_read_options(CLI::App& command, ReadOptions& options) {
  command.add_option("--input-format", options.format, "txt, jsonl, csv or tsv, whatever the name")
      ->check(CLI::IsMember({"txt", "jsonl", "csv", "tsv"}));
  command.add_option("--field", options.field, "Field or column of the text")
      ->capture_default_str();
  auto* id_field = command.add_option(
      "--id-field", options.id_field,
      "Field or column of the id; default: id or _id where there is one, else the item's number");
  command.add_flag("--no-ids", options.no_ids, "Number the items, whatever ids the input has")
      ->excludes(id_field);
  command
      .add_option_function<std::string>(
          "--delimiter",
          [&options](const std::string& text) { options.delimiter = to_separator(text); },
          "What parts the columns of .csv and .tsv: a character, tab or space; default: a comma in "
          ".csv, a tab in .tsv")
      ->check(CLI::Validator(
          [](const std::string& text) { return to_separator(text) == '\0' ? "one character" : ""; },
          "CHAR", "separator"));
  command
      .add_option_function<std::string>(
          "--quote",
          [&options](const std::string& text) {
            options.quote_given = true;
            options.quote = text == "none" ? std::nullopt : std::optional(to_separator(text));
          },
          "What encloses columns that hold delimiters or line ends: a character, or none; default: "
          "\" in .csv, none in .tsv")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return text != "none" && to_separator(text) == '\0' ? "one character, or none" : "";
          },
          "CHAR", "quote"));
  command.add_flag("--no-header", options.no_header,
                   "The first row is an item; columns are named by their numbers from 1");
  add_encoding_option(command, options.encoding);
}

}  // namespace tessera::cli
