#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clients/cli/io/byte_source.hpp"
#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

// RFC 4180: a header row, fields in double quotes where they hold delimiters, quotes (doubled) or
// line breaks; LF or CRLF. Also taken: a quote inside an unquoted field, which stands for itself. A
// row of another width than the header, or a quote that never closes, is an error of its record.
class CsvReader : public RecordReader {
 public:
  // Throws FatalError when the header has no column for the text (a single column is it anyway).
  CsvReader(const std::string& path, const ReadOptions& options, char delimiter,
            const std::atomic<bool>& stop);

  bool next(Record& record) override;
  std::uint64_t bytes_read() const override { return source_.bytes_read(); }

 private:
  enum class Row : std::uint8_t { kRow, kEnd, kOpenQuote, kTooLong };
  Row read_row();
  bool read_field(bool& row_ended);  // False when a quote is left open.

  ByteSource source_;
  char delimiter_;
  std::vector<std::string> fields_;  // Of the row at hand.
  std::size_t row_bytes_ = 0;
  std::size_t columns_ = 0;
  std::size_t text_column_ = 0;
  std::optional<std::size_t> id_column_;
};

}  // namespace tessera::cli
