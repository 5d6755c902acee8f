#include "clients/cli/io/readers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "clients/cli/io/csv_reader.hpp"
#include "clients/cli/io/file_kind.hpp"
#include "clients/cli/io/reader_chain.hpp"
#include "common/check.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::cli {
namespace {

class TextReader : public RecordReader {
 public:
  TextReader(const std::string& path, const ReadOptions& options, const std::atomic<bool>& stop)
      : source_(path, options.encoding, stop) {}

  const ByteSource& source() const { return source_; }

  bool next(Record& record) override {
    record = {};
    const auto got = source_.read_line(record.text, protocol::kTextBytesMax);
    record.place.line = ++line_;
    if (got == ByteSource::Line::kTooLong) {
      record.fail(ErrorCode::kTooLong, "the text is longer than 4 MiB");
    }
    return got != ByteSource::Line::kEnd;
  }

  std::uint64_t bytes_read() const override { return source_.bytes_read(); }
  std::string description() const override {
    return "text, a line each" + describe_source(source_);
  }
  bool has_ids() const override { return false; }

 private:
  ByteSource source_;
  std::uint64_t line_ = 0;
};

class JsonLinesReader : public RecordReader {
 public:
  JsonLinesReader(const std::string& path, ReadOptions options, const std::atomic<bool>& stop)
      : source_(path, options.encoding, stop), options_(std::move(options)) {
    shape_ = judge_json_lines(path, source_.sample(), source_.sample_is_all(), options_);
  }

  bool next(Record& record) override {
    record = {};
    ByteSource::Line got{};
    do {
      got = source_.read_line(line_, kRecordBytesMax);
      ++number_;
    } while (got == ByteSource::Line::kLine &&
             line_.find_first_not_of(" \t\r\n") == std::string::npos);
    record.place.line = number_;
    if (got == ByteSource::Line::kTooLong) {
      record.fail(ErrorCode::kTooLong, "the line is longer than 32 MiB");
    } else if (got == ByteSource::Line::kLine) {
      records_.parse(line_, options_, record);
    }
    return got != ByteSource::Line::kEnd;
  }

  std::uint64_t bytes_read() const override { return source_.bytes_read(); }
  std::string description() const override {
    return "JSON lines; embedding " + shown(options_.field) +
           (shape_.ids_shown.empty() ? "" : "; " + shape_.ids_shown) + describe_source(source_);
  }
  bool has_ids() const override { return shape_.has_ids; }

