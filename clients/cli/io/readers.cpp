#include "clients/cli/io/readers.hpp"

#include <filesystem>

#include "clients/cli/io/byte_source.hpp"
#include "clients/cli/io/csv_reader.hpp"
#include "common/check.hpp"
#include "common/protocol.hpp"

namespace tessera::cli {
namespace {

class TextReader : public RecordReader {
 public:
  TextReader(const std::string& path, const std::atomic<bool>& stop) : source_(path, stop) {}

  bool next(Record& record) override {
    record = {};
    const auto got = source_.read_line(record.text, protocol::kTextBytesMax);
    if (got == ByteSource::Line::kTooLong) {
      record.fail(ErrorCode::kTooLong, "the text is longer than 4 MiB");
    }
    return got != ByteSource::Line::kEnd;
  }

  std::uint64_t bytes_read() const override { return source_.bytes_read(); }

 private:
  ByteSource source_;
};

class JsonLinesReader : public RecordReader {
 public:
  JsonLinesReader(const std::string& path, ReadOptions options, const std::atomic<bool>& stop)
      : source_(path, stop), options_(std::move(options)) {}

  bool next(Record& record) override {
    record = {};
    auto got = source_.read_line(line_, kRecordBytesMax);
    while (got == ByteSource::Line::kLine && line_.find_first_not_of(" \t") == std::string::npos) {
      got = source_.read_line(line_, kRecordBytesMax);
    }
    if (got == ByteSource::Line::kTooLong) {
      record.fail(ErrorCode::kTooLong, "the line is longer than 32 MiB");
    } else if (got == ByteSource::Line::kLine) {
      parse_json_record(line_, options_, record);
    }
    return got != ByteSource::Line::kEnd;
  }

  std::uint64_t bytes_read() const override { return source_.bytes_read(); }

 private:
  ByteSource source_;
  ReadOptions options_;
  std::string line_;
};

class ReaderChain : public RecordReader {
 public:
  ReaderChain(std::vector<std::string> paths, ReadOptions options, const std::atomic<bool>& stop)
      : paths_(std::move(paths)), options_(std::move(options)), stop_(stop) {
    for (const std::string& path : paths_) {
      auto reader = open_reader(path, options_, stop_);
      std::error_code error;
      const bool again = path != "-" && std::filesystem::is_regular_file(path, error);
      opened_.push_back(again ? nullptr : std::move(reader));
    }
  }

  bool next(Record& record) override {
    while (true) {
      if (current_ && current_->next(record)) {
        return true;
      }
      if (current_) {
        bytes_before_ += current_->bytes_read();
        current_.reset();
      }
      if (stop_ || next_path_ == paths_.size()) {
        return false;
      }
      current_ = std::move(opened_[next_path_]);
      if (!current_) {
        current_ = open_reader(paths_[next_path_], options_, stop_);
      }
      ++next_path_;
    }
  }

  std::uint64_t bytes_read() const override {
    return bytes_before_ + (current_ ? current_->bytes_read() : 0);
  }

 private:
  std::vector<std::string> paths_;
  ReadOptions options_;
  const std::atomic<bool>& stop_;
  std::vector<std::unique_ptr<RecordReader>> opened_;  // Those that cannot be opened again.
  std::size_t next_path_ = 0;
  std::uint64_t bytes_before_ = 0;
  std::unique_ptr<RecordReader> current_;
};

std::string format_of(const std::string& path, const ReadOptions& options) {
  if (!options.format.empty()) {
    return options.format;
  }
  if (path == "-") {
    return "txt";
  }
  std::string extension = std::filesystem::path(path).extension();
  return extension.empty() ? "" : extension.substr(1);
}

}  // namespace

std::unique_ptr<RecordReader> open_reader(const std::string& path, const ReadOptions& options,
                                          const std::atomic<bool>& stop) {
  const std::string format = format_of(path, options);
  if (format == "txt") {
    return std::make_unique<TextReader>(path, stop);
  }
  if (format == "jsonl" || format == "ndjson") {
    return std::make_unique<JsonLinesReader>(path, options, stop);
  }
  if (format == "csv" || format == "tsv") {
    return std::make_unique<CsvReader>(path, options, format == "csv" ? ',' : '\t', stop);
  }
  throw FatalError(path + " is none of .txt, .jsonl, .csv and .tsv; say --input-format");
}

std::unique_ptr<RecordReader> open_readers(const std::vector<std::string>& paths,
                                           const ReadOptions& options,
                                           const std::atomic<bool>& stop) {
  return std::make_unique<ReaderChain>(paths, options, stop);
}

}  // namespace tessera::cli