 private:
  ByteSource source_;
  ReadOptions options_;
  JsonRecords records_;
  JsonShape shape_;
  std::string line_;
  std::uint64_t number_ = 0;
};

struct Format {
  std::string name;  // txt, jsonl, csv or tsv.
  bool stated;       // By the user, not by a name or its absence.
};

Format format_of(const std::string& path, const ReadOptions& options) {
  if (!options.format.empty()) {
    return {options.format, true};
  }
  std::string suffix = path == "-" ? "" : std::filesystem::path(path).extension().string();
  std::ranges::transform(suffix, suffix.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* format : {"txt", "jsonl", "csv", "tsv"}) {
    if (suffix == std::string(".") + format) {
      return {format, false};
    }
  }
  if (suffix == ".ndjson" || suffix == ".json") {
    return {"jsonl", false};
  }
  const bool unnamed = path == "-" || path.starts_with("/dev/") || options.stdin_format == "jsonl";
  return {unnamed ? options.stdin_format : "", false};
}

// An option that would change nothing was meant to change something.
void refuse_idle_options(const std::string& path, const std::string& format,
                         const ReadOptions& options) {
  const char* option = nullptr;
  if (format != "csv" && format != "tsv") {
    option = options.delimiter     ? "--delimiter"
             : options.quote_given ? "--quote"
             : options.no_header   ? "--no-header"
                                   : nullptr;
  }
  if (format == "txt" && option == nullptr) {
    option = options.field != kDefaultField ? "--field"
             : !options.id_field.empty()    ? "--id-field"
                                            : nullptr;
  }
  if (option != nullptr) {
    throw FatalError(
        fmt::format("{} is read as {}, which has no use for {}; say --input-format if "
                    "it is something else",
                    path, format, option));
  }
}

// A header of a table, or a table whose columns a tab parts, in what is read as lines of text.
bool looks_like_table(std::string_view sample, bool whole, std::string& format) {
  const std::atomic<bool> kNoStop{false};
  ByteSource source(sample, kNoStop);
  std::string line;
  std::size_t lines = 0;
  std::size_t tabs = 0;
  bool same_tabs = true;
  while (source.read_line(line, kRecordBytesMax) == ByteSource::Line::kLine && lines < 50) {
    if (!whole && source.peek() == ByteSource::kEnd) {
      break;
    }
    const auto count = static_cast<std::size_t>(std::ranges::count(line, '\t'));
    if (lines++ == 0) {
      tabs = count;
      for (const char delimiter : {',', ';', '\t', '|'}) {
        const std::string row = delimiter + line + delimiter;
        const std::string text = std::string(1, delimiter) + kDefaultField + delimiter;
        const std::string id = std::string(1, delimiter) + kIdNames[0] + delimiter;
        if (std::ranges::count(line, delimiter) > 0 && row.find(text) != std::string::npos &&
            (row.find(id) != std::string::npos || delimiter != ',')) {
          format = delimiter == '\t' ? "tsv" : "csv";
          return true;
        }
      }
    }
    same_tabs = same_tabs && count == tabs;
  }
  format = "tsv";
  return lines > 1 && tabs > 0 && same_tabs;
}

void refuse_other_shapes(const std::string& path, const ByteSource& source) {
  std::string format = "jsonl";
  if (looks_like_json(source.sample(), source.sample_is_all()) ||
      looks_like_table(source.sample(), source.sample_is_all(), format)) {
    throw FatalError(fmt::format(
        "{} would be read as text, a line each, but looks like {}: say --input-format {}, or "
        "--input-format txt to embed its lines as they are",
        path == "-" ? "stdin" : path, format == "jsonl" ? "JSON" : "a table", format));
  }
}

}  // namespace

std::string describe_source(const ByteSource& source) {
  std::string text;
  if (!source.encoding_shown().empty()) {
    text += "; " + source.encoding_shown();
  }
  if (source.newline() == '\r') {
    text += "; lines end with CR";
  }
  return text;
}

std::unique_ptr<RecordReader> open_reader(const std::string& path, const ReadOptions& options,
                                          const std::atomic<bool>& stop) {
  const auto [format, stated] = format_of(path, options);
  if (format.empty()) {
    const ByteSource source(path, options.encoding, stop);  // It may be one that cannot be read.
    throw FatalError(path + " is none of .txt, .jsonl, .csv and .tsv; say --input-format");
  }
  refuse_idle_options(path, format, options);
  if (format == "txt") {
    auto reader = std::make_unique<TextReader>(path, options, stop);
    if (!stated) {
      refuse_other_shapes(path, reader->source());
    }
    return reader;
  }
  if (format == "jsonl" || format == "ndjson") {
    return std::make_unique<JsonLinesReader>(path, options, stop);
  }
  if (format == "csv" || format == "tsv") {
    CsvDialect dialect{.delimiter = format == "csv" ? ',' : '\t'};
    dialect.delimiter = options.delimiter.value_or(dialect.delimiter);
    if (format == "tsv" || options.quote_given) {
      dialect.quote = options.quote;
    }
    return std::make_unique<CsvReader>(path, options, dialect, stop);
  }
  throw FatalError("there is no input format " + format);
}

std::unique_ptr<RecordReader> open_readers(const std::vector<std::string>& paths,
                                           const ReadOptions& options,
                                           const std::atomic<bool>& stop) {
  return std::make_unique<ReaderChain>(paths, options, stop);
}

}  // namespace tessera::cli
